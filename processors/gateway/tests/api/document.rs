//! The OpenAPI document is true: of every route, and, through [`documented`], of every answer in these tests.

use crate::world::World;
use jsonschema::Validator;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::OnceLock;

/// What the document says of an answer.
pub struct Documented {
    pub response: Value,
    pub schema: Option<Validator>,
}

fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(|| serde_json::to_value(waybill_gateway::openapi()).unwrap())
}

/// What is said of this answer; nothing where there is no such route or method.
pub fn documented(method: &str, path: &str, status: u16) -> Documented {
    let path = path.split('?').next().unwrap_or_default();
    let paths = document()["paths"].as_object().unwrap();
    let found = paths.iter().find(|(template, _)| matches(template, path));
    let operation = found.map(|(_, item)| &item[method.to_lowercase()]).filter(|operation| !operation.is_null());
    let Some(operation) = operation else {
        assert!(matches!(status, 404 | 405), "{method} {path}: {status} without being documented");
        return Documented { response: Value::Null, schema: None };
    };
    let response = &operation["responses"][status.to_string()];
    assert!(!response.is_null(), "{method} {path}: {status} is not documented");
    let content = response["content"].as_object().and_then(|kinds| kinds.values().next());
    Documented { response: response.clone(), schema: content.map(|content| validator(&content["schema"])) }
}

fn matches(template: &str, path: &str) -> bool {
    let (template, path) = (template.split('/'), path.split('/'));
    template.clone().count() == path.clone().count()
        && template.zip(path).all(|(known, part)| known.starts_with('{') || known == part)
}

fn validator(schema: &Value) -> Validator {
    jsonschema::validator_for(&json!({"allOf": [schema], "components": document()["components"]})).unwrap()
}

fn operations() -> impl Iterator<Item = (&'static str, &'static str, &'static Value)> {
    let paths = document()["paths"].as_object().unwrap();
    paths.iter().flat_map(|(path, item)| {
        let methods = item.as_object().unwrap().iter();
        methods.map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
    })
}

#[test]
fn the_document_is_of_3_1_and_its_operations_have_names_of_their_own() {
    assert!(document()["openapi"].as_str().unwrap().starts_with("3.1."));
    let ids: BTreeSet<&str> =
        operations().map(|(_, _, operation)| operation["operationId"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), operations().count());
}

#[test]
fn the_examples_are_valid() {
    let schemas = document()["components"]["schemas"].as_object().unwrap();
    let mut examples = 0;
    for (name, schema) in schemas {
        let validator = validator(&json!({"$ref": format!("#/components/schemas/{name}")}));
        if let Some(example) = schema.get("example") {
            let errors: Vec<String> = validator.iter_errors(example).map(|error| error.to_string()).collect();
            assert!(errors.is_empty(), "{name}: {errors:?}");
            examples += 1;
        }
    }
    assert!(examples >= 14, "{examples}");
}

#[test]
fn every_body_has_an_example() {
    for (path, method, operation) in operations().filter(|(_, _, operation)| !operation["requestBody"].is_null()) {
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        let name = schema["$ref"].as_str().unwrap().rsplit('/').next().unwrap();
        assert!(!document()["components"]["schemas"][name]["example"].is_null(), "{method} {path}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_is_in_the_document_and_answers() {
    let Some(world) = World::sqlite("document").await else { return };
    let served = world.client.get("/api/openapi.json").await;
    assert_eq!((served.status, &served.body), (200, document()));
    for (path, item) in document()["paths"].as_object().unwrap() {
        let parts = path.split('/').map(|part| if part.starts_with('{') { "x" } else { part });
        let path = parts.collect::<Vec<_>>().join("/");
        // A method that no route has tells which ones it has.
        let answer = world.client.send("PATCH", &path, &[], "").await;
        assert_eq!((answer.status, answer.problem()), (405, "method_not_allowed"), "{path}");
        let allowed = answer.header("allow").unwrap();
        let allowed: BTreeSet<String> =
            allowed.split(',').map(str::to_lowercase).filter(|method| method != "head").collect();
        let documented: BTreeSet<String> = item.as_object().unwrap().keys().cloned().collect();
        assert_eq!(allowed, documented, "{path}");
        for method in documented {
            let answer = world.client.send(&method.to_uppercase(), &path, &[], "").await;
            assert!(answer.status != 405 && answer.status < 500, "{method} {path}: {answer:?}");
        }
    }
    for path in ["/", "/api", "/api/nothing", "/api/products/a/b", "/api/carts/a/lines", "/favicon.ico"] {
        let answer = world.client.get(path).await;
        assert_eq!((answer.status, answer.problem()), (404, "not_found"), "{path}");
    }
    world.stop().await;
}
