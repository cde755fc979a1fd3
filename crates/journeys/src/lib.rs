//! Journeys of orders, rebuilt from the topics: what a record tells, the tables it goes to, and what is asked of them.
//!
//! - Topics are read without a group and no stage runs: a replay has no effect but on its target.
//! - A target is a projection: drop it, and the next replay makes the same rows. Of two records with one id the one that
//!   stands earlier counts, in whatever order they are read, so the rows do not depend on how often or how they were read.
//! - A bad record is told with its position and never ends a replay.

mod error;
mod fill;
mod human;
mod journey;
mod questions;
mod replay;
mod row;
mod send;
mod target;
mod told;
mod topics;
mod verify;
mod write;

pub use error::JourneysError;
pub use human::human;
pub use journey::{Journey, JourneyEvent, Position, Refused, Tree, spans};
pub use questions::{Late, Legs, Promise, Stuck};
pub use replay::{Bad, Replay, Summary};
pub use row::SpanRow;
pub use send::{Sending, Sent};
pub use target::{ReadTo, Target};
pub use told::Told;
pub use topics::{Gone, Range, Span, TOPICS, Topics};
pub use verify::{Differing, Named, Verified};
pub use write::Written;
