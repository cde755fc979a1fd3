//! The second act: people wait for what sold out. It comes back, and they are told, wave by wave, until it is gone again.

use super::stand::Stand;
use super::watch::Watch;
use crate::checkouts::{Pace, Scenario, Shopper, Visit, send, visit};
use crate::subscribers::{Channels, Crowd, person, subscribe};
use crate::{produce, restock, stock};
use indicatif::ProgressBar;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use waybill_spine::{KafkaConfig, KafkaSink};

/// People who wait: to be told by mail, by push message.
pub const WAITING: (u64, u64) = (200, 50);
/// Pieces that come back: three times as many people are told at once.
pub const PIECES: usize = 40;
const WAVE: usize = 3 * PIECES;
/// Those of the first wave who buy one; so many of the second buy the rest.
const BUYERS: usize = 30;
/// Number of the first visit: beyond those of the first act.
const FIRST: u64 = 1_000_000;
/// People who subscribe at a time, and customers who buy.
const AT_A_TIME: usize = 8;
/// Longest time a wave may take.
const LIMIT: Duration = Duration::from_secs(60);
/// How long the last mails are waited for.
const LAST_MAILS: Duration = Duration::from_secs(3);

/// What came of it.
pub struct Restocked {
    /// The product.
    pub product: String,
    /// From the delivery to the first results.
    pub first: Duration,
    /// Orders of people who were told.
    pub bought: u64,
}

/// A gateway's customers, and what they can buy.
pub struct Customers<'a> {
    /// Whose tasks they are.
    pub runtime: &'a Runtime,
    /// How they reach the gateway.
    pub shopper: &'a Shopper,
    /// What the shop sells.
    pub products: &'a Arc<BTreeMap<String, Value>>,
    /// Of the whole demo.
    pub seed: u64,
}

/// Plays the act.
///
/// # Errors
/// It takes too long, or somebody cannot subscribe.
pub fn play(
    customers: &Customers<'_>,
    kafka: &KafkaConfig,
    stand: &Stand,
    watch: &mut Watch,
) -> anyhow::Result<Restocked> {
    let product = visit(Scenario::SoldOut, customers.seed, 0).lines.into_iter().next().unwrap_or_default().0;
    customers.wait_for(&product, stand)?;
    let delivered = Instant::now();
    let mut sink = KafkaSink::connect(kafka, "produce")?;
    let delivery = restock::delivery(&product, i64::try_from(PIECES)?);
    produce::publish(&mut sink, &[stock::message(delivery)?])?;
    let told = produce::bar(WAITING.0 + WAITING.1, "told of it");
    watch_until(watch, 1, &told)?;
    let first = delivered.elapsed();
    watch_until(watch, WAVE, &told)?;
    let before = watch.ended();
    let mut bought = customers.buy(&product, watch, 0, BUYERS);
    // The second wave: three times what is left.
    watch_until(watch, WAVE + PIECES - BUYERS, &told)?;
    bought += customers.buy(&product, watch, WAVE, PIECES - BUYERS);
    told.abandon();
    let begun = Instant::now();
    // They have addresses, so each is written to twice more: confirmed, shipped.
    let mails = customers.told_by_mail(watch, 0).count() as u64 + 2 * bought;
    while watch.ended() < before + bought || (stand.mailbox.count() < mails && begun.elapsed() < LAST_MAILS) {
        anyhow::ensure!(begun.elapsed() < LIMIT, "the demo is stuck: {} orders ended", watch.ended());
        watch.look(Duration::from_millis(20))?;
    }
    Ok(Restocked { product, first, bought })
}

/// Waits until so many people are told.
fn watch_until(watch: &mut Watch, people: usize, bar: &ProgressBar) -> anyhow::Result<()> {
    let begun = Instant::now();
    while watch.told().len() < people {
        anyhow::ensure!(begun.elapsed() < LIMIT, "the demo is stuck: {} people are told", watch.told().len());
        watch.look(Duration::from_millis(20))?;
        bar.set_position(watch.told().len() as u64);
    }
    Ok(())
}

impl Customers<'_> {
    /// Subscribes everybody who waits, those of both channels at the same time.
    fn wait_for(&self, product: &str, stand: &Stand) -> anyhow::Result<()> {
        let crowd = |channels, seed| Crowd {
            product: product.to_owned(),
            channels,
            quantity: 1,
            seed,
            domain: "example.com".to_owned(),
            browsers: Some(stand.browsers.clone()),
        };
        let (by_mail, by_push) = (crowd(Channels::Email, self.by_mail()), crowd(Channels::Push, self.by_mail() + 1));
        let bar = produce::bar(WAITING.0 + WAITING.1, "wait for one");
        let both = self.runtime.block_on(async {
            tokio::join!(
                subscribe(self.shopper, &by_mail, WAITING.0, AT_A_TIME, &bar),
                subscribe(self.shopper, &by_push, WAITING.1, AT_A_TIME / 4, &bar),
            )
        });
        bar.abandon();
        both.0.failed.into_iter().chain(both.1.failed).next().map_or(Ok(()), Err)
    }

    /// People who were told by mail, after so many others.
    fn told_by_mail<'w>(&self, watch: &'w Watch, after: usize) -> impl Iterator<Item = &'w String> + use<'w> {
        let of_mail = person(self.by_mail(), 0).trim_end_matches('0').to_owned();
        watch.told().iter().skip(after).filter(move |user| user.starts_with(&of_mail))
    }

    /// The seed of those who wait by mail.
    fn by_mail(&self) -> u64 {
        2 * self.seed
    }

    /// So many of the people who were told by mail, after so many others, buy a piece each; yields how many got one.
    fn buy(&self, product: &str, watch: &Watch, after: usize, count: usize) -> u64 {
        let buyers = self.told_by_mail(watch, after).take(count);
        let visits: Vec<Visit> = (FIRST + after as u64..)
            .zip(buyers)
            .map(|(number, user)| Visit {
                user: user.clone(),
                key: format!("again-{user}"),
                lines: vec![(product.to_owned(), 1)],
                ..visit(Scenario::Normal, self.seed, number)
            })
            .collect();
        let pace = Pace { rate: 0.0, concurrency: AT_A_TIME };
        let hidden = ProgressBar::hidden();
        self.runtime.block_on(send(self.shopper, self.products, visits.into_iter(), pace, &hidden)).orders()
    }
}
