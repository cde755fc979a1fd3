//! Runs the gateway: the HTTP server and its two threads, until a stop is asked for or one of them cannot go on.

use crate::connections::Connections;
use crate::levels::Levels;
use crate::limits::Limits;
use crate::measures::Measures;
use crate::news::News;
use crate::observe::Observe;
use crate::outbox::{Outbox, Relay};
use crate::reach::Reach;
use crate::routes::router;
use crate::settings::Settings;
use crate::shop::{Inner, Shop};
use crate::waiting::Waiting;
use axum::serve::ListenerExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};
use waybill_mail::unsubscribe::Unsubscribe;
use waybill_push::Endpoints;
use waybill_spine::{BrokerError, KafkaConfig, Pulse, Shutdown};
use waybill_store::Store;
use waybill_telemetry::Telemetry;

/// How often the stop and the threads are looked at.
const TICK: Duration = Duration::from_millis(100);
/// How often users of long ago are forgotten.
const FORGET: Duration = Duration::from_secs(60);
/// How long a stop waits for the requests in flight, and then for what they handed over.
const STOP: Duration = Duration::from_secs(10);
const LAST: Duration = Duration::from_secs(6);

/// Why the gateway ended.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// A setting means nothing.
    #[error("gateway.{0} must be greater than zero")]
    Setting(&'static str),
    /// Kafka's client cannot go on.
    #[error("the gateway's Kafka client cannot go on")]
    Kafka(#[from] BrokerError),
    /// The listener failed.
    #[error("the gateway's listener failed")]
    Listener(#[source] std::io::Error),
    /// A thread could not be started.
    #[error("cannot start a thread of the gateway")]
    Thread(#[source] std::io::Error),
    /// A thread ended without a word: it panicked.
    #[error("a thread of the gateway panicked")]
    Panicked,
}

/// What a gateway stands on.
#[derive(Debug)]
pub struct Means {
    /// How to reach the cluster.
    pub kafka: KafkaConfig,
    /// The database, already migrated.
    pub store: Store,
    /// The push services whose targets are taken.
    pub endpoints: Endpoints,
    /// Verifies the links of mails; without it nobody unsubscribes by one here.
    pub unsubscribe: Option<Unsubscribe>,
}

type Ended = oneshot::Receiver<Result<(), GatewayError>>;

/// Serves the API on `listener` until `shutdown`, then finishes what is in flight.
///
/// # Errors
/// A wrong setting, a listener that fails, or a Kafka client that cannot go on: a supervisor starts the process again.
pub async fn serve(
    listener: TcpListener,
    settings: Settings,
    means: Means,
    telemetry: &Telemetry,
    pulse: Pulse,
    shutdown: Shutdown,
) -> Result<(), GatewayError> {
    settings.check().map_err(GatewayError::Setting)?;
    let Means { kafka, store, endpoints, unsubscribe } = means;
    let (stop, reach, waiting) = (Shutdown::default(), Reach::default(), Waiting::default());
    let database = Connections::new(&store, settings.connections);
    let levels = Levels::new(database.clone());
    let (outbox, entries) = Outbox::new();
    let relay = Relay::new(&kafka, store.another(), entries, reach.clone(), settings.keep(), stop.clone())?;
    let news = News::new(&kafka, waiting.clone(), levels.clone(), reach.clone(), stop.clone())?;
    let (stopping, stops) = watch::channel(false);
    let shop = Shop(Arc::new(Inner {
        database,
        limits: Limits::new(&settings),
        inflight: Arc::new(Semaphore::new(settings.inflight as usize)),
        settings,
        waiting,
        outbox,
        kafka: reach,
        observe: Observe::new(telemetry),
        measures: Measures::new(telemetry),
        levels,
        endpoints,
        unsubscribe,
        stopping: stops,
    }));
    let mut outbox_ended = thread("gateway-outbox", move || on_runtime(relay.run()))?;
    let mut news_ended = thread("gateway-news", move || news.run().map_err(GatewayError::from))?;
    let mut server = tokio::spawn(http(listener, shop.clone()));
    let result = tokio::select! {
        ended = &mut server => ended.unwrap_or(Err(GatewayError::Panicked)),
        ended = &mut outbox_ended => ended.unwrap_or(Err(GatewayError::Panicked)),
        ended = &mut news_ended => ended.unwrap_or(Err(GatewayError::Panicked)),
        () = watch_over(&shop, &pulse, &shutdown) => Ok(()),
    };
    stopping.send(true).ok();
    finish_requests(server, &shop).await;
    stop.request();
    let until = Instant::now() + LAST;
    for ended in [outbox_ended, news_ended].iter_mut().filter(|ended| !ended.is_terminated()) {
        timeout_at(until, ended).await.ok();
    }
    result
}

/// Waits for the requests in flight, so long and no longer.
async fn finish_requests(mut server: JoinHandle<Result<(), GatewayError>>, shop: &Shop) {
    let until = Instant::now() + STOP;
    if !server.is_finished() && timeout_at(until, &mut server).await.is_err() {
        tracing::warn!("connections were still open at the end");
        server.abort();
    }
    // Requests whose clients went away have no connection, but are in flight all the same.
    if timeout_at(until, shop.inflight.acquire_many(shop.settings.inflight)).await.is_err() {
        tracing::warn!("requests were still in flight at the end");
    }
}

/// Beats while both threads turn; returns when a stop is asked for.
async fn watch_over(shop: &Shop, pulse: &Pulse, shutdown: &Shutdown) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut turns, mut forgotten) = (None, Instant::now());
    while !shutdown.requested() {
        ticks.tick().await;
        let now = shop.kafka.turns();
        if turns.replace(now) != Some(now) {
            pulse.beat(shop.kafka.reading());
        }
        pulse.away(shop.kafka.away() || shop.kafka.no_database());
        if forgotten.elapsed() >= FORGET {
            shop.limits.forget();
            forgotten = Instant::now();
        }
    }
}

async fn http(listener: TcpListener, shop: Shop) -> Result<(), GatewayError> {
    let listener = listener.tap_io(|stream| {
        // An answer is not held back to fill a packet; a socket that refuses is as good.
        stream.set_nodelay(true).ok();
    });
    let mut stops = shop.stopping.clone();
    let stop = async move { drop(stops.wait_for(|stop| *stop).await) };
    axum::serve(listener, router(shop)).with_graceful_shutdown(stop).await.map_err(GatewayError::Listener)
}

/// A runtime of its own: the loop's thread also drives its connection.
fn on_runtime(run: impl Future<Output = Result<(), BrokerError>>) -> Result<(), GatewayError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(GatewayError::Thread)?;
    Ok(runtime.block_on(run)?)
}

fn thread(name: &str, run: impl FnOnce() -> Result<(), GatewayError> + Send + 'static) -> Result<Ended, GatewayError> {
    let (ended, end) = oneshot::channel();
    let body = move || drop(ended.send(run()));
    std::thread::Builder::new().name(name.to_owned()).spawn(body).map_err(GatewayError::Thread)?;
    Ok(end)
}
