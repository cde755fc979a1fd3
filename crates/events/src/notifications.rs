//! Who waits for a product, and what they are told: from the restock to what became of each notice.

use crate::rules;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use waybill_spine::Event;
use waybill_telemetry::Waybill;

/// Most people of one batch.
pub const MAX_BATCH: u32 = 100;

/// `inventory.restocked`: a product that could not be had can be had again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restocked {
    /// The product.
    pub product_id: String,
    /// The level that left nothing; 0 if the product was never to be had before. Each is left behind once.
    pub zero_version: i64,
    /// The level that says so.
    pub version: i64,
    /// Pieces to be had then.
    pub available: i64,
    /// When they came.
    pub restocked_at: Timestamp,
    /// When people may be told: later where the product came and went a short while before.
    pub tell_at: Timestamp,
    /// The spans so far; the spine writes it.
    #[serde(default)]
    pub waybill: Waybill,
}

impl Event for Restocked {
    const TOPIC: &'static str = "inventory.restocked";
    const SCHEMA: &'static str = "inventory.restocked.v1";

    fn key(&self) -> &str {
        &self.product_id
    }
    fn waybill(&self) -> &Waybill {
        &self.waybill
    }
    fn set_waybill(&mut self, waybill: &Waybill) {
        self.waybill.clone_from(waybill);
    }
    fn check(&self) -> Result<(), String> {
        rules::id("product_id", &self.product_id)?;
        rules::waybill(&self.waybill)?;
        if self.available < 1 || !(0..self.version).contains(&self.zero_version) {
            return Err("available counts from 1, zero_version from 0 to before version".to_owned());
        }
        if self.tell_at < self.restocked_at {
            return Err("tell_at is not before restocked_at".to_owned());
        }
        Ok(())
    }
}

/// People to be told of one restock by one channel: those who wait for the product by this channel and whose subscriptions
/// are numbered from after `after` to `to`. The topics carry no list: who has unsubscribed meanwhile is not told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// `<campaign>.<number>`; told once.
    pub batch_id: String,
    /// The restock they are told of.
    pub campaign_id: String,
    /// The product.
    pub product_id: String,
    /// When it came back.
    pub restocked_at: Timestamp,
    /// Counts the batches of the campaign and the channel from 0.
    pub index: u32,
    /// How many people there were when it was planned.
    pub size: u32,
    /// The last subscription before them.
    pub after: i64,
    /// The last subscription among them.
    pub to: i64,
    /// The spans so far.
    #[serde(default)]
    pub waybill: Waybill,
}

impl Batch {
    fn check(&self) -> Result<(), String> {
        rules::id("batch_id", &self.batch_id)?;
        rules::id("campaign_id", &self.campaign_id)?;
        rules::id("product_id", &self.product_id)?;
        rules::between("size", self.size, 1, MAX_BATCH)?;
        rules::waybill(&self.waybill)?;
        if self.after < 0 || self.to <= self.after {
            return Err("after counts from 0, to from the one after it".to_owned());
        }
        Ok(())
    }
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Results {
    /// The batch.
    pub batch_id: String,
    /// The restock they were told of.
    pub campaign_id: String,
    /// The product.
    pub product_id: String,
    /// Who was told, or was tried. Who is not here was not told and waits on.
    pub people: Vec<Told>,
    /// The product sold out before all were told.
    pub sold_out: bool,
    /// The spans so far; the spine writes it.
    #[serde(default)]
    pub waybill: Waybill,
}

/// What became of one notice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The subscription.
    pub subscription_id: i64,
    /// Whose it is.
    pub user_id: String,
    /// What became of it.
    pub result: Tell,
}

/// What became of a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tell {
    /// The provider has it: the subscription has done its work.
    Sent,
    /// The provider may have it. It is not sent again of this restock; the subscription waits for the next one.
    Unknown,
    /// It could not be sent, or the provider would not take it: the subscription waits for the next restock.
    Failed,
    /// There is no address, or none that takes anything any more: the subscription has ended.
    Unreachable,
}

impl Tell {
    /// As in events, spans and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Tell::Sent => "sent",
            Tell::Unknown => "unknown",
            Tell::Failed => "failed",
            Tell::Unreachable => "unreachable",
        }
    }
}

impl Results {
    /// The rules of both channels: see [`Event::check`].
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), String> {
        rules::id("batch_id", &self.batch_id)?;
        rules::id("campaign_id", &self.campaign_id)?;
        rules::id("product_id", &self.product_id)?;
        rules::waybill(&self.waybill)?;
        if self.people.len() > MAX_BATCH as usize {
            return Err(format!("people: there must be at most {MAX_BATCH} of them, not {}", self.people.len()));
        }
        let mut seen = BTreeSet::new();
        for told in &self.people {
            rules::id("user_id", &told.user_id)?;
            if told.subscription_id < 1 || !seen.insert(told.subscription_id) {
                return Err(format!("subscription {} stands twice, or does not count from 1", told.subscription_id));
            }
        }
        Ok(())
    }
}

macro_rules! channel {
    ($(#[$doc:meta])* $name:ident, $of:ty, $topic:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $of);

        impl Event for $name {
            const TOPIC: &'static str = $topic;
            const SCHEMA: &'static str = concat!($topic, ".v1");

            fn key(&self) -> &str {
                &self.0.batch_id
            }
            fn waybill(&self) -> &Waybill {
                &self.0.waybill
            }
            fn set_waybill(&mut self, waybill: &Waybill) {
                self.0.waybill.clone_from(waybill);
            }
            fn check(&self) -> Result<(), String> {
                self.0.check()
            }
        }
    };
}

channel! {
    /// `notifications.email`: see [`Batch`].
    EmailBatch, Batch, "notifications.email"
}
channel! {
    /// `notifications.push`: see [`Batch`].
    PushBatch, Batch, "notifications.push"
}
channel! {
    /// `notifications.email.results`: see [`Results`].
    EmailResults, Results, "notifications.email.results"
}
channel! {
    /// `notifications.push.results`: see [`Results`].
    PushResults, Results, "notifications.push.results"
}
