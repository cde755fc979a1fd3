//! A few connections to the database, each lent to one request at a time.
//!
//! A connection goes back only by being dropped, and a transaction that was cut short closes it: nobody is ever handed
//! one that is inside another's transaction.

use crate::problem::{Kind, Problem};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use waybill_store::{Store, StoreError};

/// Longest wait for a connection, and for the database to do its work.
const LIMIT: Duration = Duration::from_secs(5);
/// A connection that has been idle for so long may have been cut: one more round trip finds out.
const IDLE: Duration = Duration::from_millis(500);

/// A connection, and when it was last used.
type Used = (Store, Instant);

/// The connections. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Connections {
    /// As many permits as there are connections.
    free: Arc<Semaphore>,
    stores: Arc<[Arc<Mutex<Used>>]>,
    system: &'static str,
}

impl Connections {
    pub(crate) fn new(store: &Store, count: u32) -> Self {
        let stores = (0..count).map(|_| Arc::new(Mutex::new((store.another(), Instant::now())))).collect();
        Connections { free: Arc::new(Semaphore::new(count as usize)), stores, system: store.system() }
    }

    /// `postgresql` or `sqlite`.
    pub(crate) fn system(&self) -> &'static str {
        self.system
    }

    /// Lends a connection to `work`; a database that does not answer in time is away. Work that has begun goes on
    /// when nobody waits for it any more: to cut it short would cost the connection.
    pub(crate) async fn run<T, W>(&self, work: impl FnOnce(Lent) -> W) -> Result<T, Problem>
    where
        T: Send + 'static,
        W: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let Ok(Some(lent)) = timeout(LIMIT, self.take()).await else { return Err(Kind::Overloaded.into()) };
        match tokio::spawn(timeout(LIMIT, work(lent))).await {
            Ok(Ok(done)) => done.map_err(Problem::from),
            Ok(Err(_)) => {
                tracing::warn!("the database did not answer within {LIMIT:?}");
                Err(Kind::Unavailable.into())
            }
            Err(error) => Err(Problem::internal(&error)),
        }
    }

    async fn take(&self) -> Option<Lent> {
        let permit = self.free.clone().acquire_owned().await.ok()?;
        let used = self.stores.iter().find_map(|store| store.clone().try_lock_owned().ok())?;
        let mut lent = Lent { used, _permit: permit };
        let idle = std::mem::replace(&mut lent.used.1, Instant::now()).elapsed();
        if idle > IDLE && matches!(&*lent, Store::Postgres(_)) {
            // What was cut is dropped here, and the next use connects anew.
            if let Ok(tx) = lent.begin().await {
                tx.commit().await.ok();
            }
        }
        Some(lent)
    }
}

/// A connection on loan.
pub(crate) struct Lent {
    used: OwnedMutexGuard<Used>,
    /// Given back last, when the connection is free again.
    _permit: OwnedSemaphorePermit,
}

impl Deref for Lent {
    type Target = Store;
    fn deref(&self) -> &Store {
        &self.used.0
    }
}

impl DerefMut for Lent {
    fn deref_mut(&mut self) -> &mut Store {
        &mut self.used.0
    }
}
