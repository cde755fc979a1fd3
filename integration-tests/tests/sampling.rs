//! A journey is recorded whole, over all its traces, or not at all.

use crate::front::{Front, PRICE};
use crate::shop::LIMIT;
use serde_json::Value;
use std::collections::BTreeSet;
use waybill_harness::{Collector, Rec, eventually};

/// The chance that all are decided alike is 2⁻³⁹.
const ORDERS: usize = 40;

/// Trace and span of each stamp, and whether each says that it is recorded.
fn stamps(record: &Rec) -> Vec<((String, String), bool)> {
    let event: Value = serde_json::from_slice(record.payload.as_ref().unwrap()).unwrap();
    let text = |stamp: &Value, field: &str| stamp[field].as_str().unwrap().to_owned();
    let stamps = event["waybill"].as_array().unwrap().iter();
    stamps.map(|s| ((text(s, "trace_id"), text(s, "span_id")), text(s, "trace_flags") == "01")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journey_is_recorded_whole_or_not_at_all_as_was_decided_where_it_began() {
    let collector = Collector::start().unwrap();
    let half = [("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0.5")];
    let Some(front) = Front::open_with("sampling", Some(&collector), &half).await else { return };
    let processes = ["gateway", "checkout", "pick", "pack", "ship"].map(|role| front.shop.run(&[role]));
    front.sell("p-0001", 1_000).await;
    front.until_open().await;
    for cart in (0..ORDERS).map(|number| format!("k-{number}")) {
        front.cart(&cart, "u-1", &[("p-0001", 1)], PRICE).await;
        front.checkout(&cart, "u-1", "pm_card_visa", &[("prefer", "respond-async")]).await;
    }
    front.shop.until("orders.shipped", ORDERS).await;

    let shipped: Vec<_> = front.shop.read("orders.shipped").iter().map(stamps).collect();
    assert!(shipped.iter().all(|stamps| stamps.len() == 4 && stamps.iter().all(|(_, kept)| *kept == stamps[0].1)));
    let kept = shipped.iter().flatten().filter(|(_, kept)| *kept).map(|(id, _)| id.clone()).collect::<BTreeSet<_>>();
    assert!((1..ORDERS).contains(&(kept.len() / 4)), "{} of {ORDERS}", kept.len() / 4);
    eventually("every span of a journey that is recorded is exported", LIMIT, async || {
        let there: BTreeSet<_> = collector.spans().iter().map(|span| (span.trace_id(), span.span_id())).collect();
        match kept.difference(&there).count() {
            0 => Ok(()),
            missing => Err(format!("{missing} of {} are missing", kept.len())),
        }
    })
    .await;
    drop(processes);
    let spans = collector.spans();
    let there: BTreeSet<_> = spans.iter().map(|span| (span.trace_id(), span.span_id())).collect();
    let left_out = shipped.iter().flatten().filter(|(_, kept)| !kept);
    assert_eq!(
        left_out.filter(|(id, _)| there.contains(id)).count(),
        0,
        "journeys that are not recorded were exported"
    );
    for span in &spans {
        for (trace, linked, _) in span.links() {
            assert!(there.contains(&(trace, linked)), "{} links to a span that was left out", span.name());
        }
    }
}
