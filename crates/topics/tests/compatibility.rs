//! Today's schemas beside every revision that was ever published, in both directions: today's readers take what was written
//! under each, and readers of each take what is written today. Readers ignore properties that they do not know.
//!
//! A rule of our own for the few keywords that we use, as the tools there are judge drafts before 2020-12 or pass over keywords
//! that they do not know: here an unknown one is a failure.

#![expect(clippy::unwrap_used, reason = "a test that fails to unwrap has failed")]

use jsonschema::{Registry, Validator};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const SHARED: &str = "waybill.v1.json";
const PUBLISH: &str = "if that is meant, `just publish-schemas`";

fn schemas() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas")
}

fn read(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The JSON files in a folder, by name.
fn files(folder: &Path) -> BTreeMap<String, Value> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let paths = paths.filter(|path| path.extension().is_some_and(|end| end == "json"));
    paths.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), read(&path))).collect()
}

/// The folders of what was published, the first one first.
fn published() -> Vec<PathBuf> {
    let folder = schemas().join("published");
    let count = fs::read_dir(&folder).unwrap().count();
    (1..=count).map(|revision| folder.join(revision.to_string())).inspect(|path| assert!(path.is_dir())).collect()
}

/// What readers of `reader` would not take of what a writer may write under `writer`.
fn refused(writer: &Value, reader: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare(writer, reader, "", &mut found);
    found
}

fn compare(writer: &Value, reader: &Value, place: &str, found: &mut Vec<String>) {
    let (writer, reader) = (writer.as_object().unwrap(), reader.as_object().unwrap());
    for schema in [writer, reader] {
        schema.keys().for_each(|word| assert!(is_known(word), "{place}: no rule for {word}"));
    }
    let get = |schema: &Map<String, Value>, word: &str| schema.get(word).cloned().unwrap_or(Value::Null);
    for (word, value) in reader {
        let of_writer = get(writer, word);
        let taken = match word.as_str() {
            "type" if set(value).contains("\"number\"") => {
                set(&of_writer).iter().all(|kind| kind == "\"integer\"" || set(value).contains(kind))
            }
            "type" | "enum" => set(&of_writer).is_subset(&set(value)),
            "minimum" | "minItems" => of_writer.as_f64().is_some_and(|least| least >= value.as_f64().unwrap()),
            "maximum" | "maxItems" => of_writer.as_f64().is_some_and(|most| most <= value.as_f64().unwrap()),
            "required" => set(value).is_subset(&set(&of_writer)),
            "const" | "pattern" | "format" | "not" | "$ref" => of_writer == *value,
            _ => continue,
        };
        // What a writer is not bound to may be anything.
        let bound = !of_writer.is_null() || (word == "required" && set(value).is_empty());
        if !(taken && bound) {
            found.push(format!("{place}: {word} is {of_writer} for writers and {value} for readers"));
        }
    }
    // A shape of its own beside a shared one: only somebody who reads both can tell.
    if writer.contains_key("$ref") && !reader.contains_key("$ref") {
        found.push(format!("{place}: $ref is {} for writers and none for readers", writer["$ref"]));
    }
    for word in ["properties", "$defs"] {
        let of_writer = get(writer, word);
        for (name, inner) in get(reader, word).as_object().into_iter().flatten() {
            if let Some(of_writer) = of_writer.get(name) {
                compare(of_writer, inner, &format!("{place}.{name}"), found);
            }
        }
    }
    match (writer.get("items"), reader.get("items")) {
        (Some(writer), Some(reader)) => compare(writer, reader, &format!("{place}[]"), found),
        (None, Some(_)) => found.push(format!("{place}[]: anything for writers")),
        (_, None) => {}
    }
}

fn is_known(word: &str) -> bool {
    let said = ["$schema", "$id", "title", "description"];
    // Writers are bound to the properties that are declared (`schemas.rs`), readers are not.
    let compared =
        ["type", "enum", "const", "not", "$ref", "pattern", "format", "minimum", "maximum", "minItems", "maxItems"];
    let within = ["properties", "required", "additionalProperties", "items", "$defs"];
    [&said[..], &compared, &within].iter().any(|words| words.contains(&word))
}

/// The values of a list, as text; of a single value that one.
fn set(value: &Value) -> BTreeSet<String> {
    match value {
        Value::Null => BTreeSet::new(),
        Value::Array(values) => values.iter().map(Value::to_string).collect(),
        one => BTreeSet::from([one.to_string()]),
    }
}

#[test]
fn readers_and_writers_of_all_revisions_understand_each_other() {
    let today = files(&schemas());
    for folder in published() {
        let of_revision = files(&folder);
        assert!(of_revision.len() > 10, "{}", folder.display());
        for (file, then) in &of_revision {
            let place = format!("{} and {file}", folder.display());
            let now = today.get(file).unwrap_or_else(|| panic!("{place}: what was published stays"));
            assert_eq!(refused(then, now), [""; 0], "{place}: today's readers would refuse what stands on the topic");
            assert_eq!(
                refused(now, then),
                [""; 0],
                "{place}: readers that still run would refuse what is written today"
            );
        }
    }
}

