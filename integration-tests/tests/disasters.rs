//! Disasters, each with what the runbook (`docs/operations.md`) says about it.

use crate::shop::{LIMIT, Shop, distinct};
use std::process::{Command, Stdio};
use waybill_harness::{KafkaCluster, KafkaServer, PostgresServer, Process, eventually, kafka, postgres};

/// Pieces in each bin, and in all of them.
const BIN: i64 = 1_000;
const UNITS: i64 = 400 * BIN;

async fn end(mut process: Process) {
    process.terminate().unwrap();
    let status = process.wait(LIMIT).await.unwrap();
    assert!(status.success(), "{status}: {}", process.log().unwrap());
}

fn send(shop: &Shop, count: usize, seed: u32) {
    shop.done(&["produce", "orders", "--count", &count.to_string(), "--seed", &seed.to_string()]);
}

async fn until_all_is_committed(shop: &Shop) {
    for (stage, topic) in [("pick", "orders.new"), ("pack", "orders.picked"), ("ship", "orders.packed")] {
        shop.until_committed(stage, topic).await;
    }
}

/// Reads `topic` from its beginning once more, as the runbook says.
fn read_again(server: &KafkaServer, shop: &Shop, stage: &str, topic: &str) {
    let (group, topic) = (shop.scope.group(&format!("waybill.{stage}")), shop.scope.topic(topic));
    let args = ["--group", &group, "--topic", &topic, "--reset-offsets", "--to-earliest", "--execute"];
    server.consumer_groups(&args).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_of_a_topic_that_lost_all_its_replicas_are_told_again_by_its_owner() {
    let (Some(_), Some(postgres)) = (kafka(), postgres()) else { return };
    let mut server = KafkaServer::start().unwrap();
    let database = postgres.create_database("replicas").await.unwrap();
    let shop = Shop::at(server.bootstrap(), "replicas", database.url());
    shop.done(&["topics", "apply"]);
    shop.done(&["bins", "load", "--test-goods", &BIN.to_string()]);
    let (pick, pack, _ship) = (shop.run(&["pick"]), shop.run(&["pack"]), shop.run(&["ship"]));
    send(&shop, 100, 1);
    shop.until("orders.shipped", 100).await;
    until_all_is_committed(&shop).await;
    end(pack).await;
    // These only the topic knows and nobody has read.
    send(&shop, 50, 2);
    shop.until("orders.picked", 150).await;
    shop.until_committed("pick", "orders.new").await;

    server.kill().unwrap();
    server.lose(&shop.scope.topic("orders.picked")).unwrap();
    server.start_again().unwrap();
    let told = eventually("the lag tells of the loss", LIMIT, async || {
        // Until its partitions have a leader there is no telling.
        let output = shop.command(&["lag", "--stage", "pack"]);
        let told = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        if told.contains("its records were lost") { Ok(told) } else { Err(told) }
    })
    .await;
    assert!(told.contains("ends at 0"), "{told}");

    // Stages go on with what comes. Its offsets would hide these from pack: they count from before the loss.
    send(&shop, 100, 3);
    shop.until("orders.picked", 100).await;
    read_again(&server, &shop, "pack", "orders.picked");
    let _pack = shop.run(&["pack"]);
    shop.until("orders.shipped", 200).await;

    // Whoever owns the topic repeats all it has ever said, and nothing is picked twice.
    end(pick).await;
    read_again(&server, &shop, "pick", "orders.new");
    let _pick = shop.run(&["pick"]);
    shop.until("orders.shipped", 250).await;
    until_all_is_committed(&shop).await;
    shop.check(250, UNITS).await;
}

/// Waits until every partition, of Kafka's own topics too, has as many in-sync replicas as replicas.
async fn until_whole(cluster: &KafkaCluster) {
    eventually("all replicas are in sync", LIMIT, async || match cluster.under_replicated() {
        Ok(under) if under.is_empty() => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

/// Waits until a partition that this broker led is led by another one; which.
async fn until_led_by_another(cluster: &KafkaCluster, shop: &Shop, lost: usize) -> usize {
    eventually("another broker leads", LIMIT, async || match cluster.leader(&shop.scope.topic("orders.new"), 0) {
        Ok(leader) if leader != lost => Ok(leader),
        seen => Err(format!("{seen:?}")),
    })
    .await
}

/// Orders that are sent from now on are shipped, too.
async fn until_more_are_shipped(shop: &Shop) {
    let before = distinct(&shop.read("orders.new")).len();
    shop.until("orders.shipped", before + 25).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_comes_back_without_its_disk_is_filled_by_the_others_and_bears_the_next_loss() {
    // That there is a Kafka to be had at all; the test's own has three brokers.
    let (Some(_), Some(postgres)) = (kafka(), postgres()) else { return };
    let mut cluster = KafkaCluster::start(3).unwrap();
    let database = postgres.create_database("disk").await.unwrap();
    let shop = Shop::at(&cluster.bootstrap(), "disk", database.url());
    shop.done(&["topics", "apply"]);
    shop.done(&["bins", "load", "--test-goods", &BIN.to_string()]);
    let _stages = [shop.run(&["fulfilment"]), shop.run(&["fulfilment"])];
    // More than there is time for.
    let mut orders = shop.start(&["produce", "orders", "--count", "100000", "--seed", "9", "--rate", "25"]);
    shop.until("orders.shipped", 50).await;
    until_whole(&cluster).await;

    let lost = cluster.leader(&shop.scope.topic("orders.new"), 0).unwrap();
    cluster.kill(lost).unwrap();
    cluster.lose_disk(lost).unwrap();
    // The others have noticed, and orders go on.
    let other = until_led_by_another(&cluster, &shop, lost).await;
    until_more_are_shipped(&shop).await;
    cluster.start_again(lost).unwrap();
    until_whole(&cluster).await;

    // What it was given back is whole: without the next one there are no more than two, and both are needed.
    cluster.kill(other).unwrap();
    until_led_by_another(&cluster, &shop, other).await;
    until_more_are_shipped(&shop).await;
    assert!(orders.ended().unwrap().is_none(), "{}", orders.log().unwrap());
    orders.kill().unwrap();
    orders.wait(LIMIT).await.unwrap();
    let sent = eventually("all that was sent is shipped", LIMIT, async || {
        let [sent, shipped] = ["orders.new", "orders.shipped"].map(|topic| distinct(&shop.read(topic)).len());
        if sent == shipped { Ok(sent) } else { Err(format!("{shipped} of {sent}")) }
    })
    .await;
    until_all_is_committed(&shop).await;
    shop.check(sent, UNITS).await;
}

/// As Postgres's own programs read it: what follows the ? is for our client.
fn plain(url: &str) -> &str {
    url.split('?').next().unwrap()
}

/// Runs a program of Postgres to its end; `input` and what it printed are SQL.
fn program(server: &PostgresServer, name: &str, args: &[&str], input: Stdio) -> Vec<u8> {
    let output = Command::new(server.program(name).unwrap()).args(args).stdin(input).output().unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_restored_from_a_dump_goes_on_and_what_it_lacks_is_not_done_again() {
    if postgres().is_none() {
        return;
    }
    let server = PostgresServer::start().unwrap();
    let database = server.create_database("before").await.unwrap();
    let Some(mut shop) = Shop::on("restore", database.url()).await else { return };
    shop.done(&["bins", "load", "--test-goods", &BIN.to_string()]);
    let stages = shop.run(&["fulfilment"]);
    send(&shop, 100, 1);
    shop.until("orders.shipped", 100).await;
    let folder = tempfile::tempdir().unwrap();
    let dump = folder.path().join("dump.sql");
    std::fs::write(&dump, program(&server, "pg_dump", &[plain(database.url())], Stdio::null())).unwrap();
    send(&shop, 100, 2);
    shop.until("orders.shipped", 200).await;
    until_all_is_committed(&shop).await;
    end(stages).await;

    let restored = server.create_database("after").await.unwrap();
    let input = std::fs::File::open(&dump).unwrap().into();
    program(&server, "psql", &["-q", "-v", "ON_ERROR_STOP=1", plain(restored.url())], input);
    restored.url().clone_into(&mut shop.database);
    assert_eq!(shop.number("select count(*) from picks").await, 100, "the dump lacks what came after it");
    // As the runbook says: no number that is on a parcel already is drawn again.
    shop.execute("select setval('tracking_serials', nextval('tracking_serials') + 1000000)").await;
    let _stages = shop.run(&["fulfilment"]);
    send(&shop, 100, 3);
    let shipped = shop.until("orders.shipped", 300).await;
    until_all_is_committed(&shop).await;

    // Offsets are where they were, so nothing of between is picked, packed or labelled again.
    for topic in ["orders.picked", "orders.packed", "orders.shipped"] {
        let records = shop.read(topic);
        assert_eq!((records.len(), distinct(&records).len()), (300, 300), "{topic}");
    }
    let numbers: Vec<String> = shipped
        .iter()
        .flat_map(|record| record.json().unwrap()["parcels"].as_array().unwrap().clone())
        .map(|parcel| parcel["tracking_number"].to_string())
        .collect();
    let different: std::collections::BTreeSet<&String> = numbers.iter().collect();
    assert_eq!(different.len(), numbers.len(), "a tracking number stands on two parcels");
    assert_eq!(shop.number("select count(*) from picks").await, 200);
    // The bins believe in goods that are gone: whatever was picked between.
    let taken: i64 = shop
        .read("orders.picked")
        .iter()
        .flat_map(|record| record.json().unwrap()["lines"].as_array().unwrap().clone())
        .filter_map(|line| line["quantity"].as_i64())
        .sum();
    let left = shop.number("select sum(quantity)::int8 from bins").await;
    assert!(left + taken > UNITS, "{left} are left, {taken} were taken");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_restored_from_a_base_backup_and_its_log_has_lost_nothing() {
    if postgres().is_none() {
        return;
    }
    let mut server = PostgresServer::start().unwrap();
    let database = server.create_database("log").await.unwrap();
    let url = database.url();
    let Some(shop) = Shop::on("log", url).await else { return };
    shop.done(&["bins", "load", "--test-goods", &BIN.to_string()]);
    let _stages = shop.run(&["fulfilment"]);
    send(&shop, 100, 1);
    shop.until("orders.shipped", 100).await;

    let folder = tempfile::tempdir().unwrap();
    let [backup, log] = ["backup", "log"].map(|name| folder.path().join(name));
    std::fs::create_dir(&log).unwrap();
    let (backup_text, log_text) = (backup.to_str().unwrap(), log.to_str().unwrap());
    let args = ["-D", log_text, "--synchronous", "--no-loop", "-d", plain(url)];
    let receiver = Process::spawn(&server.program("pg_receivewal").unwrap(), args, [("PGTZ", "UTC")]).unwrap();
    let receives = "select count(*) from pg_stat_replication where application_name = 'pg_receivewal'";
    eventually("somebody receives the log", LIMIT, async || {
        if shop.number(receives).await == 1 { Ok(()) } else { Err(receiver.log().unwrap()) }
    })
    .await;
    program(
        &server,
        "pg_basebackup",
        &["-D", backup_text, "-X", "none", "-c", "fast", "-d", plain(url)],
        Stdio::null(),
    );
    // From now on a commit waits until the receiver has it, too.
    shop.execute("alter system set synchronous_standby_names = 'pg_receivewal'").await;
    shop.execute("select pg_reload_conf()").await;
    eventually("commits wait for the receiver", LIMIT, async || {
        let sql = "select count(*) from pg_stat_replication where sync_state = 'sync'";
        if shop.number(sql).await == 1 { Ok(()) } else { Err(receiver.log().unwrap()) }
    })
    .await;

    let mut orders = shop.start(&["produce", "orders", "--count", "400", "--seed", "2", "--rate", "40"]);
    shop.until("orders.shipped", 250).await;
    server.stop_immediate().unwrap();
    drop(receiver);
    server.restore(&backup, &log).unwrap();
    server.start_again().unwrap();
    let status = orders.wait(LIMIT).await.unwrap();
    assert!(status.success(), "{status}: {}", orders.log().unwrap());
    shop.until("orders.shipped", 500).await;
    until_all_is_committed(&shop).await;
    shop.check(500, UNITS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_on_which_a_stage_crashes_each_time_is_found_refused_and_redriven() {
    let Some(mut shop) = Shop::open("crash", 1_000).await else { return };
    let _others = shop.run(&["pack", "ship"]);
    send(&shop, 60, 7);
    shop.set("WAYBILL_TEST_FAILPOINT", "key:o-7-0000042");
    // Whatever a supervisor does, it comes again.
    for _ in 0..2 {
        let mut crashing = shop.run(&["pick"]);
        let status = crashing.wait(LIMIT).await.unwrap();
        assert!(!status.success(), "{status}");
    }
    let lag: serde_json::Value = serde_json::from_str(&shop.done(&["lag", "--stage", "pick", "--json"])).unwrap();
    assert!(lag[0]["records"].as_i64() > Some(0), "it waits: {lag}");

    // The last line names it.
    shop.set("RUST_LOG", "waybill=debug");
    let mut crashing = shop.run(&["pick"]);
    crashing.wait(LIMIT).await.unwrap();
    let log = crashing.log().unwrap();
    let last = log.lines().rfind(|line| line.contains("decides")).unwrap_or_else(|| panic!("{log}"));
    let field = |name: &str| {
        let value = last.split(name).nth(1).and_then(|rest| rest.split_whitespace().next());
        value.unwrap_or_else(|| panic!("{last}")).to_owned()
    };
    let position = [field("topic="), field("partition="), field("offset=")].join("/");

    shop.set("RUST_LOG", "waybill=info");
    let refusing = shop.start(&["run", "pick", "--refuse", &position]);
    shop.until("orders.shipped", 59).await;
    shop.until_committed("pick", "orders.new").await;
    let listed = shop.done(&["dead", "list", "--stage", "pick"]);
    assert!(listed.contains("o-7-0000042") && listed.contains("refused"), "{listed}");
    end(refusing).await;

    // The cause is mended.
    shop.set("WAYBILL_TEST_FAILPOINT", "none");
    let _pick = shop.run(&["pick"]);
    shop.done(&["dead", "redrive", "--stage", "pick", "--reason", "refused", "--yes"]);
    shop.until("orders.shipped", 60).await;
    until_all_is_committed(&shop).await;
    assert_eq!(shop.count("dead.pick"), 1);
    // One order is a dead letter and shipped all the same; the rest is as always.
    let report = shop.chain(UNITS).check().await.unwrap();
    assert_eq!((report.orders, report.shipped, report.dead), (60, 60, 1), "{report}");
    // Its span says where it comes from, which nobody else's does.
    let redriven = |sentence: &&String| sentence.starts_with("o-7-0000042") && sentence.contains("links");
    let other: Vec<&String> = report.violations.iter().filter(|sentence| !redriven(sentence)).collect();
    assert_eq!(other, [""; 0], "{report}");
}
