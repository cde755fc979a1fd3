//! Campaigns, the latest first, with how far each has come.

use crate::serve::{Pages, ago, moment};
use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use waybill_notifications::progress::{Now, Progress, progress};

/// Most campaigns on the page.
const MOST: i64 = 50;

#[derive(Serialize)]
struct Page {
    section: &'static str,
    rows: Vec<Row>,
}

#[derive(Serialize)]
struct Row {
    product: String,
    restocked: String,
    age: String,
    now: String,
    open: bool,
    people: i64,
    batches: i64,
    parts: [Share; 4],
    settled: Option<String>,
}

/// A part of the people, with its room on the bar, percent.
#[derive(Serialize)]
struct Share {
    name: &'static str,
    people: i64,
    left: f64,
    width: f64,
}

/// Shows them.
pub(crate) async fn page(State(pages): State<Pages>) -> Response {
    let found = pages.ask(async |tx| progress(tx, MOST).await).await;
    let page =
        found.map(|found| Page { section: "campaigns", rows: found.iter().map(|one| row(&pages, one)).collect() });
    pages.answer("campaigns.html", page)
}

fn row(pages: &Pages, one: &Progress) -> Row {
    let now = match one.now {
        Some(Now::Plans(at)) if at > pages.now() => format!("next wave in {}", ago(at, pages.now())),
        Some(Now::Plans(_)) => "planning a wave".to_owned(),
        Some(Now::Watches) => "telling a wave".to_owned(),
        Some(Now::Ended) => "ended".to_owned(),
        // A later campaign of the product hides what it does; what its batches came to tells enough.
        None if one.waiting > 0 => "telling".to_owned(),
        None => "ended".to_owned(),
    };
    let counts = [("sent", one.sent), ("failed", one.failed), ("unknown", one.unknown), ("waiting", one.waiting)];
    // Who is named twice, or has gone meanwhile, makes the parts another sum than the people planned.
    let whole = counts.iter().map(|(_, people)| people).sum::<i64>().max(1) as f64;
    let mut left = 0.0;
    let parts = counts.map(|(name, people)| {
        let width = people as f64 * 100.0 / whole;
        let share = Share { name, people, left, width };
        left += width;
        share
    });
    Row {
        product: one.product_id.clone(),
        restocked: moment(one.restocked_at),
        age: ago(pages.now(), one.restocked_at),
        open: one.waiting > 0 || matches!(one.now, Some(Now::Plans(_) | Now::Watches)),
        now,
        people: one.people,
        batches: one.batches,
        parts,
        settled: one.settled_at.map(moment),
    }
}
