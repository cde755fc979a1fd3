//! Schemas and examples against each other and against the catalogue. Every file in `schemas/examples/` is a test here: a
//! new case is a new file, and its name says what it shows.
#![expect(clippy::unwrap_used, reason = "a test that fails to unwrap has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use jsonschema::{Registry, Validator};
use serde_json::Value;
use waybill_topics::Catalogue;

/// The shapes that the events share: a schema, but no event.
const SHARED: &str = "waybill.v1.json";

fn schemas() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas")
}

fn json(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names in a folder: of its files, or of its folders.
fn names(folder: &Path, folders: bool) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries
        .map(Result::unwrap)
        .filter(|entry| entry.file_type().unwrap().is_dir() == folders)
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect()
}

/// The cases in a folder, by name.
fn cases(folder: &Path) -> BTreeMap<String, Value> {
    let files = names(folder, false);
    for file in &files {
        assert!(file.ends_with(".json"), "{}/{file} is no example", folder.display());
    }
    files.into_iter().map(|file| (file.trim_end_matches(".json").to_owned(), json(&folder.join(file)))).collect()
}

/// Each event of the catalogue with its validator; nothing is ever fetched.
fn validators() -> BTreeMap<String, Validator> {
    let shared = json(&schemas().join(SHARED));
    let id = shared["$id"].as_str().unwrap().to_owned();
    let registry = Registry::new().add(&id, shared).unwrap().prepare().unwrap();
    let catalogue = Catalogue::built_in().unwrap();
    let declared = catalogue.topics().iter().filter_map(|topic| topic.schema.clone());
    declared
        .map(|schema| {
            let document = json(&schemas().join(schema.file()));
            let options = jsonschema::options().with_registry(&registry).should_validate_formats(true);
            let validator = options.build(&document).unwrap_or_else(|error| panic!("{schema}: {error}"));
            (schema.event, validator)
        })
        .collect()
}

/// Calls `visit` with every schema within a schema, and where it stands.
fn walk(schema: &Value, place: &str, visit: &mut dyn FnMut(&Value, &str)) {
    visit(schema, place);
    for word in ["properties", "$defs"] {
        for (name, inner) in schema.get(word).and_then(Value::as_object).into_iter().flatten() {
            walk(inner, &format!("{place}.{name}"), visit);
        }
    }
    if let Some(items) = schema.get("items") {
        walk(items, &format!("{place}[]"), visit);
    }
}

#[test]
fn every_schema_is_one_of_2020_12_and_says_who_it_is() {
    for file in names(&schemas(), false) {
        let schema = json(&schemas().join(&file));
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema", "{file}");
        jsonschema::draft202012::meta::validate(&schema).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(schema["title"].is_string(), "{file} has no title");
        let (event, major) = file.trim_end_matches(".json").rsplit_once(".v").unwrap();
        assert_eq!(schema["$id"], format!("urn:waybill:schema:{event}:v{major}"), "{file}");
    }
}

#[test]
fn every_object_is_closed_and_every_property_described() {
    for file in names(&schemas(), false) {
        // Where all stand that the schema began with; later ones are optional (`compatibility.rs`).
        let mut first = BTreeSet::new();
        let revisions = names(&schemas().join("published"), true).len();
        let mut folders = (1..=revisions).map(|revision| schemas().join("published").join(revision.to_string()));
        let began =
            folders.find_map(|folder| fs::exists(folder.join(&file)).unwrap().then(|| json(&folder.join(&file))));
        let began = began.unwrap_or_else(|| json(&schemas().join(&file)));
        walk(&began, &file, &mut |_, place| {
            first.insert(place.to_owned());
        });
        walk(&json(&schemas().join(&file)), &file, &mut |schema, place| {
            let described = schema.get("description").and_then(Value::as_str).is_some_and(|text| text.ends_with('.'));
            let an_item = place.ends_with("[]");
            assert!(described || an_item, "{place} is not described in a sentence");
            let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
                return;
            };
            assert_eq!(schema["additionalProperties"], false, "{place} is open");
            let required: BTreeSet<&str> =
                schema["required"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
            let declared: BTreeSet<&str> = properties.keys().map(String::as_str).collect();
            let optional: Vec<_> =
                declared.difference(&required).filter(|name| first.contains(&format!("{place}.{name}"))).collect();
            assert!(required.is_subset(&declared), "{place} requires what is not declared");
            assert!(optional.is_empty(), "{place}: every property of a first revision is required: {optional:?}");
        });
    }
}

#[test]
fn no_event_has_a_place_for_personal_or_payment_data() {
    let forbidden =
        ["name", "address", "street", "city", "postcode", "mail", "phone", "card", "payment", "token", "iban"];
    for file in names(&schemas(), false) {
        walk(&json(&schemas().join(&file)), &file, &mut |schema, place| {
            for property in schema.get("properties").and_then(Value::as_object).into_iter().flat_map(|p| p.keys()) {
                let found = forbidden.iter().find(|word| property.contains(*word));
                assert_eq!(found, None, "{place}: {property}");
            }
        });
    }
}

