//! Calls: what a stage has done outside, between two transactions and inside none.
//!
//! A call is kept with its parked record before it is made. It is made by a task of the process's runtime, many at a time;
//! its answer comes back to the loop, which settles it like any other work. If the process dies, the lease on the record
//! runs out, and whoever finds it makes the call again: under the same idempotency key, so nothing happens twice.

use crate::failpoint::Failpoint;
use crate::item::Item;
use crate::run::Clock;
use crate::stage::{Call, Stage};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;
use tokio::runtime::Handle;

/// Most calls that are out at a time; a provider that answers in 150 ms is then asked 1,700 times a second.
pub(crate) const MOST: usize = 256;

/// What calls are made with.
pub struct Caller<C: Call> {
    /// The runtime whose tasks make them.
    pub runtime: Handle,
    /// Clients and settings.
    pub means: C::Means,
}

/// Items of one key; the first waits for its call, the others behind it.
type Group<S> = Vec<Item<S>>;

pub(crate) struct Calls<S: Stage> {
    caller: Caller<S::Call>,
    clock: Clock,
    out: usize,
    answered: (Sender<Group<S>>, Receiver<Group<S>>),
    /// What [`Calls::wait`] has waited for.
    first: Option<Group<S>>,
}

impl<S: Stage> Calls<S> {
    pub(crate) fn new(caller: Caller<S::Call>, clock: Clock) -> Self {
        Calls { caller, clock, out: 0, answered: channel(), first: None }
    }

    /// Calls that are out.
    pub(crate) fn out(&self) -> usize {
        self.out
    }

    /// Waits so long for an answer; yields whether there is one.
    pub(crate) fn wait(&mut self, wait: Duration) -> bool {
        if self.first.is_none() {
            self.first = self.answered.1.recv_timeout(wait).ok();
        }
        self.first.is_some()
    }

    /// Makes the call of the first of these items.
    pub(crate) fn make(&mut self, mut group: Group<S>) {
        let Some(waited) = group.first_mut().and_then(|item| item.parked.as_mut()) else { return };
        let Some(call) = waited.call.take() else { return };
        let again = waited.lapsed;
        self.out += 1;
        let (sender, means, clock) = (self.answered.0.clone(), self.caller.means.clone(), self.clock);
        self.caller.runtime.spawn(async move {
            Failpoint::BeforeCall.pass();
            let answer = call.make(means, again).await;
            Failpoint::AfterCall.pass();
            if let Some(waited) = group.first_mut().and_then(|item| item.parked.as_mut()) {
                waited.answer = Some((answer, clock()));
            }
            // The loop has ended: the lease runs out, and the call is made again.
            sender.send(group).ok();
        });
    }

    /// The items whose calls have been answered, at most so many groups.
    pub(crate) fn answered(&mut self, most: usize) -> Vec<Item<S>> {
        let mut items = Vec::new();
        for group in self.first.take().into_iter().chain(self.answered.1.try_iter()).take(most) {
            self.out -= 1;
            items.extend(group);
        }
        items
    }
}
