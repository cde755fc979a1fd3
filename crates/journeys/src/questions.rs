//! What is asked of journeys. Times are nanoseconds.

use crate::JourneysError;
use crate::target::Target;
use serde::Serialize;

/// An order that was late, or is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, sqlx::FromRow)]
pub struct Late {
    /// The order.
    pub order_id: String,
    /// When the stage that it counts from was done, since 1970.
    pub from_ns: i64,
    /// When the other one was; none where it is not yet.
    pub to_ns: Option<i64>,
    /// How long it took, or has taken until now.
    pub took_ns: i64,
}

/// What is late.
#[derive(Clone, Copy, Debug)]
pub struct Promise<'a> {
    /// The stage it counts from.
    pub from: &'a str,
    /// The stage it should have got to.
    pub to: &'a str,
    /// How long that may take.
    pub within_ns: i64,
    /// The time now, since 1970.
    pub now_ns: i64,
}

impl Promise<'_> {
    /// The statement, for SQLite and Postgres alike.
    pub const TEXT: &'static str = include_str!("../../../docs/late.sql");
}

/// An order that stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, sqlx::FromRow)]
pub struct Stuck {
    /// The order.
    pub order_id: String,
    /// The stage that has not answered.
    pub waits_for: String,
    /// Since when, since 1970.
    pub since_ns: i64,
    /// Why, where a dead letter says it: stage, code and words.
    pub reason: Option<String>,
}

/// How long a stage works on an order, or an order waits for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, sqlx::FromRow)]
pub struct Legs {
    /// The stage.
    pub stage: String,
    /// `work` or `wait`.
    pub what: String,
    /// Of how many orders.
    pub orders: i64,
    /// Half of them took at most this long,
    pub p50_ns: i64,
    /// nine in ten this,
    pub p90_ns: i64,
    /// all but one in a hundred this.
    pub p99_ns: i64,
}

impl Target {
    /// Orders that were late, the longest first.
    ///
    /// # Errors
    /// The target does not answer.
    pub async fn late(&mut self, question: Promise<'_>) -> Result<Vec<Late>, JourneysError> {
        self.ask(Promise::TEXT, &[question.from, question.to], &[question.within_ns, question.now_ns]).await
    }

    /// Orders not at an end of which nothing was heard since `since_ns`, the longest ago first.
    ///
    /// # Errors
    /// The target does not answer.
    pub async fn stuck(&mut self, since_ns: i64) -> Result<Vec<Stuck>, JourneysError> {
        self.ask(include_str!("stuck.sql"), &[], &[since_ns]).await
    }

    /// Waits and work, by stage.
    ///
    /// # Errors
    /// The target does not answer.
    pub async fn times(&mut self) -> Result<Vec<Legs>, JourneysError> {
        self.ask(include_str!("times.sql"), &[], &[]).await
    }
}
