//! The database of the stages: what was decided under each key, what is parked, and the adapters.
//!
//! - A [`Store`] is one connection, owned by one loop: there is no pool to exhaust or to poison.
//! - A transaction takes the connection out of the store and gives it back on commit. One that is
//!   dropped on the way, by an error or a cancelled future, closes the connection, so nobody ever
//!   finds themselves in another's open transaction (sqlx's `pool.begin()` allows that, #4385).
//! - Rows are written on the condition that nobody else has written them since they were read:
//!   of two owners of one key the first wins, the other starts over and finds the answer there.
//!
//! Postgres serves any number of processes. SQLite serves one: a second one is refused.

mod error;
mod postgres;
mod sqlite;

pub use error::StoreError;

use sqlx::migrate::Migrator;
use sqlx::{PgConnection, SqliteConnection};
use std::time::{Duration, SystemTime};

/// Migrations only add (`tests/migrations.rs`), so whoever does not know the last of them finds all that they know: a process
/// of the old version may start while a deploy goes on, or is taken back.
fn only_adding(mut migrations: Migrator) -> Migrator {
    migrations.set_ignore_missing(true);
    migrations
}

/// The decision kept under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// The business key, for example an order id.
    pub key: String,
    /// Counts the writes of this row, from 1; writing needs the version read plus one.
    pub version: i32,
    /// The stage's own state, as JSON.
    pub state: String,
    /// The records that were published, encoded; a repeat publishes them again.
    pub answer: Vec<u8>,
}

/// What the database knows of a batch's keys.
#[derive(Debug, Default)]
pub struct Known {
    /// What has been decided before.
    pub decided: Vec<Decided>,
    /// Keys with parked records, behind which later ones must wait.
    pub parked: Vec<String>,
}

/// A record to park.
#[derive(Clone, Debug)]
pub struct Park {
    /// Its business key.
    pub key: String,
    /// Where the record stands, `topic/partition/offset`: it is parked once, however often it is delivered.
    pub origin: String,
    /// The record, encoded.
    pub record: Vec<u8>,
    /// Why it waits.
    pub why: String,
    /// How long, by the database's clock.
    pub wait: Duration,
    /// How long it is leased to whoever parks it; zero is not at all.
    pub lease: Duration,
}

/// What a parked record becomes.
#[derive(Clone, Debug)]
pub struct Repark {
    /// Row id.
    pub id: i64,
    /// The record, encoded anew.
    pub record: Vec<u8>,
    /// Why it waits.
    pub why: String,
    /// How long, by the database's clock.
    pub wait: Duration,
    /// How long it is leased to the caller; zero is not at all.
    pub lease: Duration,
}

/// A parked record whose time has come, leased to the caller.
#[derive(Clone, Debug)]
pub struct Parked {
    /// Row id; ascending within a key.
    pub id: i64,
    /// Its business key.
    pub key: String,
    /// The record, encoded.
    pub record: Vec<u8>,
    /// How often it has been tried.
    pub attempts: i32,
    /// Why it was parked.
    pub why: String,
    /// When it was parked first.
    pub parked_at: SystemTime,
    /// The number of this lease, for [`Tx::held`].
    pub lease: i32,
    /// Whether a lease on it ran out before: whoever held it has died, or nearly.
    pub lapsed: bool,
}

/// The table in which a stage keeps its decisions: a name fixed at compile time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table(pub &'static str);

/// A connection to the database.
#[derive(Debug)]
pub enum Store {
    /// Postgres 14 or later.
    Postgres(postgres::Postgres),
    /// SQLite, one process.
    Sqlite(sqlite::Sqlite),
}

/// An open transaction; dropping it undoes it.
#[derive(Debug)]
pub enum Tx<'a> {
    /// On Postgres.
    Postgres(postgres::PgTx<'a>),
    /// On SQLite.
    Sqlite(sqlite::SqliteTx),
}

