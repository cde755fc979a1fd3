//! Journeys rebuilt from the topics, beside what the stages exported.

use crate::front::{Front, PRICE};
use crate::shop::{LIMIT, Shop};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::{Value, json};
use sqlx::{Connection, Row, SqliteConnection};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;
use waybill_harness::{Caught, Collector, Draft, Manner, Process, eventually, produce};

/// Writes what a collector caught, as its file exporter does.
fn export(collector: &Collector, file: &Path) {
    let lines: Vec<String> = collector.spans().iter().map(|span| span.otlp_line().unwrap()).collect();
    std::fs::write(file, lines.join("\n")).unwrap();
}

/// What `waybill replay --verify` says once every span is there that is to come: `enough` decides.
async fn verified(shop: &Shop, collector: &Collector, enough: impl Fn(&Value) -> bool) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("export.json");
    eventually("the export is whole", LIMIT, async || {
        export(collector, &file);
        let output = shop.command(&["replay", "--verify", file.to_str().unwrap(), "--json"]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let said: Value = serde_json::from_str(&said)
            .map_err(|e| format!("{e}: {said} {}", String::from_utf8_lossy(&output.stderr)))?;
        let differences = [&said["verified"]["differing"], &said["verified"]["unpublished"]];
        let code = if differences.iter().all(|count| **count == 0) { 0 } else { 3 };
        assert_eq!(output.status.code(), Some(code), "{said:#}");
        if enough(&said["verified"]) { Ok(said) } else { Err(format!("{said:#}")) }
    })
    .await
}

/// All rows of a target, as text.
async fn rows(file: &Path) -> Vec<String> {
    let mut db = SqliteConnection::connect(&format!("sqlite://{}", file.display())).await.unwrap();
    let mut all = Vec::new();
    for sql in [
        "select json_array(ce_id, topic, partition_id, record_offset, time_ns, order_id, reason) from records order by 1",
        "select json_array(trace_id, span_id, parent_span_id, trace_flags, stage, scope, version, name, kind, start_ns, end_ns,
             stamp, order_id, input, attributes, status, topic, partition_id, record_offset) from spans order by 1",
        "select json_array(trace_id, span_id, position, linked_trace_id, linked_span_id, linked_trace_flags, type, stage)
         from span_links order by 1",
        "select json_array(trace_id, span_id, position, name, time_ns, attributes) from span_events order by 1",
    ] {
        let found = sqlx::query(sql).fetch_all(&mut db).await.unwrap();
        assert!(!found.is_empty(), "{sql}");
        all.extend(found.into_iter().map(|row| row.get::<String, _>(0)));
    }
    all
}

