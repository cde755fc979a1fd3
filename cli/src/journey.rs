//! An order's journey, read from the topics.

use crate::kafka;
use waybill_journeys::{Journey, TOPICS};
use waybill_spine::KafkaConfig;

/// Reads the journey of `order_id`.
///
/// # Errors
/// The cluster does not answer.
pub fn read(kafka: &KafkaConfig, order_id: &str) -> anyhow::Result<Journey> {
    let mut records = Vec::new();
    kafka::scan(kafka, &TOPICS, |key| key == Some(order_id.as_bytes()), |record| records.push(record))?;
    Ok(Journey::read(order_id, &records))
}
