//! `waybill produce subscribers`: plays people who wait for a product, over the gateway's HTTP API.

use crate::checkouts::Shopper;
use crate::exit::Ended;
use crate::{produce, stock};
use anyhow::Context;
use clap::{Args as ClapArgs, ValueEnum};
use indicatif::ProgressBar;
use reqwest::Method;
use serde_json::{Value, json};
use std::time::Instant;
use tokio::task::JoinSet;

/// The keys of a browser, those of the example of RFC 8291: nobody reads what is sent to these people.
const P256DH: &str = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
const AUTH: &str = "BTBZMqHH6r4Tts7J_aSIgg";
/// Failures that are told one by one.
const TOLD: usize = 5;

/// Who waits for what.
#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Each is a user with an address of their own at --domain, a made-up device, or both: whoever sends to them \
needs a mail server that keeps what it gets, and a stand-in for Firebase, or for the browsers' push services (--browsers).\n\n\
It exits with 3 where somebody could not subscribe."
)]
pub struct Args {
    /// The product
    #[arg(long, value_name = "ID", value_parser = stock::product)]
    product: String,
    /// How many people
    #[arg(long, short = 'n', default_value_t = 250)]
    count: u64,
    /// How they are to be told
    #[arg(long, value_enum, default_value_t = Channels::Both)]
    channel: Channels,
    /// Pieces that each wants
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    quantity: u32,
    /// A seed gives the same people: sent again, they wait already
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What follows the @ of their addresses
    #[arg(long, default_value = "example.com")]
    domain: String,
    /// Their devices are browsers, whose push service is at this address (an origin of push.origins), not apps
    #[arg(long, value_name = "URL")]
    browsers: Option<String>,
    /// The gateway
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    url: String,
    /// People at a time
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=512))]
    concurrency: u16,
}

/// How people are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Channels {
    /// By mail
    Email,
    /// By push message
    Push,
    /// By mail and by push message
    Both,
}

/// People who wait for a product.
#[derive(Clone, Debug)]
pub struct Crowd {
    /// The product.
    pub product: String,
    /// How they are told.
    pub channels: Channels,
    /// Pieces that each wants.
    pub quantity: u32,
    /// Of their names.
    pub seed: u64,
    /// Of their addresses.
    pub domain: String,
    /// The push service of their browsers; without it they have apps.
    pub browsers: Option<String>,
}

/// Runs the command.
pub fn subscribers(args: &Args) -> anyhow::Result<Ended> {
    waybill_telemetry::log_to_stderr("info");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let shopper = Shopper::new(&args.url)?;
        // Once, not a minute for each of them.
        shopper.wait_until_open().await.context("start one with `waybill run all`, or name yours with --url")?;
        let crowd = Crowd {
            product: args.product.clone(),
            channels: args.channel,
            quantity: args.quantity,
            seed: args.seed,
            domain: args.domain.clone(),
            browsers: args.browsers.clone(),
        };
        let (bar, begun) = (produce::bar(args.count, "people"), Instant::now());
        let counted = subscribe(&shopper, &crowd, args.count, args.concurrency.into(), &bar).await;
        bar.finish();
        let Counted { new, known, failed } = counted;
        println!("{new} subscribed, {known} had before, in {:.1} s", begun.elapsed().as_secs_f64());
        failed.iter().take(TOLD).for_each(|failure| eprintln!("{failure:#}"));
        if failed.is_empty() {
            return Ok(Ended::Done);
        }
        eprintln!("{} people could not subscribe", failed.len());
        Ok(Ended::InPart)
    })
}

/// What it came to.
#[derive(Debug, Default)]
pub struct Counted {
    /// Subscriptions that are new.
    pub new: u64,
    /// Those that were there.
    pub known: u64,
    /// People who could not subscribe.
    pub failed: Vec<anyhow::Error>,
}

/// A person of a crowd.
pub fn person(seed: u64, number: u64) -> String {
    format!("w-{seed}-{number}")
}

/// Lets so many people of a crowd subscribe, some at a time.
pub async fn subscribe(shopper: &Shopper, crowd: &Crowd, count: u64, concurrency: usize, bar: &ProgressBar) -> Counted {
    let (mut counted, mut out) = (Counted::default(), JoinSet::new());
    let mut told = |ended: Option<Result<anyhow::Result<(u64, u64)>, _>>| {
        match ended {
            None => return,
            Some(Ok(Ok((new, known)))) => (counted.new, counted.known) = (counted.new + new, counted.known + known),
            Some(Ok(Err(error))) => counted.failed.push(error),
            Some(Err(error)) => counted.failed.push(anyhow::Error::from(error)),
        }
        bar.inc(1);
    };
    for number in 0..count {
        while out.len() >= concurrency {
            told(out.join_next().await);
        }
        let (shopper, crowd) = (shopper.clone(), crowd.clone());
        out.spawn(async move { crowd.one(&shopper, number).await });
    }
    while !out.is_empty() {
        told(out.join_next().await);
    }
    counted
}

impl Crowd {
    /// New and known subscriptions of this person.
    async fn one(&self, shopper: &Shopper, number: u64) -> anyhow::Result<(u64, u64)> {
        let user = person(self.seed, number);
        self.subscribe(shopper, &user).await.with_context(|| user.clone())
    }

    async fn subscribe(&self, shopper: &Shopper, user: &str) -> anyhow::Result<(u64, u64)> {
        let (mut new, mut known) = (0, 0);
        for channel in self.channels.each() {
            let (method, path, contact) = self.contact(channel, user);
            shopper.send(method, &path, &[], &contact).await?.expect(&[200, 201, 204])?;
            let path = format!("/api/products/{}/subscriptions", self.product);
            let wanted = json!({"userId": user, "channel": channel, "quantity": self.quantity});
            match shopper.send(Method::POST, &path, &[], &wanted).await?.expect(&[200, 201])?.status {
                201 => new += 1,
                _ => known += 1,
            }
        }
        Ok((new, known))
    }

    fn contact(&self, channel: &str, user: &str) -> (Method, String, Value) {
        if channel == "email" {
            let email = format!("{user}@{}", self.domain);
            (Method::PUT, format!("/api/users/{user}/email"), json!({"email": email, "name": format!("Person {user}")}))
        } else {
            let target = match &self.browsers {
                Some(url) => json!({"endpoint": format!("{url}/{user}"), "keys": {"p256dh": P256DH, "auth": AUTH}}),
                None => json!({"fcmToken": format!("token-of-{user}")}),
            };
            (Method::POST, format!("/api/users/{user}/push-targets"), target)
        }
    }
}

impl Channels {
    fn each(self) -> impl Iterator<Item = &'static str> {
        [("email", self != Channels::Push), ("push", self != Channels::Email)]
            .into_iter()
            .filter_map(|(channel, wanted)| wanted.then_some(channel))
    }
}
