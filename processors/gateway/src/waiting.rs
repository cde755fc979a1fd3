//! Requests that wait for the outcome of their checkout.
//!
//! A request registers before its message is published, so no outcome can come before it.

use crate::outcome::Outcome;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::oneshot::{Receiver, Sender, channel};

/// Who waits, by order id. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Waiting(Arc<Mutex<HashMap<String, Sender<Outcome>>>>);

impl Waiting {
    pub(crate) fn register(&self, order_id: &str) -> Waiter {
        let (sender, outcome) = channel();
        self.locked(|waiting| waiting.insert(order_id.to_owned(), sender));
        Waiter { order_id: order_id.to_owned(), waiting: self.clone(), outcome }
    }

    /// Wakes the request that waits for this order, if it waits here.
    pub(crate) fn wake(&self, order_id: &str, outcome: impl FnOnce() -> Outcome) {
        if let Some(sender) = self.locked(|waiting| waiting.remove(order_id)) {
            // The request may have given up just now.
            sender.send(outcome()).ok();
        }
    }

    fn locked<T>(&self, act: impl FnOnce(&mut HashMap<String, Sender<Outcome>>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A place in the map, given up when this is dropped.
pub(crate) struct Waiter {
    order_id: String,
    waiting: Waiting,
    /// The outcome, once.
    pub outcome: Receiver<Outcome>,
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.waiting.locked(|waiting| waiting.remove(&self.order_id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_is_woken_once_and_leaves_nothing_behind() {
        let waiting = Waiting::default();
        waiting.wake("o-1", || Outcome::Confirmed);
        let mut first = waiting.register("o-1");
        let second = waiting.register("o-2");
        waiting.wake("o-1", || Outcome::Confirmed);
        waiting.wake("o-1", || unreachable!("nobody waits any more"));
        assert_eq!((&mut first.outcome).await, Ok(Outcome::Confirmed));
        drop((first, second));
        assert!(waiting.locked(|waiting| waiting.is_empty()));
    }
}
