//! Dead letters, and their way back to the stage that would not accept them.
//!
//! A letter is the record that failed, its bytes and headers untouched, with our headers behind them. On `redrive.<stage>`,
//! which that stage alone reads, it says the same of itself, but for the copy of the failed span: so the spine knows which
//! topic's record it is, how often it was tried and which span failed, and what fails again becomes a letter of the first record.

use crate::record::{Content, Message, Record};
use crate::stage::Refusal;
use jiff::Timestamp;
use serde::Serialize;
use waybill_telemetry::{Carrier, SpanRecord};

/// The first of our headers: whatever stands before it is the record's own.
const FIRST: &str = "dead_reason";
/// The copy of the failed span. The last of our headers.
const SPAN: &str = "dead_span";

/// The topic of a stage's dead letters.
#[must_use]
pub fn dead_topic(stage: &str) -> String {
    format!("dead.{stage}")
}

/// The topic by which letters go back to a stage.
#[must_use]
pub fn redrive_topic(stage: &str) -> String {
    format!("redrive.{stage}")
}

/// Whether a record came back to a stage.
pub(crate) fn is_redriven(record: &Record, stage: &str) -> bool {
    record.topic.strip_prefix("redrive.") == Some(stage)
}

/// What a dead letter says of the record that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeadLetter {
    /// Code of the reason.
    pub reason: String,
    /// The reason in words.
    pub message: String,
    /// The stage that would not accept it.
    pub stage: String,
    /// Where the record stood: its topic, without the deployment's prefix,
    pub topic: String,
    /// partition
    pub partition: i32,
    /// and offset.
    pub offset: i64,
    /// The record's own timestamp, ms since 1970.
    pub timestamp_ms: i64,
    /// How often it was tried, over all redrives.
    pub attempts: i32,
    /// When it failed.
    pub at: Timestamp,
    /// W3C context of the span that failed. No two failures share one, so it names the letter.
    pub traceparent: String,
}

impl DeadLetter {
    /// Reads a record of `dead.<stage>` or `redrive.<stage>`.
    ///
    /// # Errors
    /// It is no letter as the spine writes it; says which header is missing or means nothing.
    pub fn read(content: &Content) -> Result<Self, String> {
        let ours: Vec<(&str, Option<&[u8]>)> = content.headers().skip(own_headers(content)?).collect();
        let text = |name: &str| {
            let value = ours.iter().find(|(n, _)| *n == name).and_then(|(_, value)| *value);
            value.and_then(|value| std::str::from_utf8(value).ok()).ok_or_else(|| format!("header {name} is missing"))
        };
        Ok(DeadLetter {
            reason: text(FIRST)?.to_owned(),
            message: text("dead_message")?.to_owned(),
            stage: text("dead_stage")?.to_owned(),
            topic: text("dead_topic")?.to_owned(),
            partition: parsed("dead_partition", text("dead_partition")?)?,
            offset: parsed("dead_offset", text("dead_offset")?)?,
            timestamp_ms: parsed("dead_timestamp", text("dead_timestamp")?)?,
            attempts: parsed("dead_attempts", text("dead_attempts")?)?,
            at: parsed("dead_at", text("dead_at")?)?,
            traceparent: text("dead_traceparent")?.to_owned(),
        })
    }

    /// What goes to `redrive.<stage>`: the letter without the copy of the failed span.
    ///
    /// # Errors
    /// It is no letter.
    pub fn redriven(content: &Content) -> Result<Content, String> {
        let own = own_headers(content)?;
        let ours = content.headers().skip(own).take_while(|(name, _)| *name != SPAN).count();
        Ok(content.with_headers(own + ours))
    }

    /// The trace of the span that failed, 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id(&self) -> &str {
        self.traceparent.split('-').nth(1).unwrap_or_default()
    }
}

/// The context of the failed span.
impl Carrier for DeadLetter {
    fn header(&self, name: &str) -> Option<&str> {
        (name == "traceparent").then_some(&self.traceparent)
    }
}

fn parsed<T: std::str::FromStr>(name: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("header {name} says {text:?}"))
}

/// How many headers are the record's own. It may have some by our names, too: ours are the last.
fn own_headers(content: &Content) -> Result<usize, String> {
    let names: Vec<&str> = content.headers().map(|(name, _)| name).collect();
    names.iter().rposition(|name| *name == FIRST).ok_or_else(|| format!("header {FIRST} is missing"))
}

