//! Whatever comes in is answered, and never with 500.

use crate::on_both;
use crate::people::browser;
use crate::shop::product;
use crate::world::World;
use serde_json::{Value, json};

on_both! {
    values_that_are_not_valid_are_named;
    what_is_not_a_request_is_refused;
}

/// The product with one field changed.
fn with(field: &str, value: Value) -> Value {
    let mut product = product(1, "EUR");
    product[field] = value;
    product
}

fn without(mut body: Value, field: &str) -> Value {
    body.as_object_mut().unwrap().remove(field);
    body
}

async fn values_that_are_not_valid_are_named(world: World) {
    let long = "x".repeat(65);
    let put = |field: &str, value: Value| ("PUT", "/api/products/p-1".to_owned(), with(field, value));
    let cart = json!({"userId": "c-1", "country": "DE", "service": "standard"});
    let cart = |field: &str, value: Value| {
        let mut cart = cart.clone();
        cart[field] = value;
        ("POST", "/api/carts".to_owned(), cart)
    };
    let line = |quantity: Value| ("PUT", "/api/carts/k/lines/p".to_owned(), json!({"quantity": quantity}));
    let checkout = |field: &str, value: Value| {
        let mut body = crate::played::body("k-1");
        body[field] = value;
        ("POST", "/api/checkout".to_owned(), body)
    };
    let price = |amount: Value, currency: &str| json!({"amount": amount, "currency": currency});
    let mut table = vec![
        (put("id", "p-2".into()), "id"),
        (put("sku", "a b".into()), "sku"),
        (put("sku", 5.into()), "sku"),
        (put("category", "".into()), "category"),
        (put("category", long.clone().into()), "category"),
        (put("name", " ".into()), "name"),
        (put("name", "a\u{0}b".into()), "name"),
        (put("name", "x".repeat(201).into()), "name"),
        (put("price", price((-1).into(), "EUR")), "price.amount"),
        (put("price", price(1.5.into(), "EUR")), "price.amount"),
        (put("price", price(9_000_000_000_000_i64.into(), "EUR")), "price.amount"),
        (put("price", price(99_999_999_999_999_999_999_f64.into(), "EUR")), "price.amount"),
        (put("price", price(1.into(), "EURO")), "price.currency"),
        (put("price", Value::Null), "price"),
        (put("weightG", (-1).into()), "weightG"),
        (put("weightG", 1_000_001.into()), "weightG"),
        (put("sizeMm", json!([1, 2])), "sizeMm"),
        (put("sizeMm", json!([0, 1, 1])), "sizeMm"),
        (put("sizeMm", json!([1, 1, 10_001])), "sizeMm"),
        (put("colour", "blue".into()), "colour"),
        (("PUT", "/api/products/p-1".to_owned(), without(product(1, "EUR"), "sku")), "sku"),
        (("PUT", "/api/products/p%20x".to_owned(), product(1, "EUR")), "id"),
        (("PUT", format!("/api/products/{long}"), product(1, "EUR")), "id"),
        (("GET", "/api/products/%00".to_owned(), Value::Null), "id"),
        (("GET", "/api/products?limit=0".to_owned(), Value::Null), "limit"),
        (("GET", "/api/products?limit=201".to_owned(), Value::Null), "limit"),
        (("GET", "/api/products?limit=many".to_owned(), Value::Null), "limit"),
        (("GET", "/api/products?after=%00".to_owned(), Value::Null), "after"),
        (cart("userId", "".into()), "userId"),
        (cart("country", "de".into()), "country"),
        (cart("country", "DEU".into()), "country"),
        (cart("service", "slow".into()), "service"),
        (cart("lines", json!([])), "lines"),
        (("GET", "/api/carts/%2e%2e%2f".to_owned(), Value::Null), "id"),
        (line(0.into()), "quantity"),
        (line(1_001.into()), "quantity"),
        (line((-1).into()), "quantity"),
        (line("1".into()), "quantity"),
        (("DELETE", "/api/carts/k/lines/%20".to_owned(), Value::Null), "productId"),
        (checkout("cartId", "no cart".into()), "cartId"),
        (checkout("userId", 7.into()), "userId"),
        (checkout("paymentMethodId", "".into()), "paymentMethodId"),
        (checkout("paymentMethodId", "pm 1".into()), "paymentMethodId"),
        (checkout("paymentMethodId", 4_242_424_242_424_242_u64.into()), "paymentMethodId"),
        (checkout("cvc", "123".into()), "cvc"),
        (("GET", "/api/orders/%F0%9F%92%A5".to_owned(), Value::Null), "id"),
        (("DELETE", "/api/orders/a%20b?userId=c-1".to_owned(), Value::Null), "id"),
        (("DELETE", "/api/orders/o-1".to_owned(), Value::Null), "userId"),
        (("DELETE", "/api/orders/o-1?userId=c%201".to_owned(), Value::Null), "userId"),
    ];
    table.extend(of_people());
    for field in ["cartId", "userId", "paymentMethodId"] {
        table.push((("POST", "/api/checkout".to_owned(), without(crate::played::body("k-1"), field)), field));
    }
    for ((method, path, body), field) in table {
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let answer = world.client.send(method, &path, &[("idempotency-key", "bad")], &text).await;
        assert_eq!((answer.status, answer.problem()), (422, "invalid"), "{method} {path} {text}");
        assert_eq!(answer.field(), field, "{method} {path} {text}: {answer:?}");
        let told = answer.body.to_string();
        assert!(!told.contains("4242") && !told.contains("canary"), "{answer:?}");
    }
    assert!(world.ground.column("select key from checkout_requests where key = 'bad'").await.is_empty());
    world.stop().await;
}

