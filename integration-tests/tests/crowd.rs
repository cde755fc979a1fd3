//! People who wait for a product, from their subscription to the message, while those who tell them are killed.

use crate::shop::{LIMIT, Shop};
use waybill_harness::{Scope, free_port, kafka, postgres};
use waybill_storm::crowd::Crowd;

/// With six kills it is a minute; `just storm --subscribers 100000 --kills 20` is the long one.
const PEOPLE: usize = 2_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_is_told_once_and_no_faster_than_allowed_though_fanout_and_senders_are_killed() {
    let Some(scope) = kafka().map(|kafka| Scope::new(kafka.bootstrap(), "crowd")) else { return };
    let Some(postgres) = postgres() else { return };
    let database = postgres.create_database("crowd").await.unwrap();
    let crowd = Crowd {
        binary: env!("CARGO_BIN_EXE_waybill").into(),
        bootstrap: scope.bootstrap().to_owned(),
        prefix: scope.prefix().to_owned(),
        database: database.url().to_owned(),
        seed: 1,
        people: PEOPLE,
        kills: 6,
        replicas: 2,
        rate: 150.0,
    };
    let verdict = crowd.run().await.unwrap();
    print!("{verdict}");
    assert!(verdict.violations.is_empty(), "{verdict}");
    assert_eq!(verdict.people, PEOPLE);
    assert!(verdict.killed.len() > 3, "{verdict}");
    assert!(verdict.results["sent"] > PEOPLE / 2, "{verdict}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_who_are_played_wait_once_however_often_they_ask() {
    let Some(mut shop) = Shop::open("subscribers", 1).await else { return };
    // Nobody is there; it takes a minute to be sure.
    let nowhere = format!("http://127.0.0.1:{}", free_port().unwrap());
    let mut in_vain = shop.start(&["produce", "subscribers", "--product", "p-0001", "--url", &nowhere]);
    let listen = format!("127.0.0.1:{}", free_port().unwrap());
    shop.set("WAYBILL_HTTP_LISTEN", &listen);
    let _gateway = shop.run(&["gateway"]);
    let url = format!("http://{listen}");
    // It waits for the gateway, which makes the tables.
    let unknown = ["produce", "subscribers", "--product", "p-none", "--count", "3", "--url", &url];
    let output = shop.command(&unknown);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{error}");
    assert!(error.contains("w-1-0: 404") && error.contains("3 people could not subscribe"), "{error}");
    shop.execute("insert into products values ('p-0001', 'SKU', 'A thing', 'things', 100, 'EUR', 1, 1, 1, 1)").await;
    let ask = |args: &[&str]| {
        let printed = shop.done(&[&["produce", "subscribers", "--product", "p-0001", "--url", &url], args].concat());
        printed.split(", in ").next().unwrap().to_owned()
    };
    assert_eq!(ask(&["--count", "40", "--channel", "email"]), "40 subscribed, 0 had before");
    assert_eq!(ask(&["--count", "50", "--quantity", "2"]), "60 subscribed, 40 had before");
    assert_eq!(ask(&["--count", "10", "--channel", "push", "--seed", "2"]), "10 subscribed, 0 had before");
    for (sql, expected) in [
        ("select count(*) from subscriptions where channel = 'email'", 50),
        ("select count(*) from subscriptions where channel = 'push'", 60),
        ("select count(*) from contacts", 50),
        ("select count(*) from push_targets", 60),
    ] {
        assert_eq!(shop.number(sql).await, expected, "{sql}");
    }
    let status = in_vain.wait(LIMIT).await.unwrap();
    let told = in_vain.log().unwrap();
    assert_eq!(status.code(), Some(1), "{told}");
    for part in [&format!("waiting for the gateway at {nowhere}"), "name yours with --url", "no gateway answers"] {
        assert!(told.contains(part), "{part} is missing: {told}");
    }
}
