//! What is available.

use crate::shop::product;
use crate::world::{Ground, World};
use crate::{LIMIT, on_both};
use serde_json::{Value, json};
use waybill_harness::{Draft, eventually, produce};

on_both! {
    what_is_available_is_told_and_whether_it_is_enough;
    what_is_known_is_renewed_by_newer_levels_alone;
}

impl Ground {
    /// Stock, behind everybody's back.
    pub async fn stock(&self, product: &str, version: i64, available: i64) {
        let sql = format!(
            "insert into stock (product_id, received, available, version)
             values ('{product}', {available}, {available}, {version})
             on conflict (product_id) do update set received = excluded.received, available = excluded.available,
                 version = excluded.version"
        );
        self.execute(&sql).await;
    }

    /// What the inventory says.
    pub async fn level(&self, product: &str, version: i64, available: i64) {
        let level = json!({"product_id": product, "version": version, "available": available,
            "last_zero_version": if available == 0 { version } else { 0 }, "changed_at": "2026-11-21T10:00:00Z"});
        let draft = Draft::json(product, &level).header("ce_type", "inventory.levels.v1");
        produce(&self.bootstrap, &self.scope.topic("inventory.levels"), vec![draft]).await.unwrap();
    }
}

impl World {
    /// Pieces of a product that are told.
    async fn available(&self, product: &str) -> Value {
        let answer = self.client.get(&format!("/api/products/{product}/availability")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body["available"].clone()
    }

    async fn until_available(&self, product: &str, pieces: i64) {
        eventually(&format!("{pieces} of {product}"), LIMIT, async || match self.available(product).await {
            found if found == pieces => Ok(()),
            found => Err(found.to_string()),
        })
        .await;
    }
}

async fn what_is_available_is_told_and_whether_it_is_enough(world: World) {
    for id in ["p-1", "p-2"] {
        world.client.put(&format!("/api/products/{id}"), &product(100, "EUR")).await;
    }
    world.ground.stock("p-1", 1, 2).await;
    for (path, enough) in
        [("p-1/availability", true), ("p-1/availability?quantity=2", true), ("p-1/availability?quantity=3", false)]
    {
        let answer = world.client.get(&format!("/api/products/{path}")).await;
        assert_eq!((answer.status, &answer.body["available"]), (200, &json!(2)));
        assert_eq!(answer.body["isAvailable"], enough, "{path}");
    }
    let never = world.client.get("/api/products/p-2/availability").await;
    assert_eq!(never.body, json!({"productId": "p-2", "available": 0, "quantity": 1, "isAvailable": false}));
    let none = world.client.get("/api/products/p-none/availability").await;
    assert_eq!((none.status, none.problem()), (404, "not_found"));

    world.ground.stock("p-3", 1, 5).await;
    let page = world.client.get("/api/availability?ids=p-3,p-1,p-none,p-3,p-2&quantity=3").await;
    let told: Vec<_> = page.body["products"].as_array().unwrap().iter().collect();
    let told: Vec<_> =
        told.iter().map(|p| (p["productId"].as_str().unwrap(), &p["available"], &p["isAvailable"])).collect();
    let [no, yes] = [json!(false), json!(true)];
    assert_eq!(told, [("p-1", &json!(2), &no), ("p-2", &json!(0), &no), ("p-3", &json!(5), &yes)]);
    world.stop().await;
}

async fn what_is_known_is_renewed_by_newer_levels_alone(world: World) {
    world.ground.stock("p-1", 3, 5).await;
    assert_eq!(world.available("p-1").await, 5);
    world.ground.stock("p-1", 4, 6).await;
    assert_eq!(world.available("p-1").await, 5, "it is not asked for again");
    world.ground.level("p-1", 5, 7).await;
    world.until_available("p-1", 7).await;
    world.ground.level("p-1", 4, 6).await;
    // Read after it.
    world.ground.level("p-2", 1, 1).await;
    world.until_available("p-2", 1).await;
    assert_eq!(world.available("p-1").await, 7);
    // What is read from the database is not older than what was said before.
    world.ground.level("p-3", 9, 9).await;
    world.until_available("p-3", 9).await;
    world.ground.stock("p-3", 8, 8).await;
    let page = world.client.get("/api/availability?ids=p-3,p-1").await;
    assert_eq!(page.body["products"][1]["available"], 9, "{page:?}");
    world.stop().await;
}