/// The connection inside a transaction, for a stage's own statements.
#[derive(Debug)]
pub enum Connection<'a> {
    /// Postgres.
    Postgres(&'a mut PgConnection),
    /// SQLite.
    Sqlite(&'a mut SqliteConnection),
}

impl Store {
    /// Opens `postgres://…` or `sqlite://FILE`. Postgres is reached on first use, and again after every failure.
    ///
    /// # Errors
    /// A URL of another kind, or a SQLite file that cannot be opened or is in use by another process.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            Ok(Store::Postgres(postgres::Postgres::new(url)?))
        } else if url.starts_with("sqlite:") {
            Ok(Store::Sqlite(sqlite::Sqlite::open(url).await?))
        } else {
            Err(StoreError::Url)
        }
    }

    /// Brings the tables up to date. Safe to run from several processes at once, also of several versions: tables that a newer
    /// version has migrated are left as they are.
    ///
    /// # Errors
    /// The database is away, or a migration that it holds is not ours.
    pub async fn migrate(&mut self) -> Result<(), StoreError> {
        match self {
            Store::Postgres(db) => db.migrate().await,
            Store::Sqlite(db) => db.migrate().await,
        }
    }

    /// Another connection to the same database, for another loop.
    #[must_use]
    pub fn another(&self) -> Self {
        match self {
            Store::Postgres(db) => Store::Postgres(db.another()),
            Store::Sqlite(db) => Store::Sqlite(db.another()),
        }
    }

    /// `postgresql` or `sqlite`: the value of `db.system.name`.
    #[must_use]
    pub fn system(&self) -> &'static str {
        match self {
            Store::Postgres(_) => "postgresql",
            Store::Sqlite(_) => "sqlite",
        }
    }

    /// Begins a transaction. May be cancelled at any point.
    ///
    /// # Errors
    /// The database is away.
    pub async fn begin(&mut self) -> Result<Tx<'_>, StoreError> {
        match self {
            Store::Postgres(db) => Ok(Tx::Postgres(db.begin().await?)),
            Store::Sqlite(db) => Ok(Tx::Sqlite(db.begin().await?)),
        }
    }

    /// Begins a transaction whose commit does not wait for the disk: a crash of the database may undo it, as a whole. For
    /// what is then done again and does no harm. May be cancelled at any point.
    ///
    /// # Errors
    /// The database is away.
    pub async fn begin_unsynced(&mut self) -> Result<Tx<'_>, StoreError> {
        match self {
            Store::Postgres(db) => Ok(Tx::Postgres(db.begin_unsynced().await?)),
            Store::Sqlite(db) => Ok(Tx::Sqlite(db.begin().await?)),
        }
    }

    /// Leases the due parked records of at most `keys` keys to the caller, all of a key, in order.
    ///
    /// # Errors
    /// The database is away.
    pub async fn due(&mut self, stage: &str, keys: i64, lease: Duration) -> Result<Vec<Parked>, StoreError> {
        let mut tx = self.begin().await?;
        let mut due = match &mut tx {
            Tx::Postgres(tx) => tx.due(stage, keys, lease).await?,
            Tx::Sqlite(tx) => tx.due(stage, keys, lease).await?,
        };
        tx.commit().await?;
        due.sort_by(|a, b| (&a.key, a.id).cmp(&(&b.key, b.id)));
        Ok(due)
    }

    /// Forgets parked records that have been answered, the answer being published: one that comes back is answered again.
    ///
    /// # Errors
    /// The database is away.
    pub async fn unpark(&mut self, stage: &str, ids: &[i64]) -> Result<(), StoreError> {
        let mut tx = self.begin_unsynced().await?;
        match &mut tx {
            Tx::Postgres(tx) => tx.unpark(stage, ids).await?,
            Tx::Sqlite(tx) => tx.unpark(stage, ids).await?,
        }
        tx.commit().await
    }

    /// Ends [`Tx::lock_outbox`].
    ///
    /// # Errors
    /// The database is away, and with it the lock.
    pub async fn unlock_outbox(&mut self, stage: &str) -> Result<(), StoreError> {
        match self {
            Store::Postgres(db) => db.unlock_outbox(stage).await,
            Store::Sqlite(_) => Ok(()),
        }
    }

    /// Deletes at most `limit` decisions older than `retention`, by the database's clock; returns how many.
    ///
    /// # Errors
    /// The database is away.
    pub async fn prune(&mut self, table: Table, retention: Duration, limit: i64) -> Result<u64, StoreError> {
        let mut tx = self.begin().await?;
        let deleted = match &mut tx {
            Tx::Postgres(tx) => tx.prune(table, retention, limit).await?,
            Tx::Sqlite(tx) => tx.prune(table, retention, limit).await?,
        };
        tx.commit().await?;
        Ok(deleted)
    }
}

