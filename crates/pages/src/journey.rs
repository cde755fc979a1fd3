//! One order's journey: what has become of it, and its waterfall. From the answers that the stages keep, so it costs six
//! reads by key, however many orders there are.

use crate::fault::Fault;
use crate::kept::{self, Waits};
use crate::orders::Row;
use crate::rows;
use crate::serve::{Pages, ago, moment};
use crate::waterfall::{Waterfall, begun, hue, title};
use axum::extract::{Path, State};
use axum::response::Response;
use jiff::SignedDuration;
use serde::Serialize;
use serde_json::Value;
use waybill_journeys::{Journey, Refused, Tree, human};
use waybill_ops::Letter;

/// The stages of a journey, in order, with the topic that says a stage is over and what it is then called.
const STAGES: [(&str, &str, &str); 4] = [
    ("checkout", "orders.new", "Paid"),
    ("pick", "orders.picked", "Picked"),
    ("pack", "orders.packed", "Packed"),
    ("ship", "orders.shipped", "Shipped"),
];
/// Nothing is to come of an order that is one of these.
const ENDED: [&str; 3] = ["shipped", "rejected", "cancelled"];
/// Parcels and lines that are named; of a large order the rest is counted.
const NAMED: usize = 5;

/// What the database knows beside the journey; nothing where it was read from the topics.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub row: Option<Row>,
    pub waits: Vec<Waiting>,
}

/// What waits at a stage.
#[derive(Debug, Serialize)]
pub(crate) struct Waiting {
    pub stage: String,
    pub why: String,
    pub attempts: i32,
    pub waited: String,
    pub due: String,
}

/// What the template draws.
#[derive(Debug, Serialize)]
pub(crate) struct Page {
    pub section: &'static str,
    pub id: String,
    pub status: &'static str,
    pub row: Option<Row>,
    pub waits: Vec<Waiting>,
    pub steps: Vec<Step>,
    pub story: Vec<Line>,
    pub waterfall: Option<Waterfall>,
    pub asked: Option<String>,
}

/// A stage on the way.
#[derive(Debug, Serialize)]
pub(crate) struct Step {
    pub name: &'static str,
    pub hue: &'static str,
    pub done: bool,
    pub took: Option<String>,
    pub waited: Option<String>,
    pub span: Option<String>,
}

/// What has become of the order, or of a part of it.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    pub tone: &'static str,
    pub what: &'static str,
    pub text: String,
}

/// Shows it.
pub(crate) async fn page(State(pages): State<Pages>, Path(id): Path<String>) -> Response {
    let journey = find(&pages, &id).await;
    pages.answer("journey.html", journey)
}

async fn find(pages: &Pages, id: &str) -> Result<Page, Fault> {
    let unknown = || Fault::NotFound(format!("Nothing is kept of an order {id}."));
    // No database takes a NUL for text.
    if id.contains('\0') {
        return Err(unknown());
    }
    let asked =
        pages.ask(async |tx| Ok((rows::one(tx, id).await?, kept::answers(tx, id).await?, kept::waits(tx, id).await?)));
    let (order, answers, waits) = asked.await?;
    if order.is_none() && answers.is_empty() && waits.is_empty() {
        return Err(unknown());
    }
    let mut journey = Journey::kept(id, &kept::messages(&answers).map_err(Fault::Kept)?);
    if !ENDED.contains(&status(&journey, None)) {
        journey.dead = refused(pages, id).await;
    }
    let waiting = |Waits { stage, why, attempts, since, due }| Waiting {
        stage: title(&stage),
        why,
        attempts,
        waited: ago(pages.now(), since),
        due: moment(due),
    };
    let facts =
        Facts { row: order.map(|order| Row::of(order, pages)), waits: waits.into_iter().map(waiting).collect() };
    Ok(Page::new(&journey, facts))
}

/// Why an order does not go on, if a dead letter knows.
async fn refused(pages: &Pages, id: &str) -> Vec<Refused> {
    let (seen, _) = pages.dead().looks().await;
    let letters = seen.as_ref().and_then(|seen| seen.what.as_ref().ok()).map(|listing| listing.letters.as_slice());
    let own = letters.unwrap_or_default().iter().filter(|letter| letter.key.as_deref() == Some(id));
    own.map(|Letter { letter, .. }| Refused {
        stage: letter.stage.clone(),
        reason: letter.reason.clone(),
        message: letter.message.clone(),
    })
    .collect()
}

