//! What the API and `--json` answer is what their schemas say.

use serde_json::Value;
use testbed::topology::Family;

use crate::support::{LIMIT, Site, check_whole};

/// Every way in which a value is not what its schema says: types, fields that are missing, fields that the schema
/// does not know.
fn differences(document: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        let schema = document.pointer(reference.trim_start_matches('#')).unwrap();
        return differences(document, schema, value, at);
    }
    for alternatives in ["oneOf", "anyOf"] {
        if let Some(schemas) = schema[alternatives].as_array() {
            let mut all = schemas
                .iter()
                .map(|schema| differences(document, schema, value, at));
            return match all.any(|found| found.is_empty()) {
                true => Vec::new(),
                false => vec![format!("{at}: {value} is none of {schema}")],
            };
        }
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let fits = |wanted: &Value| wanted == kind || (wanted == "number" && kind == "integer");
    let allowed = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().any(fits),
        wanted => fits(wanted),
    };
    if !allowed {
        return vec![format!("{at}: {value} is no {}", schema["type"])];
    }
    let mut found = Vec::new();
    if let Some(words) = schema["enum"].as_array()
        && !value.is_null()
        && !words.contains(value)
    {
        found.push(format!("{at}: {value} is not of {words:?}"));
    }
    match value {
        Value::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                found.extend(differences(
                    document,
                    &schema["items"],
                    value,
                    &format!("{at}[{index}]"),
                ));
            }
        }
        Value::Object(fields) => {
            let required = schema["required"].as_array().into_iter().flatten();
            for name in required.filter_map(Value::as_str) {
                if !fields.contains_key(name) {
                    found.push(format!("{at}: {name} is missing"));
                }
            }
            for (name, value) in fields {
                let at = format!("{at}.{name}");
                match (
                    schema["properties"].get(name),
                    &schema["additionalProperties"],
                ) {
                    (Some(schema), _) => found.extend(differences(document, schema, value, &at)),
                    (None, Value::Null) => found.push(format!("{at} is not in the schema")),
                    (None, schema) => found.extend(differences(document, schema, value, &at)),
                }
            }
        }
        _ => {}
    }
    found
}

#[test]
fn answers_are_what_their_schemas_say() {
    let site = Site::new(2);
    let config = site.config();
    let agent = site.agent(&config);
    let client = site.client(Family::V4, 8);
    agent.wait_warm(8, LIMIT).unwrap();
    let document: Value = serde_json::from_str(&agent.text(&["schema", "json"]).unwrap()).unwrap();
    let file = site.topology.dir().join("mirror.toml");
    let file = file.to_str().unwrap();
    let evacuate = ["evacuate", "a"];
    let verbs: [(&str, &[&str]); 12] = [
        ("status", &["status"]),
        ("vni", &["vni"]),
        ("select", &["select", "web", "--source", "10.77.0.9"]),
        ("instances", &["instances"]),
        ("flows", &["flows"]),
        ("mirrors", &["mirrors"]),
        ("evacuate", &evacuate),
        ("restore", &["restore", "a"]),
        ("events", &["events"]),
        ("apply", &["apply", "-f", file, "--dry-run"]),
        ("config show", &["config", "show"]),
        ("reload", &["reload"]),
    ];
    for (name, arguments) in verbs {
        let answer: Value = agent.json(arguments).unwrap();
        assert!(answer != Value::Array(Vec::new()), "{name} says nothing");
        let found = differences(&document, &document["verbs"][name], &answer, name);
        assert!(found.is_empty(), "{found:#?}");
    }
    let output = agent.verb(&["doctor", "--json"]).output().unwrap();
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = differences(&document, &document["verbs"]["doctor"], &answer, "doctor");
    assert!(found.is_empty(), "{found:#?}");
    check_whole(&client.finish().unwrap(), 8);
}

#[test]
fn the_agent_serves_its_own_description() {
    let site = Site::new(2);
    let config = site.config();
    let agent = site.agent(&config);
    let served = get(&config.agent.socket, "/openapi.json");
    let printed: Value =
        serde_json::from_str(&agent.text(&["schema", "openapi"]).unwrap()).unwrap();
    assert_eq!(served, printed);
    // What it describes is there, and answers as it says.
    for path in [
        "/v1/status",
        "/v1/instances",
        "/v1/vnis",
        "/v1/mirrors",
        "/v1/flows",
        "/v1/events",
    ] {
        let content = &served["paths"][path]["get"]["responses"]["200"]["content"];
        let answer = get(&config.agent.socket, path);
        let found = differences(
            &served,
            &content["application/json"]["schema"],
            &answer,
            path,
        );
        assert!(found.is_empty(), "{found:#?}");
    }
    let path = "/v1/vnis/{name}/select";
    let content = &served["paths"][path]["get"]["responses"]["200"]["content"];
    let asked = "/v1/vnis/web/select?source=10.77.0.9&source_port=1&port=2";
    let answer = get(&config.agent.socket, asked);
    let schema = &content["application/json"]["schema"];
    let found = differences(&served, schema, &answer, path);
    assert!(found.is_empty(), "{found:#?}");
    assert!(answer["flow"]["set"].is_u64(), "{answer}");
    for (wrong, why) in [
        ("x/select?source=10.77.0.9", "there is no VNI \"x\""),
        ("web/select?source=here", "\"here\" is not an IP address"),
        (
            "web/select?source=10.77.0.9&address=10.77.0.1",
            "10.77.0.1 is not an address of VNI \"web\"",
        ),
        (
            "web/select?source=fd77::1&address=10.77.0.100",
            "fd77::1 and 10.77.0.100 are of different families",
        ),
    ] {
        let refusal = get(&config.agent.socket, &format!("/v1/vnis/{wrong}"));
        assert_eq!(refusal["error"], why);
    }
    let refusal = get(&config.agent.socket, "/v1/flows?client=x");
    let problem = &served["paths"]["/v1/flows"]["get"]["responses"]["default"]["content"];
    let schema = &problem["application/json"]["schema"];
    assert!(
        differences(&served, schema, &refusal, "refusal").is_empty(),
        "{refusal}"
    );
}

/// One request by hand: what is tested is not what makes it.
#[track_caller]
fn get(socket: &std::path::Path, path: &str) -> Value {
    use std::io::{Read, Write};
    let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
    let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(
        !head.to_ascii_lowercase().contains("transfer-encoding"),
        "{head}"
    );
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {head}\n{body}"))
}
