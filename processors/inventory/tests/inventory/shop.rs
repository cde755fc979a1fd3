//! A shop on a database of its own, each of its operations a transaction.

use std::time::Duration;
use waybill_harness::{Database, postgres};
use waybill_inventory::{Adjusted, Adjustment, Confirmed, Level, Lines, Reserved, Stock};
use waybill_store::Store;

pub const HOUR: Duration = Duration::from_secs(3_600);

/// A database of its own, and what keeps it alive.
pub enum Home {
    Postgres(Database),
    Sqlite(tempfile::TempDir),
}

impl Home {
    pub fn sqlite() -> Self {
        Home::Sqlite(tempfile::tempdir().unwrap())
    }

    /// `None` where no Postgres is to be had.
    pub async fn postgres(name: &str) -> Option<Self> {
        Some(Home::Postgres(postgres()?.create_database(name).await.unwrap()))
    }

    pub async fn both(name: &str) -> Vec<Self> {
        [Some(Home::sqlite()), Home::postgres(name).await].into_iter().flatten().collect()
    }

    pub async fn open(&self) -> Shop {
        let url = match self {
            Home::Postgres(database) => database.url().to_owned(),
            Home::Sqlite(folder) => format!("sqlite://{}", folder.path().join("test.db").display()),
        };
        let mut store = Store::open(&url).await.unwrap();
        store.migrate().await.unwrap();
        Shop(store)
    }
}

/// Runs a test on both databases.
macro_rules! on_both {
    ($($name:ident => $test:ident;)*) => {$(
        #[tokio::test]
        async fn $name() {
            for home in crate::shop::Home::both(stringify!($test)).await {
                $test(home.open().await).await;
            }
        }
    )*};
}
pub(crate) use on_both;

pub struct Shop(pub Store);

macro_rules! in_a_transaction {
    ($($name:ident($($argument:ident: $type:ty),*) -> $answer:ty;)*) => {$(
        pub async fn $name(&mut self, $($argument: $type),*) -> $answer {
            let mut tx = self.0.begin().await.unwrap();
            let answer = waybill_inventory::$name(&mut tx, $($argument),*).await.unwrap();
            tx.commit().await.unwrap();
            answer
        }
    )*};
}

impl Shop {
    in_a_transaction! {
        reserve(orders: &[Lines<'_>], hold: Duration) -> Vec<Reserved>;
        confirm(orders: &[&str]) -> Vec<Confirmed>;
        release(orders: &[&str]) -> Vec<usize>;
        expire(limit: i64) -> Vec<String>;
        adjust(adjustments: &[Adjustment<'_>]) -> Vec<Adjusted>;
        short(missing: &[Lines<'_>]) -> Vec<Vec<(String, i64)>>;
        cancelled(orders: &[&str]) -> Vec<usize>;
        levels(limit: i64) -> Vec<Level>;
        relayed(told: &[(&str, i64)]) -> ();
    }

    pub async fn stock(&mut self) -> Vec<Stock> {
        waybill_inventory::stock(&mut self.0).await.unwrap()
    }

    /// With this in stock.
    pub async fn with(mut self, goods: &[(&str, i64)]) -> Self {
        self.adjust(&goods.iter().map(|&(product_id, delta)| Adjustment { product_id, delta }).collect::<Vec<_>>())
            .await;
        self
    }

    /// Of a product: available, reserved, sold, shrinkage.
    pub async fn counts(&mut self, product_id: &str) -> [i64; 4] {
        let stock = self.stock().await;
        let s = stock.iter().find(|s| s.product_id == product_id).unwrap();
        assert_eq!(s.received, s.available + s.reserved + s.sold + s.shrinkage);
        [s.available, s.reserved, s.sold, s.shrinkage]
    }

    /// Reserves for one order.
    pub async fn order(&mut self, order_id: &str, lines: &[(&str, u32)], hold: Duration) -> Reserved {
        self.reserve(&[wants(order_id, lines)], hold).await.remove(0)
    }
}

pub fn wants<'a>(order_id: &'a str, lines: &[(&'a str, u32)]) -> Lines<'a> {
    Lines { order_id, lines: lines.to_vec() }
}

/// What is held, or what there is too little of: product, available, requested.
pub type Plain = Result<Vec<(String, i64)>, Vec<(String, i64, i64)>>;

pub fn plain(reserved: &Reserved) -> Plain {
    match reserved {
        Reserved::Held { reservations, .. } => {
            Ok(reservations.iter().map(|r| (r.product_id.clone(), r.quantity)).collect())
        }
        Reserved::Insufficient(shortages) => {
            Err(shortages.iter().map(|s| (s.product_id.clone(), s.available, s.requested)).collect())
        }
    }
}

pub fn is_held(reserved: &Reserved) -> bool {
    matches!(reserved, Reserved::Held { .. })
}
