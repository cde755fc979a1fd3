//! What the checkouts of a batch share: their carts, the stock, and the payment methods to be erased.

use crate::carts::{self, Cart};
use crate::input::CheckoutInput;
use crate::stage::Checkout;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use waybill_inventory::Ledger;
use waybill_spine::{Input as _, Shared, Work, system_clock};
use waybill_store::{Connection, StoreError, Tx};

/// Carts and stock of a batch, locked.
#[derive(Debug, Default)]
pub struct Till {
    pub(crate) carts: BTreeMap<String, Cart>,
    /// None where nothing in the batch touches the stock.
    pub(crate) ledger: Option<Ledger>,
    /// When the carts were read, and when the stock was locked.
    pub(crate) fetched: Interval,
    pub(crate) locked: Interval,
    /// Orders whose saga has ended.
    pub(crate) ended: Vec<String>,
}

/// From when to when.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Interval(pub Timestamp, pub Timestamp);

impl Shared<Checkout> for Till {
    async fn load(tx: &mut Tx<'_>, work: &[Work<'_, Checkout>]) -> Result<Self, StoreError> {
        let mut till = Till::default();
        let fresh = work.iter().filter(|w| w.state.is_none());
        let wanted: BTreeSet<&str> = fresh
            .filter_map(|w| match w.event {
                CheckoutInput::Requested(request) => Some(request.cart_id.as_str()),
                CheckoutInput::Short(_)
                | CheckoutInput::Cancelled(_)
                | CheckoutInput::Picked(_)
                | CheckoutInput::Packed(_)
                | CheckoutInput::Shipped(_) => None,
            })
            .collect();
        let begun = system_clock();
        if !wanted.is_empty() {
            till.carts = carts::read(tx, &wanted.into_iter().collect::<Vec<_>>()).await?;
        }
        till.fetched = Interval(begun, system_clock());
        let products: BTreeSet<&str> = till
            .carts
            .values()
            .flat_map(|cart| &cart.lines)
            .map(|line| line.bought.line.product_id.as_str())
            .chain(work.iter().filter(|w| w.answer.is_some()).flat_map(|w| {
                w.state.into_iter().flat_map(|saga| saga.lines.iter().map(|b| b.line.product_id.as_str()))
            }))
            .collect();
        if !products.is_empty() {
            let orders: BTreeSet<&str> = work.iter().map(|w| w.event.key()).collect();
            let (products, orders): (Vec<&str>, Vec<&str>) =
                (products.into_iter().collect(), orders.into_iter().collect());
            till.ledger = Some(Ledger::lock(tx, &products, &orders).await?);
        }
        till.locked = Interval(till.fetched.1, system_clock());
        Ok(till)
    }

    async fn save(self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        if let Some(ledger) = self.ledger {
            ledger.save(tx).await?;
        }
        if self.ended.is_empty() {
            return Ok(());
        }
        match tx.connection() {
            Connection::Postgres(connection) => {
                let sql = "delete from payment_methods where order_id = any($1)";
                sqlx::query(sql).bind(self.ended).execute(connection).await?;
            }
            Connection::Sqlite(connection) => {
                let sql = "delete from payment_methods where order_id in (select value from json_each(?1))";
                sqlx::query(sql).bind(serde_json::Value::from(self.ended).to_string()).execute(connection).await?;
            }
        }
        Ok(())
    }
}
