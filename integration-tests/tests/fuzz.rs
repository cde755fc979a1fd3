//! The HTTP API under Schemathesis: every operation of the OpenAPI document, with data that fits it and data that does not.

use crate::front::{Front, PRICE};
use crate::shop::LIMIT;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;
use waybill_checker::Chain;
use waybill_harness::{Process, ask, eventually, schemathesis};
use waybill_mail::unsubscribe;

const CONFIG: &str = include_str!("fuzz.toml");
const DOCUMENT: &str = "/api/openapi.json";
/// Long enough for a loaded machine.
const RUN: Duration = Duration::from_secs(300);
/// Carts that are checked out; as many are looked at and changed.
const CARTS: usize = 5;
const ORDERS: usize = 8;
/// What signs the links of mails.
const KEYS: &str = "k1:0123456789abcdef0123456789abcdef";
const PRODUCTS: [&str; 3] = ["p-0001", "p-0002", "p-0003"];
/// One piece of two of them.
const LINES: [(&str, i64); 2] = [("p-0001", 1), ("p-0002", 1)];

/// An answer, as the report tells it.
struct Seen {
    method: String,
    path: String,
    status: u64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_asked_is_answered_as_documented_and_nothing_is_left_half_done() {
    let Some(program) = schemathesis() else { return };
    let Some(mut front) = Front::open("fuzz", None).await else { return };
    for product in PRODUCTS {
        front.sell(product, 1_000_000).await;
    }
    // One user asks more than a person would.
    front.shop.set("WAYBILL_GATEWAY_RATE", "600000");
    front.shop.set("WAYBILL_GATEWAY_BURST", "10000");
    front.shop.set("WAYBILL_UNSUBSCRIBE_URL", "https://shop.example/unsubscribe");
    front.shop.set("WAYBILL_UNSUBSCRIBE_KEYS", KEYS);
    let mut processes = ["gateway", "checkout", "inventory"].map(|role| (role, front.shop.run(&[role])));
    front.until_open().await;
    let orders = fill(&front).await;
    let folder = tempfile::tempdir().unwrap();
    let seen = fuzz(program, &front, &orders, folder.path()).await;

    let document = ask(front.gateway, "GET", DOCUMENT, &[], &Value::Null).await.unwrap().body;
    let failed: Vec<&Seen> = seen.iter().filter(|seen| seen.status >= 500).collect();
    assert!(failed.is_empty(), "{:?}", failed.iter().map(|s| (&s.method, &s.path, s.status)).collect::<Vec<_>>());
    assert_eq!(without_success(&document, &seen), [""; 0], "operations that were never answered with success");
    for (role, process) in &mut processes {
        assert_eq!(process.ended().unwrap(), None, "{role} has ended");
        assert!(!process.log().unwrap().contains("panicked"), "{role} panicked");
    }
    until_drained(&front).await;
    books_agree(&front).await;
    warehouse_ends_all(&front).await;
}

/// Carts of a user, and orders of him that are on their way; the ids of the orders.
async fn fill(front: &Front) -> Vec<String> {
    for number in 0..CARTS {
        front.cart(&format!("k-{number}"), "u-1", &LINES, PRICE).await;
        front.cart(&format!("full-{number}"), "u-1", &LINES, PRICE).await;
    }
    let mut orders = Vec::new();
    for number in 0..ORDERS {
        let cart = format!("bought-{number}");
        front.cart(&cart, "u-1", &LINES, PRICE).await;
        let answer = front.checkout(&cart, "u-1", "pm_card_visa", &[]).await;
        assert_eq!(answer["status"], "confirmed");
        orders.push(answer["orderId"].as_str().unwrap().to_owned());
    }
    orders
}

/// Runs Schemathesis to its end; it must have found nothing.
async fn fuzz(program: &Path, front: &Front, orders: &[String], folder: &Path) -> Vec<Seen> {
    let config = CONFIG.replace("orders = { values = [] }", &format!("orders = {{ values = {orders:?} }}"));
    let config = config.replace("tokens = { values = [] }", &format!("tokens = {{ values = {:?} }}", tokens()));
    std::fs::write(folder.join("schemathesis.toml"), config).unwrap();
    let server = format!("http://{}", front.gateway);
    let url = format!("{server}{DOCUMENT}");
    let args = ["-C", folder.to_str().unwrap(), program.to_str().unwrap(), "run", &url, "--no-color"];
    let report = ["--report", "har", "--report-har-path", "report.har"];
    let mut run = Process::spawn(Path::new("env"), args.iter().chain(&report), [("PYTHONUNBUFFERED", "1")]).unwrap();
    let status = run.wait(RUN).await.unwrap();
    let log = run.log().unwrap();
    assert!(status.success(), "{log}");
    let report = std::fs::read(folder.join("report.har")).unwrap();
    let report: Value = serde_json::from_slice(&report).unwrap();
    let entries = report["log"]["entries"].as_array().unwrap();
    let seen = entries.iter().filter_map(|entry| {
        let url = entry["request"]["url"].as_str()?.strip_prefix(&server)?;
        let path = url.split(['?', '#']).next()?.to_owned();
        let method = entry["request"]["method"].as_str()?.to_owned();
        Some(Seen { method, path, status: entry["response"]["status"].as_u64()? })
    });
    seen.collect()
}

/// Of links to subscriptions, there or not.
fn tokens() -> Vec<String> {
    let url = "https://shop.example/unsubscribe".to_owned();
    let settings = unsubscribe::Settings { url, keys: Some(KEYS.into()), keys_file: None };
    let links = unsubscribe::Unsubscribe::new(&settings).unwrap();
    (1..=4).map(|id| links.sign(&id.to_string()).unwrap()).collect()
}

/// Operations of the document that no answer with 2xx was seen of.
fn without_success(document: &Value, seen: &[Seen]) -> Vec<String> {
    let fits = |template: &str, path: &str| {
        let (template, path): (Vec<&str>, Vec<&str>) = (template.split('/').collect(), path.split('/').collect());
        template.len() == path.len() && template.iter().zip(&path).all(|(t, p)| t.starts_with('{') || t == p)
    };
    let mut missing = Vec::new();
    // The document itself was read, or there were no operations.
    for (template, item) in document["paths"].as_object().unwrap().iter().filter(|(path, _)| *path != DOCUMENT) {
        for method in item.as_object().unwrap().keys() {
            let of_it = seen.iter().filter(|s| s.method.eq_ignore_ascii_case(method) && fits(template, &s.path));
            let statuses: BTreeSet<u64> = of_it.map(|seen| seen.status).collect();
            if !statuses.iter().any(|status| (200..300).contains(status)) {
                missing.push(format!("{method} {template}: {statuses:?}"));
            }
        }
    }
    missing
}

/// Every request that was taken has ended, and nothing of it waits anywhere.
async fn until_drained(front: &Front) {
    for (what, sql) in [
        (
            "every checkout has ended",
            "select count(*) from checkout_requests r where not exists (
            select 1 from checkouts c where c.key = r.order_id and c.state->>'status' <> 'running')",
        ),
        ("nothing is parked", "select count(*) from parked"),
        ("everything is published", "select count(*) from gateway_outbox"),
        ("no payment method is kept", "select count(*) from payment_methods"),
        ("nothing is reserved", "select sum(reserved)::int8 from stock"),
    ] {
        eventually(what, LIMIT, async || match front.shop.number(sql).await {
            0 => Ok(()),
            left => Err(left.to_string()),
        })
        .await;
    }
}