/// The dead letter of a record. One that was redriven is still about the record that failed first.
pub(crate) fn dead_letter(
    stage: &'static str,
    (record, redriven): (&Record, Option<&DeadLetter>),
    refusal: &Refusal,
    attempts: i32,
    span: &SpanRecord,
    copy: &[u8],
) -> Message {
    let mut content = match own_headers(&record.content) {
        Ok(own) if redriven.is_some() => record.content.with_headers(own),
        Ok(_) | Err(_) => record.content.clone(),
    };
    let message: String = refusal.message.chars().take(1_000).collect();
    content.push_text(FIRST, refusal.reason);
    content.push_text("dead_message", message);
    content.push_text("dead_stage", stage);
    content.push_text("dead_topic", redriven.map_or(&*record.topic, |first| &*first.topic));
    content.push_text("dead_partition", redriven.map_or(record.partition, |first| first.partition));
    content.push_text("dead_offset", redriven.map_or(record.offset, |first| first.offset));
    content.push_text("dead_timestamp", redriven.map_or(record.timestamp_ms, |first| first.timestamp_ms));
    content.push_text("dead_attempts", redriven.map_or(0, |first| first.attempts) + attempts);
    content.push_text("dead_at", span.end);
    content.push_text("dead_traceparent", span.traceparent());
    content.push(SPAN, Some(copy));
    Message { topic: dead_topic(stage).into(), content }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::SmallRng;
    use std::sync::Arc;
    use waybill_telemetry::SpanKind;

    fn span() -> SpanRecord {
        let mut rng = SmallRng::seed_from_u64(1);
        SpanRecord::new(&mut rng, "pick", "fulfilment", "warehouse.pick", SpanKind::Consumer, Timestamp::UNIX_EPOCH)
    }

    fn record(topic: &str, content: Content) -> Record {
        Record { topic: Arc::from(topic), partition: 3, offset: 17, timestamp_ms: 5, content }
    }

    #[test]
    fn a_letter_that_is_redriven_and_fails_again_is_about_the_first_record() {
        let mut content = Content::new(Some(b"k"), Some(&[0, 255]));
        content.push("ce_id", Some(b"id"));
        content.push("none", None);
        // A record may come with any header.
        content.push("dead_reason", Some(b"its own"));
        content.push("dead_topic", Some(b"its own"));
        let first = record("orders.new", content.clone());
        let letter = dead_letter("pick", (&first, None), &Refusal::new("invalid", "because"), 2, &span(), b"{}");
        assert_eq!(letter.topic, "dead.pick");
        let said = DeadLetter::read(&letter.content).unwrap();
        assert_eq!((said.reason.as_str(), said.topic.as_str(), said.partition), ("invalid", "orders.new", 3));
        assert_eq!((said.attempts, said.trace_id().len()), (2, 32));

        let redriven = DeadLetter::redriven(&letter.content).unwrap();
        assert_eq!(DeadLetter::read(&redriven).unwrap(), said);
        assert_eq!(redriven.with_headers(4), content, "key, payload and headers are those of the record");
        assert!(redriven.headers().all(|(name, _)| name != "dead_span"));

        let again = Record { topic: Arc::from("redrive.pick"), offset: 0, ..record("", redriven) };
        let letter = dead_letter("pick", (&again, Some(&said)), &Refusal::new("bug", "again"), 1, &span(), b"{}");
        let last = DeadLetter::read(&letter.content).unwrap();
        assert_eq!(
            (last.reason.as_str(), last.topic.as_str(), last.offset, last.attempts),
            ("bug", "orders.new", 17, 3)
        );
        assert_eq!(letter.content.with_headers(4), content, "headers do not pile up");
        assert_eq!(letter.content.headers().len(), 4 + 11);
    }

    #[test]
    fn what_is_no_letter_is_told() {
        let mut content = Content::new(None, None);
        assert_eq!(DeadLetter::read(&content).unwrap_err(), "header dead_reason is missing");
        content.push("dead_reason", Some(b"x"));
        assert_eq!(DeadLetter::read(&content).unwrap_err(), "header dead_message is missing");
        let letter =
            dead_letter("pick", (&record("orders.new", content), None), &Refusal::new("r", "m"), 1, &span(), b"{}");
        let mut broken = letter.content.with_headers(5);
        broken.push_text("dead_partition", "many");
        assert_eq!(DeadLetter::read(&broken).unwrap_err(), "header dead_partition says \"many\"");
    }
}
