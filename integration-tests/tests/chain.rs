//! Orders through the chain, by several processes of each stage.

use crate::shop::{Shop, once_by_id};
use waybill_harness::{Draft, Process, eventually, produce};

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
    let mut partition = std::collections::BTreeMap::new();
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
