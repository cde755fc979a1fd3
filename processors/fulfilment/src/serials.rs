//! Serial numbers for tracking numbers: each is given out once, over all processes. Owned by ship.

use crate::Ship;
use crate::ship::Asked;
use std::collections::VecDeque;
use waybill_spine::{Shared, Work};
use waybill_store::{Connection, StoreError, Tx};

/// The serial numbers drawn for a batch; what it does not use is never used.
#[derive(Debug, Default)]
pub struct Serials(pub(crate) VecDeque<i64>);

impl Serials {
    /// The next serial number; `None` when more parcels came than were announced.
    pub(crate) fn draw(&mut self) -> Option<u64> {
        self.0.pop_front().and_then(|serial| u64::try_from(serial).ok())
    }
}

impl Shared<Ship> for Serials {
    async fn load(tx: &mut Tx<'_>, work: &[Work<'_, Ship>]) -> Result<Self, StoreError> {
        let parcels = work.iter().map(|w| match w.event {
            Asked::Packed(order) => order.parcels.len(),
            Asked::Cancel(_) => 0,
        });
        let parcels = i64::try_from(parcels.sum::<usize>()).unwrap_or(i64::MAX);
        match tx.connection() {
            Connection::Postgres(connection) => {
                // A sequence is never rolled back, so nobody waits for another's transaction.
                let sql = "select nextval('tracking_serials') from generate_series(1, $1)";
                let serials: Vec<i64> = sqlx::query_scalar(sql).bind(parcels).fetch_all(connection).await?;
                Ok(Serials(serials.into()))
            }
            Connection::Sqlite(connection) => {
                let sql = "update tracking_serials set last = last + ?1 returning last";
                let last: i64 = sqlx::query_scalar(sql).bind(parcels).fetch_one(connection).await?;
                Ok(Serials((last - parcels + 1..=last).collect()))
            }
        }
    }

    async fn save(self, _: &mut Tx<'_>) -> Result<(), StoreError> {
        Ok(())
    }
}
