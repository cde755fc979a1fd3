//! A gateway of one test: its topics, its database, itself.

use crate::LIMIT;
use crate::client::Client;
use serde_json::json;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use waybill_gateway::{GatewayError, Means, Settings, serve};
use waybill_harness::{Database, Scope, eventually, kafka, postgres};
use waybill_mail::unsubscribe::{self, Unsubscribe};
use waybill_push::Endpoints;
use waybill_spine::{Health, KafkaConfig, Shutdown};
use waybill_store::Store;
use waybill_telemetry::{Telemetry, TelemetryConfig};

/// What a gateway stands on.
pub struct Ground {
    pub bootstrap: String,
    pub scope: Scope,
    pub store: Store,
    /// Whether the gateway knows the keys of the links in mails.
    pub links: bool,
    _database: Option<Database>,
    _folder: Option<tempfile::TempDir>,
}

/// A gateway that runs, and what it stands on.
pub struct World {
    pub ground: Ground,
    pub gateway: Gateway,
    pub client: Client,
}

/// A gateway that runs.
pub struct Gateway {
    pub client: Client,
    shutdown: Shutdown,
    task: JoinHandle<Result<(), GatewayError>>,
}

/// A user may send what a test sends; a checkout waits longer than any outcome takes here.
pub fn settings() -> Settings {
    let wait = jiff::SignedDuration::from_secs(45);
    Settings { wait, rate: 600_000, burst: 10_000, ..Settings::default() }
}

/// Of the links in mails.
pub fn links() -> Unsubscribe {
    let keys = Some("k1:0123456789abcdef0123456789abcdef".into());
    let url = "https://shop.example/unsubscribe".to_owned();
    Unsubscribe::new(&unsubscribe::Settings { url, keys, keys_file: None }).unwrap()
}

/// Answered 202 soon.
pub fn hasty() -> Settings {
    Settings { wait: jiff::SignedDuration::from_millis(200), ..settings() }
}

impl Ground {
    pub async fn sqlite(name: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("shop.db").display());
        let mut ground = Ground::at(kafka()?.bootstrap(), &url, name).await;
        ground._folder = Some(folder);
        Some(ground)
    }

    pub async fn postgres(name: &str) -> Option<Self> {
        let database = postgres()?.create_database(name).await.unwrap();
        let mut ground = Ground::at(kafka()?.bootstrap(), database.url(), name).await;
        ground._database = Some(database);
        Some(ground)
    }

    pub async fn at(bootstrap: &str, url: &str, name: &str) -> Self {
        let scope = Scope::new(bootstrap, name);
        let topics = ["checkout.requested", "checkout.completed", "checkout.rejected", "orders.cancel_requested"];
        let topics = topics.map(|topic| (topic, 3));
        // Of one partition: what comes later is read later.
        scope.create_topics(&[&topics[..], &[("inventory.levels", 1)]].concat()).await.unwrap();
        let mut store = Store::open(url).await.unwrap();
        store.migrate().await.unwrap();
        let bootstrap = bootstrap.to_owned();
        Ground { bootstrap, scope, store, links: true, _database: None, _folder: None }
    }

    fn kafka(&self) -> KafkaConfig {
        let properties = [("bootstrap.servers", self.bootstrap.as_str()), ("reconnect.backoff.max.ms", "500")];
        let properties = properties.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        KafkaConfig::new(properties, self.scope.prefix().to_owned())
    }

    /// A gateway that takes requests.
    pub async fn start(&self, settings: Settings) -> Gateway {
        let gateway = self.start_with(settings, Telemetry::start(&TelemetryConfig::silent("gateway")).unwrap()).await;
        gateway.is_ready().await;
        gateway
    }

    /// A gateway that may not take requests yet.
    pub async fn start_with(&self, settings: Settings, telemetry: Telemetry) -> Gateway {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Client::new(listener.local_addr().unwrap());
        let shutdown = Shutdown::default();
        let endpoints = Endpoints::new(&waybill_push::Settings::default()).unwrap();
        let unsubscribe = self.links.then(links);
        let means = Means { kafka: self.kafka(), store: self.store.another(), endpoints, unsubscribe };
        let stop = shutdown.clone();
        let task = tokio::spawn(async move {
            let pulse = Health::default().pulse("gateway");
            let result = serve(listener, settings, means, &telemetry, pulse, stop).await;
            drop(tokio::task::spawn_blocking(|| telemetry.close()).await);
            result
        });
        Gateway { client, shutdown, task }
    }
}

impl Gateway {
    /// Waits until a checkout is not refused for Kafka's sake: a bad one is then told so instead.
    pub async fn is_ready(&self) {
        let mut number = 0;
        eventually("the gateway takes requests", LIMIT, async || {
            number += 1;
            // A user each time, whatever the limit; after the first of all, the key is another's.
            let nobody = json!({"cartId": "none", "userId": format!("u-{number}"), "paymentMethodId": "pm"});
            let reply = self.client.check_out("is-it-ready", &nobody, &[("prefer", "respond-async")]).await;
            if matches!(reply.status, 202 | 422) { Ok(()) } else { Err(format!("{reply:?}")) }
        })
        .await;
    }

    /// Asks for a stop; the end is waited for with [`Gateway::ended`].
    pub fn ask_to_stop(&self) {
        self.shutdown.request();
    }

    pub async fn ended(self) {
        tokio::time::timeout(Duration::from_secs(20), self.task).await.unwrap().unwrap().unwrap();
    }

    pub async fn stop(self) {
        self.ask_to_stop();
        self.ended().await;
    }
}

impl World {
    pub async fn sqlite(name: &str) -> Option<Self> {
        World::on(Ground::sqlite(name).await?, settings()).await
    }

    pub async fn postgres(name: &str) -> Option<Self> {
        World::on(Ground::postgres(name).await?, settings()).await
    }

    pub async fn on(ground: Ground, settings: Settings) -> Option<Self> {
        let gateway = ground.start(settings).await;
        Some(World { client: gateway.client.clone(), ground, gateway })
    }

    /// The gateway anew, with other settings.
    pub async fn again(self, settings: Settings) -> Self {
        self.gateway.stop().await;
        let gateway = self.ground.start(settings).await;
        World { client: gateway.client.clone(), gateway, ground: self.ground }
    }

    pub async fn stop(self) {
        self.gateway.stop().await;
    }
}
