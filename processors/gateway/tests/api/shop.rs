//! Products and carts.

use crate::on_both;
use crate::world::World;
use serde_json::{Value, json};

on_both! {
    products_are_put_found_and_paged;
    a_cart_that_is_made_again_with_its_key_is_the_same_cart;
    a_cart_remembers_prices_and_sums_them;
    a_cart_has_bounds_and_one_currency;
}

pub fn product(amount: i64, currency: &str) -> Value {
    json!({"sku": "TEE", "name": "T-shirt, “blue”", "category": "clothing", "weightG": 180, "sizeMm": [300, 250, 20],
           "price": {"amount": amount, "currency": currency}})
}

/// A new cart's path.
async fn cart(world: &World) -> String {
    let made = world.client.post("/api/carts", &json!({"userId": "c-1", "country": "DE", "service": "express"})).await;
    assert_eq!(made.status, 201, "{made:?}");
    let path = format!("/api/carts/{}", made.text("cartId"));
    assert_eq!(made.header("location"), Some(path.as_str()));
    path
}

async fn products_are_put_found_and_paged(world: World) {
    for id in ["p-1", "P-2", "p_3", "p.4", "p-5"] {
        let put = world.client.put(&format!("/api/products/{id}"), &product(1_999, "EUR")).await;
        assert_eq!((put.status, put.text("id")), (201, id), "{put:?}");
    }
    let mut changed = product(2_499, "EUR");
    changed["id"] = "p-1".into();
    // As a client writes it that knows floating-point numbers only.
    changed["price"]["amount"] = 2_499.0.into();
    changed["sizeMm"] = json!([300.0, 250, 20]);
    let put = world.client.put("/api/products/p-1", &changed).await;
    let got = world.client.get("/api/products/p-1").await;
    assert_eq!((put.status, got.status, &got.body), (200, 200, &put.body));
    assert_eq!(got.body["price"], json!({"amount": 2_499, "currency": "EUR"}));

    let (mut found, mut next) = (Vec::new(), String::new());
    loop {
        let page = world.client.get(&format!("/api/products?limit=2&after={next}")).await;
        let ids = page.body["products"].as_array().unwrap().iter().map(|product| product["id"].as_str().unwrap());
        found.extend(ids.map(str::to_owned));
        match page.body["next"].as_str() {
            Some(last) => next = last.to_owned(),
            None => break,
        }
    }
    // Byte by byte, on every database.
    assert_eq!(found, ["P-2", "p-1", "p-5", "p.4", "p_3"]);
    assert_eq!(world.client.get("/api/products").await.body["products"].as_array().unwrap().len(), 5);
    let none = world.client.get("/api/products/none").await;
    assert_eq!((none.status, none.problem()), (404, "not_found"));
    world.stop().await;
}

async fn a_cart_that_is_made_again_with_its_key_is_the_same_cart(world: World) {
    let make = async |key: &str, user: &str, country: &str| {
        let body = json!({"userId": user, "country": country, "service": "express"});
        world.client.send("POST", "/api/carts", &[("idempotency-key", key)], &body.to_string()).await
    };
    let made = make("k-1", "c-1", "DE").await;
    world.client.put("/api/products/p-1", &product(500, "EUR")).await;
    let line = format!("/api/carts/{}/lines/p-1", made.text("cartId"));
    assert_eq!(world.client.put(&line, &json!({"quantity": 2})).await.status, 200);
    let again = make("\"k-1\"", "c-1", "DE").await;
    assert_eq!((again.status, &again.body, again.header("location")), (201, &made.body, made.header("location")));
    let cart = world.client.get(again.header("location").unwrap()).await;
    assert_eq!(cart.body["lines"].as_array().unwrap().len(), 1, "it keeps what is in it");
    let other = make("k-1", "c-1", "AT").await;
    assert_eq!((other.status, other.problem()), (422, "key_reused"));
    assert_ne!(make("k-1", "c-2", "DE").await.body, made.body, "a key is its user's");
    assert_ne!(make("k-2", "c-1", "DE").await.body, made.body);
    let bad = make("", "c-1", "DE").await;
    assert_eq!((bad.status, bad.problem()), (400, "idempotency_key"));
    world.stop().await;
}

