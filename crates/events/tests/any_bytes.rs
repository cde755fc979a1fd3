//! Whatever bytes come: an event is read or refused, nothing panics.

use proptest::prelude::*;
use serde::de::DeserializeOwned;
use waybill_events::{
    CancelRequested, EmailBatch, EmailResults, OrderCancelled, OrderPacked, OrderPicked, OrderPlaced, OrderShipped,
    OrderShort, Restocked, StockAdjustment, StockLevel,
};
use waybill_spine::Event;

const ORDER: &[u8] = include_bytes!("../../../schemas/examples/orders.new/three-lines.json");

fn read<E: Event + DeserializeOwned>(bytes: &[u8]) {
    if let Ok(event) = serde_json::from_slice::<E>(bytes) {
        // What is accepted can be written, and is read back as the same.
        if event.check().is_ok() {
            let written = serde_json::to_vec(&event).unwrap_or_default();
            assert!(serde_json::from_slice::<E>(&written).is_ok());
        }
    }
}

fn read_all(bytes: &[u8]) {
    read::<OrderPlaced>(bytes);
    read::<OrderPicked>(bytes);
    read::<OrderShort>(bytes);
    read::<OrderPacked>(bytes);
    read::<OrderShipped>(bytes);
    read::<CancelRequested>(bytes);
    read::<OrderCancelled>(bytes);
    read::<StockAdjustment>(bytes);
    read::<StockLevel>(bytes);
    read::<Restocked>(bytes);
    read::<EmailBatch>(bytes);
    read::<EmailResults>(bytes);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        read_all(&bytes);
    }

    #[test]
    fn an_order_with_some_bytes_changed(
        changes in prop::collection::vec((0..ORDER.len(), any::<u8>()), 1..6),
        cut in 0..ORDER.len(),
        keep_whole in any::<bool>(),
    ) {
        let mut bytes = ORDER.to_vec();
        for (at, byte) in changes {
            bytes[at] = byte;
        }
        read_all(if keep_whole { &bytes } else { &bytes[..cut] });
    }

    #[test]
    fn an_order_with_other_numbers(number in any::<f64>(), whole in any::<i128>()) {
        let text = String::from_utf8_lossy(ORDER);
        for digits in [number.to_string(), whole.to_string()] {
            read_all(text.replace("\"quantity\": 1", &format!("\"quantity\": {digits}")).as_bytes());
        }
    }
}
