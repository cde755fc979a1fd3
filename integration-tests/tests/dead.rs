//! Dead letters: seen, sent back, left.

use crate::shop::{LIMIT, Shop, once_by_id};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use waybill_harness::{Collector, Draft, Rec, eventually, produce};

/// An order of one line, as the checkout publishes it.
fn order(id: &str, product: &str) -> Draft {
    let line =
        json!({"line": 1, "product_id": product, "sku": "S", "quantity": 2, "weight_g": 1, "size_mm": [1, 1, 1]});
    let order = json!({"order_id": id, "customer_id": "c", "country": "DE", "service": "standard", "lines": [line]});
    of_topic(Draft::json(id, &order), id)
}

fn of_topic(draft: Draft, id: &str) -> Draft {
    draft
        .header("ce_id", format!("id-{id}"))
        .header("ce_type", "orders.new.v1")
        .header("ce_source", "/test/outside")
        .header("ce_time", "2026-11-20T10:00:00Z")
        .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
}

async fn send(shop: &Shop, drafts: Vec<Draft>) {
    produce(&shop.bootstrap, &shop.scope.topic("orders.new"), drafts).await.unwrap();
}

async fn until_dead(shop: &Shop, letters: usize) -> Vec<Rec> {
    eventually(&format!("{letters} letters on dead.pick"), LIMIT, async || match shop.read("dead.pick") {
        found if found.len() >= letters => Ok(found),
        found => Err(format!("{} letters", found.len())),
    })
    .await
}

fn listed(shop: &Shop, args: &[&str]) -> Value {
    let args: Vec<&str> = ["dead", "list", "--json"].iter().chain(args).copied().collect();
    serde_json::from_str(&shop.done(&args)).unwrap()
}

fn position(letter: &Value) -> String {
    let at = &letter["position"];
    format!("{}/{}/{}", at["topic"].as_str().unwrap(), at["partition"], at["offset"])
}

