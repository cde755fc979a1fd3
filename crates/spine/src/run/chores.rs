//! Chores: what a stage does between batches, no record asking for it.
//!
//! - *What the clock asks for*, once a second, in a transaction ([`Stage::tend`]).
//! - *What the gauge tells*, twice a minute ([`Stage::gauge`]).
//! - *The outbox*: rows are read, published, acknowledged, and only then forgotten. A crash between publishes them again,
//!   as the same bytes under the same ids. One process relays at a time, under a lock of the database that ends with its
//!   connection, and reads the rows anew under it: whoever relays, they go out in their order.

use super::{Runner, StageError};
use crate::broker::{Sink, Source};
use crate::envelope::BareEvent;
use crate::failpoint::Failpoint;
use crate::gauge::{EVERY, Readings};
use crate::record::Message;
use crate::stage::Stage;
use std::time::{Duration, Instant};
use waybill_store::{Store, StoreError};

/// How often a stage tends to what the clock asks for.
const TEND: Duration = Duration::from_secs(1);
/// How often the outbox is looked at; after a batch of its own a stage looks at once.
const LOOK: Duration = Duration::from_millis(100);
/// Most rows published at a time.
const MOST: i64 = 500;

/// When the chores are due.
pub(super) struct Chores {
    next_tend: Instant,
    next_look: Instant,
    /// Of the stage's gauge, if it has one.
    readings: Option<Readings>,
    next_reading: Instant,
}

impl Chores {
    pub(super) fn new(now: Instant, readings: Option<Readings>) -> Self {
        Chores { next_tend: now, next_look: now, readings, next_reading: now }
    }

    /// A batch may have added to the outbox: it is looked at as soon as the batch is done.
    pub(super) fn hurry(&mut self) {
        self.next_look = Instant::now();
    }

    /// Whether it is time to tend; the next time is then set.
    pub(super) fn tends(&mut self) -> bool {
        due(&mut self.next_tend, TEND)
    }

    /// Whether it is time to look at the outbox; the next time is then set.
    pub(super) fn looks(&mut self) -> bool {
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

impl<S: Stage, I: Source, O: Sink> Runner<S, I, O> {
    /// What the clock asks for, then the outbox: what is tended to may add to it.
    pub(super) async fn chores(&mut self) -> Result<(), StageError> {
        if let Some(readings) = &self.chores.readings
            && due(&mut self.chores.next_reading, EVERY)
        {
            match read(&self.desk.stage, &mut self.store).await {
                Ok(values) => readings.set(values),
                Err(error) => {
                    self.pause("the gauge", &error)?;
                }
            }
        }
        if !S::CHORES {
            return Ok(());
        }
        if self.chores.tends() {
            match tend(&self.desk.stage, &mut self.store).await {
                // Somebody else was first: the next time comes soon.
                Ok(()) | Err(StoreError::Conflict) => {}
                Err(error) => {
                    self.pause("chores", &error)?;
                }
            }
        }
        while self.chores.looks() && self.relay().await? && !self.shutdown.requested() {
            self.chores.hurry();
            self.source.idle(Duration::ZERO)?;
            self.pulse.beat(self.source.assigned());
        }
        Ok(())
    }

    /// Publishes rows of the outbox, then forgets them. Yields whether there may be more.
    async fn relay(&mut self) -> Result<bool, StageError> {
        let mut rows = match outbox(&self.desk.stage, &mut self.store).await {
            Ok(rows) => rows,
            Err(error) => return self.pause("the outbox", &error).map(|_| false),
        };
        if rows.is_empty() {
            return Ok(false);
        }
        let messages: Result<Vec<Message>, _> = rows.iter_mut().map(|row| row.message(S::NAME)).collect();
        let messages = messages.map_err(|error| StageError::Outbox(S::NAME, error))?;
        if !self.publish(&messages)? {
            // The lock on the outbox ends with the connection.
            return Ok(false);
        }
        Failpoint::AfterRelay.pass();
        if let Err(error) = forget(&self.desk.stage, &mut self.store, &rows).await {
            // They are published again, under the same ids.
            return self.pause("published rows stay in the outbox", &error).map(|_| false);
        }
        Ok(i64::try_from(rows.len()).is_ok_and(|rows| rows >= MOST))
    }
}

async fn read<S: Stage>(stage: &S, store: &mut Store) -> Result<Vec<(String, i64)>, StoreError> {
    let mut tx = store.begin().await?;
    let values = stage.gauge(&mut tx).await?;
    tx.commit().await?;
    Ok(values)
}

async fn tend<S: Stage>(stage: &S, store: &mut Store) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    stage.tend(&mut tx).await?;
    tx.commit().await
}

/// Rows to publish, locked until they are forgotten; none while somebody else publishes some.
async fn outbox<S: Stage>(stage: &S, store: &mut Store) -> Result<Vec<BareEvent>, StoreError> {
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

/// Rows that come back are published again, under the same ids.
async fn forget<S: Stage>(stage: &S, store: &mut Store, rows: &[BareEvent]) -> Result<(), StoreError> {
    let mut tx = store.begin_unsynced().await?;
    stage.forget(&mut tx, rows).await?;
    tx.commit().await?;
    store.unlock_outbox(S::NAME).await
}