async fn a_cart_remembers_prices_and_sums_them(world: World) {
    let path = cart(&world).await;
    let empty = world.client.get(&path).await;
    assert_eq!((&empty.body["lines"], &empty.body["total"]), (&json!([]), &Value::Null));
    for (id, amount) in [("p-2", 500), ("p-1", 1_999)] {
        world.client.put(&format!("/api/products/{id}"), &product(amount, "EUR")).await;
        let put = world.client.put(&format!("{path}/lines/{id}"), &json!({"quantity": 2})).await;
        assert_eq!(put.status, 200, "{put:?}");
    }
    world.client.put("/api/products/p-2", &product(700, "EUR")).await;
    let got = world.client.get(&path).await;
    let price = |amount: i64| json!({"amount": amount, "currency": "EUR"});
    let line = |id: &str, amount| json!({"productId": id, "quantity": 2, "price": price(amount)});
    assert_eq!(got.body["lines"], json!([line("p-1", 1_999), line("p-2", 500)]));
    assert_eq!(got.body["total"], price(2 * 2_499));
    // Put in anew, it has the price of now.
    let put = world.client.put(&format!("{path}/lines/p-2"), &json!({"quantity": 2})).await;
    assert_eq!(put.body["total"], price(2 * 2_699));
    assert_eq!(world.client.get(&path).await.body, put.body);
    for _ in 0..2 {
        assert_eq!(world.client.delete(&format!("{path}/lines/p-1")).await.status, 204);
    }
    assert_eq!(world.client.get(&path).await.body["lines"], json!([line("p-2", 700)]));
    for (answer, what) in [
        (world.client.get("/api/carts/none").await, "cart"),
        (world.client.delete("/api/carts/none/lines/p-1").await, "cart"),
        (world.client.put("/api/carts/none/lines/p-1", &json!({"quantity": 1})).await, "cart"),
        (world.client.put(&format!("{path}/lines/none"), &json!({"quantity": 1})).await, "product"),
    ] {
        assert_eq!((answer.status, answer.problem()), (404, "not_found"));
        assert!(answer.text("detail").contains(what), "{answer:?}");
    }
    world.stop().await;
}

async fn a_cart_has_bounds_and_one_currency(world: World) {
    let (full, heavy) = (cart(&world).await, cart(&world).await);
    for number in 0..201 {
        let id = format!("p-{number}");
        world.client.put(&format!("/api/products/{id}"), &product(1, "EUR")).await;
        let put = world.client.put(&format!("{full}/lines/{id}"), &json!({"quantity": 1})).await;
        if number < 200 {
            assert_eq!(put.status, 200, "{put:?}");
        } else {
            assert_eq!((put.status, put.problem()), (409, "cart_full"));
        }
    }
    for (id, quantity, status) in
        [("p-1", 1_000, 200), ("p-2", 1_000, 200), ("p-3", 1, 409), ("p-2", 999, 200), ("p-3", 1, 200)]
    {
        let put = world.client.put(&format!("{heavy}/lines/{id}"), &json!({"quantity": quantity})).await;
        assert_eq!(put.status, status, "{put:?}");
    }
    world.client.put("/api/products/yen", &product(300, "JPY")).await;
    let other = cart(&world).await;
    world.client.put(&format!("{other}/lines/p-1"), &json!({"quantity": 1})).await;
    let put = world.client.put(&format!("{other}/lines/yen"), &json!({"quantity": 1})).await;
    assert_eq!((put.status, put.problem()), (409, "mixed_currencies"));
    // The only line may change its currency.
    world.client.put("/api/products/p-1", &product(300, "JPY")).await;
    let put = world.client.put(&format!("{other}/lines/p-1"), &json!({"quantity": 1})).await;
    assert_eq!(put.body["total"], json!({"amount": 300, "currency": "JPY"}));
    world.stop().await;
}
