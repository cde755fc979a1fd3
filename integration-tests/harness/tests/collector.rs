//! The receiver, seen from the SDK's own exporters.

use std::io::ErrorKind;
use std::net::TcpStream;

use anyhow::{Context, Result};
use opentelemetry::metrics::MeterProvider as _;
use opentelemetry::trace::{Link, SpanKind, Status, TraceContextExt, Tracer, TracerProvider as _};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{MetricExporter, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use serde_json::json;
use waybill_harness::{BlackHole, Collector, Kind, Manner, Refusing};

fn resource() -> Resource {
    Resource::builder_empty().with_attribute(KeyValue::new("service.name", "waybill-test")).build()
}

fn tracing_to(endpoint: &str) -> Result<SdkTracerProvider> {
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).build()?;
    Ok(SdkTracerProvider::builder().with_resource(resource()).with_batch_exporter(exporter).build())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_span_arrives_whole() -> Result<()> {
    let collector = Collector::start()?;
    let provider = tracing_to(&collector.endpoint())?;
    let scope = InstrumentationScope::builder("waybill.test")
        .with_version("1.2.3")
        .with_schema_url("https://example.org/schema")
        .build();
    let tracer = provider.tracer_with_scope(scope);
    let checkout = tracer.start("checkout.complete");
    let checkout = opentelemetry::Context::new().with_span(checkout);
    let link = Link::new(checkout.span().span_context().clone(), vec![KeyValue::new("link.type", "follows_from")], 0);
    let mut pick = tracer
        .span_builder("warehouse.pick")
        .with_kind(SpanKind::Consumer)
        .with_attributes([KeyValue::new("order.id", "7"), KeyValue::new("order.item_count", 3)])
        .with_links(vec![link])
        .start(&tracer);
    opentelemetry::trace::Span::add_event(&mut pick, "parked", vec![KeyValue::new("reason", "x")]);
    opentelemetry::trace::Span::set_status(&mut pick, Status::error("short"));
    drop(pick);
    drop(tracer.start_with_context("child", &checkout));
    checkout.span().end();
    provider.force_flush()?;

    let spans = collector.spans();
    assert_eq!(spans.len(), 3);
    let named = |name: &str| spans.iter().find(|span| span.name() == name).context("");
    let (checkout, pick, child) = (named("checkout.complete")?, named("warehouse.pick")?, named("child")?);
    assert_eq!(pick.resource["service.name"], json!("waybill-test"));
    assert_eq!((pick.scope_name.as_str(), pick.scope_version.as_str()), ("waybill.test", "1.2.3"));
    assert_eq!(pick.schema_url, "https://example.org/schema");
    assert_eq!(pick.kind() as i32, 5, "consumer: {:?}", pick.kind());
    assert_eq!(pick.parent(), None);
    assert_eq!(child.parent(), Some(checkout.span_id()));
    assert_eq!(pick.attributes()["order.id"], json!("7"));
    assert_eq!(pick.attributes()["order.item_count"], json!(3));
    let [(trace_id, span_id, attributes)] = &pick.links()[..] else {
        anyhow::bail!("{:?}", pick.links());
    };
    assert_eq!((trace_id, span_id), (&checkout.trace_id(), &checkout.span_id()));
    assert_eq!(attributes["link.type"], json!("follows_from"));
    assert_eq!(pick.events()[0].0, "parked");
    assert_eq!(pick.events()[0].1["reason"], json!("x"));
    assert_eq!(pick.status().1, "short");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn metrics_arrive_with_their_points() -> Result<()> {
    let collector = Collector::start()?;
    let exporter = MetricExporter::builder().with_tonic().with_endpoint(collector.endpoint()).build()?;
    let provider = SdkMeterProvider::builder().with_resource(resource()).with_periodic_exporter(exporter).build();
    let meter = provider.meter("waybill.test");
    let labels = [KeyValue::new("stage", "pick")];
    meter.u64_counter("waybill.retries").build().add(2, &labels);
    meter.f64_histogram("fulfilment.stage.duration").with_unit("s").build().record(0.5, &labels);
    provider.force_flush()?;

    let retries = collector.metric("waybill.retries").context("no counter")?;
    assert_eq!((retries.kind, retries.points[0].value), (Kind::Counter, 2.0));
    assert_eq!(retries.points[0].attributes["stage"], json!("pick"));
    let duration = collector.metric("fulfilment.stage.duration").context("no histogram")?;
    assert_eq!((duration.kind, duration.unit.as_str()), (Kind::Histogram, "s"));
    assert_eq!((duration.points[0].count, duration.points[0].value), (1, 0.5));
    assert!(collector.metrics().len() >= 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_collector_told_to_refuse_keeps_nothing() -> Result<()> {
    let collector = Collector::start()?;
    collector.meet(Manner::Refuse);
    let provider = tracing_to(&collector.endpoint())?;
    drop(provider.tracer("waybill.test").start("lost"));
    assert!(provider.force_flush().is_err());
    assert!(collector.refused() >= 1);
    assert!(collector.spans().is_empty());
    Ok(())
}

#[tokio::test]
async fn the_useless_servers_are_useless_in_their_own_way() -> Result<()> {
    let hole = BlackHole::start()?;
    let connection = TcpStream::connect(hole.address())?;
    connection.set_nonblocking(true)?;
    let answer = std::io::Read::read(&mut &connection, &mut [0]);
    assert_eq!(answer.map_err(|e| e.kind()), Err(ErrorKind::WouldBlock));

    let refusing = Refusing::start()?;
    let answer = TcpStream::connect(refusing.address());
    assert_eq!(answer.map(|_| ()).map_err(|error| error.kind()), Err(ErrorKind::ConnectionRefused));
    Ok(())
}
