//! The links in mails.

use crate::client::Reply;
use crate::on_both;
use crate::world::{World, links, settings};
use serde_json::json;

on_both! {
    a_link_shows_a_page_and_its_button_ends_the_subscription;
    a_gateway_without_keys_knows_no_link;
}

impl World {
    /// The token of the only subscription.
    async fn token(&self) -> String {
        let mut put = crate::shop::product(1, "EUR");
        put["name"] = "Mug <b>\"&\"</b>".into();
        self.client.put("/api/products/p-1", &put).await;
        self.writes_to("c-1").await;
        self.waits("c-1", "email", json!({})).await;
        let ids = self.ground.column("select cast(id as text) from subscriptions").await;
        links().sign(&ids[0]).unwrap()
    }

    async fn waiting(&self) -> usize {
        self.ground.column("select user_id from subscriptions").await.len()
    }
}

fn page(reply: &Reply) -> &str {
    assert_eq!(reply.header("content-type"), Some("text/html; charset=utf-8"), "{reply:?}");
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(reply.header("referrer-policy"), Some("no-referrer"));
    reply.body.as_str().unwrap()
}

async fn a_link_shows_a_page_and_its_button_ends_the_subscription(world: World) {
    let path = format!("/unsubscribe/{}", world.token().await);
    for _ in 0..2 {
        let asked = world.client.get(&path).await;
        assert_eq!((asked.status, world.waiting().await), (200, 1), "to look changes nothing");
        let shown = page(&asked);
        assert!(shown.contains("<form method=\"post\">"), "{shown}");
        assert!(shown.contains("Mug &lt;b&gt;&quot;&amp;&quot;&lt;/b&gt;") && !shown.contains("<b>"), "{shown}");
    }
    let other = format!("{}x", &path[..path.len() - 1]);
    let other = if other == path { format!("{}y", &path[..path.len() - 1]) } else { other };
    for wrong in [other.as_str(), "/unsubscribe/k1.1", "/unsubscribe/%00"] {
        for method in ["GET", "POST"] {
            let reply = world.client.send(method, wrong, &[], "").await;
            assert_eq!((reply.status, world.waiting().await), (404, 1), "{method} {wrong}");
            assert!(page(&reply).contains("does not work"));
        }
    }
    let form = [("content-type", "application/x-www-form-urlencoded")];
    for _ in 0..2 {
        let done = world.client.send("POST", &path, &form, "List-Unsubscribe=One-Click").await;
        assert_eq!((done.status, world.waiting().await), (200, 0));
        assert!(page(&done).contains("You are unsubscribed"));
    }
    let spent = world.client.get(&path).await;
    assert!(page(&spent).contains("You are unsubscribed") && !page(&spent).contains("<form"), "{spent:?}");
    world.stop().await;
}

async fn a_gateway_without_keys_knows_no_link(mut world: World) {
    let path = format!("/unsubscribe/{}", world.token().await);
    world.ground.links = false;
    let world = world.again(settings()).await;
    assert_eq!((world.client.send("POST", &path, &[], "").await.status, world.waiting().await), (404, 1));
    world.stop().await;
}
