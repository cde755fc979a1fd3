//! `topics.yaml` against a real cluster, the stages, and what a run writes.

use crate::shop::Shop;
use jsonschema::Registry;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use waybill_checkout::Checkout;
use waybill_fulfilment::{Pack, Pick, Ship};
use waybill_inventory::Inventory;
use waybill_notifications::{Email, Fanout, OrderMail, Push, Restock, Tell};
use waybill_spine::{Input, Stage, redrive_topic};
use waybill_topics::Catalogue;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_created_once_and_a_keyed_one_never_grows() {
    let Some(shop) = Shop::open("topics", 1).await else { return };
    let again = shop.done(&["topics", "apply"]);
    assert!(again.lines().all(|line| line.starts_with("unchanged")), "{again}");

    let more = shop.command(&["topics", "apply", "--partitions", "12"]);
    let told = String::from_utf8_lossy(&more.stdout).into_owned();
    assert_eq!(more.status.code(), Some(3), "{told}");
    assert!(told.contains("growing would move keys to other partitions"), "{told}");

    let list = shop.done(&["topics", "list"]);
    for topic in Catalogue::built_in().unwrap().topics() {
        let line = list.lines().find(|line| line.starts_with(&shop.scope.topic(&topic.name))).unwrap();
        let made = topic.partitions.to_string();
        assert_eq!(line.split_whitespace().nth(1), Some(&*made), "still as it was made: {line}");
    }
}

/// What a stage reads and writes, by its own word, is what `topics.yaml` says.
fn tied<S: Stage>(catalogue: &Catalogue) -> Vec<String> {
    let read: Vec<&str> = catalogue.consumed_by(S::NAME).map(|t| t.name.as_str()).collect();
    let redrive = redrive_topic(S::NAME);
    let by_its_word = S::Event::TOPICS.iter().map(|(topic, _)| *topic);
    let by_its_word: Vec<&str> = by_its_word.chain([redrive.as_str()]).collect();
    assert_eq!(read, by_its_word, "{}", S::NAME);
    let written: Vec<String> = catalogue.owned_by(S::NAME).map(|t| t.name.clone()).collect();
    assert!(written.contains(&format!("dead.{}", S::NAME)), "{}", S::NAME);
    written
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stages_write_their_own_topics_and_every_event_keeps_its_schema() {
    let catalogue = Catalogue::built_in().unwrap();
    let others =
        [waybill_gateway::STAGE, "external", "operator"].into_iter().flat_map(|owner| catalogue.owned_by(owner));
    let mut written: BTreeSet<String> = others.map(|t| t.name.clone()).collect();
    written.extend([tied::<Pick>(&catalogue), tied::<Pack>(&catalogue), tied::<Ship>(&catalogue)].concat());
    written.extend([tied::<Checkout>(&catalogue), tied::<Inventory>(&catalogue)].concat());
    written.extend([tied::<Restock>(&catalogue), tied::<Fanout>(&catalogue)].concat());
    written.extend([tied::<Tell<Email>>(&catalogue), tied::<Tell<Push>>(&catalogue)].concat());
    written.extend(tied::<OrderMail>(&catalogue));
    let declared: BTreeSet<String> = catalogue.names().map(str::to_owned).collect();
    assert_eq!(written, declared, "every topic has a stage that writes it, or somebody else");

    // Few goods, so that there are short lines too.
    let Some(shop) = Shop::open("schemas", 2).await else { return };
    let _process = shop.run(&["fulfilment", "inventory", "restock", "fanout"]);
    let waiting = "insert into subscriptions (product_id, user_id, channel, expires_at)
        select 'p-' || lpad(n::text, 4, '0'), 'u-1', channel, now() + interval '1 day'
        from generate_series(1, 400) n, (values ('email'), ('push')) c (channel)";
    shop.execute(waiting).await;
    shop.done(&["produce", "orders", "--count", "300", "--seed", "9"]);
    shop.until_committed("pick", "orders.new").await;
    shop.until_committed("pack", "orders.picked").await;
    shop.until_committed("ship", "orders.packed").await;
    shop.ask_to_cancel(&["o-none"]).await;
    shop.done(&["produce", "stock", "--count", "20"]);
    shop.until("orders.cancelled", 1).await;
    shop.until("inventory.levels", 20).await;
    shop.until("notifications.email", 20).await;
    shop.until("notifications.push", 20).await;

    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas");
    let json = |file: String| -> Value { serde_json::from_slice(&std::fs::read(folder.join(file)).unwrap()).unwrap() };
    let shared = json("waybill.v1.json".to_owned());
    let id = shared["$id"].as_str().unwrap().to_owned();
    let registry = Registry::new().add(&id, shared).unwrap().prepare().unwrap();
    for topic in catalogue.topics() {
        let Some(schema) = &topic.schema else { continue };
        // What nobody asks for here: `produce orders` begins where a checkout ends.
        if topic.name.starts_with("checkout.") || topic.name.ends_with(".results") {
            continue;
        }
        let document = json(schema.file());
        let options = jsonschema::options().with_registry(&registry).should_validate_formats(true);
        let validator = options.build(&document).unwrap();
        let records = shop.read(&topic.name);
        assert!(!records.is_empty(), "{}", topic.name);
        for record in records {
            assert_eq!(record.header("ce_type"), Some(schema.to_string().as_str()));
            assert_eq!(record.header("ce_dataschema"), Some(schema.id().as_str()));
            assert_eq!(record.header("ce_source"), Some(format!("/waybill/{}", topic.owner).as_str()));
            let event = record.json().unwrap();
            let wrong: Vec<String> =
                validator.iter_errors(&event).map(|e| format!("{}: {e}", e.instance_path())).collect();
            assert!(wrong.is_empty(), "{}: {wrong:?}", topic.name);
        }
    }
}
