//! What messages go out by: the provider, its lane, and the bounds of what a process has in the air.

use super::Verdict;
use super::email::Mailer;
use super::lane::{Lane, Leased};
use super::part::Notice;
use super::people::Reach;
use super::settings::{Rates, Shop};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, timeout_at};
use waybill_store::{Store, StoreError};

/// Longest wait of a call for its turn, and then for its slots: most of a call's time is for sending.
const TURN: Duration = Duration::from_secs(5);
const SLOTS: Duration = Duration::from_secs(2);

/// What messages go out by. Cloning it gives the same one.
#[derive(Clone, Debug)]
pub struct Outlet(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    provider: Provider,
    lane: Lane,
    shop: Shop,
    /// Calls that may take slots: no more than what can be sent in their time.
    turns: Semaphore,
    /// Messages that may be with the provider. Of mails, one for each connection, and one that follows it at once.
    messages: Semaphore,
    connections: Mutex<(Store, Vec<Store>)>,
}

#[derive(Debug)]
pub(super) enum Provider {
    Mail(Box<Mailer>),
    Push(Box<waybill_push::Push>),
}

/// Times of messages, one after the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Slots {
    first: Instant,
    every: Duration,
}

impl Slots {
    pub fn nth(self, index: usize) -> Instant {
        self.first + self.every * u32::try_from(index).unwrap_or(u32::MAX)
    }
}

impl Outlet {
    /// For mails of campaigns; `connections` is how many the mailer has.
    #[must_use]
    pub fn email(mailer: Mailer, connections: usize, shop: Shop, rates: Rates, store: Store) -> Self {
        let lane = Lane { name: "email", per_second: rates.email };
        Outlet::new(Provider::Mail(Box::new(mailer)), lane, shop, (2 * connections, 2 * connections), store)
    }

    /// For mails about orders.
    #[must_use]
    pub fn orders(mailer: Mailer, connections: usize, shop: Shop, rates: Rates, store: Store) -> Self {
        let lane = Lane { name: "orders", per_second: rates.orders };
        Outlet::new(Provider::Mail(Box::new(mailer)), lane, shop, (4 * connections, 2 * connections), store)
    }

    /// For push messages.
    #[must_use]
    pub fn push(push: waybill_push::Push, shop: Shop, rates: Rates, store: Store) -> Self {
        let lane = Lane { name: "push", per_second: rates.push };
        Outlet::new(Provider::Push(Box::new(push)), lane, shop, (16, 256), store)
    }

    fn new(provider: Provider, lane: Lane, shop: Shop, (turns, messages): (usize, usize), store: Store) -> Self {
        let (turns, messages) = (Semaphore::new(turns), Semaphore::new(messages));
        Outlet(Arc::new(Inner { provider, lane, shop, turns, messages, connections: Mutex::new((store, Vec::new())) }))
    }

    pub(super) fn provider(&self) -> &Provider {
        &self.0.provider
    }

    pub(super) fn shop(&self) -> &Shop {
        &self.0.shop
    }

    /// A turn, held while the call lasts; none in time.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        timeout_at(Instant::now() + TURN, self.0.turns.acquire()).await.ok()?.ok()
    }

    /// Leave to hand a message to the provider; none until `until`.
    pub(super) async fn leave(&self, until: Instant) -> Option<SemaphorePermit<'_>> {
        timeout_at(until, self.0.messages.acquire()).await.ok()?.ok()
    }

    /// A connection to the database, as many as there are turns.
    pub(super) fn connect(&self) -> Store {
        let mut connections = self.0.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.1.pop().unwrap_or_else(|| connections.0.another())
    }

    /// Gives it back.
    pub(super) fn give_back(&self, store: Store) {
        self.0.connections.lock().unwrap_or_else(PoisonError::into_inner).1.push(store);
    }

    /// Slots for so many messages; if there are none soon, how long it takes.
    pub(super) async fn slots(&self, store: &mut Store, messages: u32) -> Result<Result<Slots, Duration>, StoreError> {
        let until = Instant::now() + SLOTS;
        loop {
            match self.0.lane.lease(store, messages).await? {
                Leased::From(wait) => {
                    return Ok(Ok(Slots { first: Instant::now() + wait, every: self.0.lane.every() }));
                }
                Leased::NotBefore(wait) if Instant::now() + wait > until => return Ok(Err(wait)),
                Leased::NotBefore(wait) => sleep(wait).await,
            }
        }
    }

    /// Lets nothing out for so long, in any process.
    pub(super) async fn close(&self, store: &mut Store, wait: Duration, why: &str) {
        let lane = self.0.lane.name;
        match self.0.lane.close(store, wait).await {
            Ok(()) => tracing::warn!(lane, why, wait = ?wait, "nothing is sent for a while"),
            Err(error) => tracing::warn!(lane, %error, "the lane cannot be closed; its next message finds out anew"),
        }
    }

    /// Sends one message. What is not answered by `until` is unknown.
    pub(super) async fn tell(&self, notice: &Notice, subscription_id: i64, reach: &Reach, until: Instant) -> Verdict {
        match &self.0.provider {
            Provider::Mail(mailer) => mailer.tell(&self.0.shop, notice, subscription_id, reach, until).await,
            Provider::Push(push) => timeout_at(until, super::push::tell(push, &self.0.shop, notice, reach))
                .await
                .unwrap_or_else(|_| Verdict::Unknown("no answer in time".to_owned())),
        }
    }
}
