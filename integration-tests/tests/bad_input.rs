//! The corpus in `integration-tests/bad-input/`: what must end as a dead letter, with a reason, and costs no other
//! record; and what only loses its link (`reason` is null). A new case is a new file.

use crate::shop::{LIMIT, Shop};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;
use waybill_harness::{Draft, Rec, eventually, produce};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// What is wrong, for people.
    #[expect(dead_code, reason = "documentation in the file")]
    why: String,
    /// Code of the dead letter; null where the record is accepted all the same.
    reason: Option<String>,
    #[serde(default = "its_own")]
    key: Option<String>,
    key_hex: Option<String>,
    /// Over the headers of a good record; null leaves one out.
    #[serde(default)]
    headers: BTreeMap<String, Option<String>>,
    payload: Option<String>,
    payload_hex: Option<String>,
    /// Texts, each so many times: for what is too large for a file.
    #[serde(default)]
    payload_parts: Vec<(String, usize)>,
}

fn its_own() -> Option<String> {
    Some("KEY".to_owned())
}

fn corpus() -> Vec<(String, Case)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../integration-tests/bad-input");
    let mut cases: Vec<(String, Case)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let case = serde_json::from_slice(&std::fs::read(&path).unwrap());
            let case = case.unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            (path.file_stem().unwrap().to_str().unwrap().to_owned(), case)
        })
        .collect();
    cases.sort_by(|a, b| a.0.cmp(&b.0));
    cases
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

impl Case {
    fn draft(&self, name: &str) -> Draft {
        let payload = match (&self.payload, &self.payload_hex) {
            (Some(text), _) => Some(text.clone().into_bytes()),
            (None, Some(text)) => Some(hex(text)),
            (None, None) if self.payload_parts.is_empty() => None,
            (None, None) => Some(self.payload_parts.iter().map(|(text, n)| text.repeat(*n)).collect::<String>().into()),
        };
        let mut draft = Draft::new("", payload.clone().unwrap_or_default());
        draft.payload = payload.map(|bytes| match String::from_utf8(bytes) {
            Ok(text) => text.replace("KEY", name).into_bytes(),
            Err(error) => error.into_bytes(),
        });
        let key = self.key.as_ref().map(|key| key.replace("KEY", name).into_bytes());
        draft.key = self.key_hex.as_deref().map(hex).or(key);
        let mut headers = BTreeMap::from([
            ("ce_id", Some(format!("id-{name}"))),
            ("ce_type", Some("orders.new.v1".to_owned())),
            ("ce_time", Some("2026-11-21T10:00:00Z".to_owned())),
            ("ce_source", Some("/test/outside".to_owned())),
        ]);
        headers.extend(self.headers.iter().map(|(key, value)| (key.as_str(), value.clone())));
        for (key, value) in headers {
            if let Some(value) = value {
                draft = draft.header(key, value);
            }
        }
        draft
    }
}

/// The dead letter of a record: its bytes and headers untouched, more headers behind them.
fn letter<'a>(dead: &'a [Rec], draft: &Draft) -> Option<&'a Rec> {
    dead.iter().find(|d| d.payload == draft.payload && d.key == draft.key && d.headers.starts_with(&draft.headers))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_bad_record_ends_with_its_reason_and_costs_no_other() {
    let Some(shop) = Shop::open("bad-input", 1_000).await else { return };
    let mut process = shop.run(&["fulfilment"]);
    let cases = corpus();
    let good = |name: &str| {
        let good = r#"{"why":"","reason":null,"payload":"{\"order_id\":\"KEY\",\"customer_id\":\"c\",\"country\":\"DE\",\"service\":\"standard\",\"lines\":[{\"line\":1,\"product_id\":\"p-0001\",\"sku\":\"S\",\"quantity\":1,\"weight_g\":1,\"size_mm\":[1,1,1]}]}"}"#;
        serde_json::from_str::<Case>(good).unwrap().draft(name)
    };
    // After each bad record a good one.
    let drafts = cases.iter().flat_map(|(name, case)| [case.draft(name), good(&format!("good-after-{name}"))]);
    produce(&shop.bootstrap, &shop.scope.topic("orders.new"), drafts.collect()).await.unwrap();
    let accepted = cases.iter().filter(|(_, case)| case.reason.is_none()).count();
    let shipped = shop.until("orders.shipped", cases.len() + accepted).await;
    let shipped = crate::shop::distinct(&shipped);
    let bad: Vec<_> = cases.iter().filter(|(_, case)| case.reason.is_some()).collect();
    let dead = eventually("every bad record is a dead letter", LIMIT, async || {
        let dead = shop.read("dead.pick");
        let missing = bad.iter().filter(|(name, case)| letter(&dead, &case.draft(name)).is_none());
        let missing: Vec<_> = missing.map(|(name, _)| name).collect();
        if missing.is_empty() { Ok(dead) } else { Err(format!("{missing:?} are missing")) }
    })
    .await;
    assert_eq!(dead.len(), bad.len());
    for (name, case) in &cases {
        assert!(shipped.contains(format!("good-after-{name}").as_str()), "{name}: the next record is handled");
        let Some(reason) = &case.reason else {
            assert!(shipped.contains(name.as_str()), "{name} only loses its link");
            continue;
        };
        let letter = letter(&dead, &case.draft(name)).unwrap();
        assert_eq!(letter.header("dead_reason"), Some(reason.as_str()), "{name}: {:?}", letter.header("dead_message"));
        assert!(letter.header("dead_message").is_some_and(|m| (10..=1_100).contains(&m.len())), "{name}");
        assert_eq!(letter.header("dead_topic"), Some("orders.new"), "{name}");
    }
    assert_eq!(process.ended().unwrap(), None, "nothing panics:\n{}", process.log().unwrap());
    assert!(!process.log().unwrap().contains("panicked"));
}

/// What the broker itself does not take never becomes a record.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_over_the_brokers_limit_is_refused_by_the_broker() {
    let Some(shop) = Shop::open("too-large", 1).await else { return };
    let draft = Draft::new("o-1", vec![b'x'; 1_200_000]);
    let error = produce(&shop.bootstrap, &shop.scope.topic("orders.new"), vec![draft]).await.unwrap_err();
    assert!(format!("{error:#}").to_lowercase().contains("size"), "{error:#}");
    assert_eq!(shop.count("orders.new"), 0);
}
