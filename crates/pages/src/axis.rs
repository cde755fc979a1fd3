//! A time axis on which both work and waiting can be seen: work takes microseconds, waiting may take days.
//!
//! The axis is cut where nothing happens for longer than the work on one of its sides took. What is left are pieces, each
//! to its own scale: one has room enough to be seen, and what remains is shared by duration.

use jiff::{SignedDuration, Timestamp};

/// The room of a cut, in percent of the axis.
const CUT: f64 = 3.5;
/// The least room of a piece.
const LEAST: f64 = 9.0;
/// Most pieces: the shortest waits are drawn to scale where there are more.
const MOST: usize = 7;

/// The axis.
#[derive(Debug)]
pub(crate) struct Axis {
    pieces: Vec<Piece>,
}

/// A part of the axis, to its own scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Piece {
    pub from: Timestamp,
    pub to: Timestamp,
    /// Where it begins, percent.
    pub left: f64,
    /// How much room it has, percent.
    pub width: f64,
}

impl Piece {
    /// How long it is.
    pub(crate) fn took(&self) -> SignedDuration {
        self.to.duration_since(self.from)
    }
}

impl Axis {
    /// For work that happened in these intervals.
    pub(crate) fn new(intervals: impl Iterator<Item = (Timestamp, Timestamp)>) -> Self {
        let mut busy: Vec<(Timestamp, Timestamp)> = intervals.map(|(from, to)| (from, to.max(from))).collect();
        busy.sort_unstable();
        let mut spans = merged(&busy, |_, gap, _| gap.is_zero());
        // Until nothing changes: two pieces that became one may be longer than the wait before them.
        loop {
            let fewer = merged(&spans, |before, gap, after| gap <= before.min(after));
            if fewer.len() == spans.len() {
                break;
            }
            spans = fewer;
        }
        while spans.len() > MOST {
            let gap = |index: &usize| spans[index + 1].0.duration_since(spans[*index].1);
            let Some(shortest) = (0..spans.len() - 1).min_by_key(gap) else { break };
            spans[shortest].1 = spans[shortest + 1].1;
            spans.remove(shortest + 1);
        }
        Axis { pieces: placed(&spans) }
    }

    /// The pieces, by time.
    pub(crate) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Where a moment is, percent. One within a cut is at the end of the piece before.
    pub(crate) fn at(&self, time: Timestamp) -> f64 {
        let Some(piece) = self.pieces.iter().rev().find(|piece| piece.from <= time).or(self.pieces.first()) else {
            return 0.0;
        };
        let took = piece.took().as_secs_f64();
        let part = if took > 0.0 { time.duration_since(piece.from).as_secs_f64() / took } else { 0.0 };
        piece.left + piece.width * part.clamp(0.0, 1.0)
    }
}

/// Joins neighbours that overlap, or whose gap `joins` says so of: what is before it, it, what is after it.
fn merged(
    sorted: &[(Timestamp, Timestamp)],
    joins: impl Fn(SignedDuration, SignedDuration, SignedDuration) -> bool,
) -> Vec<(Timestamp, Timestamp)> {
    let mut spans: Vec<(Timestamp, Timestamp)> = Vec::new();
    for &(from, to) in sorted {
        match spans.last_mut() {
            Some(last)
                if from <= last.1
                    || joins(last.1.duration_since(last.0), from.duration_since(last.1), to.duration_since(from)) =>
            {
                last.1 = last.1.max(to);
            }
            _ => spans.push((from, to)),
        }
    }
    spans
}

fn placed(spans: &[(Timestamp, Timestamp)]) -> Vec<Piece> {
    let count = spans.len() as f64;
    let total: f64 = spans.iter().map(|(from, to)| to.duration_since(*from).as_secs_f64()).sum();
    let shared = 100.0 - CUT * (count - 1.0) - LEAST * count;
    let mut left = 0.0;
    let place = |&(from, to): &(Timestamp, Timestamp)| {
        let part = if total > 0.0 { to.duration_since(from).as_secs_f64() / total } else { 1.0 / count };
        let width = LEAST + shared * part;
        let piece = Piece { from, to, left, width };
        left += width + CUT;
        piece
    };
    spans.iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(intervals: &[(i64, i64)]) -> Axis {
        let time = |micros| Timestamp::from_microsecond(micros).unwrap();
        Axis::new(intervals.iter().map(|&(from, to)| (time(from), time(to))))
    }

    fn at(axis: &Axis, micros: i64) -> f64 {
        axis.at(Timestamp::from_microsecond(micros).unwrap())
    }

    #[test]
    fn a_wait_of_hours_leaves_work_of_microseconds_room_to_be_seen() {
        let hour = 3_600_000_000;
        let axis = axis(&[(0, 128_000), (hour, hour + 12), (40 * hour, 40 * hour + 9)]);
        let pieces = axis.pieces();
        assert_eq!(pieces.len(), 3);
        assert!(pieces.iter().all(|piece| piece.width >= LEAST), "{pieces:?}");
        let end = pieces[2].left + pieces[2].width;
        assert!((end - 100.0).abs() < 1e-9, "the axis is as wide as its pieces: {end}");
        assert!((at(&axis, 64_000) - pieces[0].width / 2.0).abs() < 1e-9, "a piece is to scale");
        assert!(at(&axis, hour + 12) < at(&axis, 40 * hour), "later is further right");
        assert_eq!(at(&axis, 20 * hour), pieces[1].left + pieces[1].width, "nothing is in a cut");
    }

    #[test]
    fn a_wait_shorter_than_the_work_around_it_is_drawn_to_scale() {
        assert_eq!(axis(&[(0, 100), (150, 250)]).pieces().len(), 1);
        assert_eq!(axis(&[(0, 100), (150, 160)]).pieces().len(), 2);
        assert_eq!(axis(&[(0, 500), (20, 30), (400, 600)]).pieces().len(), 1, "what overlaps is one");
    }

    #[test]
    fn many_waits_leave_a_few_cuts() {
        let many: Vec<(i64, i64)> = (0..50).map(|n| (n * 1_000 * (n + 1), n * 1_000 * (n + 1) + 1)).collect();
        let axis = axis(&many);
        assert_eq!(axis.pieces().len(), MOST);
        assert!(many.windows(2).all(|pair| at(&axis, pair[0].0) <= at(&axis, pair[1].0)));
    }

    #[test]
    fn what_took_no_time_has_a_place() {
        let axis = axis(&[(5, 5)]);
        assert_eq!((at(&axis, 5), axis.pieces()[0].width), (0.0, 100.0));
        assert_eq!(at(&Axis::new(std::iter::empty()), 5), 0.0);
    }
}
