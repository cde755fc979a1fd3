//! Where nobody is reached any more: addresses that are suppressed and devices that are forgotten, in the transaction that
//! keeps what became of their messages.

use super::orders::OrderMail;
use super::stage::{Channel, Tell};
use waybill_spine::{Shared, Work};
use waybill_store::{Connection, StoreError, Tx};

/// Places where nobody is.
#[derive(Debug, Default)]
pub struct Marks {
    /// Addresses.
    addresses: Vec<String>,
    /// Devices: user and id.
    devices: Vec<(String, String)>,
}

impl Marks {
    /// The server says that nobody has this address.
    pub(super) fn suppress(&mut self, address: &str) {
        self.addresses.push(address.to_lowercase());
    }

    /// The push service says that this device is gone.
    pub(super) fn forget(&mut self, user_id: &str, id: &str) {
        self.devices.push((user_id.to_owned(), id.to_owned()));
    }

    async fn write(mut self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        // In one order, whoever writes.
        self.addresses.sort_unstable();
        self.devices.sort_unstable();
        if !self.addresses.is_empty() {
            suppress(tx, &self.addresses).await?;
        }
        if !self.devices.is_empty() {
            forget(tx, &self.devices).await?;
        }
        Ok(())
    }
}

async fn suppress(tx: &mut Tx<'_>, addresses: &[String]) -> Result<(), StoreError> {
    match tx.connection() {
        Connection::Postgres(connection) => {
            let sql = "insert into suppressions (email, reason) select distinct a, 'refused' from unnest($1::text[]) a
                       order by a on conflict do nothing";
            sqlx::query(sql).bind(addresses).execute(connection).await?;
        }
        Connection::Sqlite(connection) => {
            let sql = "insert into suppressions (email, reason) select distinct value, 'refused' from json_each(?1)
                       where true on conflict do nothing";
            sqlx::query(sql).bind(serde_json::Value::from(addresses).to_string()).execute(connection).await?;
        }
    }
    Ok(())
}

async fn forget(tx: &mut Tx<'_>, devices: &[(String, String)]) -> Result<(), StoreError> {
    match tx.connection() {
        Connection::Postgres(connection) => {
            let (users, ids): (Vec<&str>, Vec<&str>) = devices.iter().map(|(user, id)| (&**user, &**id)).unzip();
            let sql = "delete from push_targets t using unnest($1::text[], $2::text[]) as gone (user_id, id)
                       where t.user_id = gone.user_id and t.id = gone.id";
            sqlx::query(sql).bind(users).bind(ids).execute(connection).await?;
        }
        Connection::Sqlite(connection) => {
            let sql = "delete from push_targets where (user_id, id) in
                           (select value ->> 0, value ->> 1 from json_each(?1))";
            let devices = serde_json::json!(devices).to_string();
            sqlx::query(sql).bind(devices).execute(connection).await?;
        }
    }
    Ok(())
}

impl<C: Channel> Shared<Tell<C>> for Marks {
    async fn load(_: &mut Tx<'_>, _: &[Work<'_, Tell<C>>]) -> Result<Self, StoreError> {
        Ok(Marks::default())
    }
    async fn save(self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        self.write(tx).await
    }
}

impl Shared<OrderMail> for Marks {
    async fn load(_: &mut Tx<'_>, _: &[Work<'_, OrderMail>]) -> Result<Self, StoreError> {
        Ok(Marks::default())
    }
    async fn save(self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        self.write(tx).await
    }
}
