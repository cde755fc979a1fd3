//! `waybill topics` against a real cluster.

use crate::shop::Shop;

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
    for topic in waybill_topics::Catalogue::built_in().unwrap().topics() {
        let line = list.lines().find(|line| line.starts_with(&shop.scope.topic(&topic.name))).unwrap();
        assert_eq!(line.split_whitespace().nth(1), Some("6"), "still as it was made: {line}");
    }
}
