//! The platform goes away and comes back.

use crate::shop::{LIMIT, Shop};
use sqlx::Connection as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use waybill_harness::{BlackHole, Collector, Manner, PostgresServer, Process, Refusing, eventually, postgres};

/// Status code of a GET on a process's health port, which its log names.
fn health(process: &Process, path: &str) -> Result<u16, String> {
    let log = process.log().map_err(|e| e.to_string())?;
    let address = log.split("health=").nth(1).and_then(|rest| rest.split_whitespace().next());
    let address = address.ok_or("the log names no health port yet")?;
    let mut stream = TcpStream::connect(address).map_err(|e| e.to_string())?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").map_err(|e| e.to_string())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(|e| e.to_string())?;
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or(answer)
}

async fn until_health(process: &Process, path: &str, code: u16) {
    eventually(&format!("{path} answers {code}"), LIMIT, async || match health(process, path)? {
        found if found == code => Ok(()),
        found => Err(format!("{found}")),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stages_pause_while_the_database_is_away_and_lose_nothing() {
    if postgres().is_none() {
        return;
    }
    let mut server = PostgresServer::start().unwrap();
    let database = server.create_database("away").await.unwrap();
    let Some(shop) = Shop::on("away", database.url()).await else { return };
    shop.done(&["bins", "load", "--test-goods", "1000"]);
    let process = shop.run(&["fulfilment"]);
    shop.done(&["produce", "orders", "--count", "200", "--seed", "71"]);
    shop.until("orders.shipped", 200).await;
    until_health(&process, "/readyz", 200).await;

    server.stop_immediate().unwrap();
    shop.done(&["produce", "orders", "--count", "200", "--seed", "72"]);
    until_health(&process, "/readyz", 503).await;
    until_health(&process, "/livez", 200).await;
    assert_eq!(crate::shop::distinct(&shop.read("orders.shipped")).len(), 200);

    server.start_again().unwrap();
    shop.until("orders.shipped", 400).await;
    until_health(&process, "/readyz", 200).await;

    // Connections that are cut under load are made again.
    for seed in ["73", "74", "75"] {
        shop.done(&["produce", "orders", "--count", "100", "--seed", seed]);
        server.terminate_connections().await.unwrap();
    }
    shop.until("orders.shipped", 700).await;
    shop.until_committed("ship", "orders.packed").await;
    shop.check(700, 400 * 1_000).await;
    drop(database);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_whose_loop_is_stuck_ends_and_the_next_one_goes_on() {
    let Some(mut shop) = Shop::open("stuck", 1_000).await else { return };
    shop.set("WAYBILL_HEALTH_STALL", "3s");
    let mut process = shop.run(&["fulfilment"]);
    until_health(&process, "/readyz", 200).await;
    // A statement that waits longer than a loop may take for a turn.
    let mut holder = sqlx::PgConnection::connect(&shop.database).await.unwrap();
    let mut lock = holder.begin().await.unwrap();
    sqlx::raw_sql("lock table picks in access exclusive mode").execute(&mut *lock).await.unwrap();
    shop.done(&["produce", "orders", "--count", "50", "--seed", "76"]);
    let status = process.wait(LIMIT).await.unwrap();
    let log = process.log().unwrap();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("pick is stuck: its loop has not turned for"), "{log}");
    lock.rollback().await.unwrap();

    // What a supervisor does.
    shop.set("WAYBILL_HEALTH_STALL", "60s");
    let _process = shop.run(&["fulfilment"]);
    shop.until("orders.shipped", 50).await;
    shop.until_committed("ship", "orders.packed").await;
    shop.check(50, 400 * 1_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_finishes_what_is_in_hand_and_ends_with_zero() {
    let Some(shop) = Shop::open("stop", 1_000).await else { return };
    let mut process = shop.run(&["fulfilment"]);
    shop.done(&["produce", "orders", "--count", "300", "--seed", "81"]);
    shop.until("orders.shipped", 300).await;
    process.terminate().unwrap();
    let status = process.wait(LIMIT).await.unwrap();
    assert!(status.success(), "{status}: {}", process.log().unwrap());
    shop.until_committed("pick", "orders.new").await;
    shop.until_committed("pack", "orders.picked").await;
    shop.until_committed("ship", "orders.packed").await;
}

/// How long a run takes to end after SIGTERM while its collector is `endpoint`, all orders being shipped.
async fn time_to_end(name: &str, endpoint: &str) -> Option<(Duration, String)> {
    let mut shop = Shop::open(name, 1_000).await?;
    shop.export_to(endpoint);
    let mut process = shop.run(&["fulfilment"]);
    shop.set("OTEL_SDK_DISABLED", "true");
    shop.done(&["produce", "orders", "--count", "500", "--seed", "91"]);
    shop.until("orders.shipped", 500).await;
    process.terminate().unwrap();
    let begun = Instant::now();
    let status = process.wait(LIMIT).await.unwrap();
    assert!(status.success(), "{status}: {}", process.log().unwrap());
    Some((begun.elapsed(), process.log().unwrap()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_away_black_holed_or_refusing_stops_no_stage() {
    let refusing = Refusing::start().unwrap();
    let hole = BlackHole::start().unwrap();
    let unavailable = Collector::start().unwrap();
    unavailable.meet(Manner::Refuse);
    let ends = [("away", refusing.endpoint()), ("hole", hole.endpoint()), ("refusing", unavailable.endpoint())];
    for (name, endpoint) in ends {
        let Some((took, log)) = time_to_end(name, &endpoint).await else { return };
        // The stages themselves end within a poll and a commit; 2 s is the telemetry's own limit.
        // The limit here is wide: it must catch a hang (10 s is the exporter's timeout), not a slow machine.
        assert!(took < Duration::from_secs(8), "{name}: ended after {took:?}\n{log}");
        assert!(log.contains("spans dropped"), "{name}: what is dropped is told\n{log}");
    }
}
