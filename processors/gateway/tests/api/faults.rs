//! While Kafka or the database is away, requests are refused and none is lost.

use crate::LIMIT;
use crate::client::Client;
use crate::played::body;
use crate::world::{Ground, World, hasty};
use waybill_harness::{KafkaServer, PostgresServer, eventually, kafka, postgres};

const ASYNC: [(&str, &str); 1] = [("prefer", "respond-async")];

/// Checks out with new keys until that is answered so; returns the orders taken on the way.
async fn until(client: &Client, prefix: &str, status: u16) -> Vec<String> {
    let mut taken = Vec::new();
    let mut number = 0;
    eventually(&format!("a checkout is answered {status}"), LIMIT, async || {
        number += 1;
        let reply = client.check_out(&format!("{prefix}-{number}"), &body("k-1"), &ASYNC).await;
        if reply.status == 202 {
            taken.push(reply.text("orderId").to_owned());
        } else {
            assert_eq!((reply.status, reply.problem()), (503, "unavailable"), "{reply:?}");
            assert!(reply.header("retry-after").is_some());
        }
        if reply.status == status { Ok(()) } else { Err(format!("{reply:?}")) }
    })
    .await;
    taken
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_kafka_is_away_checkouts_are_refused_and_those_taken_are_published_later() {
    if kafka().is_none() {
        return;
    }
    let mut server = KafkaServer::start().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", folder.path().join("shop.db").display());
    let ground = Ground::at(server.bootstrap(), &url, "kafka-away").await;
    let world = World::on(ground, hasty()).await.unwrap();
    let mut taken = until(&world.client, "before", 202).await;
    server.kill().unwrap();
    taken.extend(until(&world.client, "away", 503).await);
    assert_eq!(world.client.get("/api/products").await.status, 200, "what needs no Kafka goes on");
    server.start_again().unwrap();
    taken.extend(until(&world.client, "back", 202).await);
    for order in &taken {
        eventually("what was taken is published", LIMIT, async || {
            let found = world.ground.requested(order).await.len();
            if found > 0 { Ok(()) } else { Err(format!("{order} is not")) }
        })
        .await;
    }
    let refused = world.ground.column("select key from checkout_requests").await.len();
    assert_eq!(refused, taken.len() + 1, "what was refused left no row");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_database_is_away_requests_are_refused() {
    if postgres().is_none() {
        return;
    }
    let Some(kafka) = kafka() else { return };
    let mut server = PostgresServer::start().unwrap();
    let database = server.create_database("away").await.unwrap();
    let ground = Ground::at(kafka.bootstrap(), database.url(), "postgres-away").await;
    let world = World::on(ground, hasty()).await.unwrap();
    assert_eq!(world.client.get("/api/products").await.status, 200);
    server.stop_immediate().unwrap();
    for path in ["/api/products", "/api/products/p", "/api/carts/k", "/api/orders/o"] {
        let reply = world.client.get(path).await;
        assert_eq!((reply.status, reply.problem()), (503, "unavailable"), "{path}");
        assert!(reply.body.get("detail").is_none(), "{reply:?}");
    }
    until(&world.client, "away", 503).await;
    server.start_again().unwrap();
    until(&world.client, "back", 202).await;
    assert_eq!(world.client.get("/api/products").await.status, 200);
    world.stop().await;
    drop(database);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_were_cut_are_made_again() {
    if postgres().is_none() {
        return;
    }
    let Some(kafka) = kafka() else { return };
    let server = PostgresServer::start().unwrap();
    let database = server.create_database("cut").await.unwrap();
    let ground = Ground::at(kafka.bootstrap(), database.url(), "cut").await;
    let world = World::on(ground, hasty()).await.unwrap();
    until(&world.client, "before", 202).await;
    server.terminate_connections().await.unwrap();
    // One that was in use a moment ago may fail once; none stays broken.
    eventually("all connections work", LIMIT, async || {
        for _ in 0..16 {
            let reply = world.client.get("/api/products").await;
            if reply.status != 200 {
                return Err(format!("{reply:?}"));
            }
        }
        Ok(())
    })
    .await;
    world.stop().await;
    drop(database);
}
