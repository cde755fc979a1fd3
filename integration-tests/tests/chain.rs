//! Orders through the chain, by several processes of each stage.

use crate::shop::{Shop, once_by_id};
use std::collections::BTreeMap;
use waybill_harness::{Collector, Draft, Process, eventually, produce};

const EACH: u32 = 1_000;
const UNITS: i64 = 400 * 1_000;

fn stop(process: &mut Process) {
    process.terminate().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_orders_are_shipped_by_three_processes_of_each_stage() {
    let Some(shop) = Shop::open("ten-thousand", EACH).await else { return };
    let _processes: Vec<Process> =
        ["pick", "pack", "ship"].iter().flat_map(|stage| (0..3).map(|_| shop.run(&[stage]))).collect();
    shop.done(&["produce", "orders", "--count", "10000", "--seed", "11"]);
    shop.until("orders.shipped", 10_000).await;
    shop.until_committed("ship", "orders.packed").await;
    shop.check(10_000, UNITS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scaling_from_one_to_four_to_two_processes_under_load_changes_nothing() {
    let Some(shop) = Shop::open("scaling", EACH).await else { return };
    let mut processes = vec![shop.run(&["fulfilment"])];
    let feed = |seed: &'static str| ["produce", "orders", "--count", "1500", "--rate", "500", "--seed", seed];
    let produce = |seed| {
        let args = feed(seed);
        std::thread::scope(|s| s.spawn(|| shop.done(&args)).join().unwrap())
    };
    produce("21");
    processes.extend((0..3).map(|_| shop.run(&["fulfilment"])));
    produce("22");
    stop(&mut processes[0]);
    stop(&mut processes[1]);
    produce("23");
    for process in &mut processes[..2] {
        let status = process.wait(crate::shop::LIMIT).await.unwrap();
        assert!(status.success(), "a stop ends with 0: {status}\n{}", process.log().unwrap());
    }
    shop.until("orders.shipped", 4_500).await;
    shop.until_committed("ship", "orders.packed").await;
    shop.check(4_500, UNITS).await;
}

/// Ship reads two topics, one of which is rarely written: the second process must not be given all of that and none of the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_of_a_stage_that_reads_several_topics_takes_its_share_of_the_work() {
    let collector = Collector::start().unwrap();
    let Some(mut shop) = Shop::open("share", EACH).await else { return };
    let _others = shop.run(&["pick", "pack"]);
    shop.export_to(&collector.endpoint());
    let worked = || {
        let mut worked = BTreeMap::<String, usize>::new();
        for span in collector.spans().iter().filter(|span| span.name() == "shipping.dispatch") {
            *worked.entry(span.resource["service.version"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        worked
    };
    shop.set("OTEL_RESOURCE_ATTRIBUTES", "service.version=first");
    let _first = shop.run(&["ship"]);
    shop.done(&["produce", "orders", "--count", "60", "--seed", "51"]);
    shop.until("orders.shipped", 60).await;
    shop.set("OTEL_RESOURCE_ATTRIBUTES", "service.version=second");
    let second = shop.run(&["ship"]);
    eventually("the second has its partitions", crate::shop::LIMIT, async || {
        let log = second.log().unwrap();
        // Half of orders.packed, half of orders.cancel_requested, and with the first partition what is redriven.
        if ["partitions=6", "partitions=7"].iter().any(|share| log.contains(share)) { Ok(()) } else { Err(log) }
    })
    .await;
    shop.unset("OTEL_RESOURCE_ATTRIBUTES");
    shop.done(&["produce", "orders", "--count", "300", "--seed", "52"]);
    shop.until("orders.shipped", 360).await;
    let worked = eventually("all spans have come", crate::shop::LIMIT, async || {
        let worked = worked();
        if worked.values().sum::<usize>() >= 360 { Ok(worked) } else { Err(format!("{worked:?}")) }
    })
    .await;
    // Keys are spread over six partitions: half of 300, give or take what chance gives.
    assert!((100..=200).contains(&worked["second"]), "{worked:?}");
    shop.until_committed("ship", "orders.packed").await;
    shop.check(360, UNITS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_in_the_middle_loses_nothing_and_does_nothing_twice() {
    let Some(shop) = Shop::open("kill", EACH).await else { return };
    let stages = ["pick", "pack", "ship"];
    let mut processes: Vec<Process> = stages.iter().map(|stage| shop.run(&[stage])).collect();
    std::thread::scope(|scope| {
        let produce =
            scope.spawn(|| shop.done(&["produce", "orders", "--count", "4000", "--rate", "1000", "--seed", "31"]));
        for (index, topic) in [(0, "orders.picked"), (1, "orders.packed"), (2, "orders.shipped")] {
            // Each is killed while its own output grows.
            let begin = shop.count(topic);
            while shop.count(topic) < begin + 200 {
                std::thread::yield_now();
            }
            processes[index].kill().unwrap();
            processes[index] = shop.run(&[stages[index]]);
        }
        produce.join().unwrap();
    });
    shop.until("orders.shipped", 4_000).await;
    shop.until_committed("ship", "orders.packed").await;
    shop.check(4_000, UNITS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_repeated_under_the_same_or_another_event_id_is_picked_and_shipped_once() {
    let Some(shop) = Shop::open("repeat", EACH).await else { return };
    let _process = shop.run(&["fulfilment"]);
    for _ in 0..2 {
        shop.done(&["produce", "orders", "--count", "100", "--seed", "41"]);
    }
    let orders = shop.until("orders.new", 100).await;
    let renamed = orders.iter().map(|order| {
        let mut draft = Draft::new(order.key_str().unwrap(), order.payload.clone().unwrap());
        for (name, value) in &order.headers {
            let value = if name == "ce_id" { [b"another-", value.as_slice()].concat() } else { value.clone() };
            draft = draft.header(name, value);
        }
        draft
    });
    produce(&shop.bootstrap, &shop.scope.topic("orders.new"), renamed.collect::<Vec<_>>()).await.unwrap();
    shop.until_committed("pick", "orders.new").await;
    shop.until_committed("pack", "orders.picked").await;
    shop.until_committed("ship", "orders.packed").await;
    assert_eq!(once_by_id(&shop.read("orders.picked")).len(), 100);
    assert_eq!(once_by_id(&shop.read("orders.shipped")).len(), 100);
    assert_eq!(shop.read("orders.shipped").len(), 400, "every repeat repeats the last answer");
    shop.check(100, UNITS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_one_order_keep_their_order_and_partition() {
    let Some(shop) = Shop::open("order", EACH).await else { return };
    let _processes = [shop.run(&["fulfilment"]), shop.run(&["fulfilment"])];
    shop.done(&["produce", "orders", "--count", "500", "--seed", "51"]);
    shop.until("orders.shipped", 500).await;
    let mut partition = BTreeMap::new();
    for topic in ["orders.new", "orders.picked", "orders.packed", "orders.shipped"] {
        for record in shop.read(topic) {
            let key = record.key_str().unwrap().to_owned();
            assert_eq!(*partition.entry(key.clone()).or_insert(record.partition), record.partition, "{key} on {topic}");
            let stamps = record.json().unwrap()["waybill"].as_array().unwrap().clone();
            let stages: Vec<&str> = stamps.iter().map(|s| s["stage"].as_str().unwrap()).collect();
            let journey = ["checkout", "pick", "pack", "ship"];
            assert_eq!(stages, journey[..stages.len()], "{key} on {topic}");
            let ended = stamps.iter().map(|s| s["ended_at"].as_str().unwrap().parse().unwrap());
            let ended: Vec<jiff::Timestamp> = ended.collect();
            assert!(ended.is_sorted(), "{key} on {topic}: {ended:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_bins_do_not_hold_is_short_and_the_rest_goes_on() {
    let Some(shop) = Shop::open("short", 3).await else { return };
    let _process = shop.run(&["fulfilment"]);
    shop.done(&["produce", "orders", "--count", "600", "--seed", "61"]);
    shop.until_committed("pick", "orders.new").await;
    let short = shop.read("orders.short");
    assert!(!short.is_empty());
    let picked = crate::shop::distinct(&shop.read("orders.picked")).len();
    shop.until("orders.shipped", picked).await;
    shop.check(600, 400 * 3).await;
    eventually("the bins are as good as empty", crate::shop::LIMIT, async || {
        let left = shop.number("select sum(quantity)::int8 from bins").await;
        if left < 100 { Ok(()) } else { Err(format!("{left} units left")) }
    })
    .await;
}
