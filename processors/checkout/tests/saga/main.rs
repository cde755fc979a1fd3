//! The checkout through the real loop, a real database and a provider that keeps books: nothing oversold, nobody charged
//! twice, and after every end a clean slate.

#![expect(clippy::unwrap_used, reason = "a test may stop here")]

mod ends;
mod faults;
mod on_call;
mod world;
