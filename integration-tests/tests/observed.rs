//! The files of `deploy/` before a real run: the collector's with a real collector, the rules with a real Prometheus behind it,
//! and every query of the dashboards and alerts asked of that.

use crate::front::Front;
use crate::shop::LIMIT;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use waybill_harness::{
    Collector, Draft, MailServer, OTELCOL_VERSION, Process, Prometheus, ask, eventually, free_port, otelcol, produce,
};

/// What the dashboards' variable stands for.
const RATE_INTERVAL: &str = "5m";
/// How often the same is done: a rate needs a series that was there before it grew.
const ROUNDS: usize = 2;
/// Whose answer is empty as long as all is well, though it is not compared with a bound.
const ABSENT: &str = "MetricsMissing";

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")
}

/// A file of ours with words replaced, each of which must be there.
fn with(file: &Path, words: &[(&str, &str)]) -> String {
    let mut text = fs::read_to_string(file).unwrap();
    for (word, other) in words {
        assert!(text.contains(word), "{word} is not in {}", file.display());
        text = text.replace(word, other);
    }
    text
}

#[test]
fn the_collector_of_the_compose_file_takes_its_settings() {
    let compose = fs::read_to_string(deploy().join("../docker-compose.yml")).unwrap();
    let image = format!("image: otel/opentelemetry-collector-contrib:{OTELCOL_VERSION}\n");
    assert!(compose.contains(&image), "it runs another version than is tested: {OTELCOL_VERSION}");
    let Some(otelcol) = otelcol() else { return };
    let validate = |file: &Path| {
        let run = Command::new(otelcol).args(["validate", "--config"]).arg(file).output().unwrap();
        (run.status.success(), String::from_utf8_lossy(&[run.stdout, run.stderr].concat()).into_owned())
    };
    let ours = deploy().join("collector.yaml");
    assert_eq!(validate(&ours), (true, String::new()), "it has nothing to say");
    let folder = tempfile::tempdir().unwrap();
    let wrong = folder.path().join("wrong.yaml");
    for (word, other) in [("limit_mib", "limit_mb"), ("[memory_limiter, resource, batch]", "[memory_limiter, none]")] {
        fs::write(&wrong, with(&ours, &[(word, other)])).unwrap();
        let (taken, said) = validate(&wrong);
        assert!(!taken, "{other} is taken: {said}");
    }
}

/// A run and all that watches it. What a field stands on comes after it.
struct Watched {
    stages: Vec<Process>,
    front: Front,
    mail: MailServer,
    prometheus: Prometheus,
    /// What the stages sent.
    sent: Collector,
    otelcol: Process,
    /// What came out of the collector.
    came: Collector,
    _folder: tempfile::TempDir,
}

