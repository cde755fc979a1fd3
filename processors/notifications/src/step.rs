//! A step of a campaign: a look at stock, batches and subscriptions, and the batches that are planned upon it, all in one
//! transaction on a connection of its own, so that the loop never waits for a wave of a hundred thousand.
//!
//! A step that is made again after a crash finds the batches it had planned and adopts them; one that comes too late finds
//! that the campaign has gone on, and does nothing.

use crate::campaign::{Campaign, Doing, Tally, campaign_id, subject};
use crate::campaign_rows::{self as rows, Facts, Found};
use crate::fanout::{Fanout, FanoutSettings};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use waybill_events::Restocked;
use waybill_spine::{Call, Stage as _};
use waybill_store::{Store, StoreError, Tx};

/// A step to be made.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Step {
    pub(crate) restocked: Restocked,
    pub(crate) campaign: Campaign,
}

/// What a step came to.
#[derive(Clone, Debug, PartialEq)]
pub enum Looked {
    /// It is not time.
    Early {
        /// How long to wait.
        wait: Duration,
    },
    /// There is nothing to be had, or was not since the campaign began: nothing more is planned.
    SoldOut,
    /// Batches were planned, or nobody was there to plan for.
    Planned(Planned),
    /// Batches of the wave are on their way.
    Open,
    /// All batches of the wave are settled.
    Settled {
        /// What they came to.
        tally: Tally,
        /// Whether pieces are left, and people who wait for them.
        go_on: bool,
        /// When, by the database's clock.
        at: Timestamp,
    },
    /// It came to nothing, and why.
    Failed(String),
}

/// What was planned.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// Batches of each channel: email, push.
    pub(crate) batches: [i32; 2],
    /// The last subscription that was looked at.
    pub(crate) cursor: i64,
    /// When the first batch goes out.
    pub(crate) begins: Option<Timestamp>,
    /// People still to be planned.
    pub(crate) left: i64,
    /// Whether there may be some.
    pub(crate) more: bool,
    /// The stock's last version without anything, at the campaign's beginning.
    pub(crate) zero_version: i64,
}

/// Where steps are made.
#[derive(Clone, Debug)]
pub struct Planner(mpsc::UnboundedSender<(Step, oneshot::Sender<Looked>)>);

impl Planner {
    /// With a connection of its own to the database; `runtime` drives it.
    #[must_use]
    pub fn new(settings: FanoutSettings, mut store: Store, runtime: &Handle) -> Self {
        // As many steps as there are calls out, which the spine bounds.
        let (sender, mut steps) = mpsc::unbounded_channel::<(Step, oneshot::Sender<Looked>)>();
        runtime.spawn(async move {
            while let Some((step, reply)) = steps.recv().await {
                let looked = match step.look(&mut store, &settings).await {
                    Ok(looked) => looked,
                    Err(error) => {
                        tracing::warn!(%error, "a step of a campaign failed; it is made again");
                        Looked::Failed(error.to_string())
                    }
                };
                // The loop has ended: the step is made again.
                reply.send(looked).ok();
            }
        });
        Planner(sender)
    }
}

impl Call for Step {
    type Means = Planner;
    type Answer = Looked;

    async fn make(self, planner: Planner, _: bool) -> Looked {
        let (reply, looked) = oneshot::channel();
        planner.0.send((self, reply)).ok();
        looked.await.unwrap_or_else(|_| Looked::Failed("the planner has ended".to_owned()))
    }
}

impl Step {
    pub(crate) fn subject(&self) -> String {
        subject(&self.restocked)
    }

    pub(crate) fn campaign_id(&self) -> String {
        campaign_id(&self.subject())
    }

    async fn look(&self, store: &mut Store, settings: &FanoutSettings) -> Result<Looked, StoreError> {
        let mut tx = store.begin().await?;
        let mut locked = false;
        let looked = match rows::facts(&mut tx, &self.subject(), &self.restocked.product_id).await? {
            Some(facts) if facts.step == self.campaign.step => match self.campaign.doing {
                Doing::Plan => self.plan(&mut tx, &facts, settings).await?,
                Doing::Watch | Doing::Ended => self.watch(&mut tx, &facts, &mut locked).await?,
            },
            _ => Looked::Failed("the campaign has gone on".to_owned()),
        };
        tx.commit().await?;
        if locked {
            store.unlock_outbox(Fanout::NAME).await?;
        }
        Ok(looked)
    }

    async fn plan(&self, tx: &mut Tx<'_>, facts: &Facts, settings: &FanoutSettings) -> Result<Looked, StoreError> {
        let Campaign { wave, planned, zero_version: begun, .. } = &self.campaign;
        let wanted = wave.left.unwrap_or_else(|| settings.factor.of(facts.available));
        let zero_version = begun.unwrap_or(facts.last_zero_version);
        let found = rows::planned(tx, &self.campaign_id(), *planned).await?;
        if found.batches != [0; 2] {
            let Found { batches, people, to: cursor, begins } = found;
            let left = wanted - people;
            return Ok(Looked::Planned(Planned { batches, cursor, begins, left, more: true, zero_version }));
        }
        let sold_out = self.sold_out(facts);
        match wave.early(facts.now, begun.is_none()) {
            Some(wait) if begun.is_none() || !sold_out => return Ok(Looked::Early { wait }),
            Some(_) | None if sold_out => return Ok(Looked::SoldOut),
            Some(_) | None => {}
        }
        let reach = rows::reach(tx, self, facts, wanted, settings.portion).await?;
        rows::plan(tx, self, facts, (reach.to, wave.begins.unwrap_or(facts.now)), settings).await?;
        let Found { batches, begins, .. } = rows::planned(tx, &self.campaign_id(), *planned).await?;
        let (cursor, left, more) = (reach.to, wanted - reach.people, reach.rows >= settings.portion);
        Ok(Looked::Planned(Planned { batches, cursor, begins, left, more, zero_version }))
    }

    /// Batches that wait for their time are taken back once the product is sold out.
    async fn watch(&self, tx: &mut Tx<'_>, facts: &Facts, locked: &mut bool) -> Result<Looked, StoreError> {
        let (campaign_id, first) = (self.campaign_id(), self.campaign.wave.first);
        let sold_out = self.sold_out(facts);
        if sold_out && tx.lock_outbox(Fanout::NAME).await? {
            // Under the lock nobody is just publishing them.
            *locked = true;
            rows::take_back(tx, &campaign_id, first).await?;
        }
        let waits = rows::waits(tx, &campaign_id, &self.restocked.product_id, self.campaign.cursor).await?;
        if waits.open {
            return Ok(Looked::Open);
        }
        let tally = rows::tally(tx, &campaign_id, first).await?;
        Ok(Looked::Settled { tally, go_on: waits.waiting && !sold_out, at: facts.now })
    }

    fn sold_out(&self, facts: &Facts) -> bool {
        self.campaign.sold_out(facts.available, facts.last_zero_version)
    }
}

#[cfg(test)]
#[path = "step_adoption.rs"]
mod adoption;
