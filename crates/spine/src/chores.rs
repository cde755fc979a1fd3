//! Chores: what a stage does between batches, no record asking for it.
//!
//! - *What the clock asks for*, once a second, in a transaction ([`Stage::tend`]).
//! - *The outbox*: rows are read, published, acknowledged, and only then forgotten. A crash between publishes them again,
//!   as the same bytes under the same ids. One process relays at a time, under a lock of the database that ends with its
//!   connection, and reads the rows anew under it: whoever relays, they go out in their order.

use crate::envelope::BareEvent;
use crate::stage::Stage;
use std::time::{Duration, Instant};
use waybill_store::{Store, StoreError};

/// How often a stage tends to what the clock asks for.
const TEND: Duration = Duration::from_secs(1);
/// How often the outbox is looked at; after a batch of its own a stage looks at once.
const LOOK: Duration = Duration::from_millis(100);
/// Most rows published at a time.
pub(crate) const MOST: i64 = 500;

/// When the chores are due.
pub(crate) struct Chores {
    next_tend: Instant,
    next_look: Instant,
}

impl Chores {
    pub(crate) fn new(now: Instant) -> Self {
        Chores { next_tend: now, next_look: now }
    }

    /// There is something in the outbox, or there may be.
    pub(crate) fn hurry(&mut self) {
        self.next_look = Instant::now();
    }

    /// Whether it is time to tend; the next time is then set.
    pub(crate) fn tends(&mut self) -> bool {
        due(&mut self.next_tend, TEND)
    }

    /// Whether it is time to look at the outbox; the next time is then set.
    pub(crate) fn looks(&mut self) -> bool {
        due(&mut self.next_look, LOOK)
    }
}

fn due(next: &mut Instant, every: Duration) -> bool {
    let now = Instant::now();
    let due = now >= *next;
    if due {
        *next = now + every;
    }
    due
}

pub(crate) async fn tend<S: Stage>(stage: &S, store: &mut Store) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    stage.tend(&mut tx).await?;
    tx.commit().await
}

/// Rows to publish, locked until they are forgotten; none while somebody else publishes some.
pub(crate) async fn outbox<S: Stage>(stage: &S, store: &mut Store) -> Result<Vec<BareEvent>, StoreError> {
    let mut tx = store.begin().await?;
    if stage.outbox(&mut tx, 1).await?.is_empty() || !tx.lock_outbox(S::NAME).await? {
        tx.commit().await?;
        return Ok(Vec::new());
    }
    // Read again: what was there before the lock may have been published by whoever had it.
    let rows = stage.outbox(&mut tx, MOST).await?;
    tx.commit().await?;
    if rows.is_empty() {
        store.unlock_outbox(S::NAME).await?;
    }
    Ok(rows)
}

pub(crate) async fn forget<S: Stage>(stage: &S, store: &mut Store, rows: &[BareEvent]) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    stage.forget(&mut tx, rows).await?;
    tx.commit().await?;
    store.unlock_outbox(S::NAME).await
}
