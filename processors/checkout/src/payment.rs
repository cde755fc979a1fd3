//! The calls of the checkout: to charge and to refund. The payment method is looked up when it is needed and stands in no
//! event, no state and no span.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use waybill_money::Money;
use waybill_payment::{Attempted, Charge, Charged, PaymentMethod, Provider as _, Refund, Refunded, Stripe};
use waybill_spine::{Call, system_clock};
use waybill_store::{Connection, Store, StoreError};

/// Payment methods that are looked up with one query, at most.
const LOOK_UP: usize = 256;

/// A call to the payment provider.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Payment {
    /// Takes the customer's money.
    Charge {
        /// The order.
        order_id: String,
        /// How much.
        amount: Money,
        /// From 1; a new one after a decline.
        attempt: u32,
    },
    /// Gives it back.
    Refund {
        /// The order.
        order_id: String,
        /// The charge.
        charge_id: String,
        /// How much.
        amount: Money,
        /// Why: one refund an order for each.
        reason: RefundReason,
    },
}

/// Why money goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefundReason {
    /// It was paid for goods that were gone by then.
    Lapsed,
    /// The bins held less than was sold.
    Short,
    /// The customer cancelled.
    Cancelled,
    /// Somebody on call ended the checkout.
    Aborted,
}

/// What came of a [`Payment`], and when.
#[derive(Clone, Debug)]
pub struct PaymentAnswer {
    pub(crate) began: Timestamp,
    pub(crate) ended: Timestamp,
    /// Whether it may have been asked before, with an answer that nobody got.
    pub(crate) again: bool,
    pub(crate) what: Answered,
}

#[derive(Clone, Debug)]
pub(crate) enum Answered {
    Charged(Attempted<Charged>),
    Refunded(Attempted<Refunded>),
}

/// The provider, and where payment methods are looked up.
#[derive(Clone, Debug)]
pub struct Payments {
    stripe: Stripe,
    look_up: mpsc::UnboundedSender<Question>,
}

/// An order, and where its answer goes; none where nothing is known of it.
type Question = (String, oneshot::Sender<Option<Found>>);

/// What a charge is made with.
#[derive(Debug)]
struct Found {
    method: PaymentMethod,
    /// Somebody ends the checkout, and no call of unknown outcome is to be settled before.
    aborted: bool,
}

impl Payments {
    /// With a connection of its own to the database; `runtime` drives it.
    #[must_use]
    pub fn new(stripe: Stripe, store: Store, runtime: &Handle) -> Self {
        // As many questions as there are calls out, which the spine bounds.
        let (look_up, questions) = mpsc::unbounded_channel();
        runtime.spawn(answer(store, questions));
        Payments { stripe, look_up }
    }

    async fn charge(self, order_id: String, amount: Money, attempt: u32, again: bool) -> Attempted<Charged> {
        let (reply, found) = oneshot::channel();
        self.look_up.send((order_id.clone(), reply)).ok();
        let nothing_sent = |answer| Attempted { answer, call: None };
        let Ok(found) = found.await else {
            let why = "the database does not answer".to_owned();
            return nothing_sent(Charged::Unknown { why, retry_after: None });
        };
        let Some(Found { method, aborted }) = found else {
            return nothing_sent(Charged::Refused { why: "there is no payment method for the order".to_owned() });
        };
        if aborted && !again {
            return nothing_sent(Charged::Refused { why: "the checkout was ended before".to_owned() });
        }
        let idempotency_key = format!("{order_id}-charge-{attempt}");
        self.stripe.charge(&Charge { order_id, amount, method, idempotency_key }).await
    }
}

/// Answers questions for payment methods, as many at a time as there are; on an error nobody gets an answer.
async fn answer(mut store: Store, mut questions: mpsc::UnboundedReceiver<Question>) {
    let mut batch = Vec::new();
    while questions.recv_many(&mut batch, LOOK_UP).await > 0 {
        let orders: Vec<&str> = batch.iter().map(|(order, _)| order.as_str()).collect();
        match methods(&mut store, &orders).await {
            Ok(methods) => {
                for (order, reply) in batch.drain(..) {
                    let found = methods.iter().find(|(of, ..)| *of == order);
                    let found = found.map(|(_, m, aborted)| Found { method: PaymentMethod::new(m), aborted: *aborted });
                    reply.send(found).ok();
                }
            }
            Err(error) => {
                tracing::warn!(%error, "payment methods cannot be looked up; the charges are tried again");
                batch.clear();
            }
        }
    }
}

async fn methods(store: &mut Store, orders: &[&str]) -> Result<Vec<(String, String, bool)>, StoreError> {
    let mut tx = store.begin().await?;
    let rows = match tx.connection() {
        Connection::Postgres(connection) => {
            let sql = r#"select m.order_id, m.reference, coalesce(c.state @> '{"abort": true, "unknown": 0}', false)
                       from payment_methods m left join checkouts c on c.key = m.order_id where m.order_id = any($1)"#;
            sqlx::query_as(sql).bind(orders).fetch_all(connection).await?
        }
        Connection::Sqlite(connection) => {
            let sql =
                "select m.order_id, m.reference, coalesce(c.state ->> 'abort' and c.state ->> 'unknown' = 0, false)
                       from payment_methods m left join checkouts c on c.key = m.order_id
                       where m.order_id in (select value from json_each(?1))";
            sqlx::query_as(sql).bind(serde_json::Value::from(orders).to_string()).fetch_all(connection).await?
        }
    };
    tx.commit().await?;
    Ok(rows)
}

impl Call for Payment {
    type Means = Payments;
    type Answer = PaymentAnswer;

    async fn make(self, payments: Payments, again: bool) -> PaymentAnswer {
        let began = system_clock();
        let what = match self {
            Payment::Charge { order_id, amount, attempt } => {
                Answered::Charged(payments.charge(order_id, amount, attempt, again).await)
            }
            Payment::Refund { order_id, charge_id, amount, reason } => {
                let reason = match reason {
                    RefundReason::Lapsed => "lapsed",
                    RefundReason::Short => "short",
                    RefundReason::Cancelled => "cancelled",
                    RefundReason::Aborted => "aborted",
                };
                let idempotency_key = format!("{order_id}-refund-{reason}");
                let refund = Refund { order_id, charge_id, amount, idempotency_key };
                Answered::Refunded(payments.stripe.refund(&refund).await)
            }
        };
        PaymentAnswer { began, ended: system_clock(), again, what }
    }
}
