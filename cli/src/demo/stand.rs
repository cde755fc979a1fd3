//! What the demo stands on: all stages in this process, a payment provider, a mail server and a push service.

use super::mailbox::Mailbox;
use crate::run::Running;
use anyhow::Context;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::post;
use jiff::SignedDuration;
use rdkafka::client::ClientContext;
use rdkafka::mocking::MockCluster;
use secrecy::SecretString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use waybill_fulfilment::{Pack, Pick, Ship};
use waybill_inventory::Inventory;
use waybill_mail::unsubscribe;
use waybill_notifications::{
    Email, FanoutSettings, Mailer, OrderMail, Outlet, Push, Rates, Restock, RestockSettings, Shop, Tell,
};
use waybill_payment::simulator::SimulatorSettings;
use waybill_push::{Endpoints, VapidKey};
use waybill_spine::{KafkaConfig, system_clock};
use waybill_telemetry::TelemetryConfig;

/// How long the provider thinks.
const THINKS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(80));
/// Between two waves of a campaign; a shop leaves people more time.
const PAUSE: SignedDuration = SignedDuration::from_secs(1);
/// Messages a second.
const RATES: Rates = Rates { email: 200.0, push: 500.0, orders: 200.0 };

/// What was started.
pub struct Stand {
    /// Where the gateway listens.
    pub gateway: SocketAddr,
    /// Where the browsers' push service is.
    pub browsers: String,
    /// The mails that were sent.
    pub mailbox: Mailbox,
}

/// Starts everything; mails go to `mails`.
///
/// # Errors
/// A port, a folder or a client cannot be had.
pub async fn start(running: &mut Running, mails: PathBuf) -> anyhow::Result<Stand> {
    let free_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let simulator = SimulatorSettings { latency: THINKS.0..=THINKS.1, ..SimulatorSettings::default() };
    let provider = running.start_simulator(free_port, simulator).await?;
    let payment = waybill_payment::Settings {
        base_url: format!("http://{provider}"),
        secret_key: Some("sk_test_demo".into()),
        ..waybill_payment::Settings::default()
    };
    running.start_checkout(waybill_checkout::Settings::default(), &payment, telemetry("checkout"))?;
    running.start(Inventory, (), telemetry("inventory"))?;
    running.start(Pick, (), telemetry("pick"))?;
    running.start(Pack, (), telemetry("pack"))?;
    running.start(Ship, (), telemetry("ship"))?;
    let restock = RestockSettings { cooldown: SignedDuration::ZERO, ..RestockSettings::default() };
    running.start(Restock::new(restock), (), telemetry("restock"))?;
    running.start_fanout(FanoutSettings { pause: PAUSE, ..FanoutSettings::default() }, telemetry("fanout"))?;
    let push = push_settings().await?;
    let browsers = push.origins.first().cloned().unwrap_or_default();
    let endpoints = Endpoints::new(&push)?;
    let links = unsubscribe::Settings {
        url: "http://127.0.0.1/unsubscribe".to_owned(),
        keys: Some(SecretString::from("demo:a-secret-of-the-demo-that-guards-nothing")),
        ..unsubscribe::Settings::default()
    };
    let means = running.gateway_means(endpoints, Some(unsubscribe::Unsubscribe::new(&links)?))?;
    let gateway =
        running.start_gateway(free_port, waybill_gateway::Settings::default(), means, telemetry("gateway")).await?;
    // Its port is known now, and a link of the mails leads there.
    let links = unsubscribe::Settings { url: format!("http://{gateway}/unsubscribe"), ..links };
    let mailbox = start_senders(running, mails, &push, &links, gateway)?;
    Ok(Stand { gateway, browsers, mailbox })
}

/// A push service for browsers that takes everything.
async fn push_settings() -> anyhow::Result<waybill_push::Settings> {
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let service = Router::new().route("/{browser}", post(async || StatusCode::CREATED));
    tokio::spawn(async move { axum::serve(listener, service).await });
    Ok(waybill_push::Settings {
        vapid_key: Some(VapidKey::generate().to_pem()?),
        subject: Some("mailto:shop@example.com".to_owned()),
        origins: vec![format!("http://{address}")],
        ..waybill_push::Settings::default()
    })
}

fn start_senders(
    running: &mut Running,
    mails: PathBuf,
    push: &waybill_push::Settings,
    links: &unsubscribe::Settings,
    gateway: SocketAddr,
) -> anyhow::Result<Mailbox> {
    let (mailbox, server) = Mailbox::open(mails).context("the mails' folder")?;
    let mail = waybill_mail::Settings {
        url: format!("smtp://{server}"),
        from: "Waybill's demo <shop@example.com>".to_owned(),
        ..waybill_mail::Settings::default()
    };
    let shop = Shop { name: "Waybill's demo".to_owned(), url: format!("http://{gateway}/api") };
    let store = || running.another_store();
    let campaigns = Mailer::new(&mail)?.with_links(links)?;
    let email = Outlet::email(campaigns, mail.connections, shop.clone(), RATES, store()?);
    let orders = Outlet::orders(Mailer::new(&mail)?, mail.connections, shop.clone(), RATES, store()?);
    let push = Outlet::push(waybill_push::Push::new(push, system_clock)?, shop, RATES, store()?);
    running.start(Tell::<Email>::new(&RATES), email, telemetry("email"))?;
    running.start(Tell::<Push>::new(&RATES), push, telemetry("push"))?;
    running.start(OrderMail, orders, telemetry("order-mail"))?;
    Ok(mailbox)
}

/// The demo exports only where the environment names a collector.
fn telemetry(service: &str) -> TelemetryConfig {
    TelemetryConfig {
        service: format!("waybill-{service}"),
        environment: "demo".to_owned(),
        instance: std::process::id().to_string(),
        baggage: vec![],
        export: std::env::var_os("OTEL_EXPORTER_OTLP_ENDPOINT").is_some(),
    }
}

/// How to reach the embedded broker.
pub fn mock_kafka(cluster: &MockCluster<'_, impl ClientContext>) -> KafkaConfig {
    let properties = [
        ("bootstrap.servers", cluster.bootstrap_servers()),
        // The mock broker does not wake a fetch that waits.
        ("fetch.wait.max.ms", "5".to_owned()),
    ];
    let properties = properties.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    KafkaConfig::new(properties, String::new())
}