impl Watched {
    async fn open() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let came = Collector::start().unwrap();
        let [grpc, http, scraped] = [(); 3].map(|()| format!("127.0.0.1:{}", free_port().unwrap()));
        // The very file, and over it nothing but where to listen and how to reach us. Metrics go where spans go, too, to be seen.
        let places = json!({
            "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": grpc}, "http": {"endpoint": http}}}},
            "exporters": {
                "otlp_grpc": {"endpoint": came.endpoint().trim_start_matches("http://"), "compression": "none"},
                "prometheus": {"endpoint": scraped},
            },
            "service": {
                "telemetry": {"metrics": {"level": "none"}},
                "pipelines": {"metrics": {"exporters": ["prometheus", "otlp_grpc"]}},
            },
        });
        let (file, over) = (deploy().join("collector.yaml"), folder.path().join("places.yaml"));
        fs::write(&over, places.to_string()).unwrap();
        let config = OsStr::new("--config");
        let args = [config, file.as_os_str(), config, over.as_os_str()];
        let otelcol = Process::spawn(otelcol()?, args, [("LC_ALL", "C")]).unwrap();
        eventually("the collector runs", LIMIT, async || {
            let log = otelcol.log().unwrap();
            if log.contains("Everything is ready") { Ok(()) } else { Err(log) }
        })
        .await;
        let sent = Collector::in_front_of(&format!("http://{grpc}")).unwrap();

        // Everything faster, as a test cannot wait for minutes.
        let settings = [("collector:8889", scraped.as_str()), ("15s", "1s"), ("30s", "1s")];
        let settings = with(&deploy().join("prometheus/prometheus.yaml"), &settings);
        fs::copy(deploy().join("prometheus/alerts.yaml"), folder.path().join("alerts.yaml")).unwrap();
        let file = folder.path().join("prometheus.yaml");
        fs::write(&file, settings).unwrap();
        let prometheus = Prometheus::start(&file).await?;

        let mail = MailServer::start(&[]).await?;
        let mails = format!("smtp://{}", mail.address());
        let settings = [
            ("OTEL_METRIC_EXPORT_INTERVAL", "2000"),
            ("WAYBILL_MAIL_URL", &mails),
            ("WAYBILL_MAIL_FROM", "Shop <shop@shop.example>"),
            ("WAYBILL_UNSUBSCRIBE_URL", "https://shop.example/unsubscribe"),
            ("WAYBILL_UNSUBSCRIBE_KEYS", "k1:0123456789abcdef0123456789abcdef"),
            ("WAYBILL_SHOP_NAME", "Shop"),
            ("WAYBILL_SHOP_URL", "https://shop.example"),
        ];
        let front = Front::open_with("observed", Some(&sent), &settings).await?;
        let processes =
            [&["gateway", "checkout"][..], &["fulfilment"], &["inventory", "restock", "fanout", "email", "order-mail"]];
        let stages = processes.iter().map(|stages| front.shop.run(stages)).collect();
        front.until_open().await;
        Some(Self { stages, front, mail, prometheus, sent, otelcol, came, _folder: folder })
    }

    async fn http(&self, method: &str, path: &str, body: &Value) {
        let answer = ask(self.front.gateway, method, path, &[], body).await.unwrap();
        assert!(answer.status < 500, "{method} {path}: {answer:?}");
    }

    /// Something for every instrument: people who buy, who may not, who wait and are told, and what no stage can accept.
    async fn round(&self, round: usize) {
        let (shop, seed) = (&self.front.shop, round.to_string());
        let url = format!("http://{}", self.front.gateway);
        shop.done(&["produce", "stock", "--quantity", "1000", "--seed", &seed]);
        shop.until_committed("inventory", "inventory.adjustments").await;
        for scenario in ["normal", "declines"] {
            let play = ["produce", "checkouts", "--scenario", scenario, "--seed", &seed, "--url", &url];
            shop.done(&[&play[..], &["--count", "20"]].concat());
        }
        // The same orders each time, which came from no checkout.
        shop.done(&["produce", "orders", "--count", "20", "--seed", "7"]);
        let order = json!({"order_id": format!("o-bad-{round}"), "customer_id": "c", "country": "DE", "service": "standard",
            "lines": [{"line": 1, "product_id": "p-none", "sku": "S", "quantity": 2, "weight_g": 1, "size_mm": [1, 1, 1]}]});
        let order = Draft::json(&format!("o-bad-{round}"), &order)
            .header("ce_id", format!("bad-{round}"))
            .header("ce_type", "orders.new.v1")
            .header("ce_source", "/test/outside")
            .header("ce_time", "2026-11-20T10:00:00Z")
            .header("traceparent", "rubbish");
        produce(&shop.bootstrap, &shop.scope.topic("orders.new"), vec![order]).await.unwrap();

        let product = format!("p-back-{round}");
        self.front.sell(&product, 0).await;
        for path in [format!("/api/products/{product}/availability"), "/api/products/p-0001/availability".to_owned()] {
            self.http("GET", &path, &Value::Null).await;
        }
        let people = ["produce", "subscribers", "--product", &product, "--channel", "email", "--count", "8"];
        shop.done(&[&people[..], &["--seed", &seed, "--url", &url]].concat());
        // One of them has an address that is refused.
        let nobody = json!({"email": format!("rcpt-554-5.7.1@{round}.example")});
        self.http("PUT", &format!("/api/users/u-bad-{round}/email"), &nobody).await;
        let waits = json!({"userId": format!("u-bad-{round}"), "channel": "email"});
        self.http("POST", &format!("/api/products/{product}/subscriptions"), &waits).await;
        shop.done(&["produce", "restock", "--product", &product, "--quantity", "20"]);
        eventually("the campaign has ended, and its metrics are with Prometheus", LIMIT, async || {
            let campaigns = self.value("sum(back_in_stock_first_notification_delay_seconds_count)")?;
            let failed = self.value("sum(back_in_stock_notifications_errors_total)")?;
            let (dead, expected) = (self.value("sum(waybill_dead_letters_total)")?, round as f64);
            let seen = (campaigns, failed, dead);
            if seen == (expected, expected, expected) { Ok(()) } else { Err(format!("{seen:?}")) }
        })
        .await;
    }

    /// Of an answer of one number.
    fn value(&self, query: &str) -> Result<f64, String> {
        let answer = self.prometheus.query(query).map_err(|error| format!("{error:#}"))?;
        answer.first().map(|(_, value)| *value).ok_or(format!("nothing for {query}"))
    }

    /// Waits until a query is answered by a number at least.
    async fn is_answered(&self, place: &str, query: &str) {
        eventually(&format!("{place} is answered: {query}"), LIMIT, async || {
            let answer = self.prometheus.query(query).map_err(|error| format!("{error:#}"))?;
            if answer.iter().any(|(_, value)| value.is_finite()) { Ok(()) } else { Err(format!("{answer:?}")) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_passes_the_collector_unchanged_but_for_platform_and_answers_every_query_of_dashboards_and_alerts() {
    let Some(mut watched) = Watched::open().await else { return };
    for round in 1..=ROUNDS {
        watched.round(round).await;
    }
    let arrived = watched.mail.arrived().unwrap().len();
    assert!(arrived >= ROUNDS * 8, "{arrived} mails");

    let queries = dashboards();
    assert!(queries.len() > 30, "{} queries", queries.len());
    for (panel, query) in &queries {
        watched.is_answered(panel, query).await;
    }
    for (name, query) in rules() {
        if name == ABSENT {
            assert!(watched.prometheus.query(&query).unwrap().is_empty(), "{name}: nothing is missing");
        } else {
            // With `bool` a comparison answers what it would leave out.
            watched.is_answered(&name, &query.replace(" > ", " > bool ")).await;
        }
    }
    // Of the bounds themselves two are passed: what no stage would accept, and notices of which every ninth failed.
    for alert in ["DeadLetters", "NotificationErrors"] {
        watched.is_answered(alert, &format!("ALERTS{{alertname=\"{alert}\"}}")).await;
    }
    let unknown = watched.prometheus.query("rate(waybill_no_such_thing[").unwrap_err();
    assert!(format!("{unknown:#}").contains("parse error"), "a wrong query is an error: {unknown:#}");

    for process in &mut watched.stages {
        process.terminate().unwrap();
        assert!(process.wait(LIMIT).await.unwrap().success());
    }
    passed_unchanged(&watched).await;
}

/// All that the stages sent came out of the collector once, with one attribute more on its resource.
async fn passed_unchanged(watched: &Watched) {
    let (sent, came) = (&watched.sent, &watched.came);
    let count = |at: &Collector| (at.spans().len(), at.metrics().len());
    eventually("everything came out of the collector", LIMIT, async || {
        let (sent, came) = (count(sent), count(came));
        if came == sent { Ok(()) } else { Err(format!("{came:?} of {sent:?}")) }
    })
    .await;
    println!("{:?} spans and exports of metrics passed the collector", count(sent));
    assert!(sent.spans().len() > 1_000, "{:?}", count(sent));
    let spans = |at: &Collector, platform: bool| {
        let stripped = at.spans().into_iter().map(|mut span| {
            assert_eq!(span.resource.remove("platform"), platform.then(|| json!("ecommerce")));
            format!("{span:?}")
        });
        counted(stripped)
    };
    let metrics = |at: &Collector, platform: bool| {
        let stripped = at.metrics().into_iter().map(|mut metric| {
            assert_eq!(metric.resource.remove("platform"), platform.then(|| json!("ecommerce")));
            format!("{metric:?}")
        });
        counted(stripped)
    };
    same(&spans(sent, false), &spans(came, true));
    same(&metrics(sent, false), &metrics(came, true));
    let log = watched.otelcol.log().unwrap();
    assert!(!log.contains("\terror\t") && !log.contains("\twarn\t"), "the collector is not content: {log}");
}

fn counted(texts: impl Iterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counted = BTreeMap::new();
    texts.for_each(|text| *counted.entry(text).or_default() += 1);
    counted
}

fn same(sent: &BTreeMap<String, usize>, came: &BTreeMap<String, usize>) {
    let lost = sent.iter().find(|(text, times)| came.get(*text) != Some(times));
    let new = came.iter().find(|(text, times)| sent.get(*text) != Some(times));
    assert_eq!(lost, new, "left: sent and not so received; right: received and not so sent");
}

/// Every query of every dashboard, with the place where it stands.
fn dashboards() -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for file in fs::read_dir(deploy().join("grafana/dashboards")).unwrap() {
        let dashboard: Value = serde_json::from_slice(&fs::read(file.unwrap().path()).unwrap()).unwrap();
        for panel in dashboard["panels"].as_array().unwrap() {
            for target in panel["targets"].as_array().into_iter().flatten() {
                let place = format!("{}, {}", dashboard["title"], panel["title"]);
                let query = target["expr"].as_str().unwrap().replace("$__rate_interval", RATE_INTERVAL);
                queries.push((place, query));
            }
        }
    }
    queries
}

/// Every rule's name and expression.
fn rules() -> Vec<(String, String)> {
    let text = fs::read_to_string(deploy().join("prometheus/alerts.yaml")).unwrap();
    let rules: Value = serde_yaml_ng::from_str(&text).unwrap();
    let rules = rules["groups"][0]["rules"].as_array().unwrap();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let named = |rule: &Value| text(&rule["alert"]).or(text(&rule["record"])).unwrap();
    rules.iter().map(|rule| (named(rule), text(&rule["expr"]).unwrap())).collect()
}
