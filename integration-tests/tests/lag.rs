//! How far stages are behind, as told from outside.

use crate::shop::{LIMIT, Shop};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::process::Command;
use waybill_harness::{Collector, Kind, Point, eventually};

const ORDERS: usize = 30;

fn lags(shop: &Shop, stage: &str) -> Value {
    let lags: Value = serde_json::from_str(&shop.done(&["lag", "--json", "--stage", stage])).unwrap();
    assert_eq!(lags.as_array().unwrap().len(), 1, "{lags:#}");
    lags[0].clone()
}

/// What a stage is told of a topic: records that wait by partition, and when the oldest of each was written.
fn waiting(lag: &Value, topic: &str) -> Vec<(i64, i64, Option<Timestamp>)> {
    let of_topic = lag["partitions"].as_array().unwrap().iter().filter(|partition| partition["topic"] == topic);
    let waiting = of_topic.filter(|partition| partition["records"] != 0).map(|partition| {
        let oldest = partition["oldest_at"].as_str().map(|time| time.parse().unwrap());
        (partition["partition"].as_i64().unwrap(), partition["records"].as_i64().unwrap(), oldest)
    });
    waiting.collect()
}

/// The same by the topic itself, where the last `left` records of each partition wait.
fn standing(shop: &Shop, topic: &str, left: impl Fn(usize) -> usize) -> Vec<(i64, i64, Option<Timestamp>)> {
    let records = shop.read(topic);
    let of_partitions = records.chunk_by(|a, b| a.partition == b.partition);
    let standing = of_partitions.filter(|records| left(records.len()) > 0).map(|records| {
        let oldest = &records[records.len() - left(records.len())];
        let oldest_at = Timestamp::from_millisecond(oldest.timestamp_ms.unwrap()).unwrap();
        (oldest.partition.into(), left(records.len()) as i64, Some(oldest_at))
    });
    standing.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_a_stage_is_told_by_partition_with_the_age_of_the_oldest() {
    let Some(shop) = Shop::open("lag", 1_000).await else { return };
    shop.done(&["produce", "orders", "--count", &ORDERS.to_string(), "--seed", "3"]);

    // Of a group that has never committed all waits.
    let before = lags(&shop, "pick");
    let told = ["records", "members", "committed", "missing"].map(|name| before[name].clone());
    assert_eq!(told, [json!(ORDERS), json!(0), json!(false), json!([])], "{before:#}");
    assert_eq!(waiting(&before, "orders.new"), standing(&shop, "orders.new", |records| records));
    assert!(before["age_s"].as_f64() > Some(0.0), "{before:#}");
    let table = shop.done(&["lag"]);
    assert!(table.contains("has never committed") && table.contains("orders.new/0"), "{table}");

    // What is taken waits no more, and what comes later does.
    let pick = shop.run(&["pick"]);
    shop.until_committed("pick", "orders.new").await;
    let running = lags(&shop, "pick");
    let told = ["records", "members", "committed", "age_s"].map(|name| running[name].clone());
    assert_eq!(told, [json!(0), json!(1), json!(true), Value::Null], "{running:#}");
    assert_eq!(lags(&shop, "pack")["records"], ORDERS, "the next stage is as far behind");
    drop(pick);
    let picked: Vec<i32> = shop.read("orders.new").iter().map(|record| record.partition).collect();
    shop.done(&["produce", "orders", "--count", "7", "--seed", "4"]);
    let later = lags(&shop, "pick");
    assert_eq!(later["records"], 7, "{later:#}");
    let new: Vec<i32> = shop.read("orders.new").iter().map(|record| record.partition).collect();
    let mut expected = Vec::new();
    for partition in 0..6 {
        let count = |all: &[i32]| all.iter().filter(|p| **p == partition).count();
        expected.extend(Some((i64::from(partition), (count(&new) - count(&picked)) as i64)).filter(|(_, n)| *n > 0));
    }
    let told: Vec<(i64, i64)> = waiting(&later, "orders.new").into_iter().map(|(p, records, _)| (p, records)).collect();
    assert_eq!(told, expected);
    for (partition, records, oldest) in waiting(&later, "orders.new") {
        let of_partition: Vec<_> =
            shop.read("orders.new").into_iter().filter(|r| i64::from(r.partition) == partition).collect();
        let record = &of_partition[of_partition.len() - records as usize];
        assert_eq!(oldest.unwrap().as_millisecond(), record.timestamp_ms.unwrap(), "{partition}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_tells_how_long_records_wait_for_a_stage_that_does_not_run() {
    let Some(mut shop) = Shop::open("oldest", 10).await else { return };
    let collector = Collector::start().unwrap();
    shop.export_to(&collector.endpoint());
    shop.set("WAYBILL_HTTP_LISTEN", "127.0.0.1:0");
    let _gateway = shop.run(&["gateway"]);
    shop.done(&["produce", "orders", "--count", "20", "--seed", "5"]);
    let partitions = standing(&shop, "orders.new", |records| records).len();
    let metric = eventually("the age is told", LIMIT, async || {
        let Some(metric) = collector.metric("waybill.consumer.oldest_age") else { return Err("nothing".to_owned()) };
        let of = |point: &&Point| point.attributes["stage"] == "pick" && point.attributes["topic"] == "orders.new";
        let waiting = metric.points.iter().filter(of).filter(|point| point.value > 0.0).count();
        if waiting == partitions { Ok(metric) } else { Err(format!("{waiting} partitions wait: {:?}", metric.points)) }
    })
    .await;
    crate::telemetry::metric_keeps_contract(&metric);
    assert_eq!((metric.unit.as_str(), metric.kind), ("s", Kind::Gauge));
    let idle = metric.points.iter().filter(|point| point.attributes["stage"] == "ship");
    assert!(idle.clone().count() > 0 && idle.clone().all(|point| point.value == 0.0), "nothing waits for ship");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_missing_is_said_and_a_cluster_that_is_away_is_an_error() {
    let Some(shop) = Shop::open("no-lag", 1).await else { return };
    let unknown = shop.command(&["lag", "--stage", "nothing"]);
    let error = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert_eq!(unknown.status.code(), Some(1), "{error}");
    assert!(error.contains("there is no stage nothing: there are checkout, "), "{error}");

    let shop = shop.without_topics();
    let lag = lags(&shop, "pick");
    let topics = ["orders.new", "redrive.pick"].map(|topic| shop.scope.topic(topic));
    assert_eq!(lag["missing"], json!(topics), "{lag:#}");
    assert_eq!(lag["records"], 0);
    assert!(shop.done(&["lag"]).contains(&format!("there is no topic {}", topics[0])));

    let away = Command::new(env!("CARGO_BIN_EXE_waybill")).args(["lag", "--brokers", "127.0.0.1:9"]).output().unwrap();
    let error = String::from_utf8_lossy(&away.stderr).into_owned();
    assert_eq!(away.status.code(), Some(1), "{error}");
    assert!(error.contains("no Kafka broker answers at 127.0.0.1:9"), "{error}");
}
