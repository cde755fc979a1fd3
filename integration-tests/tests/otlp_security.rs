//! Spans and metrics over TLS, with headers: a collector that is not trusted, or does not let us in, gets nothing, is not
//! asked again and again, and holds up no order.

use crate::shop::{LIMIT, Shop};
use std::path::Path;
use std::time::{Duration, Instant};
use waybill_harness::{Authority, Caught, Collector, Credentials, Guard, Process, eventually};

/// As it travels, and as the standard has it in a variable.
const HEADER: (&str, &str) = ("Bearer canary-right", "authorization=Bearer%20canary-right,x-tenant=shop");
const WRONG: &str = "authorization=Bearer%20canary-wrong";

/// A shop that sends its metrics seldom, so that what counts connections counts those of spans.
async fn shop(name: &str, endpoint: &str) -> Option<Shop> {
    let mut shop = Shop::open(name, 10_000).await?;
    export_to(&mut shop, endpoint);
    Some(shop)
}

fn export_to(shop: &mut Shop, endpoint: &str) {
    shop.export_to(endpoint);
    shop.set("OTEL_METRIC_EXPORT_INTERVAL", "600000");
}

fn trust(shop: &mut Shop, authority: &Path) {
    shop.set("OTEL_EXPORTER_OTLP_CERTIFICATE", authority.to_str().unwrap());
}

fn show(shop: &mut Shop, client: &Credentials) {
    shop.set("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", client.certificate.to_str().unwrap());
    shop.set("OTEL_EXPORTER_OTLP_CLIENT_KEY", client.key.to_str().unwrap());
}

fn produce(shop: &Shop, orders: usize, seed: usize) {
    shop.done(&["produce", "orders", "--count", &orders.to_string(), "--seed", &seed.to_string()]);
}

fn picks(spans: &[Caught], replayed: bool) -> usize {
    let of =
        |span: &&Caught| span.name() == "warehouse.pick" && span.resource.contains_key("waybill.replayed") == replayed;
    spans.iter().filter(of).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spans_and_metrics_go_over_tls_with_headers_and_a_certificate_of_ours_also_replayed() {
    let authority = Authority::new().unwrap();
    let [server, client] = ["127.0.0.1", "waybill"].map(|name| authority.sign(name, 2090).unwrap());
    let clients = authority.certificate();
    let guard = Guard { certificate: Some(&server), clients: Some(&clients), authorization: Some(HEADER.0) };
    let collector = Collector::guarded(&guard).unwrap();
    let Some(mut shop) = shop("otlp-tls", &collector.secure_endpoint()).await else { return };
    trust(&mut shop, &authority.certificate());
    show(&mut shop, &client);
    shop.set("OTEL_EXPORTER_OTLP_HEADERS", HEADER.1);
    let mut process = shop.run(&["pick"]);
    produce(&shop, 20, 1);
    shop.until("orders.picked", 20).await;
    eventually("all spans are there", LIMIT, async || match picks(&collector.spans(), false) {
        20 => Ok(()),
        found => Err(found.to_string()),
    })
    .await;
    process.terminate().unwrap();
    assert!(process.wait(LIMIT).await.unwrap().success());
    assert!(
        collector.metric("messaging.client.consumed.messages").is_some(),
        "metrics go out on closing at the latest"
    );
    assert!(!process.log().unwrap().contains("dropped"), "{}", process.log().unwrap());

    shop.done(&["replay", "--otlp", &collector.secure_endpoint()]);
    assert_eq!(picks(&collector.spans(), true), 20);
    assert_eq!(collector.refused(), 0);
    // Without what lets it in a replay says so, and sends nothing in the open.
    shop.set("OTEL_EXPORTER_OTLP_HEADERS", WRONG);
    let refused = shop.command(&["replay", "--otlp", &collector.secure_endpoint()]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && text.contains("Unauthenticated"), "{text}");
    assert!(!text.contains("canary"), "{text}");
    assert_eq!(picks(&collector.spans(), true), 20);
}

struct Case<'a> {
    what: &'a str,
    guard: Guard<'a>,
    authority: &'a Path,
    header: Option<&'a str>,
    /// What the log says.
    word: &'a str,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_not_trusted_or_does_not_let_us_in_gets_nothing_and_stops_no_stage() {
    let (authority, other) = (Authority::new().unwrap(), Authority::new().unwrap());
    let right = authority.sign("127.0.0.1", 2090).unwrap();
    let elsewhere = authority.sign("collector.example.org", 2090).unwrap();
    let expired = authority.sign("127.0.0.1", 2020).unwrap();
    let (ours, theirs) = (authority.certificate(), other.certificate());
    let tls = |certificate| Guard { certificate: Some(certificate), clients: None, authorization: Some(HEADER.0) };
    let case = |what, guard, word| Case { what, guard, authority: &ours, header: Some(HEADER.1), word };
    let cases = [
        Case { authority: &theirs, ..case("another authority", tls(&right), "UnknownIssuer") },
        case("another host", tls(&elsewhere), "not valid for name"),
        case("an expired certificate", tls(&expired), "expired"),
        case("no TLS", Guard { authorization: Some(HEADER.0), ..Guard::default() }, "Unavailable"),
        case("no certificate of ours", Guard { clients: Some(&ours), ..tls(&right) }, "transport error"),
        Case { header: Some(WRONG), ..case("a wrong header", tls(&right), "Unauthenticated") },
        Case { header: None, ..case("no header", tls(&right), "Unauthenticated") },
    ];
    let Some(mut shop) = shop("otlp-refused", "https://127.0.0.1:9").await else { return };
    let mut picked = 0;
    for (index, case) in cases.iter().enumerate() {
        let collector = Collector::guarded(&case.guard).unwrap();
        export_to(&mut shop, &collector.secure_endpoint());
        trust(&mut shop, case.authority);
        if let Some(header) = case.header {
            shop.set("OTEL_EXPORTER_OTLP_HEADERS", header);
        }
        // The collector repeats what it was told, in its refusal.
        shop.set("RUST_LOG", "debug");
        let mut process = shop.run(&["pick"]);
        // The command has nothing to tell.
        shop.set("OTEL_SDK_DISABLED", "true");
        let begun = Instant::now();
        // Spans all the time: every 50 ms there is a request's worth.
        let count = "100";
        shop.done(&["produce", "orders", "--count", count, "--rate", "25", "--seed", &(10 + index).to_string()]);
        picked += 100;
        shop.until("orders.picked", picked).await;
        told(&process, case).await;
        process.terminate().unwrap();
        assert!(process.wait(LIMIT).await.unwrap().success(), "{}: it ends as ever", case.what);
        let log = process.log().unwrap();
        let (tries, took) = (collector.connections().max(collector.refused()), begun.elapsed());
        println!("{}: {tries} tries in {took:?}", case.what);
        assert_eq!(collector.received(), (0, 0), "{}: spans got through", case.what);
        assert!(log.contains("spans dropped"), "{}: {log}", case.what);
        assert!(log.matches("cannot be exported").count() <= 2, "{}: not for each batch: {log}", case.what);
        assert!(!log.contains("canary"), "{}: {log}", case.what);
        // After an export that failed comes a rest of a second, of two, of four …; closing tries once more, spans and metrics.
        // What is refused is asked for once, who is not there is looked for four times.
        let exports = 4 + (took.as_secs() + 1).ilog2() as usize;
        let most = if case.word == "Unauthenticated" { exports } else { 4 * exports };
        assert!(tries <= most, "{}: {tries} tries in {took:?}", case.what);
    }
    assert_eq!(crate::shop::distinct(&shop.read("orders.picked")).len(), picked);
}