fn said(shop: &Shop, args: &[&str]) -> (Option<i32>, String) {
    let output = shop.command(args);
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    (output.status.code(), text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_letter_explains_itself_and_is_found_by_stage_reason_order_and_time() {
    let Some(mut shop) = Shop::open("letters", 10).await else { return };
    shop.set("WAYBILL_TELEMETRY_TRACEURL", "https://traces.example/{trace_id}");
    let _pick = shop.run(&["pick"]);
    let secret = Draft::json("o-secret", &json!({"order_id": "o-secret", "customer_id": "canary-5512"}));
    send(&shop, vec![order("o-1", "p-none"), order("o-2", "p-none"), of_topic(secret, "o-secret")]).await;
    let dead = until_dead(&shop, 3).await;

    let all = listed(&shop, &[]);
    assert_eq!((&all["matched"], all["letters"].as_array().unwrap().len()), (&json!(3), 3), "{all:#}");
    let times: Vec<&str> = all["letters"].as_array().unwrap().iter().map(|l| l["at"].as_str().unwrap()).collect();
    assert!(times.is_sorted_by(|a, b| a >= b), "newest first: {times:?}");
    let counts: BTreeSet<(&str, i64)> = all["counts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| (c["reason"].as_str().unwrap(), c["letters"].as_i64().unwrap()))
        .collect();
    assert_eq!(counts, BTreeSet::from([("unknown_product", 2), ("unreadable", 1)]), "{all:#}");
    let count = |args: &[&str]| listed(&shop, args)["matched"].as_i64().unwrap();
    assert_eq!(count(&["--stage", "pick"]), 3);
    assert_eq!(count(&["--stage", "pack,ship"]), 0);
    assert_eq!(count(&["--reason", "unreadable"]), 1);
    assert_eq!(count(&["--order", "o-2"]), 1);
    assert_eq!(count(&["--since", "2000-01-01T00:00:00Z", "--state", "waiting"]), 3);
    assert_eq!(count(&["--until", "2000-01-01T00:00:00Z"]), 0);
    let bounded = listed(&shop, &["--limit", "1"]);
    assert_eq!((bounded["letters"].as_array().unwrap().len(), &bounded["matched"]), (1, &json!(3)));

    let of_secret = &listed(&shop, &["--order", "o-secret"])["letters"][0];
    let record = dead.iter().find(|r| r.key_str() == Some("o-secret")).unwrap();
    let at = position(of_secret);
    assert_eq!(at, format!("dead.pick/{}/{}", record.partition, record.offset));
    let shown = shop.done(&["dead", "show", &at]);
    let trace = record.header("dead_traceparent").unwrap().split('-').nth(1).unwrap();
    for part in ["unreadable: the payload is not a valid orders.new.v1", "orders.new/", "waiting", "tried  1 times"] {
        assert!(shown.contains(part), "{part} is missing:\n{shown}");
    }
    assert!(shown.contains(&format!("https://traces.example/{trace}")), "{shown}");
    assert!(shown.contains(&format!("waybill dead redrive {at}")) && shown.contains("ce_id: id-o-secret"), "{shown}");
    assert!(!shown.contains("canary-5512"), "what is said of a person only where it is asked for:\n{shown}");
    assert!(shop.done(&["dead", "show", &at, "--payload"]).contains("canary-5512"));
    let json: Value = serde_json::from_str(&shop.done(&["dead", "show", &at, "--json"])).unwrap();
    assert_eq!((&json["trace_id"], &json["headers"]["ce_id"]), (&json!(trace), &json!("id-o-secret")), "{json:#}");

    assert_eq!(said(&shop, &["dead", "show", "dead.pick/0/4711"]).0, Some(4));
    assert_eq!(said(&shop, &["dead", "show", "orders.new/0/0"]).0, Some(2));
    let (code, text) = said(&shop, &["dead", "redrive"]);
    assert_eq!(code, Some(2), "all of them is never meant: {text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_redriven_succeeds_once_for_its_stage_alone_and_in_its_order() {
    let Some(mut shop) = Shop::open("redrive", 10).await else { return };
    let collector = Collector::start().unwrap();
    shop.export_to(&collector.endpoint());
    let _processes = shop.run(&["pick", "pack"]);
    let ids: Vec<String> = (0..12).map(|n| format!("o-{n}")).collect();
    send(&shop, ids.iter().map(|id| order(id, "p-new")).collect()).await;
    let dead = until_dead(&shop, 12).await;
    let stuck =
        |shop: &Shop| -> Value { serde_json::from_str(&shop.done(&["stuck", "--older", "0s", "--json"])).unwrap() };
    assert_eq!(stuck(&shop).as_array().unwrap().len(), 12);

    // Nothing happens before somebody agrees.
    let (code, text) = said(&shop, &["dead", "redrive", "--reason", "unknown_product", "--dry-run"]);
    assert!(code == Some(0) && text.contains("12 letters"), "{text}");
    let (code, text) = said(&shop, &["dead", "redrive", "--reason", "unknown_product"]);
    assert!(code == Some(1) && text.contains("say --yes"), "{text}");
    assert_eq!(shop.count("redrive.pick"), 0);

    // The cause is mended, and they go back: one by its position, the others by their reason.
    shop.execute("insert into bins values ('p-new', 'A-1', 'A', 100)").await;
    let first = format!("dead.pick/{}/{}", dead[0].partition, dead[0].offset);
    let one = shop.done(&["dead", "redrive", &first, "--yes", "--by", "anna"]);
    assert!(one.contains("1 letters redriven"), "{one}");
    let rest = shop.done(&["dead", "redrive", "--reason", "unknown_product", "--yes", "--by", "anna"]);
    assert!(rest.contains("11 letters redriven"), "{rest}");
    shop.until("orders.packed", 12).await;
    shop.until_committed("pick", "redrive.pick").await;

    // Each once, as the record that it was.
    let picked = shop.read("orders.picked");
    assert_eq!((picked.len(), once_by_id(&picked).len()), (12, 12));
    assert_eq!(shop.number("select quantity::int8 from bins where product_id = 'p-new'").await, 100 - 24);
    assert_eq!(shop.count("orders.new"), 12, "nothing went to a topic that others read");
    let redriven = shop.read("redrive.pick");
    for letter in &dead {
        let back = redriven.iter().find(|r| r.key == letter.key).unwrap();
        assert_eq!(back.payload, letter.payload);
        let own = |record: &Rec| record.headers.iter().take(5).cloned().collect::<Vec<_>>();
        assert_eq!(own(back), own(letter));
    }
    // Of a partition of dead.pick, letters went back in their order.
    for of_partition in dead.chunk_by(|a, b| a.partition == b.partition) {
        let went: Vec<usize> = of_partition
            .iter()
            .skip(usize::from(of_partition[0] == dead[0]))
            .map(|l| redriven.iter().position(|r| r.key == l.key).unwrap())
            .collect();
        assert!(went.is_sorted(), "{went:?}");
    }

    // Its span links to the failure.
    let spans = eventually("the spans of both tries", LIMIT, async || {
        let spans: Vec<_> = collector.spans().into_iter().filter(|s| s.name() == "warehouse.pick").collect();
        if spans.len() == 24 { Ok(spans) } else { Err(format!("{} spans", spans.len())) }
    })
    .await;
    let answered = spans.iter().filter(|span| !span.attributes().contains_key("error.type"));
    answered.for_each(crate::telemetry::keeps_contract);
    let failed: BTreeSet<(String, String)> = spans
        .iter()
        .filter(|span| span.attributes().contains_key("error.type"))
        .map(|span| (span.trace_id(), span.span_id()))
        .collect();
    let linked: BTreeSet<(String, String)> = spans
        .iter()
        .flat_map(|span| span.links())
        .filter(|(_, _, attributes)| attributes["link.type"] == "redrive_of" && attributes["link.stage"] == "pick")
        .map(|(trace, span, _)| (trace, span))
        .collect();
    assert_eq!((failed.len(), &linked), (12, &failed));

    // What was published is what was exported, both tries of it; and nobody is stuck at pick any more.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("export.json");
    let lines: Vec<String> = collector.spans().iter().map(|span| span.otlp_line().unwrap()).collect();
    std::fs::write(&file, lines.join("\n")).unwrap();
    let verified: Value =
        serde_json::from_str(&shop.done(&["replay", "--verify", file.to_str().unwrap(), "--json"])).unwrap();
    assert_eq!(
        (&verified["replay"]["bad"], &verified["verified"]["differing"]),
        (&json!(0), &json!(0)),
        "{verified:#}"
    );
    let stuck = stuck(&shop);
    assert!(stuck.as_array().unwrap().iter().all(|o| o["waits_for"] == "ship" && o["reason"].is_null()), "{stuck:#}");

    // A second time is refused, unless it is meant; then the answer is repeated and nothing else happens.
    let (code, text) = said(&shop, &["dead", "redrive", &first, "--yes"]);
    assert!(code == Some(3) && text.contains("redriven at") && text.contains("by anna"), "{text}");
    assert_eq!(said(&shop, &["dead", "redrive", "--stage", "pick", "--yes"]).0, Some(4), "none waits");
    assert_eq!(listed(&shop, &["--state", "redriven"])["matched"], 12);
    shop.done(&["dead", "redrive", &first, "--yes", "--again"]);
    shop.until_committed("pick", "redrive.pick").await;
    let picked = eventually("the answer is repeated", LIMIT, async || match shop.read("orders.picked") {
        picked if picked.len() == 13 => Ok(picked),
        picked => Err(format!("{} records", picked.len())),
    })
    .await;
    assert_eq!(once_by_id(&picked).len(), 12);
    assert_eq!(shop.number("select quantity::int8 from bins where product_id = 'p-new'").await, 100 - 24);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_again_is_a_new_letter_and_what_is_dropped_stays_with_who_and_why() {
    let Some(shop) = Shop::open("dropped", 10).await else { return };
    let _pick = shop.run(&["pick"]);
    send(&shop, vec![order("o-1", "p-none")]).await;
    until_dead(&shop, 1).await;
    shop.done(&["dead", "redrive", "--order", "o-1", "--yes"]);
    until_dead(&shop, 2).await;
    let waiting = listed(&shop, &["--state", "waiting"]);
    let again = &waiting["letters"][0];
    assert_eq!((&waiting["matched"], &again["attempts"]), (&json!(1), &json!(2)), "{waiting:#}");
    assert_eq!((&again["topic"], &again["key"]), (&json!("orders.new"), &json!("o-1")), "of the first record");

    let at = position(again);
    let (code, text) = said(&shop, &["dead", "drop", &at, "--yes"]);
    assert!(code == Some(2) && text.contains("--why"), "{text}");
    let done = shop.done(&["dead", "drop", &at, "--why", "the customer has cancelled", "--by", "bert", "--yes"]);
    assert!(done.contains("1 letters dropped"), "{done}");
    let dropped = listed(&shop, &["--state", "dropped"]);
    let told = ["by", "why", "state"].map(|name| dropped["letters"][0][name].clone());
    assert_eq!(told, [json!("bert"), json!("the customer has cancelled"), json!("dropped")], "{dropped:#}");
    assert!(shop.done(&["dead", "show", &at]).contains("by bert: the customer has cancelled"));
    assert_eq!(shop.count("dead.pick"), 2, "it stays where it stands");
    assert!(shop.read("redrive.dropped")[0].payload.is_none());
    assert_eq!(said(&shop, &["dead", "redrive", "--order", "o-1", "--yes"]).0, Some(4), "neither goes by itself");
    assert_eq!(said(&shop, &["dead", "redrive", &at, "--yes"]).0, Some(3));
    shop.execute("insert into bins values ('p-none', 'A-1', 'A', 100)").await;
    shop.done(&["dead", "redrive", &at, "--yes", "--again"]);
    shop.until("orders.picked", 1).await;
    assert_eq!(listed(&shop, &["--state", "redriven"])["matched"], 2, "the last decision counts");
}
