//! A payment provider for a demo without network: the part of Stripe's API that [`crate::Stripe`] speaks.
//!
//! - `POST /v1/payment_intents`, `POST /v1/refunds`: once a key. The same key and parameters get the same bytes again,
//!   other parameters a 400, a call that is still running a 409. A call goes on when its caller has left.
//! - `GET /ledger`: what really happened, see [`Ledger`]; for a checker, which asks nobody else.
//! - Bearer of any key that begins with `sk_` is let in.
//!
//! Payment methods with an outcome of their own: `pm_card_visa` pays, `pm_card_chargeDeclined` is declined for good and
//! `pm_card_visa_chargeDeclinedProcessingError` for now (with or without `visa_`, as Stripe has both), `pm_slow` pays
//! after three seconds and `pm_slow_20` after twenty (sixty at most), `pm_reset` pays and the connection is reset instead
//! of an answer, once a key. For all others the seed and the key decide, so a run is repeated by its seed whatever the
//! order of its calls.

mod book;
mod cut;
mod request;

pub use book::{Ledger, LedgerCharge};

use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use book::{Answer, Begun, Book, Kept};
use cut::{CutListener, Scissors};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use request::{Request, Wanted};
use std::io;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use uuid::Uuid;

/// What `pm_slow` takes beside the latency that all calls have.
const SLOW: Duration = Duration::from_secs(3);
/// The most that `pm_slow_…` takes.
const SLOWEST: Duration = Duration::from_secs(60);

/// How the simulator behaves.
#[derive(Clone, Debug)]
pub struct SimulatorSettings {
    /// Decides, together with a call's key, its outcome and latency.
    pub seed: u64,
    /// The share of charges that are declined for good, 0 to 1.
    pub hard_declines: f64,
    /// The share of charges that are declined for now, 0 to 1.
    pub soft_declines: f64,
    /// How long a call takes.
    pub latency: RangeInclusive<Duration>,
    /// Where the ledger is kept, as JSON lines; without it a restart forgets everything.
    pub ledger: Option<PathBuf>,
}

impl Default for SimulatorSettings {
    fn default() -> Self {
        SimulatorSettings {
            seed: 0,
            hard_declines: 0.0,
            soft_declines: 0.0,
            latency: Duration::ZERO..=Duration::ZERO,
            ledger: None,
        }
    }
}

struct Simulator {
    settings: SimulatorSettings,
    book: Mutex<Book>,
}

/// Serves until `shutdown`, then finishes the calls whose callers still wait.
///
/// # Errors
/// A share beyond 0 to 1, an empty range of latencies, a ledger file that cannot be opened or read.
pub async fn serve(
    listener: TcpListener,
    settings: SimulatorSettings,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let (hard, soft) = (settings.hard_declines, settings.soft_declines);
    if !(hard >= 0.0 && soft >= 0.0 && hard + soft <= 1.0) || settings.latency.is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a share beyond 0 to 1 or no latency"));
    }
    let book = Mutex::new(Book::open(settings.ledger.as_deref())?);
    let router = Router::new()
        .route("/v1/payment_intents", post(charge))
        .route("/v1/refunds", post(refund))
        .route("/ledger", get(ledger))
        .with_state(Arc::new(Simulator { settings, book }));
    let service = router.into_make_service_with_connect_info::<Scissors>();
    axum::serve(CutListener(listener), service).with_graceful_shutdown(shutdown).await
}

async fn ledger(State(simulator): State<Arc<Simulator>>) -> Json<Ledger> {
    Json(simulator.book().ledger())
}

async fn charge(
    State(simulator): State<Arc<Simulator>>,
    ConnectInfo(scissors): ConnectInfo<Scissors>,
    headers: HeaderMap,
    body: String,
) -> Response {
    simulator.answer(&scissors, Request::charge(&headers, &body)).await
}

async fn refund(
    State(simulator): State<Arc<Simulator>>,
    ConnectInfo(scissors): ConnectInfo<Scissors>,
    headers: HeaderMap,
    body: String,
) -> Response {
    simulator.answer(&scissors, Request::refund(&headers, &body)).await
}

impl Simulator {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(self: Arc<Self>, scissors: &Scissors, request: Result<Request, Answer>) -> Response {
        let request = match request {
            Ok(request) => request,
            Err(refusal) => return refusal.into_response(),
        };
        let begun = self.book().begin(&request);
        match begun {
            Begun::Again(answer) => {
                let replayed = (HeaderName::from_static("idempotent-replayed"), HeaderValue::from_static("true"));
                ([replayed], answer).into_response()
            }
            Begun::Not(refusal) => refusal.into_response(),
            Begun::New => {
                if request.wanted.method() == Some("pm_reset") {
                    scissors.cut();
                }
                // A task of its own: it must end even when the caller has hung up, or its key would stay in use.
                match tokio::spawn(self.perform(request)).await {
                    Ok(answer) => answer.into_response(),
                    Err(_) => Answer::error(500, "api_error", None).into_response(),
                }
            }
        }
    }

    async fn perform(self: Arc<Self>, request: Request) -> Answer {
        let mut rng = self.rng(&request.key);
        let slow = request.wanted.method().and_then(slow).unwrap_or_default();
        tokio::time::sleep(rng.random_range(self.settings.latency.clone()) + slow).await;
        let drawn = self.draw(&mut rng);
        let mut book = self.book();
        let (answer, effect) = match &request.wanted {
            Wanted::Charge { amount, currency, method } => match decline(method, drawn) {
                Some(code) => (Answer::decline(code), None),
                None => book::charge(&request, *amount, currency),
            },
            Wanted::Refund { charge_id, amount } => book.refund(&request.key, charge_id, *amount),
        };
        book.finish(Kept { key: request.key, fingerprint: request.fingerprint, answer, effect })
    }

    /// What the key has drawn: a decline code, or none.
    fn draw(&self, rng: &mut SmallRng) -> Option<&'static str> {
        let lot: f64 = rng.random();
        if lot < self.settings.hard_declines {
            Some("generic_decline")
        } else if lot < self.settings.hard_declines + self.settings.soft_declines {
            Some("try_again_later")
        } else {
            None
        }
    }

    fn rng(&self, key: &str) -> SmallRng {
        let name = format!("{} {key}", self.settings.seed);
        SmallRng::seed_from_u64(Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()).as_u64_pair().0)
    }
}

/// How long a method takes that pays, but not soon: `pm_slow`, or `pm_slow_…` with its seconds.
fn slow(method: &str) -> Option<Duration> {
    let seconds = method.strip_prefix("pm_slow")?;
    if seconds.is_empty() {
        return Some(SLOW);
    }
    let seconds = seconds.strip_prefix('_')?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(SLOWEST))
}

/// Why a charge is declined: its method's own affair, or what its key has drawn.
fn decline(method: &str, drawn: Option<&'static str>) -> Option<&'static str> {
    match method {
        "pm_card_visa" | "pm_reset" => None,
        method if slow(method).is_some() => None,
        "pm_card_chargeDeclined" | "pm_card_visa_chargeDeclined" => Some("generic_decline"),
        "pm_card_chargeDeclinedProcessingError" | "pm_card_visa_chargeDeclinedProcessingError" => {
            Some("processing_error")
        }
        _ => drawn,
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], self.body).into_response()
    }
}
