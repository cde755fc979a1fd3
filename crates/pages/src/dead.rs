//! Dead letters, the newest first, each with the commands that send it back or drop it: a page changes nothing.

use crate::orders::path;
use crate::serve::{Pages, ago, moment};
use crate::watch::Watch;
use axum::extract::State;
use axum::response::Response;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;
use waybill_journeys::Span;
use waybill_ops::{Count, First, Letter, Listing, State as Decided, Wanted, letters};
use waybill_spine::KafkaConfig;
use waybill_topics::Catalogue;

/// How often the cluster is looked at: each look reads the dead letters from [`SINCE`] on.
const EVERY: Duration = Duration::from_secs(15);
/// Older letters are for `waybill dead list`.
const SINCE: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Most letters on the page.
const MOST: usize = 50;

#[derive(Serialize)]
struct Page {
    section: &'static str,
    rows: Option<Vec<Row>>,
    counts: Vec<Count>,
    matched: u64,
    fault: Option<String>,
    seen: Option<String>,
}

#[derive(Serialize)]
struct Row {
    position: String,
    stage: String,
    reason: String,
    message: String,
    key: Option<String>,
    /// Where the journey is, if the key is an order's.
    path: Option<String>,
    record: String,
    attempts: i32,
    at: String,
    age: String,
    state: &'static str,
    decided: Option<String>,
    waits: bool,
}

/// Looks at the letters of the last month.
pub(crate) fn watch(kafka: &KafkaConfig, catalogue: &Arc<Catalogue>, clock: fn() -> Timestamp) -> Watch<Listing> {
    let (kafka, catalogue) = (kafka.clone(), catalogue.clone());
    Watch::start(EVERY, clock, move || {
        let since = clock().checked_sub(SINCE).ok();
        let wanted = Wanted { span: Span { since, until: None }, ..Wanted::default() };
        letters(&kafka, &catalogue, &wanted, (First::Newest, MOST))
    })
}

/// Shows them.
pub(crate) async fn page(State(pages): State<Pages>) -> Response {
    let (last, _) = pages.dead().looks().await;
    let listing = last.as_ref().and_then(|seen| seen.what.as_ref().ok());
    let page = Page {
        section: "dead",
        seen: last.as_ref().map(|seen| ago(pages.now(), seen.at)),
        fault: last.as_ref().and_then(|seen| seen.what.as_ref().err().cloned()),
        counts: listing.map(|listing| listing.counts.clone()).unwrap_or_default(),
        matched: listing.map_or(0, |listing| listing.matched),
        rows: listing.map(|listing| listing.letters.iter().map(|letter| row(letter, pages.now())).collect()),
    };
    pages.answer("dead.html", Ok(page))
}

fn row(Letter { position, key, letter, state }: &Letter, now: Timestamp) -> Row {
    let of_order = ["checkout", "pick", "pack", "ship", "order-mail"].contains(&letter.stage.as_str());
    Row {
        position: position.to_string(),
        stage: letter.stage.clone(),
        reason: letter.reason.clone(),
        message: letter.message.clone(),
        path: key.as_deref().filter(|_| of_order).map(path),
        key: key.clone(),
        record: format!("{} / {} / {}", letter.topic, letter.partition, letter.offset),
        attempts: letter.attempts,
        at: moment(letter.at),
        age: ago(now, letter.at),
        state: state.name(),
        decided: match state {
            Decided::Waiting => None,
            Decided::Redriven { at, by } => Some(format!("{} by {by}", moment(*at))),
            Decided::Dropped { at, by, why } => Some(format!("{} by {by}: {why}", moment(*at))),
        },
        waits: *state == Decided::Waiting,
    }
}
