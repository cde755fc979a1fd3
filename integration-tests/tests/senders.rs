//! Email, push and order mails: real processes, a real mail server, a real receiver of web push.

mod pushes;
mod world;

use crate::shop::LIMIT;
use rand::Rng;
use serde_json::json;
use std::collections::BTreeSet;
use waybill_harness::{Caught, eventually, produce};
use world::{RESTOCK, SUBSCRIBE, World, draft, text};

fn names(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|i| format!("ada{i}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_is_told_once_and_what_became_of_each_is_published_counted_and_traced() {
    let Some(world) = World::open("told", "200").await else { return };
    let mut process = world.shop.run(&["email"]);
    let odd = ["rcpt-550-5.1.1", "rcpt-554-5.7.1", "drop-dot", "suppressed", "expired", "nobody", "many"];
    let odd = odd.map(str::to_owned);
    let last = world.wait(&[names(0..60), odd.to_vec()].concat()).await;
    world
        .shop
        .execute(
            "insert into suppressions (email, reason) values ('suppressed@customer.example', 'refused');
             update subscriptions set expires_at = now() where user_id = 'u-expired';
             update subscriptions set quantity = 501 where user_id = 'u-many';
             delete from contacts where user_id = 'u-nobody';
             delete from subscriptions where user_id = 'u-ada7'",
        )
        .await;
    world.send("email", 0, last).await;
    let told = world.results("email", 1).await;
    let id = |index: i64| index + 1;
    for (subscription, result) in [
        (id(60), Some("unreachable")),
        (id(61), Some("failed")),
        (id(62), Some("unknown")),
        (id(63), Some("unreachable")),
        (id(64), None),
        (id(65), Some("unreachable")),
        (id(66), None),
        (id(7), None),
    ] {
        assert_eq!(told.get(&subscription).map(String::as_str), result, "subscription {subscription}");
    }
    let sent = told.values().filter(|result| *result == "sent").count();
    assert_eq!((told.len(), sent), (64, 59));
    let recipients = world.recipients();
    assert_eq!(recipients.len(), 60, "who was sent, and the unknown one: {recipients:?}");
    assert!(recipients.values().all(|times| *times == 1), "{recipients:?}");
    for arrived in world.mail.arrived().unwrap() {
        let raw = String::from_utf8_lossy(&arrived.bytes).into_owned();
        assert!(arrived.tls && arrived.user == "shop");
        assert!(raw.contains("List-Unsubscribe: <https://shop.example/unsubscribe/k1."), "{raw}");
        assert!(raw.contains(&format!("Message-ID: <{}-", world::CAMPAIGN)), "{raw}");
        let text = text(&arrived);
        assert!(text.contains("Reading lamp") && text.contains("https://shop.example/products/p-lamp"), "{text}");
    }
    assert_eq!(world.shop.number("select count(*) from suppressions").await, 2);

    world.until_counted("back_in_stock.notifications.sent", 59.0).await;
    world.until_counted("back_in_stock.notifications.errors", 5.0).await;
    spans_are_right(&world).await;
    let record = &world.shop.read("notifications.email.results")[0];
    let size: usize = record.headers.iter().map(|(_, value)| value.len()).sum();
    println!("the copies of 65 spans are {size} bytes");
    assert!(size < 256 << 10, "{size} bytes");

    // A repeat is answered and sends nothing.
    world.send("email", 0, last).await;
    eventually("the repeat is answered", LIMIT, async || match world.shop.count("notifications.email.results") {
        2 => Ok(()),
        other => Err(other.to_string()),
    })
    .await;
    assert_eq!(world.results("email", 1).await, told);
    assert_eq!(world.recipients(), recipients);
    process.terminate().unwrap();
    process.wait(LIMIT).await.unwrap();
    world.check_canaries(&process.log().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_be_told_now_is_told_later_and_once() {
    let Some(world) = World::open("later", "200").await else { return };
    let _process = world.shop.run(&["email"]);
    // For 421 a server wants to be left alone by everybody.
    let odd = ["once-rcpt-451-4.2.0", "once-dot-451", "once-rcpt-421-4.3.2"].map(str::to_owned);
    let last = world.wait(&[names(0..10), odd.to_vec(), names(10..20)].concat()).await;
    world.send("email", 0, last).await;
    let told = world.results("email", 1).await;
    assert_eq!(told.len(), 23);
    assert!(told.values().all(|result| result == "sent"), "{told:?}");
    let recipients = world.recipients();
    assert_eq!(recipients.len(), 23);
    assert!(recipients.values().all(|times| *times == 1), "{recipients:?}");
}

async fn spans_are_right(world: &World) {
    let singles = eventually("all spans are exported", LIMIT, async || {
        let spans: Vec<Caught> = world.collector.spans();
        let batches = spans.iter().filter(|span| span.name() == "back_in_stock.send_batch").count();
        let singles: Vec<Caught> = spans.into_iter().filter(|s| s.name() == "back_in_stock.send_single").collect();
        if batches == 1 && singles.len() == 64 { Ok(singles) } else { Err(format!("{batches}, {}", singles.len())) }
    })
    .await;
    for single in &singles {
        let attributes = single.attributes();
        assert_eq!(attributes["notification.channel"], "email");
        assert_eq!(attributes["notification.wait_hours"], 1.5);
        assert!(attributes["user.id"].as_str().unwrap().starts_with("u-"));
        let links = single.links();
        let linked: Vec<(&str, &str)> = links.iter().map(|(trace, span, _)| (&**trace, &**span)).collect();
        assert_eq!(linked, [RESTOCK, SUBSCRIBE].map(|[trace, span]| (trace, span)));
        assert_eq!(links[1].2["link.stage"], "subscribe");
    }
    let spans = world.collector.spans();
    let batch = spans.iter().find(|span| span.name() == "back_in_stock.send_batch").unwrap();
    let attributes = batch.attributes();
    assert_eq!((&attributes["batch.index"], &attributes["batch.size"]), (&json!(0), &json!(67)));
    assert!(batch.links().iter().any(|(trace, span, _)| [trace, span] == RESTOCK), "{:?}", batch.links());
    let first = world.collector.metric("back_in_stock.first_notification.delay").unwrap();
    assert_eq!(first.points.iter().map(|point| point.count).sum::<u64>(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_keeps_its_rate_with_one_two_and_four_processes() {
    let Some(world) = World::open("rate", "40").await else { return };
    let mut processes = Vec::new();
    let (mut after, mut batches) = (0, 0);
    for count in [1, 2, 4] {
        while processes.len() < count {
            processes.push(world.shop.run(&["email"]));
        }
        let begun = u32::try_from(after).unwrap();
        let last = world.wait(&names(begun..begun + 200)).await;
        batches += world.send("email", after, last).await;
        let told = world.results("email", batches).await;
        assert!(told.values().all(|result| result == "sent"), "{told:?}");
        after = last;
    }
    // Each grant ends before the next begins: then no second has more than the rate.
    let overlapping = "select count(*) from (select starts_at + messages / per_second * interval '1 s' as ends_at,
        lead(starts_at) over (order by starts_at) as next_at from send_grants) g
        where ends_at > next_at + interval '2 microseconds'";
    assert_eq!(world.shop.number(overlapping).await, 0);
    assert_eq!(world.shop.number("select sum(messages)::int8 from send_grants").await, 600);
    let mut times: Vec<f64> = world.mail.arrived().unwrap().iter().map(|mail| mail.at).collect();
    times.sort_by(f64::total_cmp);
    assert_eq!(times.len(), 600);
    // In ten seconds: the rate, and what two parts have in the air.
    let most = times.iter().map(|from| times.iter().filter(|at| (*from..from + 5.0).contains(*at)).count()).max();
    assert!(most.unwrap() <= 5 * 40 + 40, "{most:?} mails in five seconds");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_is_told_twice_or_lost_though_senders_are_killed() {
    let Some(world) = World::open("killed", "100").await else { return };
    let mut processes = [world.shop.run(&["email"]), world.shop.run(&["email"])];
    let last = world.wait(&names(0..600)).await;
    let batches = world.send("email", 0, last).await;
    for kill in 0..4 {
        let some = 60 * (kill + 1) + rand::rng().random_range(0..40);
        eventually(&format!("{some} mails"), LIMIT, async || match world.mail.arrived().unwrap().len() {
            arrived if arrived >= some => Ok(()),
            arrived => Err(arrived.to_string()),
        })
        .await;
        let process = &mut processes[kill % 2];
        process.kill().unwrap();
        *process = world.shop.run(&["email"]);
    }
    let told = world.results("email", batches).await;
    assert_eq!(told.len(), 600, "everybody has a result");
    let arrived: BTreeSet<String> = world.recipients().into_keys().collect();
    assert!(world.recipients().values().all(|times| *times == 1), "{:?}", world.recipients());
    let with = |wanted: &str| -> BTreeSet<String> {
        let ids = told.iter().filter(|(_, result)| *result == wanted);
        ids.map(|(id, _)| format!("ada{}@customer.example", id - 1)).collect()
    };
    let (sent, unknown) = (with("sent"), with("unknown"));
    assert_eq!(sent.len() + unknown.len(), 600);
    assert!(sent.is_subset(&arrived), "what is sent has come");
    assert!(arrived.difference(&sent).all(|address| unknown.contains(address)), "what came is sent or unknown");
    println!("{} sent, {} unknown, of which {} came", sent.len(), unknown.len(), arrived.len() - sent.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_mails_do_not_wait_behind_a_campaign() {
    let Some(world) = World::open("order-mails", "1").await else { return };
    let mut processes = [world.shop.run(&["email"]), world.shop.run(&["order-mail"])];
    let last = world.wait(&names(0..100)).await;
    world.send("email", 0, last).await;
    let line = json!({"line": 1, "product_id": world::PRODUCT, "sku": "sku-1", "quantity": 2, "weight_g": 1,
        "size_mm": [1, 1, 1], "price": {"amount": 8950, "currency": "EUR"}});
    let saga = json!({"lines": [line]}).to_string();
    world
        .shop
        .execute(&format!("insert into checkouts (key, version, state, answer) values ('o-1', 1, '{saga}', '')"))
        .await;
    let completed = json!({"order_id": "o-1", "customer_id": "u-ada1", "item_count": 1,
        "total": {"amount_minor": 17900, "currency": "EUR"}});
    let nobodys = json!({"order_id": "o-2", "customer_id": "u-nobody", "item_count": 1,
        "total": {"amount_minor": 100, "currency": "EUR"}});
    let mut shipped: serde_json::Value =
        serde_json::from_str(include_str!("../../schemas/examples/orders.shipped/domestic.json")).unwrap();
    (shipped["order_id"], shipped["customer_id"]) = (json!("o-1"), json!("u-ada1"));
    for (topic, order, event) in [
        ("checkout.completed", "o-1", &completed),
        ("checkout.completed", "o-2", &nobodys),
        ("orders.shipped", "o-1", &shipped),
        ("orders.shipped", "o-1", &shipped),
    ] {
        let drafts = vec![draft(order, topic, &format!("{topic}-{order}"), event)];
        produce(&world.shop.bootstrap, &world.shop.scope.topic(topic), drafts).await.unwrap();
    }
    let mails = eventually("two mails about the order", LIMIT, async || {
        let all = world.mail.arrived().unwrap();
        let mails: Vec<_> = all.iter().filter(|mail| text(mail).contains("o-1")).cloned().collect();
        if mails.len() == 2 { Ok(mails) } else { Err(format!("{} of {}", mails.len(), all.len())) }
    })
    .await;
    world.shop.until_committed("order-mail", "orders.shipped").await;
    assert!(world.shop.count("notifications.email.results") == 0, "the campaign goes on");
    let texts = mails.iter().map(text).collect::<Vec<_>>().join("\n");
    for part in ["Reading lamp", "179.00 EUR", "LA400311777DE", "https://shop.example/orders/o-1", "Canary Name ada1"] {
        assert!(texts.contains(part), "{part} is missing: {texts}");
    }
    let raw: Vec<String> = mails.iter().map(|mail| String::from_utf8_lossy(&mail.bytes).into_owned()).collect();
    assert!(raw.iter().any(|raw| raw.contains("Message-ID: <shipped-o-1@")), "{raw:?}");
    assert!(raw.iter().all(|raw| !raw.contains("List-Unsubscribe")), "{raw:?}");
    let logs: Vec<String> = processes.iter_mut().map(|process| process.log().unwrap()).collect();
    world.check_canaries(&logs.concat());
}
