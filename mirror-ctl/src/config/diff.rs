//! What one configuration has other than another, for people who are about to put it in force.

use serde::Serialize;
use serde_json::{Map, Value};

use super::Config;

impl Config {
    /// One line for everything that `after` has other than this: added, removed, changed.
    pub fn diff(&self, after: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        fields(
            &mut lines,
            "agent",
            &value(&self.agent),
            &value(&after.agent),
        );
        fields(
            &mut lines,
            "detect",
            &value(&self.detect),
            &value(&after.detect),
        );
        fields(
            &mut lines,
            "health",
            &value(&self.health),
            &value(&after.health),
        );
        fields(
            &mut lines,
            "steering",
            &value(&self.steering),
            &value(&after.steering),
        );
        named(&mut lines, "interface", &self.interfaces, &after.interfaces);
        named(&mut lines, "zone", &self.zones, &after.zones);
        named(&mut lines, "instance", &self.instances, &after.instances);
        named(&mut lines, "vni", &self.vnis, &after.vnis);
        lines
    }
}

fn value<T: Serialize>(part: &T) -> Map<String, Value> {
    match serde_json::to_value(part) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

/// Sections with names: those that are gone first, then the others in the new order.
fn named<T: Serialize>(lines: &mut Vec<String>, kind: &str, before: &[T], after: &[T]) {
    let before: Vec<_> = before.iter().map(value).collect();
    let after: Vec<_> = after.iter().map(value).collect();
    let find = |all: &[Map<String, Value>], name: &Value| {
        all.iter()
            .position(|fields| fields.get("name") == Some(name))
    };
    let name = |fields: &Map<String, Value>| fields.get("name").cloned().unwrap_or_default();
    for gone in before.iter().map(name) {
        if find(&after, &gone).is_none() {
            lines.push(format!("- {kind} {gone}"));
        }
    }
    for fields in &after {
        let name = name(fields);
        match find(&before, &name) {
            None => lines.push(format!("+ {kind} {name}")),
            Some(place) => self::fields(lines, &format!("{kind} {name}"), &before[place], fields),
        }
    }
}

fn fields(
    lines: &mut Vec<String>,
    what: &str,
    before: &Map<String, Value>,
    after: &Map<String, Value>,
) {
    // Empty lists are left out where a section is written.
    let gone = before.keys().filter(|key| !after.contains_key(*key));
    for key in after.keys().chain(gone) {
        let [old, new] = [before, after].map(|all| all.get(key).unwrap_or(&Value::Null));
        if old != new {
            lines.push(format!("~ {what}: {key} {} -> {}", said(old), said(new)));
        }
    }
}

fn said(value: &Value) -> String {
    match value {
        Value::Null => "(none)".to_owned(),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const BEFORE: &str = r#"
[[instance]]
name = "a"
link = "ia"
mac = "02:00:00:00:01:02"
[[instance]]
name = "b"
link = "ib"
mac = "02:00:00:00:02:02"
[[vni]]
name = "web"
addresses = ["10.77.0.100"]
interfaces = ["c0"]
instances = ["a", "b"]
"#;

    fn parse(text: &str) -> Config {
        Config::parse(Path::new("m.toml"), text).unwrap()
    }

    #[track_caller]
    fn check(changes: &[(&str, &str)], expected: &[&str]) {
        let after = changes.iter().fold(BEFORE.to_owned(), |text, (from, to)| {
            assert!(text.contains(from), "{from}");
            text.replacen(from, to, 1)
        });
        assert_eq!(parse(BEFORE).diff(&parse(&after)), expected);
    }

    #[test]
    fn a_diff_says_what_is_other() {
        check(&[], &[]);
        check(&[("[[instance]]", "# a comment\n[[instance]]")], &[]);
        check(
            &[
                ("link = \"ia\"", "link = \"ia\"\nweight = 50"),
                ("[[vni]]", "[[vni]]\nidle_s = 9"),
            ],
            &[
                "~ instance \"a\": weight 100 -> 50",
                "~ vni \"web\": idle_s 7200 -> 9",
            ],
        );
        check(
            &[
                ("name = \"b\"", "name = \"c\""),
                ("[\"a\", \"b\"]", "[\"a\", \"c\"]"),
                ("\n[[instance]]", "[detect]\nsilent_ms = 100\n[[instance]]"),
            ],
            &[
                "~ detect: silent_ms 60 -> 100",
                "- instance \"b\"",
                "+ instance \"c\"",
                "~ vni \"web\": instances [\"a\",\"b\"] -> [\"a\",\"c\"]",
            ],
        );
        check(
            &[(
                "\n[[instance]]",
                "[agent]\nmetrics = \"127.0.0.1:9477\"\n[[instance]]",
            )],
            &["~ agent: metrics (none) -> \"127.0.0.1:9477\""],
        );
    }
    #[test]
    fn a_list_that_is_empty_on_one_side_is_told_of() {
        let with = |zone: &str| parse(&format!("{BEFORE}[[zone]]\nname = \"eu\"\n{zone}"));
        let (some, none) = (with("prefixes = [\"10.0.0.0/8\"]"), with(""));
        let line = |change: &str| vec![format!("~ zone \"eu\": prefixes {change}")];
        assert_eq!(none.diff(&some), line("(none) -> [\"10.0.0.0/8\"]"));
        assert_eq!(some.diff(&none), line("[\"10.0.0.0/8\"] -> (none)"));
    }
}
