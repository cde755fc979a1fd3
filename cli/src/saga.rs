//! `waybill saga`: checkouts that are not at their end, for people on call.

use crate::config::Config;
use crate::exit::Ended;
use clap::builder::PossibleValuesParser;
use clap::builder::TypedValueParser as _;
use clap::{Args as ClapArgs, Subcommand};
use std::fmt::Write as _;
use std::time::Duration;
use waybill_checkout::{Abort, Awaits, Open, Resume, Standing, Status, Wait, abort, count, find, list, resume};
use waybill_money::{Currency, Money};
use waybill_store::Store;

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Those that wait for a payment or a refund, and those that became dead letters; the oldest first
    List(List),
    /// All that is kept of one, and what happens next
    Show(Show),
    /// Make what waits due at once, so that a process takes it
    Resume(One),
    /// End one as a business decision: what was done is undone, once the payment that is out is known
    Abort(One),
}

/// Which.
#[derive(Debug, ClapArgs)]
pub struct List {
    /// Only those that stand so
    #[arg(long, value_name = "STATUS", value_parser = standing())]
    status: Option<Standing>,
    /// Only those that were asked for so long ago, for example 10m or 2h
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    older: Duration,
    /// Most of them
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=10_000))]
    limit: i64,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Which, and how.
#[derive(Debug, ClapArgs)]
pub struct Show {
    #[command(flatten)]
    one: One,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// Which.
#[derive(Debug, ClapArgs)]
pub struct One {
    /// Order id
    order: String,
}

fn standing() -> impl clap::builder::TypedValueParser<Value = Standing> {
    let open: Vec<Standing> = Standing::ALL.into_iter().filter(|standing| *standing != Standing::Ended).collect();
    PossibleValuesParser::new(open.iter().map(|standing| standing.name()))
        .try_map(move |name| open.iter().copied().find(|standing| standing.name() == name).ok_or("not a status"))
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed: Option<jiff::SignedDuration> = text.parse().ok();
    parsed.and_then(|d| Duration::try_from(d).ok()).ok_or_else(|| "not a duration such as 10m or 2h".to_owned())
}

/// Runs the command.
pub fn saga(config: &Config, command: &Command) -> anyhow::Result<Ended> {
    waybill_telemetry::log_to_stderr("info");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut store = config.migrated_store().await?;
        match command {
            Command::List(args) => listed(&mut store, args).await,
            Command::Show(args) => shown(&mut store, args).await,
            Command::Resume(One { order }) => resumed(order, resume(&mut store, order).await?),
            Command::Abort(One { order }) => aborted(order, abort(&mut store, order).await?),
        }
    })
}

async fn listed(store: &mut Store, args: &List) -> anyhow::Result<Ended> {
    let open = list(store, args.status, args.older, args.limit).await?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&open)?);
        return Ok(Ended::Done);
    }
    let counts = count(store).await?;
    if !open.is_empty() {
        println!("{}", table(&open));
    }
    let total: i64 = counts.iter().map(|(_, count)| count).sum();
    let counts: Vec<String> = counts.iter().map(|(standing, count)| format!("{count} {}", standing.name())).collect();
    println!("{total} open{}{}", if total > 0 { ": " } else { "" }, counts.join(", "));
    Ok(Ended::Done)
}

fn table(open: &[Open]) -> String {
    let mut text = format!(
        "{:<36}  {:<9}  {:<10}  {:<18}  {:>8}  {:>7}  {:<7}  next try",
        "order", "status", "checkout", "step", "age", "attempt", "awaits"
    );
    for Open { order_id, standing, age, waits, saga } in open {
        let attempt =
            if saga.unknown == 0 { saga.attempt.to_string() } else { format!("{}+{}", saga.attempt, saga.unknown) };
        let awaits = saga.awaits.map_or("", awaited);
        let next = waits.as_ref().map_or_else(|| "none".to_owned(), next_try);
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "\n{order_id:<36}  {:<9}  {:<10}  {:<18}  {:>8}  {attempt:>7}  {awaits:<7}  {next}",
            standing.name(),
            word(&saga.status),
            word(&saga.step),
            human(*age),
        );
    }
    text
}

/// A value's name in JSON.
fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|name| name.as_str().map(str::to_owned)).unwrap_or_default()
}

fn awaited(awaits: Awaits) -> &'static str {
    match awaits {
        Awaits::Charge => "charge",
        Awaits::Refund => "refund",
    }
}

fn next_try(wait: &Wait) -> String {
    match wait.in_hand {
        Some(lease) => format!("now; once more in {} if nobody answers", human(lease)),
        None if wait.next_try.is_zero() => "due".to_owned(),
        None => format!("in {}", human(wait.next_try)),
    }
}

fn human(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        172_800.. => format!("{} d", seconds / 86_400),
    }
}

async fn shown(store: &mut Store, args: &Show) -> anyhow::Result<Ended> {
    let order = &args.one.order;
    let Some(open) = find(store, order).await? else { return Ok(unknown(order)) };
    if args.json {
        println!("{}", serde_json::to_string_pretty(&open)?);
    } else {
        print!("{}", story(&open));
    }
    Ok(Ended::Done)
}

