//! The orders: the newest, those of one state, those that are late, those whose id begins so.

use crate::fault::Fault;
use crate::kept;
use crate::rows::{self, Found, OPEN, Order};
use crate::serve::{Pages, ago, moment};
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use waybill_money::{Currency, Money};

/// What can be asked for, with what it is called.
const STATES: [(&str, &str); 9] = [
    ("", "All"),
    ("late", "Late"),
    ("running", "Checking out"),
    ("confirmed", "Confirmed"),
    ("picked", "Picked"),
    ("packed", "Packed"),
    ("shipped", "Shipped"),
    ("rejected", "Rejected"),
    ("cancelled", "Cancelled"),
];
/// No id and no time is longer.
const LONGEST: usize = 128;

/// The question.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Asked {
    /// The beginning of an id.
    q: String,
    /// One of [`STATES`].
    state: String,
    /// The order behind which the page begins, and when it was asked for.
    after: String,
    at: String,
}

#[derive(Serialize)]
struct Page {
    section: &'static str,
    q: String,
    state: String,
    tabs: Vec<Tab>,
    rows: Vec<Row>,
    /// The question for the next page.
    more: Option<String>,
    sla: String,
    first: bool,
}

#[derive(Serialize)]
struct Tab {
    state: &'static str,
    name: &'static str,
    here: bool,
}

/// An order as a row.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub id: String,
    pub path: String,
    pub status: String,
    pub asked: String,
    pub age: String,
    pub late: bool,
    pub items: i64,
    pub total: Option<String>,
    pub refunded: Option<String>,
    pub awaits: Option<String>,
}

impl Row {
    pub(crate) fn of(order: Order, pages: &Pages) -> Self {
        let time = order.requested_at.parse::<Timestamp>();
        let open = OPEN.contains(&order.status.as_str());
        let unpaid = order.refunded_minor.unwrap_or(0) != order.amount_minor.unwrap_or(i64::MIN);
        let money = |minor: Option<i64>| {
            minor.zip(order.currency.as_deref()).and_then(|(minor, currency)| money(minor, currency))
        };
        Row {
            path: path(&order.id),
            asked: time.as_ref().map_or_else(|_| order.requested_at.clone(), |time| moment(*time)),
            age: time.as_ref().map(|time| ago(pages.now(), *time)).unwrap_or_default(),
            late: open && unpaid && time.is_ok_and(|time| time < pages.late_before()),
            items: order.items,
            total: money(order.amount_minor),
            refunded: money(order.refunded_minor.filter(|minor| *minor > 0)),
            awaits: order.awaits,
            status: order.status,
            id: order.id,
        }
    }
}

/// What stands behind `/orders/` in the address of an order's page.
pub(crate) fn path(id: &str) -> String {
    let escaped: String = form_urlencoded::byte_serialize(id.as_bytes()).collect();
    // A plus is a space in a form only.
    escaped.replace('+', "%20")
}

fn money(minor: i64, currency: &str) -> Option<String> {
    Currency::from_code(currency).map(|currency| Money::new(minor, currency).to_string())
}

/// Shows them.
pub(crate) async fn page(
    State(pages): State<Pages>,
    asked: Result<Query<Asked>, axum::extract::rejection::QueryRejection>,
) -> Response {
    let asked = match asked {
        Ok(Query(asked)) if asked.is_text() => asked,
        _ => return pages.answer("orders.html", Err::<Page, _>(Fault::Wrong("The question cannot be read."))),
    };
    if asked.q.is_empty() {
        return pages.answer("orders.html", list(&pages, asked).await);
    }
    match search(&pages, asked.q.trim()).await {
        Ok(Hit::One(path)) => Redirect::to(&format!("/orders/{path}")).into_response(),
        Ok(Hit::Some(page)) => pages.answer("orders.html", Ok(page)),
        Err(fault) => pages.answer("orders.html", Err::<Page, _>(fault)),
    }
}

impl Asked {
    /// No database takes a NUL for text.
    fn is_text(&self) -> bool {
        [&self.q, &self.after, &self.at].iter().all(|text| text.len() <= LONGEST && !text.contains('\0'))
    }
}

/// What a search came to.
enum Hit {
    /// Whoever has the whole id wants that order.
    One(String),
    /// Those whose ids begin so.
    Some(Page),
}

async fn search(pages: &Pages, text: &str) -> Result<Hit, Fault> {
    let found = pages.ask(async |tx| {
        let orders = rows::beginning(tx, text).await?;
        // An order that no checkout made is known to the stages alone.
        let kept = orders.is_empty() && !kept::answers(tx, text).await?.is_empty();
        Ok((orders, kept))
    });
    let (orders, kept) = found.await?;
    if kept || orders.len() == 1 && orders.iter().all(|order| order.id == text) {
        return Ok(Hit::One(path(text)));
    }
    let asked = Asked { q: text.to_owned(), ..Asked::default() };
    Ok(Hit::Some(shown(pages, asked, Found { orders, more: None })))
}

async fn list(pages: &Pages, asked: Asked) -> Result<Page, Fault> {
    if !STATES.iter().any(|(state, _)| *state == asked.state) {
        return Err(Fault::Wrong("There is no such state of an order."));
    }
    let behind = (asked.at.as_str(), asked.after.as_str());
    let found = match asked.state.as_str() {
        "late" => pages.ask(async |tx| rows::open(tx, &OPEN, pages.late_before(), behind).await).await?,
        state if OPEN.contains(&state) => {
            pages.ask(async |tx| rows::open(tx, &[state], Timestamp::MAX, behind).await).await?
        }
        state => pages.ask(async |tx| rows::newest(tx, state, &asked.after).await).await?,
    };
    Ok(shown(pages, asked, found))
}

fn shown(pages: &Pages, asked: Asked, found: Found) -> Page {
    let more = found.more.map(|after| {
        let at = found.orders.last().map_or("", |order| order.requested_at.as_str());
        let mut question = form_urlencoded::Serializer::new(String::new());
        question.append_pair("state", &asked.state).append_pair("after", &after);
        if asked.state == "late" || OPEN.contains(&asked.state.as_str()) {
            question.append_pair("at", at);
        }
        question.finish()
    });
    let tab = |(state, name): (&'static str, &'static str)| Tab {
        state,
        name,
        here: asked.q.is_empty() && asked.state == state,
    };
    Page {
        section: "orders",
        first: asked.after.is_empty(),
        tabs: STATES.into_iter().map(tab).collect(),
        rows: found.orders.into_iter().map(|order| Row::of(order, pages)).collect(),
        q: asked.q,
        state: asked.state,
        more,
        sla: waybill_journeys::human(pages.settings().sla),
    }
}
