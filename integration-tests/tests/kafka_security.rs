//! Who the brokers let in, and what is said to who is not: on a real broker with TLS, passwords and certificates.

use crate::shop::{LIMIT, Shop};
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};
use waybill_harness::{
    Credentials, Database, PASSWORD, Process, SecuredKafka, Tap, ask, eventually, postgres, secured_kafka, topics,
};

pub type Way = Vec<(&'static str, String)>;

/// By user and password.
pub fn password(kafka: &SecuredKafka, user: &str, password: &str) -> Way {
    vec![
        ("WAYBILL_KAFKA_SECURITY_PROTOCOL", "SASL_SSL".to_owned()),
        ("WAYBILL_KAFKA_SASL_MECHANISM", "SCRAM-SHA-512".to_owned()),
        ("WAYBILL_KAFKA_SASL_USERNAME", user.to_owned()),
        ("WAYBILL_KAFKA_SASL_PASSWORD", password.to_owned()),
        ("WAYBILL_KAFKA_SSL_CA_LOCATION", text(&kafka.authority())),
    ]
}

/// By certificate, or none.
pub fn certificate(kafka: &SecuredKafka, identity: Option<&Credentials>) -> Way {
    let mut way = vec![
        ("WAYBILL_KAFKA_SECURITY_PROTOCOL", "SSL".to_owned()),
        ("WAYBILL_KAFKA_SSL_CA_LOCATION", text(&kafka.authority())),
    ];
    if let Some(Credentials { certificate, key }) = identity {
        way.push(("WAYBILL_KAFKA_SSL_CERTIFICATE_LOCATION", text(certificate)));
        way.push(("WAYBILL_KAFKA_SSL_KEY_LOCATION", text(key)));
    }
    way
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// A shop on the secured broker, its topics applied, and its database.
pub async fn open(name: &str) -> Option<(&'static SecuredKafka, Shop, Database)> {
    let (kafka, database) = (secured_kafka()?, postgres()?.create_database(name).await.unwrap());
    let shop = Shop::at(&kafka.inside(), name, database.url());
    shop.done(&["topics", "apply"]);
    Some((kafka, shop, database))
}

/// What a command said that must fail, with nothing of a password in it.
fn refused(output: &Output) -> String {
    let said = [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(!said.contains("canary"), "{said}");
    said
}

fn says(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "{part:?} is missing: {said}");
    }
}

/// Commands that ask the cluster in different ways, and a stage at its start: each fails, and says all of `parts`.
async fn turned_away(shop: &Shop, brokers: &str, way: &Way, parts: &[&str]) {
    for args in [&["lag"][..], &["trace", "o-1"], &["topics", "plan"]] {
        let begun = Instant::now();
        let said = refused(&shop.command_as(args, brokers, way));
        println!("{args:?} after {:.1?}: {said}", begun.elapsed());
        says(&said, parts);
    }
    let mut stage = shop.run_as(&["pick"], brokers, way);
    let status = stage.wait(LIMIT).await.unwrap();
    let log = stage.log().unwrap();
    assert_eq!(status.code(), Some(1), "{log}");
    println!("{log}");
    assert!(!log.contains("canary"), "{log}");
    says(&log, parts);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_is_let_in_by_its_password_and_who_has_none_or_a_wrong_one_is_told_so() {
    let Some((kafka, shop, _database)) = open("scram").await else { return };
    let scram = kafka.scram();
    let right = shop.command_as(&["topics", "plan"], &scram, &password(kafka, "admin", PASSWORD));
    assert_eq!(right.status.code(), Some(0), "{}", String::from_utf8_lossy(&right.stderr));

    // The password in a file, as a secret is mounted.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    let mut by_file = password(kafka, "admin", "");
    by_file.retain(|(key, _)| *key != "WAYBILL_KAFKA_SASL_PASSWORD");
    by_file.push(("WAYBILL_KAFKA_SASL_PASSWORDFILE", text(&file)));
    let lag = shop.command_as(&["lag"], &scram, &by_file);
    assert_eq!(lag.status.code(), Some(0), "{}", String::from_utf8_lossy(&lag.stderr));

    let wrong = ["SASL authentication error", "credentials"];
    turned_away(&shop, &scram, &password(kafka, "admin", "another-canary"), &[&wrong[..], &["user admin"]].concat())
        .await;
    turned_away(&shop, &scram, &password(kafka, "nobody", PASSWORD), &wrong).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_lets_its_holder_in_and_none_a_strange_or_an_expired_one_does_not() {
    let Some((kafka, shop, _database)) = open("mtls").await else { return };
    let admin = certificate(kafka, Some(&kafka.certificate("admin").unwrap()));
    let right = shop.command_as(&["topics", "plan"], &kafka.mtls(), &admin);
    assert_eq!(right.status.code(), Some(0), "{}", String::from_utf8_lossy(&right.stderr));

    let wrong =
        [None, Some(kafka.strange_certificate("admin").unwrap()), Some(kafka.expired_certificate("admin").unwrap())];
    for identity in wrong {
        let way = certificate(kafka, identity.as_ref());
        turned_away(&shop, &kafka.mtls(), &way, &["certificate"]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_whose_own_certificate_is_wrong_is_not_talked_to() {
    let Some((kafka, shop, _database)) = open("broker-certificate").await else { return };
    let way = certificate(kafka, None);
    for brokers in [kafka.expired(), kafka.stranger(), kafka.elsewhere()] {
        turned_away(&shop, &brokers, &way, &["certificate verify failed", "kafka.ssl.ca.location", "dates", "name"])
            .await;
    }
    // It is the authority, and the name, and nothing else, that keeps us from these.
    let known = [("WAYBILL_KAFKA_SSL_CA_LOCATION", text(&kafka.strange_authority()))];
    let any_name = [("WAYBILL_KAFKA_SSL_ENDPOINT_IDENTIFICATION_ALGORITHM", "none".to_owned())];
    for (brokers, more) in [(kafka.stranger(), known), (kafka.elsewhere(), any_name)] {
        let output = shop.command_as(&["lag"], &brokers, &[&way[..], &more].concat());
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_ever_said_in_the_open_where_tls_was_set() {
    let Some((kafka, shop, _database)) = open("open").await else { return };
    // A broker that would take anybody in the open, and is asked for TLS.
    let tap = Tap::start(kafka.inside().parse().unwrap()).unwrap();
    for way in [password(kafka, "admin", PASSWORD), certificate(kafka, None)] {
        refused(&shop.command_as(&["lag"], &tap.address(), &way));
        let mut stage = shop.run_as(&["pick"], &tap.address(), &way);
        eventually("the stage has tried again", LIMIT, async || match tap.callers().len() {
            callers if callers >= 6 => Ok(()),
            callers if callers > 0 && stage.ended().unwrap().is_some() => Ok(()),
            callers => Err(format!("{callers} callers")),
        })
        .await;
    }
    let first: Vec<Option<u8>> = tap.callers().iter().map(|caller| caller.first).collect();
    // 22 begins a TLS handshake.
    assert!(first.iter().all(|byte| *byte == Some(22)), "{first:?}");

    // And a user and a password that nobody would ask for are an error, not a visit as nobody.
    let mut half = password(kafka, "admin", PASSWORD);
    half.retain(|(key, _)| key.contains("SASL"));
    let said = refused(&shop.command_as(&["lag"], &kafka.scram(), &half));
    says(&said, &["kafka.security.protocol is plaintext"]);
}

/// `/readyz` or `/livez` of a process, whose log names the address: the code, and what it says.
async fn health(process: &Process, path: &str) -> Result<(u16, String), String> {
    let log = process.log().map_err(|e| e.to_string())?;
    let address = log.split("health=").nth(1).and_then(|rest| rest.split_whitespace().next());
    let address = address.ok_or("the log names no health port yet")?;
    let address = address.parse().map_err(|_| format!("no address: {address}"))?;
    let answer = ask(address, "GET", path, &[], &serde_json::Value::Null).await.map_err(|e| e.to_string())?;
    Ok((answer.status, answer.body.to_string()))
}

async fn until_ready(process: &Process) {
    eventually("the stage is ready", LIMIT, async || match health(process, "/readyz").await? {
        (200, _) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stage_whose_user_is_taken_away_waits_says_so_and_goes_on_when_it_is_given_back() {
    let Some((kafka, shop, _database)) = open("rotation").await else { return };
    shop.done(&["bins", "load", "--test-goods", "1000"]);
    let tap = kafka.counted();
    let mut stage = shop.run_as(&["pick"], &tap.address(), &password(kafka, "rotated", PASSWORD));
    shop.done(&["produce", "orders", "--count", "50", "--seed", "1"]);
    shop.until("orders.picked", 50).await;
    until_ready(&stage).await;

    kafka.set_password("rotated", None).unwrap();
    eventually("the stage says that it is turned away", LIMIT, async || match health(&stage, "/readyz").await? {
        (503, said) if said.contains("SASL") && said.contains("user rotated") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert_eq!(health(&stage, "/livez").await.unwrap().0, 200, "a new start would not help");
    // It tries again, ever more slowly: two clients, each of some connections, up to 10 s apart in the end.
    let before = tap.callers().len();
    eventually("eight tries in a row take eight seconds", LIMIT, async || {
        let tries = &tap.callers()[before..];
        match tries {
            [.., first, _, _, _, _, _, _, last] if last.at - first.at > Duration::from_secs(8) => Ok(()),
            _ => Err(format!("{} tries", tries.len())),
        }
    })
    .await;
    let tries = tap.callers().len() - before;
    assert!(tries < 80, "{tries} tries");
    shop.done(&["produce", "orders", "--count", "50", "--seed", "2"]);
    assert!(stage.ended().unwrap().is_none(), "{}", stage.log().unwrap());

    kafka.set_password("rotated", Some(PASSWORD)).unwrap();
    shop.until("orders.picked", 100).await;
    shop.until_committed("pick", "orders.new").await;
    until_ready(&stage).await;
    let log = stage.log().unwrap();
    println!("{tries} tries until they were far apart\n{log}");
    assert!(!log.contains("canary"), "{log}");
    says(&log, &["kafka refuses", "user rotated"]);
    let lines = log.lines().filter(|line| line.contains("kafka refuses")).count();
    assert!(lines < 40, "{lines} lines: {log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_for_a_topic_that_is_not_there_does_not_make_it() {
    let Some(kafka) = secured_kafka() else { return };
    let Some(database) = postgres() else { return };
    let database = database.create_database("not-made").await.unwrap();
    // The broker makes a topic for whoever asks for it, if it may.
    let shop = Shop::at(&kafka.inside(), "not-made", database.url());
    let way = password(kafka, "admin", PASSWORD);
    let said = refused(&shop.command_as(&["run", "pick"], &kafka.scram(), &way));
    says(&said, &["topics are missing", "run `waybill topics apply`"]);
    assert_eq!(topics(&kafka.inside(), shop.scope.prefix()).unwrap(), Vec::<String>::new());
}
