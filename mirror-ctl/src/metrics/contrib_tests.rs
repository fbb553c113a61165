//! The dashboard and the alerts of contrib/ ask for metrics, reasons and states that there are.

use mirror_common::reason::{Cold, Reason};
use serde_json::Value;

use super::Metrics;

const DASHBOARD: &str = include_str!("../../../contrib/grafana/mirror.json");
const RULES: &str = include_str!("../../../contrib/prometheus/mirror.rules.yml");
const STATES: [&str; 5] = ["up", "draining", "evacuating", "suspect", "dead"];

/// The names under which Prometheus knows the metrics.
fn samples() -> Vec<String> {
    let declared = Metrics::DECLARED.iter().zip(Metrics::KINDS);
    declared
        .flat_map(|((name, _), kind)| {
            let suffixes: &[&str] = match kind {
                kind if kind.contains("Counter") => &["_total"],
                kind if kind.contains("Times") => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            suffixes
                .iter()
                .map(move |suffix| format!("mirror_{name}{suffix}"))
        })
        .collect()
}

/// Every expression of the dashboard, wherever it is.
fn dashboard_expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(expression)) = fields.get("expr") {
                found.push(expression.clone());
            }
            if let Some(Value::String(query)) = fields.get("query") {
                found.push(query.clone());
            }
            fields
                .values()
                .for_each(|value| dashboard_expressions(value, found));
        }
        Value::Array(values) => values
            .iter()
            .for_each(|value| dashboard_expressions(value, found)),
        _ => {}
    }
}

fn expressions() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let mut found = Vec::new();
    dashboard_expressions(&dashboard, &mut found);
    let rules = RULES
        .lines()
        .filter_map(|line| line.trim().strip_prefix("expr: "));
    found.extend(rules.map(str::to_owned));
    assert!(found.len() > 30, "{found:#?}");
    found
}

/// The names in a text that begin with the metrics' prefix.
fn names(text: &str) -> Vec<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("mirror_")).collect()
}

/// The values that a label is compared with.
fn values<'a>(expression: &'a str, label: &str) -> Vec<&'a str> {
    let comparisons = expression.split(['{', ',']).filter_map(|part| {
        let rest = part.trim().strip_prefix(label)?;
        let text = rest.trim_start_matches(['=', '~', '!']).strip_prefix('"')?;
        text.split('"').next()
    });
    comparisons.flat_map(|text| text.split('|')).collect()
}

#[test]
fn dashboard_and_alerts_ask_for_what_there_is() {
    let samples = samples();
    let is_reason = |name: &str| {
        Reason::ALL.iter().any(|reason| reason.name() == name)
            || Cold::ALL.iter().any(|cold| cold.name() == name)
    };
    for expression in expressions() {
        for name in names(&expression) {
            assert!(
                samples.iter().any(|sample| sample == name),
                "{name} does not exist: {expression}"
            );
        }
        for reason in values(&expression, "reason") {
            assert!(is_reason(reason), "{reason} is no reason: {expression}");
        }
        for state in values(&expression, "state") {
            assert!(STATES.contains(&state), "{state} is no state: {expression}");
        }
    }
}

#[test]
fn the_dashboard_shows_every_metric_of_interest_once_a_place() {
    let all = expressions().join(" ");
    // What an operator would miss.
    for (name, _) in Metrics::DECLARED {
        if [
            "agent_start_time_seconds",
            "event_readers_cut",
            "instance_weight",
            "instance_cold_flows",
        ]
        .contains(name)
        {
            continue;
        }
        assert!(all.contains(&format!("mirror_{name}")), "{name} is nowhere");
    }
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut cells = std::collections::HashSet::new();
    for panel in panels {
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{panel}");
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(
                    cells.insert((x, y)),
                    "panels overlap at {x}, {y}: {}",
                    panel["title"]
                );
            }
        }
    }
}

#[test]
fn expressions_are_taken_apart() {
    let expression =
        "sum(rate(mirror_a_total{b=\"c\",reason=~\"x|y\"}[2m])) / mirror_d{state!=\"up\"}";
    assert_eq!(names(expression), ["mirror_a_total", "mirror_d"]);
    assert_eq!(values(expression, "reason"), ["x", "y"]);
    assert_eq!(values(expression, "state"), ["up"]);
    assert!(values("sum by (reason) (mirror_a)", "reason").is_empty());
}
