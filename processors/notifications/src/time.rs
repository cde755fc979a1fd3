//! Times as the databases take them: microseconds since 1970, UTC.

use jiff::Timestamp;
use waybill_store::StoreError;

pub(crate) fn from_micros(micros: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_microsecond(micros).map_err(|error| sqlx::Error::Decode(error.into()).into())
}

/// What comes after the last whole microsecond is cut off.
pub(crate) fn micros(time: Timestamp) -> i64 {
    time.as_microsecond()
}