/// What was sold is what orders hold, and what they cost is what was paid.
async fn books_agree(front: &Front) {
    let sold = "select coalesce(sum((line->>'quantity')::int8), 0)::int8 from checkouts,
        jsonb_array_elements(state->'lines') line where state->>'status' = 'confirmed'";
    assert_eq!(front.shop.number("select sum(sold)::int8 from stock").await, front.shop.number(sold).await);
    let paid = front.paid().await;
    let due = "select coalesce(sum((state->'total'->>'amount_minor')::int8), 0)::int8 from checkouts
        where state->>'status' = 'confirmed'";
    assert_eq!(paid.values().map(|(_, amount)| amount).sum::<i64>(), front.shop.number(due).await);
    assert!(paid.values().all(|(charges, _)| *charges == 1), "{paid:?}");
    assert!(paid.values().filter(|(_, amount)| *amount == 2 * PRICE).count() >= ORDERS);
}

/// The warehouse ships what is not cancelled, and the money of what is goes back.
async fn warehouse_ends_all(front: &Front) {
    let confirmed = front.shop.number("select count(*) from checkouts where state->>'status' = 'confirmed'").await;
    let asked = front.shop.count("orders.cancel_requested");
    assert!(asked > 0 && asked <= confirmed, "{asked} of {confirmed}");
    let ship = front.shop.run(&["ship"]);
    front.shop.until("orders.cancelled", usize::try_from(asked).unwrap()).await;
    let _warehouse = (front.shop.run(&["fulfilment"]), ship);
    for (stage, topic) in [("pick", "orders.new"), ("pack", "orders.picked"), ("ship", "orders.packed")] {
        front.shop.until_committed(stage, topic).await;
    }
    front.shop.until_committed("checkout", "orders.cancelled").await;
    front.shop.until_committed("inventory", "orders.cancelled").await;
    until_drained(front).await;
    let paid = front.paid().await;
    let cancelled = front.shop.read("orders.cancelled");
    let cancelled: BTreeSet<&str> = cancelled.iter().map(|record| record.key_str().unwrap()).collect();
    assert!(cancelled.iter().all(|order| paid.get(*order).is_none_or(|(_, amount)| *amount == 0)), "{paid:?}");
    let chain = Chain {
        bootstrap: front.shop.bootstrap.clone(),
        prefix: front.shop.scope.prefix().to_owned(),
        database: front.shop.database.clone(),
        units: 400 * 1_000_000,
    };
    let report = chain.check().await.unwrap();
    assert!(report.violations.is_empty(), "{report}");
    assert_eq!(i64::try_from(report.orders).unwrap(), confirmed, "{report}");
}
