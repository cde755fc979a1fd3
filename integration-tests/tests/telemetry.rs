//! The spans and metrics of a run, caught over OTLP, against `docs/telemetry.md`.

use crate::shop::{LIMIT, Shop};
use std::collections::{BTreeMap, BTreeSet};
use waybill_harness::{Caught, Collector, Measured, Point, eventually};

const ORDERS: usize = 100;
const CONTRACT: &str = include_str!("../../docs/telemetry.md");

/// Names that the conventions have given up.
const DEPRECATED: [&str; 9] = [
    "messaging.operation",
    "messaging.kafka.consumer.group",
    "messaging.kafka.message.offset",
    "messaging.kafka.destination.partition",
    "messaging.client_id",
    "db.system",
    "db.operation",
    "http.method",
    "net.peer.name",
];

struct Run {
    shop: Shop,
    collector: Collector,
}

/// All orders shipped, all spans and a few rounds of metrics caught.
async fn run(name: &str) -> Option<Run> {
    let mut shop = Shop::open(name, 1_000).await?;
    let collector = Collector::start().unwrap();
    shop.export_to(&collector.endpoint());
    let processes = ["pick", "pack", "ship"].map(|stage| shop.run(&[stage]));
    shop.done(&["produce", "orders", "--count", &ORDERS.to_string(), "--seed", "3", "--lines", "3"]);
    shop.until("orders.shipped", ORDERS).await;
    let stage_spans = || of_orders(&collector).into_iter().filter(|span| span.parent().is_none());
    eventually("all spans are exported", LIMIT, async || match stage_spans().count() {
        found if found == 4 * ORDERS => Ok(()),
        found => Err(format!("{found} stage spans")),
    })
    .await;
    eventually("the lag is reported", LIMIT, async || {
        let names: BTreeSet<String> = collector.metrics().into_iter().map(|m| m.name).collect();
        if names.contains("waybill.consumer.lag") { Ok(()) } else { Err(format!("{names:?}")) }
    })
    .await;
    drop(processes);
    Some(Run { shop, collector })
}