async fn told(process: &Process, case: &Case<'_>) {
    eventually(&format!("{}: the log says why", case.what), LIMIT, async || {
        let log = process.log().map_err(|error| error.to_string())?;
        let line = log.lines().find(|line| line.contains("spans cannot be exported"));
        match line {
            Some(line) if line.contains(case.word) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_that_would_send_nothing_or_in_the_open_end_the_start() {
    let Some(shop) = Shop::open("otlp-settings", 1).await else { return };
    let mut shop = shop;
    let text = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(text.path(), "no certificate").unwrap();
    let text = text.path().to_str().unwrap();
    let authority = Authority::new().unwrap();
    let ca = authority.certificate();
    let ca = ca.to_str().unwrap();
    let (secure, open) = ("https://127.0.0.1:9", "http://127.0.0.1:9");
    for (endpoint, variable, value, word) in [
        (secure, "OTEL_EXPORTER_OTLP_CERTIFICATE", "/not/there", "cannot read /not/there"),
        (secure, "OTEL_EXPORTER_OTLP_CERTIFICATE", text, "holds no certificate"),
        (secure, "OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE", text, "OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE"),
        (secure, "OTEL_EXPORTER_OTLP_CLIENT_KEY", text, "go together"),
        (secure, "OTEL_EXPORTER_OTLP_HEADERS", "authorization: Bearer canary", "OTEL_EXPORTER_OTLP_HEADERS must be"),
        (open, "OTEL_EXPORTER_OTLP_CERTIFICATE", ca, "but the endpoint is http://"),
    ] {
        export_to(&mut shop, endpoint);
        shop.set(variable, value);
        let began = Instant::now();
        let output = shop.command(&["run", "pick"]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{variable}: {error}");
        assert!(error.contains(word) && error.contains(variable), "{variable}: {error}");
        assert!(!error.contains("canary"), "{error}");
        assert!(began.elapsed() < Duration::from_secs(60), "{variable}");
    }
}
