//! Many connections on the same few rows of a real Postgres. Every answer is unwrapped: a deadlock would be
//! a conflict, and end the test.

use crate::shop::{HOUR, Home, Shop, is_held, wants};
use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use waybill_harness::eventually;
use waybill_inventory::{Adjustment, Confirmed, Ledger};
use waybill_store::{Connection, StoreError};

const PRODUCTS: [&str; 3] = ["a", "b", "c"];
const TASKS: u64 = 64;
const PIECES: i64 = 50;
/// Some seconds; this is for a machine that is busy with everything else.
const LIMIT: Duration = Duration::from_secs(120);

/// One piece of each product, named in an order of its own.
fn cart(random: &mut SmallRng) -> Vec<(&'static str, u32)> {
    let mut cart = PRODUCTS.map(|product| (product, 1));
    cart.shuffle(random);
    cart.to_vec()
}

/// Looks at all products, again and again, until it is told to stop; returns how often.
fn watch(mut shop: Shop, stop: Arc<AtomicBool>) -> JoinHandle<usize> {
    tokio::spawn(async move {
        let mut looks = 0;
        while !stop.load(Ordering::Relaxed) {
            for s in shop.stock().await {
                let parts = [s.available, s.reserved, s.sold, s.shrinkage];
                assert!(parts.iter().sum::<i64>() == s.received && parts.iter().all(|n| *n >= 0), "{s:?}");
            }
            looks += 1;
        }
        looks
    })
}

/// Orders that are paid, released or left until they are swept, adjustments that change nothing here, and a relay.
async fn come_and_go(mut shop: Shop, task: u64) -> i64 {
    let random = &mut SmallRng::seed_from_u64(task);
    let mut sold = 0;
    for n in 0..3 {
        let order = format!("o-{task}-{n}");
        let hold = if random.random_bool(0.5) { Duration::ZERO } else { HOUR };
        let held = shop.order(&order, &cart(random), hold).await;
        match random.random_range(0..4) {
            _ if !is_held(&held) => {}
            0 => sold += i64::from(shop.confirm(&[&order]).await == [Confirmed::Sold]),
            1 if hold.is_zero() => drop(shop.expire(8).await),
            _ => drop(shop.release(&[&order]).await),
        }
        let own = format!("new-{}", task % 8);
        let mut adjustments = [("a", 0), ("b", 0), ("c", 0), (own.as_str(), 1)];
        adjustments.shuffle(random);
        shop.adjust(&adjustments.map(|(product_id, delta)| Adjustment { product_id, delta })).await;
        let levels = shop.levels(8).await;
        shop.relayed(&levels.iter().map(|l| (l.product_id.as_str(), l.version)).collect::<Vec<_>>()).await;
    }
    sold
}

/// Buys until there is nothing left.
async fn buy(mut shop: Shop, task: u64) -> i64 {
    let random = &mut SmallRng::seed_from_u64(task);
    for sold in 0..=PIECES {
        let order = format!("buy-{task}-{sold}");
        if !is_held(&shop.order(&order, &cart(random), HOUR).await) {
            return sold;
        }
        assert_eq!(shop.confirm(&[&order]).await, [Confirmed::Sold]);
    }
    panic!("sold more than there is")
}

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_buyers_get_exactly_what_there_is() {
    let Some(home) = Home::postgres("buyers").await else { return };
    let mut shop = home.open().await.with(&PRODUCTS.map(|product| (product, PIECES))).await;
    let stop = Arc::new(AtomicBool::new(false));
    let watcher = watch(Shop(shop.0.another()), stop.clone());

    let both = async {
        let tasks: JoinSet<i64> = (0..TASKS).map(|task| come_and_go(Shop(shop.0.another()), task)).collect();
        let first: i64 = tasks.join_all().await.into_iter().sum();
        while !shop.expire(8).await.is_empty() {}
        let tasks: JoinSet<i64> = (0..TASKS).map(|task| buy(Shop(shop.0.another()), task)).collect();
        (first, tasks.join_all().await.into_iter().sum::<i64>())
    };
    let (first, then) = timeout(LIMIT, both).await.unwrap();
    stop.store(true, Ordering::Relaxed);
    assert!(watcher.await.unwrap() > 10);

    println!("{first} sold while others came and went, then {then}");
    assert_eq!(first + then, PIECES);
    for product in PRODUCTS {
        assert_eq!(shop.counts(product).await, [0, 0, PIECES, 0], "{product}");
    }
}

