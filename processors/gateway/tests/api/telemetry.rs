//! Spans and metrics of requests; and that the payment method is in none of them, nor in a log or a topic.
//!
//! Where spans go is the process's own environment, so the gateway runs in a child: this test, started again.

use crate::LIMIT;
use crate::world::{Ground, hasty};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use serde_json::json;
use std::process::{Command, Stdio};
use waybill_harness::{Caught, Collector, eventually, kafka, read_topic};
use waybill_telemetry::{Telemetry, TelemetryConfig};

const CANARY: &str = "pm_CANARY5e1f";
const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const CHILD: &str = "WAYBILL_TEST_CHILD";

/// All that a gateway is asked in the child.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by the test below"]
async fn child() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let ground = Ground::sqlite("canary").await.unwrap();
    let config = TelemetryConfig { export: true, ..TelemetryConfig::silent("waybill-gateway") };
    let telemetry = Telemetry::start(&config).unwrap();
    telemetry.bridge();
    let gateway = ground.start_with(hasty(), telemetry).await;
    gateway.is_ready().await;
    let client = &gateway.client;
    let body = json!({"cartId": "k-1", "userId": "c-1", "paymentMethodId": CANARY});
    let taken = client.check_out("key", &body, &[("traceparent", CALLER)]).await;
    assert_eq!(taken.status, 202);
    client.check_out("malformed-context", &body, &[("traceparent", "00-rubbish")]).await;
    client.check_out("unsampled", &body, &[("traceparent", &CALLER.replace("-01", "-00"))]).await;
    ground.order_of("key").await;
    // Every way to be refused, the canary in every place where a value may stand.
    let wrong = json!({"cartId": CANARY.repeat(9), "userId": "c-1", "paymentMethodId": CANARY});
    let misplaced = json!({"cartId": "k-1", "userId": {"paymentMethodId": CANARY}, "paymentMethodId": [CANARY]});
    let unknown = json!({"cartId": "k-1", "userId": "c-1", "paymentMethodId": CANARY, "card": CANARY});
    for body in [wrong, misplaced, unknown] {
        let reply = client.check_out("wrong", &body, &[]).await;
        assert!(reply.status == 422 && !reply.body.to_string().contains(CANARY), "{reply:?}");
    }
    let other = json!({"cartId": "k-2", "userId": "c-1", "paymentMethodId": CANARY});
    assert_eq!(client.check_out("key", &other, &[]).await.status, 422);
    let torn = format!("{{\"paymentMethodId\": \"{CANARY}\"");
    assert_eq!(client.send("POST", "/api/checkout", &[("idempotency-key", "torn")], &torn).await.status, 400);
    // The database cannot keep it: an error of ours.
    ground.execute("alter table payment_methods rename to elsewhere").await;
    let failed = client.check_out("failed", &body, &[]).await;
    assert!(failed.status >= 500 && !failed.body.to_string().contains(CANARY), "{failed:?}");
    client.get("/api/nothing").await;
    client.get("/api/orders/o-1").await;
    let kept = ground.column("select reference from elsewhere").await;
    assert!(kept.iter().any(|kept| kept == CANARY), "it is where it belongs");
    gateway.stop().await;
    for topic in ["checkout.requested", "checkout.completed", "checkout.rejected"] {
        let records = read_topic(&ground.bootstrap, &ground.scope.topic(topic)).unwrap();
        for record in &records {
            let shown = format!(
                "{:?} {:?}",
                record.json().unwrap(),
                record
                    .headers
                    .iter()
                    .map(|(name, value)| { (name, String::from_utf8_lossy(value)) })
                    .collect::<Vec<_>>()
            );
            assert!(!shown.contains(CANARY), "{shown}");
        }
        assert!(topic != "checkout.requested" || records.len() >= 3);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_is_a_span_and_a_duration_and_the_payment_method_is_nowhere() {
    let Some(kafka) = kafka() else { return };
    let collector = Collector::start().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["telemetry::child", "--exact", "--ignored", "--nocapture"])
        .env(CHILD, "1")
        .env("WAYBILL_TEST_KAFKA", kafka.bootstrap())
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint())
        .env("RUST_LOG", "trace,h2=off")
        .stdin(Stdio::null());
    let run = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let logs = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{logs}");
    assert!(logs.contains("TRACE") && (logs.contains("request failed") || logs.contains("database")), "{logs}");
    assert!(!logs.contains(CANARY), "in the logs: {:?}", logs.lines().find(|line| line.contains(CANARY)));

    let spans = eventually("the spans are there", LIMIT, async || {
        let spans = collector.spans();
        let last = spans.iter().any(|span| span.name() == "GET /api/orders/{id}");
        if last { Ok(spans) } else { Err(format!("{} spans", spans.len())) }
    })
    .await;
    assert!(!format!("{spans:?}").contains(CANARY));
    assert!(!format!("{:?}", collector.metrics()).contains(CANARY));
    let checkouts: Vec<&Caught> = spans.iter().filter(|span| span.name() == "POST /api/checkout").collect();
    assert!(checkouts.iter().all(|span| span.kind() == SpanKind::Server && span.scope_name == "waybill.gateway"));
    let of_caller: Vec<_> = checkouts.iter().filter(|span| span.trace_id() == CALLER[3..35]).collect();
    let [taken] = of_caller.as_slice() else { panic!("the sampled one alone: {of_caller:?}") };
    assert_eq!(taken.parent().as_deref(), Some(&CALLER[36..52]));
    let attributes = taken.attributes();
    for (name, value) in [
        ("http.request.method", json!("POST")),
        ("http.route", json!("/api/checkout")),
        ("url.path", json!("/api/checkout")),
        ("url.scheme", json!("http")),
        ("http.response.status_code", json!(202)),
    ] {
        assert_eq!(attributes.get(name), Some(&value), "{name}");
    }
    assert_eq!((taken.status().0, attributes.get("error.type")), (StatusCode::Unset, None));
    let failed = checkouts.iter().find(|span| span.status().0 == StatusCode::Error).unwrap();
    assert_eq!(failed.attributes()["error.type"], failed.attributes()["http.response.status_code"].to_string());
    let unknown = spans.iter().find(|span| span.attributes().get("http.response.status_code") == Some(&json!(404)));
    assert!(
        spans.iter().any(|span| span.name() == "GET" && !span.attributes().contains_key("http.route")),
        "{unknown:?}"
    );

    let durations = collector.metric("http.server.request.duration").unwrap();
    assert_eq!((durations.unit.as_str(), durations.scope_name.as_str()), ("s", "waybill.gateway"));
    let point = durations.points.iter().find(|point| {
        point.attributes.get("http.route") == Some(&json!("/api/checkout"))
            && point.attributes.get("http.response.status_code") == Some(&json!(202))
    });
    assert!(point.is_some_and(|point| point.count >= 3), "{durations:?}");
}