impl Page {
    pub(crate) fn new(journey: &Journey, facts: Facts) -> Self {
        let trees = journey.trees();
        Page {
            section: "orders",
            id: journey.order_id.clone(),
            status: status(journey, facts.row.as_ref()),
            asked: trees.first().map(|tree| moment(begun(tree))),
            steps: steps(journey, &trees),
            story: story(journey),
            waterfall: Waterfall::of(journey),
            row: facts.row,
            waits: facts.waits,
        }
    }
}

/// The checkout's row knows best, where there is one: it follows the order to its end.
fn status(journey: &Journey, row: Option<&Row>) -> &'static str {
    let known = ["running", "rejected", "confirmed", "picked", "packed", "shipped", "cancelled"];
    if let Some(status) = row.and_then(|row| known.into_iter().find(|known| *known == row.status)) {
        return status;
    }
    let told = [
        ("orders.cancelled", "cancelled"),
        ("orders.shipped", "shipped"),
        ("checkout.rejected", "rejected"),
        ("orders.packed", "packed"),
        ("orders.picked", "picked"),
        ("orders.new", "confirmed"),
    ];
    let told = told.into_iter().find(|(topic, _)| journey.event(topic).is_some());
    told.map_or("running", |(_, status)| status)
}

fn steps(journey: &Journey, trees: &[Tree<'_>]) -> Vec<Step> {
    let mut before = None;
    let step = |(stage, topic, name): (&'static str, &str, &'static str)| {
        let own = |tree: &&Tree<'_>| {
            tree.span.stage == stage || stage == "checkout" && tree.parts.iter().any(|part| part.span.stage == stage)
        };
        let tree = trees.iter().find(own);
        let waited = tree.zip(before).map(|(tree, before)| begun(tree).duration_since(before));
        before = tree.map(Tree::end);
        Step {
            name,
            hue: hue(stage),
            done: journey.event(topic).is_some(),
            took: tree.map(|tree| human(tree.end().duration_since(begun(tree)))),
            waited: waited.filter(SignedDuration::is_positive).map(human),
            span: tree.map(|tree| tree.span.span_id.to_string()),
        }
    };
    STAGES.into_iter().map(step).collect()
}

fn story(journey: &Journey) -> Vec<Line> {
    let mut story = Vec::new();
    let mut tell = |tone, what, text| story.push(Line { tone, what, text });
    for dead in &journey.dead {
        let text = format!("{} would not accept it: {}: {}", title(&dead.stage), dead.reason, dead.message);
        tell("bad", "Dead letter", text);
    }
    if let Some(rejected) = journey.event("checkout.rejected") {
        tell("bad", "Rejected", format!("{} at {}", words(&rejected["reason"]), words(&rejected["step"])));
    }
    if let Some(short) = journey.event("orders.short") {
        let line = |line: &Value| format!("{} of {} × {}", line["picked"], line["requested"], text(&line["sku"]));
        tell("warn", "Short", some(&short["lines"], line));
    }
    if journey.event("orders.cancelled").is_some() {
        tell("warn", "Cancelled", "before it was shipped".to_owned());
    }
    if let Some(shipped) = journey.event("orders.shipped") {
        let parcel = |parcel: &Value| format!("{} (box {})", text(&parcel["tracking_number"]), text(&parcel["box"]));
        let parcels = some(&shipped["parcels"], parcel);
        let day = text(&shipped["estimated_delivery"]);
        tell("good", "Shipped", format!("by {}: {parcels}; delivery expected {day}", text(&shipped["carrier"])));
    }
    story
}

/// The first of a list, and how many more.
fn some(list: &Value, one: impl Fn(&Value) -> String) -> String {
    let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
    let named = list.iter().take(NAMED).map(one).collect::<Vec<_>>().join(", ");
    if list.len() > NAMED { format!("{named} and {} more", list.len() - NAMED) } else { named }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}

fn words(value: &Value) -> String {
    text(value).replace('_', " ")
}
