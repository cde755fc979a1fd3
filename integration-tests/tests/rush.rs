//! More customers than goods.

use crate::front::{Front, PRICE};
use crate::shop::LIMIT;
use serde_json::{Value, json};
use std::rc::Rc;
use tokio::task::{JoinSet, LocalSet};
use waybill_harness::{ask, eventually};

const PRODUCTS: [&str; 3] = ["p-a", "p-b", "p-c"];
const PIECES: i64 = 50;
const CUSTOMERS: usize = 200;
/// The products of a cart, in every order.
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// Puts one of each product into a cart and buys it, all over HTTP; the answer to the checkout.
async fn buy(front: &Front, number: usize) -> Value {
    let user = format!("u-{number}");
    let cart = json!({"userId": user, "country": "DE", "service": "standard"});
    let cart = ask(front.gateway, "POST", "/api/carts", &[], &cart).await.unwrap();
    let cart = cart.body["cartId"].as_str().unwrap_or_else(|| panic!("{cart:?}")).to_owned();
    for product in ORDERS[number % ORDERS.len()].map(|index| PRODUCTS[index]) {
        let path = format!("/api/carts/{cart}/lines/{product}");
        let put = ask(front.gateway, "PUT", &path, &[], &json!({"quantity": 1})).await.unwrap();
        assert_eq!(put.status, 200, "{put:?}");
    }
    front.checkout(&cart, &user, "pm_card_visa", &[]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_customers_buy_the_last_fifty_pieces_and_not_one_more() {
    let Some(mut front) = Front::open("rush", None).await else { return };
    front.shop.set("WAYBILL_GATEWAY_WAIT", "60s");
    for product in PRODUCTS {
        front.sell(product, PIECES).await;
    }
    let mut processes =
        [&["gateway"][..], &["checkout"], &["checkout"], &["inventory"]].map(|roles| front.shop.run(roles));
    front.until_open().await;
    let front = Rc::new(front);
    let everyone = LocalSet::new();
    let mut customers = JoinSet::new();
    for number in 0..CUSTOMERS {
        let front = front.clone();
        customers.spawn_local_on(async move { buy(&front, number).await }, &everyone);
    }
    let answers = everyone.run_until(customers.join_all()).await;
    let confirmed = answers.iter().filter(|answer| answer["status"] == "confirmed").count();
    let refused = answers.iter().filter(|answer| answer["type"] == "urn:waybill:problem:insufficient_stock").count();
    let sold = usize::try_from(PIECES).unwrap();
    assert_eq!((confirmed, refused), (sold, CUSTOMERS - sold), "everyone is answered: {answers:?}");
    for process in &mut processes {
        process.terminate().unwrap();
        process.wait(LIMIT).await.unwrap();
    }
    let books = front.check().await;
    assert_eq!((books.confirmed, books.sold), (sold, 3 * PIECES));
    for product in PRODUCTS {
        let sql =
            format!("select count(*) from stock where product_id = '{product}' and sold = {PIECES} and available = 0");
        assert_eq!(front.shop.sum(&sql).await, 1, "{product}");
    }
    // A server tells of a connection's deadlocks when that ends, and all of ours have.
    let deadlocks = "select deadlocks from pg_stat_database where datname = current_database()";
    assert_eq!(front.shop.number(deadlocks).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_reserved_and_not_paid_in_time_goes_to_the_next_customer() {
    let Some(mut front) = Front::open("unpaid", None).await else { return };
    front.shop.set("WAYBILL_PAYMENT_TIMEOUT", "120s");
    let _processes = front.shop.run(&["gateway", "checkout", "inventory"]);
    front.until_open().await;
    front.sell("p-1", 3).await;
    front.cart("k-slow", "u-1", &[("p-1", 3)], PRICE).await;
    front.cart("k-next", "u-2", &[("p-1", 2)], PRICE).await;
    front.simulator.stop().unwrap();
    let slow = front.checkout("k-slow", "u-1", "pm_card_visa", &[("prefer", "respond-async")]).await;
    let until_available = async |pieces: i64| {
        eventually(&format!("{pieces} are available"), LIMIT, async || {
            match front.shop.number("select available from stock").await {
                available if available == pieces => Ok(()),
                available => Err(format!("{available} are")),
            }
        })
        .await;
    };
    until_available(0).await;
    front.shop.execute("update reservations set expires_at = now()").await;
    until_available(3).await;
    let next = front.checkout("k-next", "u-2", "pm_card_visa", &[("prefer", "respond-async")]).await;
    until_available(1).await;
    front.simulator.cont().unwrap();
    for (answer, end) in [(slow, "rejected"), (next, "confirmed")] {
        let order = answer["orderId"].as_str().unwrap();
        eventually(&format!("{order} is {end}"), LIMIT, async || match front.order(order).await {
            said if said["status"] == end => Ok(()),
            said => Err(said.to_string()),
        })
        .await;
    }
    front.shop.until_committed("checkout", "checkout.requested").await;
    let books = eventually("all is told", LIMIT, async || {
        let books = front.books().check().await.unwrap();
        if books.violations.is_empty() { Ok(books) } else { Err(books.to_string()) }
    })
    .await;
    assert_eq!((books.confirmed, books.charges, books.refunds, books.kept), (1, 2, 1, 2 * PRICE));
}
