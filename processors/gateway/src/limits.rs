//! How much is taken on: requests a user may send.

use crate::problem::{Kind, Problem};
use crate::settings::Settings;
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota};
use std::num::NonZeroU32;
use std::time::Duration;

/// Requests of each user, by the generic cell rate algorithm.
pub(crate) struct Limits {
    users: DefaultKeyedRateLimiter<String>,
    clock: DefaultClock,
}

impl Limits {
    pub(crate) fn new(settings: &Settings) -> Self {
        let at_least_one = |number: u32| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_minute(at_least_one(settings.rate)).allow_burst(at_least_one(settings.burst));
        Limits { users: DefaultKeyedRateLimiter::keyed(quota), clock: DefaultClock::default() }
    }

    /// Whether this user may send one more request.
    pub(crate) fn admit(&self, user_id: &str) -> Result<(), Problem> {
        self.users.check_key(&user_id.to_owned()).map_err(|until| {
            let wait: Duration = until.wait_time_from(self.clock.now());
            Problem { retry_after: Some(wait.as_secs() + 1), ..Kind::TooMany.into() }
        })
    }

    /// Forgets users who may send again as if they never had.
    pub(crate) fn forget(&self) {
        self.users.retain_recent();
        self.users.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_user_has_a_burst_and_is_then_told_when_to_come_back() {
        let limits = Limits::new(&Settings { rate: 1, burst: 2, ..Settings::default() });
        assert!(limits.admit("a").is_ok() && limits.admit("a").is_ok() && limits.admit("b").is_ok());
        let problem = limits.admit("a").unwrap_err();
        assert!((1..=60).contains(&problem.retry_after.unwrap()), "{problem:?}");
    }
}
