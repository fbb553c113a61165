//! The documents that scripts and clients are written by are those that the program prints.

use std::{fs, path::Path};

use serde_json::Value;

use super::{help::UPDATE, run};

#[track_caller]
fn check(of: &str, file: &str) -> Value {
    let (code, printed, said) = run(&["schema", of]);
    assert_eq!((code, said.as_str()), (0, ""));
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs")
        .join(file);
    if std::env::var_os(UPDATE).is_some() {
        fs::write(&path, &printed).unwrap();
    }
    let checked_in = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        checked_in == printed,
        "{} is not what `mirror-ctl schema {of}` prints. If the change is meant, set {UPDATE}=1",
        path.display()
    );
    serde_json::from_str(&printed).unwrap()
}

/// Every reference leads to a schema of the document.
#[track_caller]
fn check_references(document: &Value, within: &Value) {
    match within {
        Value::Object(fields) => {
            if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                let pointer = reference.strip_prefix('#').expect(reference);
                assert!(
                    document.pointer(pointer).is_some(),
                    "{reference} leads nowhere"
                );
            }
            fields
                .values()
                .for_each(|value| check_references(document, value));
        }
        Value::Array(values) => values
            .iter()
            .for_each(|value| check_references(document, value)),
        _ => {}
    }
}

#[test]
fn the_api_is_documented_as_it_is() {
    let document = check("openapi", "openapi.json");
    check_references(&document, &document);
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let paths = document["paths"].as_object().unwrap();
    let operations: Vec<_> = paths
        .iter()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap().iter();
            methods.map(move |(method, operation)| (path, method, operation))
        })
        .collect();
    assert_eq!(operations.len(), 19);
    for (path, method, operation) in operations {
        assert!(
            operation["summary"].is_string(),
            "{method} {path} is not explained"
        );
        assert!(
            operation["responses"]["default"].is_object(),
            "{method} {path}"
        );
    }
}

#[test]
fn what_json_prints_is_documented_for_every_verb() {
    let document = check("json", "json-output.json");
    check_references(&document, &document);
    assert_eq!(document["version"], 1);
    for verb in [
        "status",
        "flows",
        "events --follow",
        "doctor",
        "apply",
        "config show",
    ] {
        assert!(document["verbs"][verb].is_object(), "{verb}");
    }
}
