//! Durations as people read them.

use jiff::SignedDuration;

/// A duration with two figures that matter.
#[must_use]
pub fn human(duration: SignedDuration) -> String {
    let micros = duration.as_micros().max(0);
    let (s, m, h) = (1_000_000, 60_000_000, 3_600_000_000);
    match micros {
        0 => format!("{} ns", duration.as_nanos().max(0)),
        1..1_000 => format!("{micros} µs"),
        1_000..10_000 => format!("{:.1} ms", micros as f64 / 1e3),
        10_000..1_000_000 => format!("{} ms", micros / 1_000),
        _ if micros < m => format!("{:.1} s", micros as f64 / 1e6),
        _ if micros < h => format!("{} min {} s", micros / m, micros % m / s),
        _ if micros < 48 * h => format!("{} h {} min", micros / h, micros % h / m),
        _ => format!("{} d {} h", micros / h / 24, micros / h % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_told_in_two_figures() {
        for (micros, told) in [
            (0, "0 ns"),
            (7, "7 µs"),
            (1_500, "1.5 ms"),
            (42_000, "42 ms"),
            (1_300_000, "1.3 s"),
            (61_000_000, "1 min 1 s"),
            (7_320_000_000, "2 h 2 min"),
            (190_800_000_000, "2 d 5 h"),
        ] {
            assert_eq!(human(SignedDuration::from_micros(micros)), told);
        }
    }
}