impl Tx<'_> {
    /// Reads what is known of `keys`, in one query.
    ///
    /// # Errors
    /// The database is away.
    pub async fn known(&mut self, table: Table, stage: &str, keys: &[&str]) -> Result<Known, StoreError> {
        match self {
            Tx::Postgres(tx) => tx.known(table, stage, keys).await,
            Tx::Sqlite(tx) => tx.known(table, stage, keys).await,
        }
    }

    /// Writes decisions, each key once, in one statement.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if somebody else has written one of the keys since it was read;
    /// the transaction is then of no use. Otherwise: the database is away, or refuses the data.
    pub async fn save(&mut self, table: Table, rows: &[Decided]) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        let written = match self {
            Tx::Postgres(tx) => tx.save(table, rows).await?,
            Tx::Sqlite(tx) => tx.save(table, rows).await?,
        };
        if written == rows.len() as u64 { Ok(()) } else { Err(StoreError::Conflict) }
    }

    /// Parks records behind those of their keys that are parked already; one that is parked stays as it is.
    /// Yields id and origin of those that are new; where they are leased, it is their lease number 1.
    ///
    /// # Errors
    /// The database is away, or refuses the data.
    pub async fn park(&mut self, stage: &str, rows: &[Park]) -> Result<Vec<(i64, String)>, StoreError> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        match self {
            Tx::Postgres(tx) => tx.park(stage, rows).await,
            Tx::Sqlite(tx) => tx.park(stage, rows).await,
        }
    }

    /// Lets a parked record wait again: one more attempt, a new due time, no lease.
    ///
    /// # Errors
    /// The database is away.
    pub async fn park_again(&mut self, stage: &str, id: i64, why: &str, wait: Duration) -> Result<(), StoreError> {
        match self {
            Tx::Postgres(tx) => tx.park_again(stage, id, why, wait).await,
            Tx::Sqlite(tx) => tx.park_again(stage, id, why, wait).await,
        }
    }

    /// Which of these parked records (id, number of the lease) are still leased to the caller, or were and nobody else has
    /// taken them since. They stay so until the transaction ends.
    ///
    /// # Errors
    /// The database is away.
    pub async fn held(&mut self, stage: &str, leases: &[(i64, i32)]) -> Result<Vec<i64>, StoreError> {
        if leases.is_empty() {
            return Ok(Vec::new());
        }
        match self {
            Tx::Postgres(tx) => tx.held(stage, leases).await,
            Tx::Sqlite(tx) => tx.held(stage, leases).await,
        }
    }

    /// Writes parked records anew. It uses up the lease that each was held by: the caller holds the next one, which it
    /// knows by its number. Whoever settles again, not knowing that it has settled, finds its lease gone.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if one of them is no longer parked; otherwise the database is away, or refuses the data.
    pub async fn repark(&mut self, stage: &str, rows: &[Repark]) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        let written = match self {
            Tx::Postgres(tx) => tx.repark(stage, rows).await?,
            Tx::Sqlite(tx) => tx.repark(stage, rows).await?,
        };
        if written == rows.len() as u64 { Ok(()) } else { Err(StoreError::Conflict) }
    }

    /// Locks the outbox of a stage, unless another connection has it; yields whether it did. The lock outlives the
    /// transaction: it ends with [`Store::unlock_outbox`] or with the connection. SQLite serves one process: nothing to lock.
    ///
    /// # Errors
    /// The database is away.
    pub async fn lock_outbox(&mut self, stage: &str) -> Result<bool, StoreError> {
        match self {
            Tx::Postgres(tx) => tx.lock_outbox(stage).await,
            Tx::Sqlite(_) => Ok(true),
        }
    }

    /// The connection, for a stage's own statements in this transaction.
    pub fn connection(&mut self) -> Connection<'_> {
        match self {
            Tx::Postgres(tx) => Connection::Postgres(tx.connection()),
            Tx::Sqlite(tx) => Connection::Sqlite(tx.connection()),
        }
    }

    /// Makes the effects durable.
    ///
    /// # Errors
    /// The database went away: whether the effects are there is unknown, and reading tells.
    pub async fn commit(self) -> Result<(), StoreError> {
        match self {
            Tx::Postgres(tx) => tx.commit().await,
            Tx::Sqlite(tx) => tx.commit().await,
        }
    }
}
