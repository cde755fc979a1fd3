//! What is available, who waits and where they are told, by two gateways at once.

use crate::front::PRICE;
use crate::shop::{LIMIT, Shop};
use crate::telemetry::{keeps_contract, metric_keeps_contract};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use tokio::task::JoinSet;
use waybill_harness::{
    Answer, Caught, Collector, Draft, Point, Process, ask, eventually, free_port, produce, read_topic, topics,
};
use waybill_mail::unsubscribe;

const KEYS: &str = "k1:0123456789abcdef0123456789abcdef";
const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// In every address, token and name that is planted.
const CANARY: &str = "canary5e1f";
const PRODUCT: &str = "/api/products/p-1";

struct Gateways {
    // Ended before their topics and their database.
    processes: Vec<Process>,
    at: [SocketAddr; 2],
    shop: Shop,
}

impl Gateways {
    async fn open(name: &str, collector: &Collector) -> Option<Self> {
        let mut shop = Shop::open(name, 1).await?;
        shop.export_to(&collector.endpoint());
        for (key, value) in [
            ("WAYBILL_UNSUBSCRIBE_URL", "https://shop.example/unsubscribe"),
            ("WAYBILL_UNSUBSCRIBE_KEYS", KEYS),
            ("WAYBILL_GATEWAY_RATE", "600000"),
            ("WAYBILL_GATEWAY_BURST", "10000"),
            ("RUST_LOG", "trace,h2=off,hyper_util=off"),
        ] {
            shop.set(key, value);
        }
        let product =
            format!("insert into products values ('p-1', 'SKU-1', 'A mug', 'mugs', {PRICE}, 'EUR', 500, 100, 80, 60)");
        shop.execute(&product).await;
        let mut processes = Vec::new();
        let at = [(); 2].map(|()| {
            let address = SocketAddr::from(([127, 0, 0, 1], free_port().unwrap()));
            shop.set("WAYBILL_HTTP_LISTEN", &address.to_string());
            processes.push(shop.run(&["gateway"]));
            address
        });
        let gateways = Gateways { processes, at, shop };
        for gateway in gateways.at {
            eventually("the gateway reads levels and outcomes", LIMIT, async || {
                let body = json!({"cartId": "none", "userId": "nobody", "paymentMethodId": "pm"});
                let headers = [("idempotency-key", "ready"), ("prefer", "respond-async")];
                match ask(gateway, "POST", "/api/checkout", &headers, &body).await {
                    Ok(answer) if matches!(answer.status, 202 | 409 | 422) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await;
        }
        Some(gateways)
    }

    async fn ask(&self, gateway: usize, method: &str, path: &str, body: &Value) -> Answer {
        ask(self.at[gateway], method, path, &[("traceparent", CALLER)], body).await.unwrap()
    }

    async fn available(&self, gateway: usize) -> Value {
        self.ask(gateway, "GET", &format!("{PRODUCT}/availability"), &Value::Null).await.body["available"].clone()
    }

    /// What the inventory says.
    async fn level(&self, version: i64, available: i64) {
        let level = json!({"product_id": "p-1", "version": version, "available": available, "last_zero_version": 0,
            "changed_at": "2026-11-21T10:00:00Z"});
        let draft = Draft::json("p-1", &level).header("ce_type", "inventory.levels.v1");
        produce(&self.shop.bootstrap, &self.shop.scope.topic("inventory.levels"), vec![draft]).await.unwrap();
    }

    fn logs(&self) -> String {
        self.processes.iter().map(|process| process.log().unwrap()).collect()
    }
}

fn named<'a>(spans: &'a [Caught], name: &str) -> Vec<&'a Caught> {
    spans.iter().filter(|span| span.name() == name).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_level_renews_what_every_gateway_tells() {
    let collector = Collector::start().unwrap();
    let Some(gateways) = Gateways::open("levels", &collector).await else { return };
    for gateway in [0, 1] {
        assert_eq!(gateways.available(gateway).await, 0);
    }
    // The table says nothing of these.
    for (version, pieces) in [(1, 77), (2, 0), (3, 5)] {
        gateways.level(version, pieces).await;
        for gateway in [0, 1] {
            eventually("the level is told", LIMIT, async || match gateways.available(gateway).await {
                found if found == pieces => Ok(()),
                found => Err(found.to_string()),
            })
            .await;
        }
    }
    // The real inventory's are read as well.
    let inventory = gateways.shop.run(&["inventory"]);
    for _ in 0..4 {
        gateways.shop.done(&["produce", "restock", "--product", "p-1", "--quantity", "25"]);
    }
    eventually("four deliveries are told", LIMIT, async || match gateways.available(1).await {
        found if found == 100 => Ok(()),
        found => Err(found.to_string()),
    })
    .await;
    drop(inventory);

    let spans = eventually("both kinds of answers are seen", LIMIT, async || {
        let spans = collector.spans();
        let sources = named(&spans, "inventory.check_availability");
        let of = |source: &str| sources.iter().filter(|span| span.attributes()["inventory.source"] == source).count();
        if of("cache") >= 2 && of("database") >= 2 { Ok(spans) } else { Err(format!("{} spans", spans.len())) }
    })
    .await;
    let checks = named(&spans, "inventory.check_availability");
    checks.iter().chain(&named(&spans, "inventory.db_query")).for_each(|span| keeps_contract(span));
    let requests = named(&spans, "GET /api/products/{id}/availability");
    requests.iter().for_each(|span| keeps_contract(span));
    let ids: BTreeMap<String, &Caught> = spans.iter().map(|span| (span.span_id(), span)).collect();
    for check in checks {
        assert_eq!(check.trace_id(), CALLER[3..35]);
        assert_eq!(ids[&check.parent().unwrap()].name(), "GET /api/products/{id}/availability");
    }
    for query in named(&spans, "inventory.db_query") {
        let check = ids[&query.parent().unwrap()].attributes();
        assert_eq!(check["inventory.source"], "database");
    }
    let counted = |name: &str, key: &str, value: &str| -> f64 {
        let metric = collector.metric(name).unwrap();
        metric_keeps_contract(&metric);
        let points =
            metric.points.iter().filter(|point| point.attributes.get(key).is_some_and(|found| *found == value));
        points.map(|point| point.value.max(point.count as f64)).fold(0.0, f64::max)
    };
    eventually("hits and misses are counted", LIMIT, async || {
        if collector.metric("inventory.check.cache").is_none() || collector.metric("inventory.check.latency").is_none()
        {
            return Err("no metric".to_owned());
        }
        let hits = counted("inventory.check.cache", "cache.result", "hit");
        let misses = counted("inventory.check.cache", "cache.result", "miss");
        let timed = counted("inventory.check.latency", "inventory.source", "cache");
        if hits >= 1.0 && misses >= 1.0 && timed >= 1.0 { Ok(()) } else { Err(format!("{hits} {misses} {timed}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_wait_once_leave_by_one_click_and_are_named_nowhere() {
    let collector = Collector::start().unwrap();
    let Some(gateways) = Gateways::open("people", &collector).await else { return };
    let email = json!({"email": format!("{CANARY}@example.com"), "name": format!("Ada {CANARY}")});
    assert_eq!(gateways.ask(0, "PUT", "/api/users/c-1/email", &email).await.status, 204);
    let token = json!({"fcmToken": format!("token-{CANARY}")});
    assert_eq!(gateways.ask(1, "POST", "/api/users/c-1/push-targets", &token).await.status, 201);

    let waits = format!("{PRODUCT}/subscriptions");
    let mut asking = JoinSet::new();
    for number in 0..20 {
        let (gateway, path) = (gateways.at[number % 2], waits.clone());
        asking.spawn(async move {
            let body = json!({"userId": "c-1", "channel": "email"});
            ask(gateway, "POST", &path, &[("traceparent", CALLER)], &body).await.unwrap().status
        });
    }
    let mut statuses = asking.join_all().await;
    statuses.sort_unstable();
    assert_eq!(statuses, [vec![200; 19], vec![201]].concat());
    let wanted = json!({"userId": "c-1", "channel": "push", "quantity": 4});
    assert_eq!(gateways.ask(0, "POST", &waits, &wanted).await.status, 201);
    let demand: Value = serde_json::from_str(&gateways.shop.done(&["demand", "p-1", "p-2", "--json"])).unwrap();
    let counts = ["people", "email", "push", "pieces"].map(|count| demand[0][count].as_i64().unwrap());
    assert_eq!((counts, demand.as_array().unwrap().len()), ([1, 1, 1, 4], 1));

    plant_more(&gateways).await;
    let settings = unsubscribe::Settings {
        url: "https://shop.example/unsubscribe".to_owned(),
        keys: Some(KEYS.into()),
        keys_file: None,
    };
    let id = gateways.shop.number("select id from subscriptions where channel = 'email'").await;
    let link = unsubscribe::Unsubscribe::new(&settings).unwrap().sign(&id.to_string()).unwrap();
    let left = "select count(*) from subscriptions where channel = 'email'";
    for (method, status, left_after) in [("GET", 200, 1), ("POST", 200, 0), ("POST", 200, 0), ("GET", 200, 0)] {
        let answer = gateways.ask(1, method, &format!("/unsubscribe/{link}"), &Value::Null).await;
        assert_eq!((answer.status, gateways.shop.number(left).await), (status, left_after), "{method}");
    }
    let secret = link.rsplit('.').next().unwrap();
    nobody_is_named(&gateways, &collector, &[CANARY, secret]).await;
}

/// Wherever a stranger may write something, it is planted; and where the database fails.
async fn plant_more(gateways: &Gateways) {
    let bad = json!({"email": format!("{CANARY}@@example.com")});
    let misplaced = json!({"email": {"x": CANARY}, "name": [CANARY], CANARY: 1});
    for body in [bad, misplaced] {
        let answer = gateways.ask(0, "PUT", "/api/users/c-1/email", &body).await;
        assert!(answer.status == 422 && !answer.body["errors"][0]["detail"].to_string().contains(CANARY), "{answer:?}");
    }
    let endpoint = format!("https://{CANARY}.example.com/{CANARY}");
    for keys in [json!({"p256dh": CANARY, "auth": CANARY}), Value::Null] {
        let body = json!({"endpoint": endpoint, "keys": keys});
        let answer = gateways.ask(0, "POST", "/api/users/c-1/push-targets", &body).await;
        assert!(answer.status == 422 && !answer.body.to_string().contains(CANARY), "{answer:?}");
    }
    for path in [format!("/api/users/{CANARY}@example.com/email"), format!("/unsubscribe/k1.{CANARY}.{CANARY}")] {
        assert!(gateways.ask(0, "DELETE", &path, &Value::Null).await.status >= 400);
        assert!(gateways.ask(0, "GET", &path, &Value::Null).await.status >= 400);
    }
    gateways.shop.execute("alter table contacts rename to elsewhere").await;
    let good = json!({"email": format!("{CANARY}@example.com")});
    assert!(gateways.ask(0, "PUT", "/api/users/c-1/email", &good).await.status >= 500);
    gateways.shop.execute("alter table elsewhere rename to contacts").await;
}

async fn nobody_is_named(gateways: &Gateways, collector: &Collector, words: &[&str]) {
    let spans = eventually("the last request is exported", LIMIT, async || {
        let spans = collector.spans();
        let (asked, clicked) =
            (named(&spans, "back_in_stock.subscribe").len(), named(&spans, "POST /unsubscribe/{token}").len());
        if asked == 21 && clicked == 2 { Ok(spans) } else { Err(format!("{asked} subscribed, {clicked} clicked")) }
    })
    .await;
    let subscribed = eventually("subscriptions are counted", LIMIT, async || {
        // By whichever gateway took them.
        let metrics = collector.metrics().into_iter().filter(|metric| metric.name == "back_in_stock.subscriptions");
        let points: Vec<Point> = metrics.inspect(metric_keeps_contract).flat_map(|metric| metric.points).collect();
        let channels: BTreeSet<String> =
            points.iter().map(|point| point.attributes["notification.channel"].to_string()).collect();
        if channels.len() == 2 { Ok(points) } else { Err(format!("{channels:?}")) }
    })
    .await;
    assert!(subscribed.iter().all(|point| point.attributes["product.category"] == "mugs" && point.value == 1.0));
    let subscribes = named(&spans, "back_in_stock.subscribe");
    subscribes.iter().for_each(|span| keeps_contract(span));
    named(&spans, "POST /api/products/{id}/subscriptions").iter().for_each(|span| keeps_contract(span));
    let new: Vec<_> = subscribes.iter().filter(|span| span.attributes()["subscription.duplicate"] == false).collect();
    assert_eq!(new.len(), 2);
    for span in new {
        assert_eq!((span.trace_id(), &span.attributes()["product.price"]), (CALLER[3..35].to_owned(), &json!(PRICE)));
        let kept = format!("select count(*) from subscriptions where traceparent like '00-%-{}-01'", span.span_id());
        let waits = i64::from(span.attributes()["notification.channel"] == "push");
        assert_eq!(gateways.shop.sum(&kept).await, waits, "the other one has ended");
    }
    let told = [format!("{spans:?}"), format!("{:?}", collector.metrics()), gateways.logs()];
    // The logs are whole, and have the failure that was planted.
    assert!(told[2].contains("TRACE") && told[2].contains("does not exist"));
    for word in words {
        for (what, told) in ["spans", "metrics", "logs"].iter().zip(&told) {
            let place = told.find(word).map(|place| &told[place.saturating_sub(200)..(place + 100).min(told.len())]);
            assert_eq!(place, None, "in the {what}");
        }
        for topic in topics(&gateways.shop.bootstrap, gateways.shop.scope.prefix()).unwrap() {
            let records = read_topic(&gateways.shop.bootstrap, &topic).unwrap();
            let headers = records.iter().flat_map(|record| record.headers.iter().map(|(_, value)| value.as_slice()));
            let parts = records.iter().flat_map(|record| [record.key.as_deref(), record.payload.as_deref()]).flatten();
            let records: String = parts.chain(headers).map(String::from_utf8_lossy).collect();
            assert!(!records.contains(word), "{word} in {topic}");
        }
    }
}