#[test]
fn there_is_a_schema_and_examples_for_every_event_and_none_without_a_topic() {
    let catalogue = Catalogue::built_in().unwrap();
    let declared: Vec<_> = catalogue.topics().iter().filter_map(|topic| topic.schema.clone()).collect();

    let mut files: BTreeSet<String> = declared.iter().map(|schema| schema.file()).collect();
    files.insert(SHARED.to_owned());
    assert_eq!(names(&schemas(), false), files, "schemas/ and topics.yaml disagree");
    assert_eq!(names(&schemas(), true), BTreeSet::from(["examples", "published"].map(str::to_owned)));

    let events: BTreeSet<String> = declared.iter().map(|schema| schema.event.clone()).collect();
    assert_eq!(names(&schemas().join("examples"), true), events, "schemas/examples/ and topics.yaml disagree");
    assert_eq!(names(&schemas().join("examples"), false), BTreeSet::new());
    for event in events {
        let folder = schemas().join("examples").join(&event);
        assert!(cases(&folder).len() >= 2, "{event} has fewer than two examples");
        assert_eq!(names(&folder, true), BTreeSet::from(["invalid".to_owned()]), "{event}");
        assert!(cases(&folder.join("invalid")).len() >= 2, "{event} has fewer than two invalid examples");
    }
}

#[test]
fn every_example_is_accepted() {
    for (event, validator) in validators() {
        for (case, value) in cases(&schemas().join("examples").join(&event)) {
            let errors: Vec<String> =
                validator.iter_errors(&value).map(|e| format!("{}: {e}", e.instance_path())).collect();
            assert!(errors.is_empty(), "{event}/{case}: {errors:#?}");
        }
    }
}

/// One mistake a case: an example with two would go on being refused when the schema no longer sees the one it is named for.
#[test]
fn every_invalid_example_is_refused_for_one_reason() {
    for (event, validator) in validators() {
        for (case, value) in cases(&schemas().join("examples").join(&event).join("invalid")) {
            let places: BTreeSet<String> =
                validator.iter_errors(&value).map(|e| e.instance_path().to_string()).collect();
            assert_eq!(places.len(), 1, "{event}/invalid/{case} is refused at {places:?}");
        }
    }
}

/// What a schema cannot say about the examples, and a reader would stumble over.
#[test]
fn the_examples_make_sense() {
    let number = |value: &Value| value.as_i64().unwrap();
    let each = |value: &Value| value.as_array().cloned().unwrap_or_default();
    for event in validators().into_keys() {
        for (case, value) in cases(&schemas().join("examples").join(&event)) {
            let place = format!("{event}/{case}");
            let mut lines: Vec<i64> = each(&value["lines"]).iter().map(|line| number(&line["line"])).collect();
            let counted = lines.len();
            lines.dedup();
            assert!(lines.is_sorted() && lines.len() == counted, "{place}: lines {lines:?}");
            for line in each(&value["lines"]) {
                if line.get("bins").is_some() {
                    let from_bins: i64 = each(&line["bins"]).iter().map(|bin| number(&bin["quantity"])).sum();
                    assert_eq!(number(&line["quantity"]), from_bins, "{place}: {line}");
                }
                if line.get("requested").is_some() {
                    assert!(number(&line["picked"]) < number(&line["requested"]), "{place}: {line}");
                }
            }
            for (parcel, expected) in each(&value["parcels"]).iter().zip(1..) {
                assert_eq!(number(&parcel["parcel"]), expected, "{place}: {parcel}");
            }
            if let Some(slip) = value.get("slip") {
                assert_eq!(slip.as_str().unwrap(), format!("PS-{}", value["order_id"].as_str().unwrap()), "{place}");
            }
            let journey: &[&str] = match event.as_str() {
                "notifications.email.results" => &["restock", "email"],
                "notifications.push.results" => &["restock", "push"],
                notice if notice.starts_with("notifications.") || notice == "inventory.restocked" => &["restock"],
                _ => &["checkout", "pick", "pack", "ship"],
            };
            let mut journey = journey.iter();
            for stamp in each(&value["waybill"]) {
                // A stage that came before the order reached it has no earlier ones to name.
                let skips = event == "orders.cancelled";
                let next = journey.find(|stage| !skips || stamp["stage"] == **stage);
                assert_eq!(Some(stamp["stage"].as_str().unwrap()), next.copied(), "{place}");
                // All in one format and in UTC, so that their order is that of their texts.
                assert!(
                    stamp["started_at"].as_str().unwrap() <= stamp["ended_at"].as_str().unwrap(),
                    "{place}: {stamp}"
                );
            }
        }
    }
}
