//! Liveness and readiness, on a port of their own.
//!
//! `/livez`: every loop of the process has turned within [`STALL`]. `/readyz`: and every loop has partitions
//! and its database.

use axum::{Json, Router, extract::State, http::StatusCode, routing::get};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;

/// A loop that has not turned for so long is stuck: twice the longest wait inside one turn.
const STALL: Duration = Duration::from_secs(60);

/// The health of all loops of a process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Health {
    born: Instant,
    pulses: Arc<Mutex<Vec<Pulse>>>,
}

/// The pulse of one loop.
#[derive(Clone, Debug)]
pub struct Pulse(Arc<Beat>);

#[derive(Debug)]
struct Beat {
    name: &'static str,
    born: Instant,
    last_ms: AtomicU64,
    assigned: AtomicBool,
    away: AtomicBool,
}

impl Default for Health {
    fn default() -> Self {
        Health { born: Instant::now(), pulses: Arc::default() }
    }
}

impl Pulse {
    /// The loop has turned once more.
    pub fn beat(&self, assigned: bool) {
        let now = self.0.born.elapsed().as_millis();
        self.0.last_ms.store(u64::try_from(now).unwrap_or(u64::MAX), Relaxed);
        self.0.assigned.store(assigned, Relaxed);
    }

    /// Whether the loop waits for the database or the broker.
    pub fn away(&self, away: bool) {
        self.0.away.store(away, Relaxed);
    }
}

impl Health {
    /// Adds a loop.
    #[must_use]
    pub fn pulse(&self, name: &'static str) -> Pulse {
        let beat = Beat {
            name,
            born: self.born,
            last_ms: AtomicU64::new(u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)),
            assigned: AtomicBool::new(false),
            away: AtomicBool::new(false),
        };
        let pulse = Pulse(Arc::new(beat));
        self.pulses.lock().unwrap_or_else(PoisonError::into_inner).push(pulse.clone());
        pulse
    }

    /// Serves `/livez` and `/readyz` until the process ends.
    ///
    /// # Errors
    /// The listener fails.
    pub async fn serve(self, listener: TcpListener) -> std::io::Result<()> {
        let app = Router::new()
            .route("/livez", get(|State(health): State<Health>| async move { health.report(false) }))
            .route("/readyz", get(|State(health): State<Health>| async move { health.report(true) }))
            .with_state(self);
        axum::serve(listener, app).await
    }

    fn report(&self, ready: bool) -> (StatusCode, Json<serde_json::Value>) {
        let now = self.born.elapsed();
        let pulses = self.pulses.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fine = true;
        let stages: serde_json::Map<String, serde_json::Value> = pulses
            .iter()
            .map(|Pulse(beat)| {
                let quiet = now.saturating_sub(Duration::from_millis(beat.last_ms.load(Relaxed)));
                let state = if quiet > STALL {
                    "stuck"
                } else if ready && beat.away.load(Relaxed) {
                    "waiting for the database or the broker"
                } else if ready && !beat.assigned.load(Relaxed) {
                    "no partitions yet"
                } else {
                    "ok"
                };
                fine &= state == "ok";
                (beat.name.to_owned(), state.into())
            })
            .collect();
        let status = if fine { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (status, Json(stages.into()))
    }
}