/// Everything that is kept, a line each, and what comes next.
fn story(open: &Open) -> String {
    let saga = &open.saga;
    let mut lines = vec![
        ("order", open.order_id.clone()),
        ("status", format!("{}, {}", word(&saga.status), open.standing.name())),
        ("step", word(&saga.step)),
        ("asked for", format!("{} ({} ago)", saga.requested_at, human(open.age))),
        ("customer", format!("{}, cart {}", saga.customer_id, saga.cart_id)),
        ("goes to", format!("{}, {}", saga.country, word(&saga.service))),
    ];
    for bought in &saga.lines {
        let what = format!("{} × {} ({})", bought.line.quantity, bought.line.product_id, bought.line.sku);
        lines.push(("line", format!("{what} at {}", bought.price)));
    }
    if let Some(total) = &saga.total {
        lines.push(("total", money(total.amount_minor, &total.currency)));
        if saga.refunded_minor > 0 {
            lines.push(("paid back", money(saga.refunded_minor, &total.currency)));
        }
    }
    lines.push(("charge", saga.charge_id.clone().unwrap_or_else(|| "none that is known".to_owned())));
    lines.push(("attempt", saga.attempt.to_string()));
    if let Some(since) = saga.unknown_since {
        lines.push(("unknown", format!("asked {} times in vain, since {since}", saga.unknown)));
    }
    if let Some(failure) = &saga.failure {
        let products =
            if failure.products.is_empty() { String::new() } else { format!(": {}", failure.products.join(", ")) };
        lines.push(("failure", format!("{} at {}{products}", word(&failure.reason), word(&failure.step))));
    }
    if let Some(wait) = &open.waits {
        lines.push(("waits", format!("for {} already: {}", human(wait.waited), wait.why)));
    }
    lines.push(("next", next(open)));
    lines.iter().map(|(name, value)| format!("{name:>9}  {value}\n")).collect()
}

fn money(amount: i64, currency: &str) -> String {
    Currency::from_code(currency).map_or_else(|| format!("{amount} {currency}"), |c| Money::new(amount, c).to_string())
}

/// What happens next, and when.
fn next(open: &Open) -> String {
    let Some(wait) = &open.waits else {
        return match open.standing {
            Standing::Ended => "nothing: it is at its end".to_owned(),
            _ if open.saga.unknown > 0 => {
                "nothing by itself: nobody knows whether money has moved. Look it up at the provider; the record is on dead.checkout"
                    .to_owned()
            }
            _ => "nothing by itself: the record is on dead.checkout, with the reason".to_owned(),
        };
    };
    let what = match (open.saga.awaits, open.saga.unknown) {
        _ if open.saga.abort && open.saga.awaits == Some(Awaits::Charge) => {
            "what is out is settled, what was charged is paid back, then it is rejected as aborted"
        }
        (Some(Awaits::Charge), 0) => "the customer is charged",
        (Some(Awaits::Charge), _) => "the provider is asked for the charge again, under the same key",
        (Some(Awaits::Refund), 0) => "the money goes back",
        (Some(Awaits::Refund), _) => "the provider is asked for the refund again, under the same key",
        (None, _) => "an answer is published",
    };
    format!("{}: {what}", next_try(wait))
}

fn unknown(order: &str) -> Ended {
    eprintln!(
        "nothing is kept of a checkout {order}: is the id right, and --database? \
         (of a request that no checkout process has taken yet, nothing is)"
    );
    Ended::NotFound
}

fn ended(order: &str, status: Status) -> anyhow::Error {
    anyhow::anyhow!("the checkout of {order} is at its end: {}", word(&status))
}

fn dead(order: &str) -> anyhow::Error {
    anyhow::anyhow!(
        "the checkout of {order} became a dead letter, and nothing waits: the reason stands on dead.checkout, what to look \
         up at the provider in `waybill saga show {order}`"
    )
}

fn resumed(order: &str, resume: Resume) -> anyhow::Result<Ended> {
    match resume {
        Resume::Due => println!("{order} is due: a checkout process takes it at once, if one runs"),
        Resume::InHand => println!("{order} is in a process's hand already"),
        Resume::Dead => return Err(dead(order)),
        Resume::Ended(status) => return Err(ended(order, status)),
        Resume::Unknown => return Ok(unknown(order)),
    }
    Ok(Ended::Done)
}

fn aborted(order: &str, abort: Abort) -> anyhow::Result<Ended> {
    match abort {
        Abort::Asked => println!("{order} will be ended: goods and money go back as soon as its payment is settled"),
        Abort::Again => println!("{order} is being ended already"),
        Abort::Rejecting => println!("{order} is being rejected already, and the money goes back"),
        Abort::Dead => return Err(dead(order)),
        Abort::Ended(status) => return Err(ended(order, status)),
        Abort::Unknown => return Ok(unknown(order)),
    }
    Ok(Ended::Done)
}
