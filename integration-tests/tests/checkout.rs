//! From an HTTP request to a label, and what is left of many requests when processes are killed on the way.

use crate::shop::{LIMIT, Shop};
use crate::telemetry::keeps_contract;
use crate::web::ask;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use waybill_harness::{Caught, Collector, Process, eventually};

const CALLER: (&str, &str) = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
/// One piece of anything, cents.
const PRICE: i64 = 1_999;

/// A shop with a gateway and a provider.
struct Front {
    shop: Shop,
    gateway: SocketAddr,
    provider: SocketAddr,
    _simulator: Process,
}

fn free_port() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Front {
    async fn open(name: &str, pieces: i64, collector: Option<&Collector>) -> Option<Self> {
        let mut shop = Shop::open(name, 1_000_000).await?;
        if let Some(collector) = collector {
            shop.export_to(&collector.endpoint());
        }
        let (gateway, provider) = (free_port(), free_port());
        shop.set("WAYBILL_HTTP_LISTEN", &gateway.to_string());
        shop.set("WAYBILL_SIMULATOR_LISTEN", &provider.to_string());
        shop.set("WAYBILL_PAYMENT_URL", &format!("http://{provider}"));
        shop.set("WAYBILL_PAYMENT_KEY", "sk_test_canary");
        for product in 1..=3 {
            let sql = format!(
                "insert into products values ('p-{product:04}', 'SKU-{product:04}', 'A thing', 'things', {PRICE}, 'EUR', 500, 100, 80, 60);
                 insert into stock (product_id, received, available) values ('p-{product:04}', {pieces}, {pieces})"
            );
            shop.execute(&sql).await;
        }
        let simulator = shop.run(&["payment-simulator"]);
        Some(Front { shop, gateway, provider, _simulator: simulator })
    }

    async fn cart(&self, id: &str, user: &str) {
        let sql = format!(
            "insert into carts (id, user_id, country, service) values ('{id}', '{user}', 'DE', 'standard');
             insert into cart_lines values ('{id}', 'p-0001', 1, {PRICE}, 'EUR'), ('{id}', 'p-0002', 1, {PRICE}, 'EUR')"
        );
        self.shop.execute(&sql).await;
    }

    async fn until_open(&self) {
        eventually("the gateway answers", LIMIT, async || {
            match ask(self.gateway, "GET", "/api/products/p-0001", &[], &Value::Null).await {
                Ok(answer) if answer.status == 200 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    }

    /// Asks until somebody takes the request: a retry under the same key is the same request.
    async fn checkout(&self, cart: &str, user: &str, method: &str, headers: &[(&str, &str)]) -> Value {
        let key = format!("key-{cart}");
        let headers: Vec<(&str, &str)> = [("idempotency-key", key.as_str())].iter().chain(headers).copied().collect();
        let body = json!({"cartId": cart, "userId": user, "paymentMethodId": method});
        eventually("the request is taken", LIMIT, async || {
            match ask(self.gateway, "POST", "/api/checkout", &headers, &body).await {
                Ok(answer) if [201, 202, 402, 409].contains(&answer.status) => Ok(answer.body),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    /// The provider's books: what each order has paid in the end, and how many charges it took.
    async fn paid(&self) -> BTreeMap<String, (usize, i64)> {
        let ledger = ask(self.provider, "GET", "/ledger", &[], &Value::Null).await.unwrap().body;
        let mut paid = BTreeMap::<String, (usize, i64)>::new();
        for charge in ledger["charges"].as_array().unwrap() {
            let order = paid.entry(charge["order_id"].as_str().unwrap().to_owned()).or_default();
            *order = (order.0 + 1, order.1 + charge["amount"].as_i64().unwrap() - charge["refunded"].as_i64().unwrap());
        }
        paid
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkout_goes_from_the_request_to_the_label_in_one_picture() {
    let collector = Collector::start().unwrap();
    let Some(front) = Front::open("front", 10, Some(&collector)).await else { return };
    let _all = front.shop.run(&["all"]);
    front.until_open().await;
    front.cart("k-1", "u-1").await;
    let answer = front.checkout("k-1", "u-1", "pm_card_visa", &[CALLER]).await;
    assert_eq!(answer["status"], "confirmed");
    let order = answer["orderId"].as_str().unwrap().to_owned();
    front.shop.until("orders.shipped", 1).await;
    eventually("the order is shipped, the gateway says", LIMIT, async || {
        let answer = ask(front.gateway, "GET", &format!("/api/orders/{order}"), &[], &Value::Null).await;
        let status = answer.map_err(|e| e.to_string())?.body["status"].clone();
        if status == "shipped" { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    let spans = eventually("all spans are here", LIMIT, async || {
        let spans: Vec<Caught> = collector.spans();
        let names: Vec<String> = spans.iter().map(|span| span.name().to_owned()).collect();
        let all = ["POST /api/checkout", "checkout.process", "checkout.complete", "shipping.dispatch"];
        if all.iter().all(|name| names.iter().any(|n| n == name)) { Ok(spans) } else { Err(format!("{names:?}")) }
    })
    .await;
    let one = |name: &str| spans.iter().find(|span| span.name() == name).unwrap_or_else(|| panic!("no span {name}"));
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let inside = [
        ("checkout.process", "POST /api/checkout"),
        ("cart.validate", "checkout.process"),
        ("cart.fetch_contents", "cart.validate"),
        ("cart.verify_prices", "cart.validate"),
        ("inventory.reserve_batch", "cart.validate"),
        ("inventory.reserve_item", "cart.validate"),
        ("payment.process", "checkout.process"),
        ("payment.gateway_call", "payment.process"),
        ("order.create", "checkout.process"),
        ("checkout.complete", "checkout.process"),
    ];
    for (name, parent) in inside {
        assert_eq!(one(name).trace_id(), trace, "{name}: the browser's trace goes on");
        let within = one(name).parent().and_then(|id| spans.iter().find(|span| span.span_id() == id));
        assert_eq!(within.map(Caught::name), Some(parent), "{name}");
    }
    let events: Vec<String> = one("checkout.process").events().into_iter().map(|(name, _)| name).collect();
    assert_eq!(events, ["cart_validated", "payment_processed", "order_created"]);
    let pick = one("warehouse.pick");
    assert_ne!(pick.trace_id(), trace, "the warehouse may take its time");
    assert!(pick.links().iter().any(|(_, span, _)| *span == one("checkout.complete").span_id()));
    let of_checkout = |span: &&Caught| span.trace_id() == trace;
    spans.iter().filter(of_checkout).for_each(keeps_contract);
    // What must be nowhere is nowhere.
    let told = format!("{spans:?}");
    assert!(!told.contains("pm_card_visa") && !told.contains("sk_test_canary"));
    for topic in ["checkout.requested", "checkout.completed", "orders.new"] {
        assert!(front.shop.read(topic).iter().all(|r| !format!("{r:?}").contains("pm_card_visa")), "{topic}");
    }
    assert_eq!(front.shop.number("select count(*) from payment_methods").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_accepted_request_ends_and_the_ledgers_agree_though_processes_are_killed() {
    const CHECKOUTS: usize = 400;
    let Some(front) = Front::open("killed", 2 * CHECKOUTS as i64, None).await else { return };
    let mut gateway = front.shop.run(&["gateway"]);
    let mut checkouts = vec![front.shop.run(&["checkout"]), front.shop.run(&["checkout"])];
    front.until_open().await;
    let mut orders = Vec::new();
    for number in 0..CHECKOUTS {
        let (cart, user) = (format!("k-{number}"), format!("u-{number}"));
        front.cart(&cart, &user).await;
        let method = ["pm_card_visa", "pm_card_visa", "pm_reset", "pm_card_chargeDeclined"][number % 4];
        let answer = front.checkout(&cart, &user, method, &[("prefer", "respond-async")]).await;
        orders.push(answer["orderId"].as_str().unwrap().to_owned());
        if number % 50 == 25 {
            let victim = number / 50 % 2;
            checkouts[victim].kill().unwrap();
            checkouts[victim] = front.shop.run(&["checkout"]);
        }
        if number == CHECKOUTS / 2 {
            gateway.kill().unwrap();
            gateway = front.shop.run(&["gateway"]);
        }
    }
    let running = "select count(*) from checkouts where state->>'status' = 'running'";
    eventually("every checkout has ended", LIMIT, async || {
        let ended = front.shop.number("select count(*) from checkouts where state->>'status' <> 'running'").await;
        if ended == CHECKOUTS as i64 {
            Ok(())
        } else {
            Err(format!("{ended}, {} run", front.shop.number(running).await))
        }
    })
    .await;
    eventually("nothing is parked", LIMIT, async || match front.shop.number("select count(*) from parked").await {
        0 => Ok(()),
        parked => Err(format!("{parked} parked")),
    })
    .await;
    drop((gateway, checkouts));
    let confirmed = front.shop.number("select count(*) from checkouts where state->>'status' = 'confirmed'").await;
    let declined =
        front.shop.number("select count(*) from checkouts where state->'failure'->>'reason' = 'declined'").await;
    assert_eq!(declined, CHECKOUTS as i64 / 4);
    assert_eq!(confirmed, CHECKOUTS as i64 * 3 / 4);
    let paid = front.paid().await;
    assert_eq!(paid.len() as i64, confirmed);
    assert!(paid.values().all(|(charges, amount)| (*charges, *amount) == (1, 2 * PRICE)), "{paid:?}");
    assert!(paid.keys().all(|order| orders.contains(order)));
    let of_stock = |column: &str| format!("select sum({column})::int8 from stock where product_id <> 'p-0003'");
    assert_eq!(front.shop.sum(&of_stock("sold")).await, 2 * confirmed);
    assert_eq!(front.shop.sum(&of_stock("reserved")).await, 0);
    let new: BTreeMap<String, Value> = front
        .shop
        .read("orders.new")
        .iter()
        .map(|r| (r.header("ce_id").unwrap().to_owned(), r.json().unwrap()))
        .collect();
    assert_eq!(new.len() as i64, confirmed, "one order each, told apart by id");
    assert_eq!(front.shop.number("select count(*) from payment_methods").await, 0);
}
