//! Inventory: books what comes in and what is gone, and tells what is available.
//!
//! Consumes `inventory.adjustments`, keyed by product, `orders.short` and `orders.cancelled`, keyed by order. Publishes
//! `inventory.levels` from its outbox, whoever changed the stock, and releases reservations whose time is over. Replay:
//! an adjustment, and a short or cancelled order, is booked once, in the transaction that keeps it.

use crate::answers::{Adjusted, Adjustment, Lines};
use crate::categories;
use crate::ledger::Ledger;
use crate::levels::{self, Level};
use crate::stock;
use jiff::Timestamp;
use opentelemetry::KeyValue;
use serde::{Deserialize, Serialize};
use waybill_events::{OrderCancelled, OrderShort, StockAdjustment, StockLevel};
use waybill_spine::{BareEvent, Decision, Details, Event, Gauge, Input, NoCall, Outcome, Refusal, Shared, Stage, Work};
use waybill_store::{StoreError, Table, Tx};
use waybill_telemetry::Waybill;

/// Most orders whose reservations are released at a time.
const SWEEP: i64 = 500;

/// The stage.
#[derive(Clone, Copy, Debug)]
pub struct Inventory;

/// What changes the stock. An order's changes have a subject that no adjustment can have: an id has no slash.
#[derive(Clone, Debug)]
pub enum Change {
    /// Pieces came in, or are gone.
    Adjustment(StockAdjustment),
    /// Pieces were sold and not found.
    Short {
        /// `short/<order>`.
        subject: String,
        /// What was not found.
        order: OrderShort,
    },
    /// Pieces were sold and are not wanted any more.
    Cancelled {
        /// `cancelled/<order>`.
        subject: String,
        /// Whose they were.
        order: OrderCancelled,
    },
}

/// What is kept of a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Booked {
    /// An adjustment.
    Adjusted {
        /// The product.
        product_id: String,
        /// Pieces.
        delta: i64,
        /// What was available then.
        available: i64,
    },
    /// What an order lost: product and pieces.
    Lost(Vec<(String, i64)>),
    /// How many lines of an order were given back.
    GivenBack(usize),
}

impl Input for Change {
    const TOPICS: &'static [(&'static str, &'static str)] = &[
        (OrderShort::TOPIC, OrderShort::SCHEMA),
        (OrderCancelled::TOPIC, OrderCancelled::SCHEMA),
        (StockAdjustment::TOPIC, StockAdjustment::SCHEMA),
    ];

    fn read(schema: &str, payload: &[u8]) -> serde_json::Result<Self> {
        Ok(match schema {
            OrderShort::SCHEMA => Change::short(serde_json::from_slice(payload)?),
            OrderCancelled::SCHEMA => Change::cancelled(serde_json::from_slice(payload)?),
            _ => Change::Adjustment(serde_json::from_slice(payload)?),
        })
    }
    fn key(&self) -> &str {
        match self {
            Change::Adjustment(adjustment) => Event::key(adjustment),
            Change::Short { order, .. } => Event::key(order),
            Change::Cancelled { order, .. } => Event::key(order),
        }
    }
    fn subject(&self) -> &str {
        match self {
            Change::Adjustment(adjustment) => &adjustment.adjustment_id,
            Change::Short { subject, .. } | Change::Cancelled { subject, .. } => subject,
        }
    }
    fn waybill(&self) -> &Waybill {
        match self {
            Change::Adjustment(adjustment) => Event::waybill(adjustment),
            Change::Short { order, .. } => Event::waybill(order),
            Change::Cancelled { order, .. } => Event::waybill(order),
        }
    }
    fn check(&self) -> Result<(), String> {
        match self {
            Change::Adjustment(adjustment) => Event::check(adjustment),
            Change::Short { order, .. } => Event::check(order),
            Change::Cancelled { order, .. } => Event::check(order),
        }
    }
}

impl Change {
    fn short(order: OrderShort) -> Self {
        Change::Short { subject: format!("short/{}", order.order_id), order }
    }

    fn cancelled(order: OrderCancelled) -> Self {
        Change::Cancelled { subject: format!("cancelled/{}", order.order_id), order }
    }
}

impl Stage for Inventory {
    const NAME: &'static str = "inventory";
    const FLOW: &'static str = "inventory";
    const SPAN: &'static str = "inventory.adjust";
    const TABLE: Table = Table("stock_moves");
    const CHORES: bool = true;
    const GAUGE: Option<Gauge> = Some(Gauge {
        name: "inventory.stock_level",
        unit: "{piece}",
        about: "Pieces available",
        attribute: "product.category",
    });

