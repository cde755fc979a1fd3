//! Liveness and readiness, on a port of their own.
//!
//! `/livez`: no loop of the process is stuck. `/readyz`: and every loop has partitions and its database, and no broker refuses it. A loop is stuck that
//! has not turned for so long as it is allowed; one that waits for the database or the broker turns. [`Watch`] tells the
//! process, which then ends: a supervisor starts it again, and what was in hand comes again.

use crate::kafka::Refusals;
use axum::{Json, Router, extract::State, http::StatusCode, routing::get};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;

/// A loop that has not turned for so long is stuck: twice the longest wait inside one turn, a statement's time limit.
pub const STALL: Duration = Duration::from_secs(60);

/// A process that looks no more often than this at its own loops stood still itself.
const STOOD_STILL: Duration = Duration::from_secs(5);

/// The health of all loops of a process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Health {
    born: Instant,
    stall: Duration,
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
    refusals: OnceLock<Refusals>,
}

/// Looks again and again whether a loop is stuck.
#[derive(Debug)]
pub struct Watch {
    health: Health,
    looked: Instant,
    awake: Instant,
}

impl Watch {
    /// A loop that is stuck, and how long it has not turned. To be asked several times a second: a longer silence says that the
    /// whole process stood still, stopped by a signal or with its machine, and its loops have their time anew.
    pub fn stuck(&mut self) -> Option<(&'static str, Duration)> {
        let now = Instant::now();
        if now.duration_since(self.looked) > STOOD_STILL {
            self.awake = now;
        }
        self.looked = now;
        if now.duration_since(self.awake) <= self.health.stall {
            return None;
        }
        let pulses = self.health.pulses.lock().unwrap_or_else(PoisonError::into_inner);
        let quiet = pulses.iter().map(|pulse| (pulse.0.name, self.health.quiet(pulse)));
        quiet.into_iter().find(|(_, quiet)| *quiet > self.health.stall)
    }
}

impl Default for Health {
    fn default() -> Self {
        Health::new(STALL)
    }
}

impl Pulse {
    /// The loop has turned once more.
    pub fn beat(&self, assigned: bool) {
        let now = self.0.born.elapsed().as_millis();
        self.0.last_ms.store(u64::try_from(now).unwrap_or(u64::MAX), Relaxed);
        self.0.assigned.store(assigned, Relaxed);
    }

    /// Where it is heard what brokers refuse the loop.
    pub fn refused_by(&self, refusals: &Refusals) {
        // The first stays: a loop has one.
        self.0.refusals.get_or_init(|| refusals.clone());
    }

    /// Whether the loop waits for the database or the broker.
    pub fn away(&self, away: bool) {
        self.0.away.store(away, Relaxed);
    }
}

impl Health {
    /// Loops that have not turned for longer than `stall` are stuck.
    #[must_use]
    pub fn new(stall: Duration) -> Self {
        Health { born: Instant::now(), stall, pulses: Arc::default() }
    }

    /// For whoever ends a process that is stuck.
    #[must_use]
    pub fn watch(&self) -> Watch {
        Watch { health: self.clone(), looked: Instant::now(), awake: Instant::now() }
    }

    fn quiet(&self, Pulse(beat): &Pulse) -> Duration {
        self.born.elapsed().saturating_sub(Duration::from_millis(beat.last_ms.load(Relaxed)))
    }

    /// Adds a loop.
    #[must_use]
    pub fn pulse(&self, name: &'static str) -> Pulse {
        let beat = Beat {
            name,
            born: self.born,
            last_ms: AtomicU64::new(u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)),
            assigned: AtomicBool::new(false),
            away: AtomicBool::new(false),
            refusals: OnceLock::new(),
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
        let pulses = self.pulses.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fine = true;
        let stages: serde_json::Map<String, serde_json::Value> = pulses
            .iter()
            .map(|pulse| {
                let beat = &pulse.0;
                let refused = beat.refusals.get().and_then(Refusals::reason).filter(|_| ready);
                let state = if self.quiet(pulse) > self.stall {
                    "stuck"
                } else if ready && beat.away.load(Relaxed) {
                    "waiting for the database or the broker"
                } else if ready && !beat.assigned.load(Relaxed) {
                    "no partitions yet"
                } else if refused.is_some() {
                    "turned away"
                } else {
                    "ok"
                };
                fine &= state == "ok";
                let said = refused.map_or_else(|| state.to_owned(), |refused| format!("{state}: {refused}"));
                (beat.name.to_owned(), said.into())
            })
            .collect();
        let status = if fine { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (status, Json(stages.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_does_not_turn_is_stuck_beside_one_that_does() {
        let health = Health::new(Duration::from_millis(300));
        let (standing, turning) = (health.pulse("standing"), health.pulse("turning"));
        let mut watch = health.watch();
        standing.beat(true);
        let stuck = loop {
            turning.beat(true);
            if let Some(stuck) = watch.stuck() {
                break stuck;
            }
            std::thread::yield_now();
        };
        assert_eq!(stuck.0, "standing");
        assert!(stuck.1 > Duration::from_millis(300));
    }

    #[test]
    fn a_process_that_stood_still_as_a_whole_is_not_stuck() {
        let health = Health::new(Duration::ZERO);
        let _pulse = health.pulse("pick");
        let mut watch = health.watch();
        let Some(long_ago) = Instant::now().checked_sub(STOOD_STILL * 2) else { return };
        (watch.looked, watch.awake) = (long_ago, long_ago);
        assert_eq!(watch.stuck(), None, "its loops have their time anew");
        while watch.stuck().is_none() {
            std::thread::yield_now();
        }
    }
}
