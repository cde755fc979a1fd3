//! Addresses, devices, and who waits for what.

use crate::on_both;
use crate::shop::product;
use crate::world::World;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use tokio::task::JoinSet;
use waybill_notifications::subscriptions;

on_both! {
    who_asks_twice_waits_once_and_keeps_their_place;
    of_many_who_ask_at_once_one_is_new;
    what_has_expired_is_over_and_is_deleted_bit_by_bit;
    a_user_has_ten_devices_and_the_oldest_goes;
    demand_counts_people_and_pieces;
}

/// A browser's subscription, as it writes it.
pub fn browser(endpoint: &str) -> Value {
    let p256dh = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4";
    json!({"endpoint": endpoint, "expirationTime": null, "keys": {"p256dh": p256dh, "auth": "BTBZMqHH6r4Tts7J_aSIgg"}})
}

impl World {
    async fn sells(&self, id: &str) {
        assert_eq!(self.client.put(&format!("/api/products/{id}"), &product(1_999, "EUR")).await.status, 201);
    }

    pub async fn writes_to(&self, user: &str) {
        let email = json!({"email": format!("{user}@example.com"), "name": "Ada"});
        assert_eq!(self.client.put(&format!("/api/users/{user}/email"), &email).await.status, 204);
    }

    /// Asks to be told of p-1.
    pub async fn waits(&self, user: &str, channel: &str, more: Value) -> (u16, String) {
        let mut body = json!({"userId": user, "channel": channel});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = self.client.post("/api/products/p-1/subscriptions", &body).await;
        let said = match answer.status {
            200 | 201 => answer.text("status"),
            _ => answer.problem(),
        };
        (answer.status, said.to_owned())
    }

    async fn texts(&self, sql: &str) -> Vec<String> {
        self.ground.column(sql).await
    }
}

fn said(status: u16, text: &str) -> (u16, String) {
    (status, text.to_owned())
}

async fn who_asks_twice_waits_once_and_keeps_their_place(world: World) {
    let none = json!({});
    world.writes_to("c-1").await;
    assert_eq!(world.waits("c-1", "email", none.clone()).await, said(404, "not_found"));
    world.sells("p-1").await;
    assert_eq!(world.waits("c-1", "push", none.clone()).await, said(409, "no_contact"));
    assert_eq!(world.waits("c-2", "email", none.clone()).await, said(409, "no_contact"));
    assert_eq!(world.waits("c-1", "email", json!({"quantity": 3})).await, said(201, "subscribed"));
    let all =
        "select id || ' ' || user_id || ' ' || channel || ' ' || quantity || ' ' || traceparent from subscriptions";
    let first = world.texts(all).await;
    assert!(first.len() == 1 && first[0].contains(" c-1 email 3 00-"), "{first:?}");
    let again = json!({"quantity": 2.0, "expiresInDays": 10});
    assert_eq!(world.waits("c-1", "email", again).await, said(200, "already_subscribed"));
    assert_eq!(world.texts(all).await, [first[0].replace(" email 3 ", " email 2 ")]);

    let target = world.client.post("/api/users/c-1/push-targets", &json!({"fcmToken": "token"})).await;
    assert_eq!(target.status, 201);
    assert_eq!(world.waits("c-1", "push", none.clone()).await, said(201, "subscribed"));
    for _ in 0..2 {
        let ended = world.client.delete("/api/products/p-1/subscriptions/c-1/email").await;
        assert_eq!((ended.status, ended.body), (204, Value::Null));
    }
    assert_eq!(world.texts("select channel from subscriptions").await, ["push"]);
    assert_eq!(world.client.delete("/api/users/c-1/email").await.status, 204);
    assert_eq!(world.waits("c-1", "email", none.clone()).await, said(409, "no_contact"));
    let path = format!("/api/users/c-1/push-targets/{}", target.text("pushTargetId"));
    assert_eq!(world.client.delete(&path).await.status, 204);
    assert_eq!(world.waits("c-1", "push", none).await, said(409, "no_contact"));
    world.stop().await;
}

async fn of_many_who_ask_at_once_one_is_new(world: World) {
    world.sells("p-1").await;
    world.writes_to("c-1").await;
    let mut asking = JoinSet::new();
    for _ in 0..20 {
        let client = world.client.clone();
        asking.spawn(async move {
            let body = json!({"userId": "c-1", "channel": "email"});
            client.post("/api/products/p-1/subscriptions", &body).await.status
        });
    }
    let mut statuses = asking.join_all().await;
    statuses.sort_unstable();
    assert_eq!(statuses, [vec![200; 19], vec![201]].concat());
    assert_eq!(world.texts("select user_id from subscriptions").await, ["c-1"]);
    world.stop().await;
}

