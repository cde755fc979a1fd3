//! Looks at the cluster, beside the requests and only while somebody looks at the page.

use jiff::Timestamp;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use waybill_ops::OpsError;

/// How long a request waits for the first look, or for one in place of an old one.
const PATIENCE: Duration = Duration::from_secs(2);

/// What was seen, and when.
#[derive(Debug)]
pub(crate) struct Seen<T> {
    pub what: Result<T, String>,
    pub at: Timestamp,
}

/// The last look and the one before.
pub(crate) type Looks<T> = (Option<Arc<Seen<T>>>, Option<Arc<Seen<T>>>);

/// Somebody who looks while somebody asks.
pub(crate) struct Watch<T> {
    looks: watch::Receiver<Looks<T>>,
    asked: Arc<Notify>,
    every: Duration,
    clock: fn() -> Timestamp,
}

impl<T> fmt::Debug for Watch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("every", &self.every).finish_non_exhaustive()
    }
}

impl<T: Send + Sync + 'static> Watch<T> {
    /// Looks at most so often; within a runtime. A look may take as long as it wants.
    pub(crate) fn start(
        every: Duration,
        clock: fn() -> Timestamp,
        look: impl Fn() -> Result<T, OpsError> + Send + Sync + 'static,
    ) -> Self {
        let (saw, looks) = watch::channel((None, None));
        let (asked, look) = (Arc::new(Notify::new()), Arc::new(look));
        let waits = asked.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! { () = waits.notified() => {}, () = saw.closed() => return }
                let look = look.clone();
                let Ok(what) = tokio::task::spawn_blocking(move || look()).await else { return };
                let what = what.map_err(|error| {
                    tracing::warn!(error = &error as &dyn std::error::Error, "the cluster cannot be looked at");
                    error.to_string()
                });
                saw.send_modify(|(last, before)| *before = last.replace(Arc::new(Seen { what, at: clock() })));
                sleep(every).await;
            }
        });
        Watch { looks, asked, every, clock }
    }

    /// The last two looks. Where the last is old, or there is none, it waits a little for another.
    pub(crate) async fn looks(&self) -> Looks<T> {
        let mut looks = self.looks.clone();
        looks.mark_unchanged();
        self.asked.notify_one();
        let fresh = |seen: &Arc<Seen<T>>| {
            Duration::try_from((self.clock)().duration_since(seen.at)).unwrap_or_default() < self.every * 3
        };
        if !looks.borrow().0.as_ref().is_some_and(fresh) {
            timeout(PATIENCE, looks.changed()).await.ok();
        }
        let (last, before) = &*looks.borrow();
        (last.clone(), before.clone())
    }
}
