//! What people on call look at and decide: how far each stage is behind, and what became of its dead letters.
//!
//! - Everything is read from the cluster when it is asked for, without a group: nothing is committed, and nothing kept beside.
//! - What was decided about a letter stands on a topic, too: a letter is redriven because it stands on `redrive.<stage>`, and
//!   dropped because it stands on `redrive.dropped`. So the mark and the deed are one write.
//! - All of it blocks its thread, for a bounded time.

mod at;
mod error;
mod lag;
mod letters;
mod redrive;

pub use error::OpsError;
pub use lag::{PartitionLag, StageLag, lag};
pub use letters::{Count, First, Letter, Listing, Position, State, Wanted, letters, letters_at, stages};
pub use redrive::{Moved, drop_letters, redrive};