/// Spans of what stages made of orders: a stage that waits for a slow broker has one that is about no order.
fn of_orders(collector: &Collector) -> Vec<Caught> {
    collector.spans().into_iter().filter(|span| span.name() != "waybill.stage.paused").collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_spans_form_exactly_the_picture_of_the_contract() {
    let Some(Run { shop, collector }) = run("picture").await else { return };
    let spans = of_orders(&collector);
    let known: BTreeSet<(String, String)> = spans.iter().map(|s| (s.trace_id(), s.span_id())).collect();
    assert_eq!(known.len(), spans.len(), "no span is exported twice");
    let mut orders: BTreeMap<String, Vec<&Caught>> = BTreeMap::new();
    let mut items: BTreeMap<(String, String), Vec<&Caught>> = BTreeMap::new();
    for span in &spans {
        match span.parent() {
            None => orders.entry(text(span, "order.id")).or_default().push(span),
            Some(parent) => items.entry((span.trace_id(), parent)).or_default().push(span),
        }
    }
    assert_eq!(orders.len(), ORDERS);
    for (order, mut journey) in orders {
        journey.sort_by_key(|s| s.span.start_time_unix_nano);
        let names: Vec<&str> = journey.iter().map(|s| s.name()).collect();
        assert_eq!(names, ["checkout.complete", "warehouse.pick", "warehouse.pack", "shipping.dispatch"], "{order}");
        let traces: BTreeSet<String> = journey.iter().map(|s| s.trace_id()).collect();
        assert_eq!(traces.len(), 4, "{order}: a trace a stage");
        let stages = ["checkout", "pick", "pack"];
        for (index, span) in journey.iter().enumerate() {
            let expected: Vec<_> =
                (0..index).map(|i| (journey[i].trace_id(), journey[i].span_id(), "follows_from", stages[i])).collect();
            let links = span.links();
            let found: Vec<_> = links
                .iter()
                .map(|(t, s, a)| {
                    (t.clone(), s.clone(), a["link.type"].as_str().unwrap(), a["link.stage"].as_str().unwrap())
                })
                .collect();
            assert_eq!(found, expected, "{order}: links of {}", span.name());
        }
        let pick = journey[1];
        let children = items.remove(&(pick.trace_id(), pick.span_id())).unwrap_or_default();
        assert_eq!(children.len(), 3, "{order}: one child a line");
        assert!(children.iter().all(|c| c.name() == "warehouse.pick_item"));
    }
    assert!(items.is_empty(), "no span has a parent that is not there");

    // What was published is what was exported.
    for record in shop.read("orders.shipped") {
        let copy: serde_json::Value = serde_json::from_str(record.header("waybill_span").unwrap()).unwrap();
        let id = (copy["trace_id"].as_str().unwrap().to_owned(), copy["span_id"].as_str().unwrap().to_owned());
        assert!(known.contains(&id));
    }
}

fn text(span: &Caught, attribute: &str) -> String {
    span.attributes()[attribute].as_str().unwrap().to_owned()
}

/// What the contract's table says of a span.
struct Contract {
    kind: String,
    attributes: BTreeSet<String>,
    /// Those of them that not every such span has: their type has a `?`.
    not_always: BTreeSet<String>,
}

fn contract(span: &str) -> Contract {
    let row = CONTRACT.lines().find(|l| l.starts_with(&format!("| `{span}`"))).unwrap_or_else(|| panic!("{span}"));
    let cells: Vec<&str> = row.split('|').map(str::trim).collect();
    let parts: Vec<&str> = cells[3].split('`').collect();
    let named = parts[1..].chunks(2).map(|part| (part[0].to_owned(), part.get(1).is_some_and(|t| t.contains('?'))));
    let (not_always, always): (Vec<_>, Vec<_>) = named.partition(|(_, not_always)| *not_always);
    let names = |named: Vec<(String, bool)>| named.into_iter().map(|(name, _)| name).collect::<BTreeSet<_>>();
    let not_always = names(not_always);
    let attributes = names(always).union(&not_always).cloned().collect();
    Contract { kind: cells[2].to_owned(), attributes, not_always }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_keep_the_contract() {
    let Some(Run { collector, .. }) = run("contract").await else { return };
    collector.spans().iter().for_each(keeps_contract);
}

pub fn keeps_contract(span: &Caught) {
    let name = span.name().to_owned();
    let Contract { kind, attributes: mut expected, not_always } = contract(&name);
    assert_eq!(format!("{:?}", span.kind()).to_uppercase(), kind, "{name}");
    if kind == "CONSUMER" {
        expected.extend(contract("messaging").attributes);
    }
    let found: BTreeSet<String> = span.attributes().keys().map(ToString::to_string).collect();
    expected.retain(|attribute| found.contains(attribute) || !not_always.contains(attribute));
    assert_eq!(found, expected, "{name}");
    for old in DEPRECATED {
        // The spans that have both, old and new, for backends that know only the old.
        let both = ["payment.gateway_call", "inventory.db_query"].contains(&name.as_str());
        assert!(!found.contains(old) || both, "{name} has {old}");
    }
    let row = CONTRACT.lines().find(|l| l.starts_with(&format!("| `{name}`"))).unwrap();
    for (event, _) in span.events() {
        assert!(row.contains(&format!("`{event}`")), "{name} has an event {event}");
    }
    assert!(span.scope_name.starts_with("waybill."), "{}", span.scope_name);
    assert!(span.schema_url.starts_with("https://opentelemetry.io/schemas/"), "{}", span.schema_url);
    let service = span.resource["service.name"].as_str().unwrap().to_owned();
    let stages = ["gateway", "checkout", "pick", "pack", "ship", "inventory", "restock", "fanout"];
    assert!(stages.iter().any(|stage| service == format!("waybill-{stage}")), "{service}");
    for key in ["service.version", "service.instance.id", "deployment.environment.name", "deployment.environment"] {
        assert!(span.resource.contains_key(key), "{key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_the_stock_and_cancellations_keep_the_contract() {
    let Some(mut shop) = Shop::open("stock-spans", 1).await else { return };
    let collector = Collector::start().unwrap();
    shop.export_to(&collector.endpoint());
    let _processes = ["ship", "inventory"].map(|stage| shop.run(&[stage]));
    shop.done(&["produce", "stock", "--count", "5", "--quantity", "7"]);
    shop.ask_to_cancel(&["o-1"]).await;
    let spans = eventually("one span a record", LIMIT, async || match collector.spans() {
        spans if spans.len() == 7 => Ok(spans),
        spans => Err(format!("{} spans", spans.len())),
    })
    .await;
    spans.iter().for_each(keeps_contract);
    let named = |name: &str| spans.iter().filter(|s| s.name() == name).collect::<Vec<_>>();
    let cancelled: Vec<String> = named("shipping.dispatch")[0].events().into_iter().map(|(event, _)| event).collect();
    assert_eq!(cancelled, ["cancelled"]);
    let changes = named("inventory.adjust");
    assert_eq!(changes.len(), 6);
    let of_order: Vec<_> = changes.iter().filter(|s| s.attributes().contains_key("order.id")).collect();
    assert_eq!(text(of_order[0], "order.id"), "o-1");
    assert_eq!(of_order[0].links().len(), 1, "to the span that cancelled the order");
    let received = changes.iter().filter(|s| s.attributes().contains_key("product.id"));
    assert!(received.clone().all(|s| s.attributes()["inventory.available"] == 7));
    assert_eq!(received.count(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_keep_the_contract() {
    let Some(Run { collector, .. }) = run("metrics").await else { return };
    let expected = [
        ("messaging.client.consumed.messages", "{message}"),
        ("messaging.client.sent.messages", "{message}"),
        ("messaging.process.duration", "s"),
        ("messaging.client.operation.duration", "s"),
        ("fulfilment.stage.duration", "s"),
        ("fulfilment.order.age", "s"),
        ("waybill.consumer.lag", "{record}"),
        ("waybill.spans.dropped", "{span}"),
    ];
    let metrics = collector.metrics();
    for (name, unit) in expected {
        let metric = metrics.iter().find(|m| m.name == name).unwrap_or_else(|| panic!("{name} is missing"));
        assert_eq!(metric.unit, unit, "{name}");
    }
    metrics.iter().for_each(metric_keeps_contract);
    let shipped = metrics
        .iter()
        .filter(|m| m.name == "fulfilment.order.age")
        .flat_map(|m| &m.points)
        .filter(|p| p.attributes.get("stage").is_some_and(|s| *s == "ship"))
        .map(|p| p.count)
        .max();
    assert_eq!(shipped, Some(ORDERS as u64), "the age of every order is recorded once");
}

pub fn metric_keeps_contract(metric: &Measured) {
    let row = CONTRACT.lines().find(|l| l.starts_with(&format!("| `{}`", metric.name)));
    let row = row.unwrap_or_else(|| panic!("{} is not in the contract", metric.name));
    for point in &metric.points {
        for key in point.attributes.keys() {
            assert!(row.contains(&format!("`{key}`")), "{}: attribute {key} is not in the contract", metric.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gauges_tell_the_tables_and_what_is_ignored_is_told_with_its_reason() {
    let Some(mut shop) = Shop::open("gauges", 1).await else { return };
    let collector = Collector::start().unwrap();
    shop.export_to(&collector.endpoint());
    shop.set("WAYBILL_PAYMENT_URL", "http://127.0.0.1:9");
    shop.set("WAYBILL_PAYMENT_KEY", "sk_test_1");
    shop.execute(
        r#"insert into products values ('p-1', 'SKU-1', 'A mug', 'mugs', 1999, 'EUR', 500, 100, 80, 60);
           insert into stock (product_id, received, available) values ('p-1', 7, 7), ('p-2', 5, 5);
           insert into checkouts (key, version, answer, state) values ('o-9', 1, '\x00', jsonb_build_object(
               'status', 'packed', 'requested_at', to_char(now() at time zone 'utc' - interval '2 h',
                   'YYYY-MM-DD"T"HH24:MI:SS"Z"')))"#,
    )
    .await;
    let _processes = ["ship", "inventory", "checkout"].map(|stage| shop.run(&[stage]));
    shop.ask_to_cancel(&["o-1"]).await;
    let of = |name: &str, key: &str, value: &str| -> Option<Point> {
        let points = collector.metric(name)?.points;
        points.into_iter().find(|point| point.attributes.get(key).is_some_and(|found| *found == value))
    };
    eventually("gauges and the counter tell", LIMIT, async || {
        let ignored = of("waybill.ignored", "reason", "the order did not come from a checkout");
        let stock = ["mugs", "unknown"].map(|category| of("inventory.stock_level", "product.category", category));
        let ages = ["confirmed", "packed"].map(|status| of("fulfilment.open_order.max_age", "order.status", status));
        let [mugs, unknown] = stock.map(|point| point.map(|point| point.value));
        let [confirmed, packed] = ages.map(|point| point.map(|point| (point.value / 3_600.0).floor()));
        let told = [ignored.map(|point| point.value), mugs, unknown, confirmed, packed];
        if told == [1.0, 7.0, 5.0, 0.0, 2.0].map(Some) { Ok(()) } else { Err(format!("{told:?}")) }
    })
    .await;
    collector.metrics().iter().for_each(metric_keeps_contract);
}
