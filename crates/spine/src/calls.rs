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
use std::time::{Duration, Instant};
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
    first: Vec<Group<S>>,
}

impl<S: Stage> Calls<S> {
    pub(crate) fn new(caller: Caller<S::Call>, clock: Clock) -> Self {
        Calls { caller, clock, out: 0, answered: channel(), first: Vec::new() }
    }

    /// Calls that are out.
    pub(crate) fn out(&self) -> usize {
        self.out
    }

    /// Waits so long for an answer, and then for others; yields whether there is one.
    pub(crate) fn wait(&mut self, wait: Duration, gather: Duration) -> bool {
        if self.first.is_empty() {
            self.first.extend(self.answered.1.recv_timeout(wait));
        }
        let until = Instant::now() + gather;
        while !self.first.is_empty()
            && let Ok(other) = self.answered.1.recv_timeout(until.saturating_duration_since(Instant::now()))
        {
            self.first.push(other);
        }
        !self.first.is_empty()
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
        let room = most.saturating_sub(self.first.len());
        self.first.extend(self.answered.1.try_iter().take(room));
        let groups = self.first.drain(..most.min(self.first.len()));
        self.out -= groups.len();
        groups.flatten().collect()
    }
}
