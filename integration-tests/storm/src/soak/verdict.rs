//! What was left of a soak: told by topics, tables, the provider's books and what the receivers got.

use super::world::{Soak, WANTED};
use anyhow::Context;
use sqlx::{Connection, PgConnection};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use waybill_checker::{Chain, Shop};
use waybill_harness::{count_topic, read_topic};

/// Sentences that are printed of one kind.
const ENOUGH: usize = 20;
/// An order mail may come twice where nobody knows whether it went. So many are in hand when a server goes away, and so
/// often one goes away that matters to them.
const REPEATS: usize = 200;

/// User and channel by subscription.
pub type Waiting = HashMap<i64, (String, String)>;

/// Who waits now.
pub async fn waiting(url: &str) -> anyhow::Result<Waiting> {
    let mut connection = PgConnection::connect(url).await?;
    let sql = "select id, user_id, channel from subscriptions where product_id = $1";
    let rows: Vec<(i64, String, String)> = sqlx::query_as(sql).bind(WANTED).fetch_all(&mut connection).await?;
    Ok(rows.into_iter().map(|(id, user, channel)| (id, (user, channel))).collect())
}

/// Every sentence that does not hold of what processes did.
pub async fn judge(soak: &Soak) -> anyhow::Result<Vec<String>> {
    let bootstrap = soak.world.cluster.bootstrap();
    let shop = Shop {
        bootstrap: bootstrap.clone(),
        prefix: String::new(),
        database: soak.database(),
        provider: soak.ledger.clone(),
    };
    let books = shop.check().await?;
    print!("{books}");
    let chain = Chain { units: soak.units, ..soak.world.chain() };
    let report = chain.check().await?;
    print!("{report}");
    let mut violations = [books.violations, report.violations].concat();
    let stages = ["pick", "pack", "ship", "restock", "fanout", "email", "push", "order-mail"];
    for stage in stages {
        let letters = count_topic(&bootstrap, &format!("dead.{stage}"))?;
        if letters > 0 {
            violations.push(format!("{letters} dead letters of {stage}"));
        }
    }
    violations.extend(order_mails(soak, &bootstrap)?);
    violations.extend(notices(soak, &bootstrap).await?);
    Ok(violations)
}

/// Each order has its mails, each of them once but for those of which nobody knows whether they went.
fn order_mails(soak: &Soak, bootstrap: &str) -> anyhow::Result<Vec<String>> {
    let mut expected = BTreeSet::new();
    for (topic, about) in [("checkout.completed", "confirmed"), ("orders.shipped", "shipped")] {
        let records = read_topic(bootstrap, topic)?;
        expected.extend(records.iter().filter_map(|record| Some(format!("{about}-{}", record.key_str()?))));
    }
    let [mails, _] = soak.receivers.arrived();
    let mut came: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
    for mail in mails.iter().filter(|mail| mail.user.starts_with("c-")) {
        *came.entry(&mail.delivery).or_default().entry(&mail.user).or_default() += 1;
    }
    let missing = expected.iter().filter(|delivery| !came.contains_key(delivery.as_str()));
    let mut violations: Vec<String> = missing.map(|delivery| format!("{delivery} did not come")).collect();
    let unasked = came.keys().filter(|delivery| !expected.contains(**delivery));
    violations.extend(unasked.map(|delivery| format!("{delivery:?} came, and nobody was to be written that")));
    violations.extend(came.iter().filter(|(_, users)| users.len() > 1).map(|(d, u)| format!("{d} came to {u:?}")));
    violations.truncate(ENOUGH);
    let repeats: usize = came.values().flat_map(BTreeMap::values).map(|times| times - 1).sum();
    println!(
        "{} order mails of {} came, {repeats} of them twice, under the same Message-ID",
        came.len(),
        expected.len()
    );
    if repeats > REPEATS {
        violations.push(format!("{repeats} order mails came again"));
    }
    Ok(violations)
}

/// Everybody who waited was told of a restock once, or it is not known, and waits on only where it says so.
async fn notices(soak: &Soak, bootstrap: &str) -> anyhow::Result<Vec<String>> {
    let mut violations = Vec::new();
    let mut results: HashMap<i64, Vec<String>> = HashMap::new();
    for channel in ["email", "push"] {
        let mut seen = BTreeSet::new();
        for record in read_topic(bootstrap, &format!("notifications.{channel}.results"))? {
            if !seen.insert(record.header("ce_id").context("a record without ce_id")?.to_owned()) {
                continue;
            }
            for one in record.json()?["people"].as_array().into_iter().flatten() {
                let id = one["subscription_id"].as_i64().context("a result without a subscription")?;
                results.entry(id).or_default().push(one["result"].as_str().unwrap_or_default().to_owned());
            }
        }
    }
    let [mails, pushes] = soak.receivers.arrived();
    let mut told: HashMap<&str, usize> = HashMap::new();
    for arrival in mails.iter().chain(&pushes).filter(|arrival| arrival.user.starts_with("w-")) {
        *told.entry(&arrival.user).or_default() += 1;
    }
    let left = waiting(&soak.database()).await?;
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (id, (user, channel)) in &soak.waiting {
        let said = results.get(id).map(Vec::as_slice).unwrap_or_default();
        let of = |result: &str| said.iter().filter(|one| *one == result).count();
        said.iter().for_each(|one| *counts.entry(one).or_default() += 1);
        let (sent, unknown, came) = (of("sent"), of("unknown"), told.get(user.as_str()).copied().unwrap_or(0));
        let once = sent <= 1 && (sent..=sent + unknown).contains(&came) && sent + unknown == said.len();
        if !once || (sent == 1) == left.contains_key(id) || said.is_empty() {
            let waits = left.contains_key(id);
            violations.push(format!("{user} by {channel}: results {said:?}, {came} came, waits on: {waits}"));
        }
    }
    println!("{} people waited for {WANTED}: {counts:?}, {} wait on", soak.waiting.len(), left.len());
    let sent = counts.get("sent").copied().unwrap_or(0);
    if sent * 10 < soak.waiting.len() * 9 {
        violations.push(format!("only {sent} of {} were told for certain", soak.waiting.len()));
    }
    violations.truncate(ENOUGH);
    Ok(violations)
}