#[test]
fn todays_schemas_are_the_last_revision() {
    let last = files(published().last().unwrap());
    let today = files(&schemas());
    assert!(last.keys().eq(today.keys()), "a schema is new or gone: {PUBLISH}");
    for (file, schema) in &today {
        assert_eq!(*schema, last[file], "{file} is not the one of the last revision: {PUBLISH}");
    }
}

/// Validators of a folder's schemas by event, as a reader has them: what they do not know they ignore.
fn readers(folder: &Path) -> BTreeMap<String, Validator> {
    let mut schemas = files(folder);
    schemas.values_mut().for_each(open);
    let shared = schemas.remove(SHARED).unwrap();
    let registry = Registry::new().add(shared["$id"].as_str().unwrap(), shared.clone()).unwrap().prepare().unwrap();
    let reader = |(file, schema): (String, Value)| {
        let options = jsonschema::options().with_registry(&registry).should_validate_formats(true);
        let validator = options.build(&schema).unwrap_or_else(|error| panic!("{file}: {error}"));
        (file.rsplit_once(".v").unwrap().0.to_owned(), validator)
    };
    schemas.into_iter().map(reader).collect()
}

fn open(schema: &mut Value) {
    if let Some(words) = schema.as_object_mut() {
        words.remove("additionalProperties");
        words.values_mut().for_each(open);
    }
}

/// The same seen from the other side, by examples and a validator that others wrote.
#[test]
fn examples_of_all_revisions_are_taken_by_readers_of_all_others() {
    let folders = [&published()[..], &[schemas()]].concat();
    for readers_of in &folders {
        let readers = readers(readers_of);
        for examples_of in &folders {
            let mut taken = 0;
            for (event, reader) in &readers {
                let folder = examples_of.join("examples").join(event);
                if !folder.exists() {
                    // An event that is newer than these examples.
                    continue;
                }
                for (case, example) in files(&folder) {
                    let errors: Vec<String> = reader.iter_errors(&example).map(|error| error.to_string()).collect();
                    assert!(
                        errors.is_empty(),
                        "{}/{case}, read as {}: {errors:?}",
                        folder.display(),
                        readers_of.display()
                    );
                    taken += 1;
                }
            }
            assert!(taken > 30, "{taken} examples of {}", examples_of.display());
        }
    }
}

#[test]
fn each_kind_of_change_breaks_whom_it_breaks() {
    let base = json!({"type": "object", "required": ["a", "b", "c"], "additionalProperties": false, "properties": {
        "a": {"type": "integer", "minimum": 1, "maximum": 9},
        "b": {"type": "array", "minItems": 1, "maxItems": 3, "items": {"$ref": "urn:x#/$defs/id"}},
        "c": {"enum": ["x", "y"]}}});
    let (nobody, old_readers, new_readers, both) = ((false, false), (true, false), (false, true), (true, true));
    for (change, at, value, broken) in [
        ("a property that nobody must write", "/properties/d", json!({"type": "string"}), nobody),
        ("a sentence", "/properties/a/description", json!("More."), nobody),
        ("a property that everybody must write", "/required", json!(["a", "b", "c", "d"]), new_readers),
        ("a property that need not be written any more", "/required", json!(["a", "b"]), old_readers),
        ("another type", "/properties/a/type", json!("string"), both),
        ("a wider type", "/properties/a/type", json!("number"), old_readers),
        ("a wider range", "/properties/a/maximum", json!(10), old_readers),
        ("a narrower range", "/properties/a/minimum", json!(2), new_readers),
        ("a longer list", "/properties/b/maxItems", json!(4), old_readers),
        ("a shorter list", "/properties/b/minItems", json!(2), new_readers),
        ("another word", "/properties/c/enum", json!(["x", "y", "z"]), old_readers),
        ("a word less", "/properties/c/enum", json!(["x"]), new_readers),
        ("another shape", "/properties/b/items", json!({"$ref": "urn:x#/$defs/name"}), both),
        ("a pattern", "/properties/c/pattern", json!("^x$"), new_readers),
    ] {
        let mut changed = base.clone();
        let (parent, name) = at.rsplit_once('/').unwrap();
        changed.pointer_mut(parent).unwrap()[name] = value;
        let found = (!refused(&changed, &base).is_empty(), !refused(&base, &changed).is_empty());
        assert_eq!(found, broken, "{change}: whether (old, new) readers are broken");
    }
}

#[test]
#[should_panic(expected = "no rule for oneOf")]
fn a_keyword_without_a_rule_is_no_schema_of_ours() {
    refused(&json!({"type": "string"}), &json!({"oneOf": []}));
}