/// Anything at all, on orders of its own.
async fn anything(mut shop: Shop, task: u64) {
    let random = &mut SmallRng::seed_from_u64(task);
    let orders: Vec<String> = (0..4).map(|n| format!("o-{task}-{n}")).collect();
    for _ in 0..25 {
        let two = [orders.choose(random).unwrap().as_str(), orders.choose(random).unwrap()];
        match random.random_range(0..8) {
            0..3 => drop(shop.reserve(&two.map(|order| wants(order, &cart(random))), Duration::ZERO).await),
            3 => drop(shop.confirm(&two).await),
            4 => drop(shop.release(&two).await),
            5 => drop(shop.expire(4).await),
            6 => drop((shop.short(&[wants(two[0], &[("b", 1)])]).await, shop.cancelled(&two).await)),
            _ => {
                let delta = random.random_range(-3..4);
                let both = cart(random).into_iter().take(2).map(|(product_id, _)| Adjustment { product_id, delta });
                shop.adjust(&both.collect::<Vec<_>>()).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn anything_at_once_loses_no_piece_and_no_level() {
    let Some(home) = Home::postgres("anything").await else { return };
    let mut shop = home.open().await.with(&PRODUCTS.map(|product| (product, 5))).await;
    let stop = Arc::new(AtomicBool::new(false));
    let watcher = watch(Shop(shop.0.another()), stop.clone());
    let tasks: JoinSet<()> = (0..16).map(|task| anything(Shop(shop.0.another()), task)).collect();
    timeout(LIMIT, tasks.join_all()).await.unwrap();
    stop.store(true, Ordering::Relaxed);
    assert!(watcher.await.unwrap() > 10);

    let levels = shop.levels(99_999).await;
    for s in shop.stock().await {
        let told: Vec<_> = levels.iter().filter(|l| l.product_id == s.product_id).collect();
        assert!(told.iter().map(|l| l.version).eq(1..=s.version), "{told:?}");
        assert_eq!(told.last().map_or(0, |l| l.available), s.available);
    }
}

/// One order, delivered to many processes at once.
async fn same_order(mut shop: Shop) {
    assert!(is_held(&shop.order("1", &[("a", 1), ("b", 1)], HOUR).await));
    assert_eq!(shop.confirm(&["1"]).await, [Confirmed::Sold]);
    shop.short(&[wants("1", &[("a", 1)])]).await;
    shop.cancelled(&["1"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_delivered_to_many_is_done_once() {
    let Some(home) = Home::postgres("same_order").await else { return };
    let mut shop = home.open().await.with(&[("a", 5), ("b", 5)]).await;
    let tasks: JoinSet<()> = (0..8).map(|_| same_order(Shop(shop.0.another()))).collect();
    timeout(LIMIT, tasks.join_all()).await.unwrap();
    assert_eq!((shop.counts("a").await, shop.counts("b").await), ([4, 0, 0, 1], [5, 0, 0, 0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_took_another_product_meanwhile_is_a_conflict() {
    let Some(home) = Home::postgres("meanwhile").await else { return };
    let mut shop = home.open().await.with(&[("a", 5), ("b", 5)]).await;
    shop.order("1", &[("a", 1)], HOUR).await;
    let (mut first, mut second) = (shop.0.another(), shop.0.another());

    let mut tx = first.begin().await.unwrap();
    let mut ledger = Ledger::lock(&mut tx, &["a", "b"], &["1"]).await.unwrap();
    ledger.release("1");
    assert!(is_held(&ledger.reserve(&wants("1", &[("a", 1), ("b", 1)]), HOUR)));
    ledger.save(&mut tx).await.unwrap();
    let waiting = tokio::spawn(async move {
        let mut tx = second.begin().await.unwrap();
        waybill_inventory::confirm(&mut tx, &["1"]).await
    });
    eventually("the second waits for the first", LIMIT, async || waits_for_a_lock(&mut shop).await).await;
    tx.commit().await.unwrap();

    let answer = waiting.await.unwrap();
    assert!(matches!(answer, Err(StoreError::Conflict)), "it has not locked b: {answer:?}");
    assert_eq!(shop.confirm(&["1"]).await, [Confirmed::Sold]);
    assert_eq!((shop.counts("a").await, shop.counts("b").await), ([4, 0, 1, 0], [4, 0, 1, 0]));
}

async fn waits_for_a_lock(shop: &mut Shop) -> Result<(), String> {
    let sql = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    let mut tx = shop.0.begin().await.unwrap();
    let Connection::Postgres(connection) = tx.connection() else { panic!() };
    let waiting: i64 = sqlx::query_scalar(sql).fetch_one(connection).await.unwrap();
    tx.commit().await.unwrap();
    if waiting == 1 { Ok(()) } else { Err(format!("{waiting} wait")) }
}
