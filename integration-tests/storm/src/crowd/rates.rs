//! How fast it went: by the slots that the database granted, and by what the receivers got.

use super::CHANNELS;
use super::receivers::Arrival;
use sqlx::PgConnection;
use std::time::Duration;

/// What a receiver's log is looked through by, in microseconds.
const WINDOW: i64 = 10_000_000;
/// Calls of a process that may hold slots, by channel: two for each of the four connections to the mail server, sixteen for
/// push. So many people are a call's at most.
const CALLS: [usize; 2] = [8, 16];
const PEOPLE: usize = 20;

/// Most slots that the lanes granted in any second, by channel; of those that began within `last`, or of all.
pub async fn granted(connection: &mut PgConnection, last: Option<Duration>) -> anyhow::Result<[i64; 2]> {
    // A grant is so many slots, one after the other at the lane's rate. Its times are whole microseconds, so a second is
    // looked at that is a few of them shorter.
    let sql = "with slots as (
                   select starts_at + (n / per_second) * interval '1 s' as at
                   from send_grants, generate_series(0, messages - 1) n
                   where lane = $1 and starts_at > now() - $2 * interval '1 s'),
               seconds as (
                   select count(*) over (order by at range between current row and interval '0.99999 s' following) as slots
                   from slots)
               select coalesce(max(slots), 0) from seconds";
    let seconds = last.unwrap_or(Duration::from_secs(86_400)).as_secs_f64();
    let mut most = [0; 2];
    for (most, channel) in most.iter_mut().zip(CHANNELS) {
        *most = sqlx::query_scalar(sql).bind(channel).bind(seconds).fetch_one(&mut *connection).await?;
    }
    Ok(most)
}

/// The ten seconds in which a receiver got most, beside what it may get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Messages.
    pub got: usize,
    /// Ten times the rate; and what may come late: the slots that calls held before. Of a process that was killed they
    /// come, too, beside those of its successor.
    pub may: usize,
}

/// Looks through what a receiver got: the fullest ten seconds, and the first ones that are too full.
pub fn received(
    channel: usize,
    arrivals: &[Arrival],
    kills: &[(&str, i64)],
    replicas: usize,
    rate: f64,
) -> (Window, Option<Window>) {
    let mut times: Vec<i64> = arrivals.iter().map(|arrival| arrival.at).collect();
    times.sort_unstable();
    let killed: Vec<i64> = kills.iter().filter(|(role, _)| *role == CHANNELS[channel]).map(|(_, at)| *at).collect();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "messages, far below the limits")]
    let full = (10.0 * rate).ceil() as usize;
    let windows = times.iter().enumerate().map(|(index, from)| {
        let within = |at: &i64| (*from..from + WINDOW).contains(at);
        let got = times.partition_point(|at| *at < from + WINDOW) - index;
        let processes = replicas + killed.iter().filter(|at| within(at)).count();
        Window { got, may: full + processes * CALLS[channel] * PEOPLE }
    });
    let fullest = windows.clone().max_by_key(|window| window.got).unwrap_or(Window { got: 0, may: full });
    (fullest, windows.clone().find(|window| window.got > window.may))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals(times: impl Iterator<Item = i64>) -> Vec<Arrival> {
        times.map(|at| Arrival { at, user: String::new(), delivery: String::new() }).collect()
    }

    #[test]
    fn ten_seconds_that_are_too_full_are_found() {
        // A message each second, and a heap of them in the middle.
        let steady = || (0..100).map(|second| second * 1_000_000);
        let heap = |size: i64| arrivals(steady().chain((0..size).map(|i| 50_000_000 + i)));
        let (fullest, too_full) = received(0, &heap(0), &[], 1, 1.0);
        assert_eq!((fullest, too_full), (Window { got: 10, may: 170 }, None));
        assert_eq!(received(0, &heap(160), &[], 1, 1.0).1, None);
        assert_eq!(received(0, &heap(161), &[], 1, 1.0).1, Some(Window { got: 171, may: 170 }));
        assert_eq!(received(0, &heap(161), &[("email", 49_000_000)], 1, 1.0).1.map(|window| window.may), Some(170));
        assert_eq!(received(0, &heap(161), &[("email", 50_000_000), ("push", 50_000_000)], 2, 1.0).1, None);
    }
}