/// A shop in which some bought and one was declined, and its orders.
async fn sold(front: &Front) -> Vec<String> {
    front.sell("p-0001", 100).await;
    front.until_open().await;
    let mut orders = Vec::new();
    for (cart, method) in [("k-1", "pm_card_visa"), ("k-2", "pm_card_visa"), ("k-3", "pm_card_chargeDeclined")] {
        front.cart(cart, "u-1", &[("p-0001", 2)], PRICE).await;
        let answer = front.checkout(cart, "u-1", method, &[]).await;
        orders.push(answer["orderId"].as_str().unwrap().to_owned());
    }
    front.shop.until("orders.shipped", 2).await;
    front.shop.until("checkout.rejected", 1).await;
    orders
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_rebuilds_what_was_exported_the_same_rows_however_often_and_gives_it_back() {
    let collector = Collector::start().unwrap();
    let Some(front) = Front::open("rebuilt", Some(&collector)).await else { return };
    let all = front.shop.run(&["all"]);
    let orders = sold(&front).await;
    let shop = &front.shop;

    // An undisturbed run: nothing is listed, and requests and the like stand apart.
    let said = verified(shop, &collector, |v| v["unexported"] == 0 && v["exported"].as_u64() > Some(30)).await;
    let verified = &said["verified"];
    for count in ["differing", "unpublished", "unexported"] {
        assert_eq!(verified[count], 0, "{count}: {said:#}");
    }
    assert!(verified["apart"]["POST /api/checkout"].as_u64() >= Some(3), "{said:#}");
    let apart: u64 = verified["apart"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
    assert_eq!(verified["equal"].as_u64(), verified["exported"].as_u64().map(|all| all - apart), "{said:#}");
    assert_eq!(verified["provisional"], 3, "{said:#}");
    assert_eq!((&said["replay"]["bad"], &said["replay"]["missing"]), (&json!(0), &json!({})), "{said:#}");

    // A difference is found.
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    export(&collector, Path::new(&file("export.json")));
    let text = std::fs::read_to_string(file("export.json")).unwrap();
    std::fs::write(file("export.json"), text.replacen("warehouse.pick_item", "warehouse.pick_thing", 1)).unwrap();
    let output = shop.command(&["replay", "--verify", &file("export.json")]);
    let shown = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(3));
    assert!(shown.contains("differs: warehouse.pick_item ") && shown.contains("name: exported"), "{shown}");

    // Whole, again, in another order, in two ranges that overlap.
    shop.done(&["replay", "--to", &file("whole.db")]);
    let whole = rows(Path::new(&file("whole.db"))).await;
    let again: Value = serde_json::from_str(&shop.done(&["replay", "--to", &file("whole.db"), "--json"])).unwrap();
    assert_eq!(again["replay"]["records"], 0, "it goes on where the last one ended: {again:#}");
    shop.done(&["replay", "--to", &file("whole.db"), "--again"]);
    assert_eq!(rows(Path::new(&file("whole.db"))).await, whole);
    for topics in ["orders.shipped,orders.packed", "orders.picked,orders.new", "checkout.rejected,checkout.completed"] {
        shop.done(&["replay", "--to", &file("parts.db"), "--topics", topics]);
    }
    let middle = shop.read("orders.picked").iter().filter_map(|r| r.timestamp_ms).max().unwrap();
    let middle = jiff::Timestamp::from_millisecond(middle).unwrap().to_string();
    shop.done(&["replay", "--to", &file("parts.db"), "--since", &middle]);
    shop.done(&["replay", "--to", &file("parts.db"), "--until", &middle]);
    shop.done(&["replay", "--to", &file("parts.db")]);
    assert_eq!(rows(Path::new(&file("parts.db"))).await, whole);
    shop.done(&["replay", "--to", &file("one.db"), "--order", &orders[0]]);
    let one = rows(Path::new(&file("one.db"))).await;
    assert!(one.len() < whole.len() && one.iter().all(|row| whole.contains(row)));

    // Counting writes nothing.
    let counted: Value = serde_json::from_str(&shop.done(&["replay", "--dry-run", "--json"])).unwrap();
    assert_eq!(counted["replay"]["records"], said["replay"]["records"]);
    drop(all);
    given_back(shop, &collector).await;
}

/// A tracing store that lost its data has it back, though it is away at first.
async fn given_back(shop: &Shop, before: &Collector) {
    let store = Collector::start().unwrap();
    store.meet(Manner::Refuse);
    let told = std::thread::scope(|scope| {
        let endpoint = store.endpoint();
        let replay = scope.spawn(move || shop.done(&["replay", "--otlp", &endpoint, "--rate", "500", "--json"]));
        while store.refused() == 0 {
            std::thread::yield_now();
        }
        store.meet(Manner::Keep);
        replay.join().unwrap()
    });
    let told: Value = serde_json::from_str(&told).unwrap();
    let chain = |span: &Caught| ["waybill.checkout", "waybill.fulfilment"].contains(&span.scope_name.as_str());
    let by_id = |spans: Vec<Caught>| -> BTreeMap<(String, String), Caught> {
        spans.into_iter().filter(chain).map(|span| ((span.trace_id(), span.span_id()), span)).collect()
    };
    let (before, back) = (by_id(before.spans()), by_id(store.spans()));
    assert_eq!(before.keys().collect::<BTreeSet<_>>(), back.keys().collect::<BTreeSet<_>>());
    assert_eq!(told["sent"]["spans"].as_u64(), Some(back.len() as u64));
    for (id, span) in &before {
        let again = &back[id];
        assert_eq!(again.span, span.span);
        assert_eq!((&again.scope_name, &again.scope_version), (&span.scope_name, &span.scope_version));
        assert_eq!(again.resource["service.name"], span.resource["service.name"]);
        assert_eq!(again.resource["waybill.replayed"], true);
    }
    let output = shop.command(&["replay", "--otlp", "http://127.0.0.1:9"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("0 of ") && error.contains("http://127.0.0.1:9"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parking_short_picks_dead_letters_and_kills_leave_no_difference() {
    let collector = Collector::start().unwrap();
    let settings = [("WAYBILL_SIMULATOR_LATENCY", "200ms"), ("WAYBILL_KAFKA_SESSION_TIMEOUT_MS", "2000")];
    let Some(mut front) = Front::open_with("disturbed", Some(&collector), &settings).await else { return };
    front.shop.set("WAYBILL_KAFKA_HEARTBEAT_INTERVAL_MS", "500");
    let _steady = front.shop.run(&["gateway", "inventory", "pack", "ship"]);
    let mut killed = ["checkout", "pick"].map(|stage| front.shop.run(&[stage]));
    front.sell("p-0001", 1_000).await;
    front.sell("p-0002", 1_000).await;
    // Three pieces where more are bought: short picks.
    front.shop.execute("update bins set quantity = 3 where product_id = 'p-0002'").await;
    front.until_open().await;

    let mut orders = 0;
    for round in 0..4 {
        for number in 0..6 {
            let (cart, user) = (format!("k-{round}-{number}"), format!("u-{round}-{number}"));
            let lines = [("p-0001", 1), ("p-0002", 4)];
            front.cart(&cart, &user, &lines[..1 + number % 2], PRICE).await;
            // The answer to every third charge is lost: its record is parked and it is asked for again.
            let method = if number == 2 { "pm_reset" } else { "pm_card_visa" };
            front.checkout(&cart, &user, method, &[("prefer", "respond-async")]).await;
            orders += 1;
        }
        bad_records(&front.shop, round).await;
        // While charges are out and orders are being picked.
        for (process, stage) in killed.iter_mut().zip(["checkout", "pick"]) {
            process.kill().unwrap();
            *process = front.shop.run(&[stage]);
        }
        front.shop.execute("update parked set leased_until = now() where leased_until > now()").await;
    }
    all_is_done(&front, orders).await;
    let shop = &front.shop;
    let dead = shop.count("dead.pick") + shop.count("dead.checkout");
    assert!(dead >= 16, "{dead} dead letters");
    assert!(!shop.read("orders.short").is_empty());

    // What a killed process had not exported yet is listed apart; the rest has come when as much is equal as ever will be.
    let said = verified(shop, &collector, |v| v["equal"].as_u64() > Some(10 * orders as u64)).await;
    let verified = &said["verified"];
    assert_eq!((&verified["differing"], &verified["unpublished"]), (&json!(0), &json!(0)), "{said:#}");
    // A charge that was asked for again: its record was parked in between.
    let mut charges: BTreeMap<String, usize> = BTreeMap::new();
    for span in collector.spans().iter().filter(|span| span.name() == "payment.process") {
        *charges.entry(span.trace_id()).or_default() += 1;
    }
    assert!(charges.values().any(|charges| *charges > 1), "{charges:?}");
    assert!(collector.spans().iter().any(|span| span.attributes().get("error.type") == Some(&json!("unreadable"))));
}

/// Bytes and orders that nobody accepts, with and without a waybill in them.
async fn bad_records(shop: &Shop, round: usize) {
    let stamp = json!({"stage": "checkout", "trace_id": format!("{:032x}", round + 1), "span_id": format!("{:016x}", 7),
        "trace_flags": "01", "started_at": "2026-11-21T10:00:00Z", "ended_at": "2026-11-21T10:00:00Z"});
    for topic in ["orders.new", "checkout.requested"] {
        let drafts = [("garbage", json!("no order")), ("stamped", json!({"order_id": "x", "waybill": [stamp]}))];
        let drafts = drafts.map(|(name, payload)| {
            Draft::json(&format!("{name}-{round}"), &payload)
                .header("ce_id", format!("{topic}-{name}-{round}"))
                .header("ce_type", format!("{topic}.v1"))
                .header("ce_source", "/test/outside")
                .header("ce_time", "2026-11-21T10:00:00Z")
                .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        });
        produce(&shop.bootstrap, &shop.scope.topic(topic), drafts.into()).await.unwrap();
    }
}

async fn all_is_done(front: &Front, orders: usize) {
    let shop = &front.shop;
    eventually("every order is shipped, or nothing of it was there", LIMIT, async || {
        shop.execute("update parked set due_at = now() where due_at > now()").await;
        let parked = shop.number("select count(*) from parked").await;
        let sql = "select count(*) from checkouts where state->>'status' in ('shipped', 'picked', 'packed')";
        let (known, shipped) = (shop.number(sql).await, crate::shop::distinct(&shop.read("orders.shipped")).len());
        if parked == 0 && shipped == orders {
            Ok(())
        } else {
            Err(format!("{parked} parked, {known} known, {shipped} shipped"))
        }
    })
    .await;
    for (stage, topic) in [("checkout", "orders.short"), ("checkout", "orders.shipped"), ("pick", "orders.new")] {
        shop.until_committed(stage, topic).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_that_is_killed_goes_on_and_makes_the_same_rows_while_stages_run() {
    let Some(shop) = Shop::open("resumed", 1_000_000).await else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let process = shop.run(&["fulfilment"]);
    shop.done(&["produce", "orders", "--count", "4000", "--seed", "7"]);
    shop.until("orders.packed", 1_000).await;
    // Whatever it kept before it died is whole: every partition is read up to where the rows end.
    let mut killed = shop.start(&["replay", "--to", &file("resumed.db")]);
    eventually("something is kept", LIMIT, async || {
        let kept = async {
            let mut db = SqliteConnection::connect(&format!("sqlite://{}?mode=ro", file("resumed.db"))).await?;
            sqlx::query_scalar::<_, i64>("select count(*) from read_to").fetch_one(&mut db).await
        };
        match kept.await {
            Ok(partitions) if partitions > 0 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    // It may have come to its end by now; then the next run goes on from there.
    let _ = killed.kill();
    shop.until("orders.shipped", 4_000).await;
    shop.until_committed("ship", "orders.packed").await;
    drop(process);
    shop.done(&["replay", "--to", &file("resumed.db")]);
    shop.done(&["replay", "--to", &file("whole.db")]);
    assert_eq!(rows(Path::new(&file("resumed.db"))).await, rows(Path::new(&file("whole.db"))).await);
    shop.check(4_000, 400 * 1_000_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_does_not_grow_with_the_topics() {
    let Some(shop) = Shop::open("long", 1_000).await else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut peaks = Vec::new();
    for (round, orders) in [80_000, 240_000].into_iter().enumerate() {
        shop.done(&["produce", "orders", "--count", &orders.to_string(), "--seed", &round.to_string()]);
        let file = folder.path().join(format!("{round}.db"));
        let mut replay = shop.start(&["replay", "--to", file.to_str().unwrap()]);
        let mut peak = 0;
        eventually("the replay ends", LIMIT, async || {
            // It may end between the two.
            peak = replay.peak_rss().unwrap_or_default().max(peak);
            replay.ended().map_err(|error| error.to_string())?.ok_or(format!("{peak} KiB")).map(drop)
        })
        .await;
        peaks.push(peak);
    }
    // 240,000 records more, of more than a KiB each.
    assert!(peaks[0] > 0 && peaks[1] < peaks[0] + (40 << 10), "{peaks:?} KiB");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_topics_do_not_hold_any_more_is_said_and_bad_records_are_listed() {
    let Some(shop) = Shop::open("gone", 1_000).await else { return };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("journeys.db").to_str().unwrap().to_owned();
    let empty = shop.command(&["replay", "--dry-run"]);
    assert_eq!(empty.status.code(), Some(4), "{}", String::from_utf8_lossy(&empty.stderr));

    let process: Process = shop.run(&["fulfilment"]);
    shop.done(&["produce", "orders", "--count", "60", "--seed", "5"]);
    shop.until("orders.shipped", 60).await;
    drop(process);
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &shop.bootstrap).create().unwrap();
    let mut before = TopicPartitionList::new();
    let topic = shop.scope.topic("orders.new");
    let of_zero = shop.read("orders.new").iter().filter(|record| record.partition == 0).count();
    before.add_partition_offset(&topic, 0, Offset::End).unwrap();
    admin.delete_records(&before, &AdminOptions::new().operation_timeout(Some(Duration::from_secs(10)))).await.unwrap();
    let bad = Draft::json("o-bad", &json!({})).header("ce_id", "bad").header("waybill_span", "{\"stage\":");
    let bad = Draft { partition: Some(1), ..bad };
    let at = produce(&shop.bootstrap, &shop.scope.topic("orders.packed"), vec![bad]).await.unwrap();

    let said: Value = serde_json::from_str(&shop.done(&["replay", "--to", &file, "--json"])).unwrap();
    let replay = &said["replay"];
    assert_eq!(replay["gone"], json!([{"topic": "orders.new", "partition": 0, "records": of_zero}]), "{said:#}");
    assert_eq!(replay["missing"], json!({"checkout": of_zero}), "{said:#}");
    assert_eq!(replay["bad"], 1, "{said:#}");
    assert_eq!(replay["bad_listed"][0]["offset"], at[0].1, "{said:#}");
    let shown = shop.done(&["replay", "--dry-run"]);
    assert!(shown.contains(&format!("bad: orders.packed/1/{}", at[0].1)), "{shown}");
    assert!(shown.contains("are there no more"), "{shown}");

    for (args, code) in [
        (["replay", "--dry-run", "--order", "o-none"].as_slice(), 4),
        (&["replay", "--dry-run", "--since", "yesterday"], 2),
        (&["replay", "--to", "mysql://x"], 1),
        (&["replay", "--verify", "no-such-file"], 1),
        (&["replay"], 2),
        (&["late", "--at", "no-such-file.db"], 1),
        (&["late", "--sla", "soon"], 2),
    ] {
        let output = shop.command(args);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
        assert!(!error.is_empty(), "{args:?}");
    }
}