    type Event = Change;
    type State = Booked;
    type Shared = Ledger;
    type Call = NoCall;

    fn decide(&self, ledger: &mut Ledger, state: Option<&Booked>, change: &Change, _: Timestamp) -> Outcome<Booked> {
        if state.is_some() {
            return Outcome::Repeat;
        }
        match change {
            Change::Adjustment(adjustment) => adjust(ledger, adjustment),
            Change::Short { order, .. } => {
                booked(Booked::Lost(ledger.short(&missing(order))), of_order(&order.order_id))
            }
            Change::Cancelled { order, .. } => {
                booked(Booked::GivenBack(ledger.cancelled(&order.order_id)), of_order(&order.order_id))
            }
        }
    }

    async fn tend(&self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        stock::expire(tx, SWEEP).await.map(drop)
    }

    async fn gauge(&self, tx: &mut Tx<'_>) -> Result<Vec<(String, i64)>, StoreError> {
        categories::available(tx).await
    }

    async fn outbox(&self, tx: &mut Tx<'_>, most: i64) -> Result<Vec<BareEvent>, StoreError> {
        levels::levels(tx, most).await?.into_iter().map(event).collect()
    }

    async fn forget(&self, tx: &mut Tx<'_>, published: &[BareEvent]) -> Result<(), StoreError> {
        let told = published.iter().filter_map(|level| level.subject.split_once('/'));
        let told: Vec<(&str, i64)> =
            told.filter_map(|(product_id, version)| Some((product_id, version.parse().ok()?))).collect();
        levels::relayed(tx, &told).await
    }
}

fn adjust(ledger: &mut Ledger, adjustment: &StockAdjustment) -> Outcome<Booked> {
    let StockAdjustment { product_id, delta, .. } = adjustment;
    match ledger.adjust(&Adjustment { product_id, delta: *delta }) {
        Adjusted::Applied { available } => booked(
            Booked::Adjusted { product_id: product_id.clone(), delta: *delta, available },
            vec![
                KeyValue::new("product.id", product_id.clone()),
                KeyValue::new("inventory.delta", *delta),
                KeyValue::new("inventory.available", available),
            ],
        ),
        Adjusted::Refused { available } => {
            let why = format!("{available} of product {product_id} are available: {delta} cannot be booked");
            Outcome::Reject(Refusal::new("not_available", why))
        }
    }
}

fn booked(state: Booked, attributes: Vec<KeyValue>) -> Outcome<Booked> {
    Outcome::Emit(Decision { state, events: Vec::new(), span: Details { attributes, ..Details::default() } })
}

fn of_order(order_id: &str) -> Vec<KeyValue> {
    vec![KeyValue::new("order.id", order_id.to_owned())]
}

fn missing(order: &OrderShort) -> Lines<'_> {
    let missing = |line: &waybill_events::ShortLine| line.requested.saturating_sub(line.picked);
    Lines {
        order_id: &order.order_id,
        lines: order.lines.iter().map(|line| (line.product_id.as_str(), missing(line))).collect(),
    }
}

/// A level as it is told; its id derives from product and version.
fn event(level: Level) -> Result<BareEvent, StoreError> {
    let time = Timestamp::try_from(level.changed_at).map_err(|e| sqlx::Error::Decode(e.into()))?;
    Ok(BareEvent {
        subject: format!("{}/{}", level.product_id, level.version),
        event: Box::new(StockLevel {
            product_id: level.product_id,
            version: level.version,
            available: level.available,
            last_zero_version: level.last_zero_version,
            changed_at: time,
        }),
        time,
        waybill: Waybill::none(),
    })
}

impl Shared<Inventory> for Ledger {
    async fn load(tx: &mut Tx<'_>, work: &[Work<'_, Inventory>]) -> Result<Self, StoreError> {
        let (mut new, mut products, mut orders) = (Vec::new(), Vec::new(), Vec::new());
        for change in work.iter().filter(|work| work.state.is_none()).map(|work| work.event) {
            match change {
                Change::Adjustment(adjustment) => {
                    products.push(adjustment.product_id.as_str());
                    // Nobody gets to know a product by losing it.
                    new.extend((adjustment.delta > 0).then_some(adjustment.product_id.as_str()));
                }
                Change::Short { order, .. } => orders.push(order.order_id.as_str()),
                Change::Cancelled { order, .. } => orders.push(order.order_id.as_str()),
            }
        }
        stock::register(tx, &new).await?;
        Ledger::lock(tx, &products, &orders).await
    }

    async fn save(self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        Ledger::save(self, tx).await
    }
}
