//! What `waybill topics acls` prints is what the stages need, and nothing more: on a real broker that enforces it.

use crate::kafka_security::{certificate, open, password};
use crate::shop::{LIMIT, Shop};
use std::process::Output;
use std::time::Duration;
use waybill_harness::{PASSWORD, Process, SecuredKafka, eventually};

fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat()
}

/// What a user runs; the exit code and what it said.
fn run(shop: &Shop, kafka: &SecuredKafka, user: &str, args: &[&str]) -> (Option<i32>, String) {
    let output = shop.command_as(args, &kafka.scram(), &password(kafka, user, PASSWORD));
    (output.status.code(), said(&output))
}

fn grant(shop: &Shop, kafka: &SecuredKafka, args: &[&str]) {
    kafka.run_acls(&shop.done(&[&["topics", "acls"], args].concat())).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_stage_runs_as_its_own_user_with_the_rights_that_are_printed_and_has_no_others() {
    let Some((kafka, mut shop, _database)) = open("rights").await else { return };
    shop.done(&["bins", "load", "--test-goods", "1000"]);

    // Nobody may do anything yet, and is told so.
    let (code, said) = run(&shop, kafka, "pick", &["run", "pick"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("user pick may not see topic") && said.contains("waybill topics acls"), "{said}");

    grant(&shop, kafka, &["pick", "pack", "gateway", "operator", "reader", "deploy"]);
    // Ship is somebody by its certificate; given twice is given once.
    for _ in 0..2 {
        grant(&shop, kafka, &["ship", "--principal", "User:CN={role}"]);
    }
    let by_certificate = certificate(kafka, Some(&kafka.certificate("ship").unwrap()));
    let mut processes: Vec<Process> =
        ["pick", "pack"].map(|stage| shop.run_as(&[stage], &kafka.scram(), &password(kafka, stage, PASSWORD))).into();
    processes.push(shop.run_as(&["ship"], &kafka.mtls(), &by_certificate));
    shop.set("WAYBILL_HTTP_LISTEN", "127.0.0.1:0");
    let gateway = shop.run_as(&["gateway"], &kafka.scram(), &password(kafka, "gateway", PASSWORD));
    shop.done(&["produce", "orders", "--count", "300", "--seed", "7"]);
    shop.until("orders.shipped", 300).await;
    shop.until_committed("ship", "orders.packed").await;
    shop.check(300, 400 * 1_000).await;
    eventually("the gateway reads what it waits for", LIMIT, async || {
        let log = gateway.log().unwrap();
        if log.contains("reading=true") { Ok(()) } else { Err(log) }
    })
    .await;
    for process in processes.iter().chain([&gateway]) {
        let log = process.log().unwrap();
        assert!(!log.contains("kafka refuses"), "{log}");
    }

    // Who looks, who is on call and who deploys can do their work.
    for (user, args) in [
        ("reader", &["lag"][..]),
        ("reader", &["trace", "o-7-0000004"]),
        ("reader", &["topics", "list"]),
        ("reader", &["dead", "list"]),
        ("operator", &["topics", "plan"]),
        ("operator", &["lag", "--stage", "ship"]),
        ("deploy", &["topics", "apply"]),
    ] {
        let (code, said) = run(&shop, kafka, user, args);
        assert_eq!(code, Some(0), "{user} {args:?}: {said}");
    }
    let processes_told = run(&shop, kafka, "reader", &["lag", "--stage", "pick"]).1;
    assert!(processes_told.lines().any(|line| line.starts_with("pick") && line.contains(" 1 ")), "{processes_told}");

    // A stage does not write what is another's.
    let (code, said) = run(&shop, kafka, "pick", &["produce", "orders", "--count", "1"]);
    assert_ne!(code, Some(0), "{said}");
    let topic = shop.scope.topic("orders.new");
    assert!(said.contains(&topic) && said.contains("user pick") && said.contains("waybill topics acls"), "{said}");
    assert_eq!(shop.count("orders.new"), 300);
    // Who looks does not write, and who deploys does not look.
    let (code, said) = run(&shop, kafka, "deploy", &["lag"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("Kafka refuses") && said.contains("user deploy"), "{said}");
}

/// A letter for `dead.<stage>` cannot be written either: what the stage does is wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_without_a_right_waits_names_what_it_may_not_do_and_goes_on_when_it_may() {
    let Some((kafka, shop, _database)) = open("denied").await else { return };
    shop.done(&["bins", "load", "--test-goods", "1000"]);
    // All that pack needs but two rights: that to write its output, which it may only see, and that to its group.
    let script = shop.done(&["topics", "acls", "pack"]);
    let (packed, group) = (shop.scope.topic("orders.packed"), shop.scope.group("waybill.pack"));
    let without = |script: &str, words: &str| {
        assert!(script.contains(words), "{words} is missing: {script}");
        script.replace(words, "")
    };
    let see = format!(
        "{}kafka-acls.sh --add --bootstrap-server {} --allow-principal User:pack --operation Describe --topic {packed}\n",
        without(&script, &format!("--topic '{packed}' ")),
        kafka.inside()
    );
    kafka.run_acls(&without(&see, &format!("--group '{group}' "))).unwrap();
    let _pick = shop.run(&["pick"]);
    let start = || shop.run_as(&["pack"], &kafka.scram(), &password(kafka, "pack", PASSWORD));
    let mut pack = start();
    // A right is given a moment before the broker knows it: who comes sooner is turned away, and ends.
    eventually("the stage runs", LIMIT, async || {
        let log = pack.log().unwrap();
        if pack.ended().unwrap().is_some() {
            pack = start();
        }
        if log.contains("running") { Ok(()) } else { Err(log) }
    })
    .await;
    shop.done(&["produce", "orders", "--count", "20", "--seed", "3"]);
    shop.until("orders.picked", 20).await;
    logged(&pack, &["kafka refuses", "Group authorization failed", "user pack", "waybill topics acls"]).await;

    // With its group it reads, and cannot write.
    kafka.run_acls(&see).unwrap();
    eventually("the stage says what it cannot write", LIMIT, async || {
        let log = pack.log().unwrap();
        let parts = ["paused", &format!("cannot write to {packed}"), "Topic authorization failed"];
        if parts.iter().all(|part| log.contains(part)) { Ok(()) } else { Err(log) }
    })
    .await;
    assert_eq!(shop.count("orders.packed"), 0);
    assert!(pack.ended().unwrap().is_none(), "{}", pack.log().unwrap());
    let used = cpu(&pack);
    // It tries now and then: a spinning process would use all of a core in this time.
    let until = std::time::Instant::now() + Duration::from_secs(5);
    eventually("five seconds are over", LIMIT, async || {
        if std::time::Instant::now() > until { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    let used = cpu(&pack) - used;
    assert!(used < 1.5, "{used} s of CPU in 5 s");

    kafka.run_acls(&script).unwrap();
    shop.until("orders.packed", 20).await;
    shop.until_committed("pack", "orders.picked").await;
    println!("{}", pack.log().unwrap());
}

async fn logged(process: &Process, parts: &[&str]) {
    eventually(&format!("the log says {parts:?}"), LIMIT, async || {
        let log = process.log().unwrap();
        if parts.iter().all(|part| log.contains(part)) { Ok(()) } else { Err(log) }
    })
    .await;
}

/// Seconds of CPU that a process has used, of itself and the kernel.
fn cpu(process: &Process) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.pid())).unwrap();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    // Hundredths of a second: what Linux tells user space, on every machine.
    let ticks = |index: usize| fields[index].parse::<f64>().unwrap() / 100.0;
    ticks(11) + ticks(12)
}
