//! What the pages show of what is kept.

use crate::made::{BEGUN, Maker};
use crate::world::World;

#[tokio::test]
async fn orders_come_newest_first_a_page_at_a_time() {
    for mut world in World::both("pages-orders").await {
        for number in 0..120 {
            world.order(&format!("o-{number:03}"), if number % 60 == 0 { "rejected" } else { "shipped" }, BEGUN).await;
        }
        let first = world.page("/orders").await;
        let ids = |page: &str| -> Vec<String> {
            page.split("href=\"/orders/").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
        };
        assert_eq!(ids(&first), (70..120).rev().map(|n| format!("o-{n:03}")).collect::<Vec<_>>());
        assert!(first.contains("47.11 EUR") && first.contains("2 h 0 min ago"));
        let mut seen = ids(&first);
        let mut page = first;
        while let Some(next) = page.split("rel=\"next\" href=\"").nth(1) {
            let next = next.split('"').next().unwrap().replace("&amp;", "&");
            page = world.page(&next).await;
            seen.extend(ids(&page));
        }
        assert_eq!(seen.len(), 120, "every order once");
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 120);
        assert_eq!(ids(&world.page("/orders?state=rejected").await), ["o-060", "o-000"]);
        assert_eq!(world.get("/orders?state=lost").await.status, 400);
    }
}

#[tokio::test]
async fn late_is_what_is_on_its_way_for_longer_than_promised() {
    for mut world in World::both("pages-late").await {
        // The clock stands at 11:00 on the 20th, and 48 h are promised.
        for (id, status, at) in [
            ("o-late-b", "picked", "2026-11-18T10:00:00Z"),
            ("o-late-a", "confirmed", "2026-11-17T10:00:00Z"),
            ("o-in-time", "packed", "2026-11-18T12:00:00Z"),
            ("o-shipped", "shipped", "2026-11-01T10:00:00Z"),
            ("o-rejected", "rejected", "2026-11-01T10:00:00Z"),
        ] {
            world.order(id, status, at).await;
        }
        let page = world.page("/orders?state=late").await;
        let place = |id: &str| page.find(&format!("href=\"/orders/{id}\""));
        assert!(place("o-late-a").unwrap() < place("o-late-b").unwrap(), "the oldest first");
        assert_eq!([place("o-in-time"), place("o-shipped"), place("o-rejected")], [None; 3]);
        assert_eq!(page.matches("chip late").count(), 2);
        assert!(world.page("/orders?state=packed").await.contains("o-in-time"));
    }
}

#[tokio::test]
async fn the_search_finds_an_order_by_the_beginning_of_its_id() {
    for mut world in World::both("pages-search").await {
        for id in ["01a1-one", "01a1-two", "01a2-one", "100%_of"] {
            world.order(id, "shipped", BEGUN).await;
        }
        let page = world.page("/orders?q=01a1").await;
        assert!(page.contains("01a1-one") && page.contains("01a1-two") && !page.contains("01a2-one"));
        assert!(world.page("/orders?q=%25").await.contains("No order begins with %"), "a wildcard is a letter");
        let whole = world.get("/orders?q=01a2-one").await;
        assert_eq!((whole.status, whole.headers["location"].as_str()), (303, "/orders/01a2-one"));
        world.kept("o-by-hand", &[Maker::of("o-by-hand").pick()]).await;
        let by_hand = world.get("/orders?q=o-by-hand").await;
        assert_eq!(by_hand.headers["location"], "/orders/o-by-hand", "no checkout made it, but pick knows it");
        for (path, status) in
            [("/orders?q=%00", 400), ("/orders?after=%00", 400), ("/orders/%00", 404), ("/orders/%FF", 400)]
        {
            assert_eq!(world.get(path).await.status, status, "{path}");
        }
        let script = world.page("/orders?q=%3Cscript%3Ealert(1)%3C%2Fscript%3E").await;
        assert_eq!(script.matches("<script").count(), 1, "ours alone");
    }
}

#[tokio::test]
async fn a_journey_is_drawn_from_what_the_stages_keep() {
    for mut world in World::both("pages-journey").await {
        let mut maker = Maker::of("o-1");
        world.kept("o-1", &maker.all()).await;
        let page = world.page("/orders/o-1").await;
        assert_eq!(page.matches("class=\"row lane").count(), 4, "a lane a trace");
        assert!(page.contains("chip shipped") && page.contains("700000009105") && page.contains("30 h 0 min"));

        let script = "<script>alert(1)</script>";
        let mut maker = Maker::of(script);
        world.kept(script, &[maker.checkout(), maker.pick()]).await;
        world
            .execute(
                "insert into parked (stage, key, origin, record, why, attempts, due_at)
                 select 'pack', key, 'orders.picked/0/1', answer, 'no box is <large> enough', 3, decided_at from picks
                 where key like '<%'",
            )
            .await;
        let list = world.page("/orders").await;
        let href = list.split("href=\"/orders/").skip(1).find(|rest| rest.starts_with("%3C")).unwrap();
        let page = world.page(&format!("/orders/{}", href.split('"').next().unwrap())).await;
        assert_eq!(page.matches("<script").count(), 1, "ours alone");
        assert!(page.contains("&lt;script&gt;") && page.contains("Waits at Pack"));
        assert!(page.contains("no box is &lt;large&gt; enough") && page.contains("tried 3 times"));
    }
}

#[tokio::test]
async fn demand_and_campaigns_are_counted() {
    for mut world in World::both("pages-demand").await {
        assert!(world.page("/demand").await.contains("Nobody waits"));
        assert!(world.page("/campaigns").await.contains("No campaign"));
        let postgres = matches!(world.store, waybill_store::Store::Postgres(_));
        let (now, later) =
            if postgres { ("now()", "now() + interval '1 day'") } else { ("unixepoch()", "unixepoch() + 86400") };
        world
            .execute(&format!(
                "insert into products values ('p-1', 'SKU-1', 'A <b>mug</b>', 'mugs', 1999, 'EUR', 500, 100, 80, 60);
                 insert into subscriptions (product_id, user_id, channel, quantity, created_at, expires_at)
                     values ('p-1', 'u-1', 'email', 2, {now}, {later}), ('p-1', 'u-2', 'push', 1, {now}, {later});
                 insert into batches (campaign_id, number, product_id, channel, position, size, after_id, to_id,
                     restocked_at, waybill, publish_at, settled_at, sent, failed, unknown)
                     values ('c-1', 0, 'p-9', 'email', 0, 100, 0, 100, {now}, '[]', {now}, {now}, 97, 2, 1),
                         ('c-1', 1, 'p-9', 'push', 0, 40, 100, 140, {now}, '[]', {now}, null, 0, 0, 0)"
            ))
            .await;
        let demand = world.page("/demand").await;
        assert!(demand.contains("p-1") && demand.contains("A &lt;b&gt;mug") && demand.contains("2 wait for"));
        let campaigns = world.page("/campaigns").await;
        let told = "aria-label=\"97 sent, 2 failed, 1 unknown, 40 waiting\"";
        assert!(campaigns.contains(told) && campaigns.contains("140 people in 2 batches"), "{campaigns}");
    }
}