async fn what_has_expired_is_over_and_is_deleted_bit_by_bit(world: World) {
    let days = match world.ground.store.system() {
        "sqlite" => "select cast(round((expires_at - created_at) / 86400) as text) from subscriptions order by id",
        _ => "select round(extract(epoch from expires_at - created_at) / 86400)::text from subscriptions order by id",
    };
    let over = match world.ground.store.system() {
        "sqlite" => "update subscriptions set expires_at = unixepoch('subsec') - 1",
        _ => "update subscriptions set expires_at = now() - interval '1 second'",
    };
    world.sells("p-1").await;
    for user in ["c-1", "c-2", "c-3"] {
        world.writes_to(user).await;
        let more = if user == "c-3" { json!({"expiresInDays": 7}) } else { json!({}) };
        assert_eq!(world.waits(user, "email", more).await, said(201, "subscribed"));
    }
    let days: Vec<f64> = world.texts(days).await.iter().map(|text| text.parse().unwrap()).collect();
    assert_eq!(days, [180.0, 180.0, 7.0]);
    world.ground.execute(over).await;
    let demand = world.client.get("/api/products/p-1/demand").await;
    assert_eq!((demand.status, &demand.body["people"]), (200, &json!(0)));
    // At the end of the queue, as anybody who asks for the first time.
    assert_eq!(world.waits("c-1", "email", json!({})).await, said(201, "subscribed"));
    assert_eq!(world.texts("select user_id from subscriptions order by id").await, ["c-2", "c-3", "c-1"]);
    let mut store = world.ground.store.another();
    for expected in [1, 1, 0] {
        let mut tx = store.begin().await.unwrap();
        assert_eq!(subscriptions::expire(&mut tx, 1).await.unwrap(), expected);
        tx.commit().await.unwrap();
    }
    assert_eq!(world.texts("select user_id from subscriptions").await, ["c-1"]);
    world.stop().await;
}

async fn a_user_has_ten_devices_and_the_oldest_goes(world: World) {
    let put = async |body: Value| {
        let answer = world.client.post("/api/users/c-1/push-targets", &body).await;
        (answer.status, answer.text("pushTargetId").to_owned())
    };
    let endpoint = "https://updates.push.services.mozilla.com/wpush/v2/gAAAA";
    let (status, web) = put(browser(endpoint)).await;
    assert_eq!(status, 201);
    let token = |number: u32| json!({"fcmToken": format!("token-{number}")});
    let mut ids = BTreeSet::from([web.clone()]);
    for number in 1..10 {
        let (status, id) = put(token(number)).await;
        assert!(status == 201 && ids.insert(id));
    }
    // It is the newest now, so the first token is the oldest.
    assert_eq!(put(browser(endpoint)).await, (200, web));
    let (status, id) = put(token(10)).await;
    assert!(status == 201 && ids.insert(id));
    let kept: BTreeSet<String> =
        world.texts("select id from push_targets where user_id = 'c-1'").await.into_iter().collect();
    let gone: Vec<&String> = ids.difference(&kept).collect();
    assert_eq!((kept.len(), gone), (10, vec![&first_token()]));
    world.stop().await;
}

fn first_token() -> String {
    use waybill_notifications::push_targets::PushTarget;
    PushTarget::Fcm { fcm_token: "token-1".into() }.id().to_string()
}

async fn demand_counts_people_and_pieces(world: World) {
    world.sells("p-1").await;
    let nobody = world.client.get("/api/products/p-1/demand").await;
    assert_eq!(nobody.body, json!({"productId": "p-1", "people": 0, "email": 0, "push": 0, "pieces": 0}));
    for user in ["c-1", "c-2", "c-3"] {
        world.writes_to(user).await;
        world.waits(user, "email", json!({"quantity": 2})).await;
    }
    world.client.post("/api/users/c-3/push-targets", &json!({"fcmToken": "token"})).await;
    world.waits("c-3", "push", json!({"quantity": 5})).await;
    let demand = world.client.get("/api/products/p-1/demand").await;
    assert!(demand.text("oldest").ends_with('Z'), "{demand:?}");
    let counts = ["people", "email", "push", "pieces"].map(|count| demand.body[count].as_i64().unwrap());
    assert_eq!(counts, [3, 3, 1, 2 + 2 + 5]);
    let none = world.client.get("/api/products/p-none/demand").await;
    assert_eq!((none.status, none.problem()), (404, "not_found"));
    world.stop().await;
}