type Row = ((&'static str, String, Value), &'static str);

/// Addresses, devices, subscriptions and questions that are not valid.
fn of_people() -> Vec<Row> {
    let email = |email: Value| ("PUT", "/api/users/c-1/email".to_owned(), json!({"email": email}));
    let named =
        |name: Value| ("PUT", "/api/users/c-1/email".to_owned(), json!({"email": "canary@example.com", "name": name}));
    let target = |body: Value| ("POST", "/api/users/c-1/push-targets".to_owned(), body);
    let endpoint = |endpoint: &str| target(browser(endpoint));
    let keys = |field: &str, value: &str| {
        let mut body = browser("https://updates.push.services.mozilla.com/wpush/v2/canary");
        body["keys"][field] = value.into();
        target(body)
    };
    let wait = |field: &str, value: Value| {
        let mut body = json!({"userId": "c-1", "channel": "email"});
        body[field] = value;
        ("POST", "/api/products/p-1/subscriptions".to_owned(), body)
    };
    let get = |path: &str| ("GET", path.to_owned(), Value::Null);
    let token = "x".repeat(10 * 1024);
    let many = (0..101).map(|number| format!("p-{number}")).collect::<Vec<_>>().join(",");
    let mut rows = vec![
        (named("a\u{0}canary".into()), "name"),
        (named(" ".into()), "name"),
        (named("canary".repeat(34).into()), "name"),
        (email(5.into()), "email"),
        (("PUT", "/api/users/c%201/email".to_owned(), json!({"email": "a@example.com"})), "userId"),
        (("DELETE", "/api/users/c%201/email".to_owned(), Value::Null), "userId"),
        (target(json!({"fcmToken": token})), "fcmToken"),
        (target(json!({"fcmToken": "canary 1"})), "fcmToken"),
        (target(json!({"fcmToken": "canary", "endpoint": "https://fcm.googleapis.com/canary"})), "fcmToken"),
        (target(json!({"endpoint": "https://fcm.googleapis.com/canary"})), "keys"),
        (target(json!({"keys": {"p256dh": "canary", "auth": "canary"}})), "endpoint"),
        (keys("p256dh", "canary"), "keys.p256dh"),
        (keys("auth", "canary"), "keys.auth"),
        (("DELETE", "/api/users/c-1/push-targets/a%20b".to_owned(), Value::Null), "pushTargetId"),
        (wait("userId", "a canary".into()), "userId"),
        (wait("channel", "canary".into()), "channel"),
        (wait("quantity", 0.into()), "quantity"),
        (wait("quantity", 1_001.into()), "quantity"),
        (wait("expiresInDays", 0.into()), "expiresInDays"),
        (wait("expiresInDays", 731.into()), "expiresInDays"),
        (wait("expiresInDays", Value::Null), "expiresInDays"),
        (("DELETE", "/api/products/p-1/subscriptions/c-1/pigeon".to_owned(), Value::Null), "channel"),
        (get("/api/products/p-1/availability?quantity=0"), "quantity"),
        (get("/api/products/p-1/availability?quantity=1001"), "quantity"),
        (get("/api/products/p-1/availability?quantity=some"), "quantity"),
        (get("/api/products/p%201/availability"), "id"),
        (get("/api/availability"), "ids"),
        (get("/api/availability?ids="), "ids"),
        (get("/api/availability?ids=p-1,,p-2"), "ids"),
        (get(&format!("/api/availability?ids={many}")), "ids"),
        (get("/api/products/p%201/demand"), "id"),
    ];
    let addresses =
        ["", "canary", "canary@", "canary@127.0.0.1", "canary@example.com\r\nBcc: x@example.com", "<canary@a.b>"];
    rows.extend(addresses.map(|address| (email(address.into()), "email")));
    let endpoints = [
        "",
        "canary",
        "http://169.254.169.254/canary",
        "https://169.254.169.254/canary",
        "https://[::1]/canary",
        "https://canary.example.com/push",
        "http://fcm.googleapis.com/canary",
        "https://fcm.googleapis.com:8443/canary",
        "https://user:canary@fcm.googleapis.com/",
    ];
    rows.extend(endpoints.map(|address| (endpoint(address), "endpoint")));
    rows
}

async fn what_is_not_a_request_is_refused(world: World) {
    let targets = [
        ("PUT", "/api/products/p-1"),
        ("POST", "/api/carts"),
        ("PUT", "/api/carts/k/lines/p"),
        ("POST", "/api/checkout"),
        ("PUT", "/api/users/c-1/email"),
        ("POST", "/api/users/c-1/push-targets"),
        ("POST", "/api/products/p-1/subscriptions"),
    ];
    let large = format!("{{\"name\": \"{}\"}}", "x".repeat(64 * 1024));
    for (method, path) in targets {
        let key = ("idempotency-key", "bad");
        for body in ["{", "nonsense", "{\"a\": 1,}", "\u{feff}{}", " "] {
            let answer = world.client.send(method, path, &[key], body).await;
            assert_eq!((answer.status, answer.problem()), (400, "malformed"), "{method} {path} {body}");
        }
        for body in ["[]", "null", "1", "\"text\"", "{}"] {
            let answer = world.client.send(method, path, &[key], body).await;
            assert_eq!((answer.status, answer.problem()), (422, "invalid"), "{method} {path} {body}");
        }
        let answer = world.client.send(method, path, &[key], &large).await;
        assert_eq!((answer.status, answer.problem()), (413, "too_large"), "{method} {path}");
        for kind in ["text/plain", "", "application/jsonp"] {
            let answer = world.client.send(method, path, &[key, ("content-type", kind)], "{}").await;
            assert_eq!((answer.status, answer.problem()), (415, "media_type"), "{method} {path} {kind}");
        }
    }
    let invalid = world.client.get("/api/products/%FF").await;
    assert_eq!((invalid.status, invalid.problem()), (400, "malformed"));
    let invalid = world.client.get("/api/products?limit=1&limit=2").await;
    assert_eq!((invalid.status, invalid.problem()), (400, "malformed"));
    let body = crate::played::body("k-1");
    let bare = world.client.post("/api/checkout", &body).await;
    assert_eq!((bare.status, bare.problem(), bare.field()), (400, "idempotency_key", "Idempotency-Key"));
    for key in ["", "a b", "\"a", "\"\"", &"k".repeat(256)] {
        let answer = world.client.check_out(key, &body, &[]).await;
        assert_eq!((answer.status, answer.problem()), (400, "idempotency_key"), "{key}");
    }
    world.stop().await;
}
