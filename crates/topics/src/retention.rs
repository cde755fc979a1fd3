//! How long a topic keeps its records, as people write it: `365d`, `12h`, `1d12h`, `forever`.

use std::fmt;
use std::str::FromStr;

/// The units, largest first, with their length in milliseconds.
const UNITS: [(&str, i64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// How long a topic keeps its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// Nothing is ever deleted for its age (Kafka's `-1`).
    Forever,
    /// Records older than this many milliseconds may be deleted.
    Millis(i64),
}

impl Retention {
    /// From the value of Kafka's `retention.ms`.
    pub fn from_ms(ms: i64) -> Self {
        if ms < 0 { Self::Forever } else { Self::Millis(ms) }
    }

    /// The value of Kafka's `retention.ms`.
    pub fn as_ms(self) -> i64 {
        match self {
            Self::Forever => -1,
            Self::Millis(ms) => ms,
        }
    }
}

/// A retention that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a duration: write for instance 12h, 365d, 1d12h (units d, h, m, s, ms) or forever")]
pub struct RetentionError(String);

impl FromStr for Retention {
    type Err = RetentionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "forever" {
            return Ok(Self::Forever);
        }
        let wrong = || RetentionError(text.to_owned());
        let (mut rest, mut total) = (text, 0_i64);
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
            let (number, tail) = rest.split_at(digits);
            let end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(end);
            let (_, length) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
            let part = number.parse::<i64>().ok().and_then(|n| n.checked_mul(*length)).ok_or_else(wrong)?;
            total = total.checked_add(part).ok_or_else(wrong)?;
            rest = tail;
        }
        // Nothing at all, or a topic that would delete whatever it is given: neither can be meant.
        if total == 0 { Err(wrong()) } else { Ok(Self::Millis(total)) }
    }
}

impl fmt::Display for Retention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = match self {
            Self::Forever => return f.write_str("forever"),
            Self::Millis(0) => return f.write_str("0ms"),
            Self::Millis(ms) => *ms,
        };
        for (unit, length) in UNITS {
            if rest >= length {
                write!(f, "{}{unit}", rest / length)?;
                rest %= length;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_read_and_written_alike() {
        for (text, ms) in [
            ("365d", 31_536_000_000),
            ("12h", 43_200_000),
            ("1d12h", 129_600_000),
            ("90m", 5_400_000),
            ("1s500ms", 1_500),
            ("1ms", 1),
            ("forever", -1),
        ] {
            let read: Retention = text.parse().unwrap();
            assert_eq!(read.as_ms(), ms, "{text}");
            assert_eq!(Retention::from_ms(ms), read, "{text}");
            assert_eq!(read.to_string().parse(), Ok(read), "{text}");
        }
        assert_eq!(Retention::from_ms(5_400_000).to_string(), "1h30m");
        assert_eq!(Retention::from_ms(0).to_string(), "0ms");
    }

    #[test]
    fn what_is_no_duration_is_refused_by_name() {
        for text in [
            "",
            "365",
            "d",
            "1y",
            "1w",
            "-1d",
            "1.5d",
            "1 d",
            "0d",
            "Forever",
            "1d-2h",
            "99999999999999999999d",
            "999999999999d",
        ] {
            let error = text.parse::<Retention>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?}")), "{text}: {error}");
        }
    }
}
