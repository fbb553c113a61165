//! Zones and what is said about wrong ones.

use std::path::Path;

use super::Config;

const GOOD: &str = r#"
[steering]
halving_ms = 1
[[zone]]
name = "east"
prefixes = ["10.1.0.0/16", "2001:db8::/32"]
costs = { west = 10, north = 2.5 }
[[zone]]
name = "west"
prefixes = ["10.2.0.0/16"]
[[zone]]
name = "north"
[[instance]]
name = "a"
link = "ia"
mac = "02:00:00:00:01:02"
zone = "east"
[[instance]]
name = "b"
link = "ib"
mac = "02:00:00:00:02:02"
[[vni]]
name = "web"
addresses = ["10.77.0.100"]
interfaces = ["c0"]
"#;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("m.toml"), text).map_err(|error| error.to_string())
}

/// The good file with one thing replaced.
#[track_caller]
fn check(from: &str, to: &str, expected: &str) {
    assert!(GOOD.contains(from), "{from}");
    assert_eq!(parse(&GOOD.replacen(from, to, 1)).unwrap_err(), expected);
}

#[test]
fn costs_hold_in_both_directions_and_nothing_costs_nothing() {
    let config = parse(GOOD).unwrap();
    for (from, to, cost) in [
        ("east", "west", Some(10.0)),
        ("west", "east", Some(10.0)),
        ("north", "east", Some(2.5)),
        ("west", "north", None),
        ("west", "west", Some(0.0)),
    ] {
        assert_eq!(config.zone_cost_ms(from, to), cost, "{from} {to}");
    }
    assert_eq!(config.instances[0].zone.as_deref(), Some("east"));
    assert_eq!(config.instances[1].zone, None);
    assert_eq!(
        (config.steering.halving_ms, config.steering.explore),
        (1.0, 0.02)
    );
    // Said for the one direction, and for a zone itself.
    let both = GOOD.replacen(
        "prefixes = [\"10.2.0.0/16\"]",
        "prefixes = [\"10.2.0.0/16\"]\ncosts = { east = 3, west = 1 }",
        1,
    );
    let config = parse(&both).unwrap();
    assert_eq!(config.zone_cost_ms("west", "east"), Some(3.0));
    assert_eq!(config.zone_cost_ms("east", "west"), Some(10.0));
    assert_eq!(config.zone_cost_ms("west", "west"), Some(1.0));
}

#[test]
fn without_zones_nothing_leans() {
    assert!(parse(GOOD).unwrap().leans());
    let from = GOOD.find("[[instance]]").unwrap();
    let plain = GOOD[from..].replacen("zone = \"east\"\n", "", 1);
    assert!(!parse(&plain).unwrap().leans());
    assert!(
        parse(&format!("[steering]\nlearn = true\n{plain}"))
            .unwrap()
            .leans()
    );
    assert!(
        parse(&format!("[steering]\nhot_ratio = 1.5\n{plain}"))
            .unwrap()
            .leans()
    );
}

#[test]
fn a_written_file_means_the_same() {
    let config = parse(GOOD).unwrap();
    let written = config.to_toml();
    assert_eq!(parse(&written).expect(&written), config);
}

#[test]
fn prefixes_are_one_zones() {
    check(
        r#"prefixes = ["10.2.0.0/16"]"#,
        r#"prefixes = ["10.1.0.0/16"]"#,
        "m.toml:10: zone \"west\": prefix 10.1.0.0/16 is a prefix of zone \"east\" too",
    );
    check(
        "\"2001:db8::/32\"",
        "\"10.1.7.0/24\"",
        "m.toml:6: zone \"east\": prefix 10.1.7.0/24 overlaps 10.1.0.0/16 of the same zone",
    );
    check(
        "\"2001:db8::/32\"",
        "\"2001:0db8::/32\", \"2001:db8::/32\"",
        "m.toml:6: zone \"east\": prefix 2001:db8::/32 is named twice",
    );
    // Within another zone's it is the more specific one.
    parse(&GOOD.replacen("10.2.0.0/16", "10.1.2.0/24", 1)).unwrap();
}

#[test]
fn prefixes_are_prefixes() {
    check(
        "10.2.0.0/16",
        "10.2.0.1/16",
        "m.toml:10: zone \"west\": prefixes: \"10.2.0.1/16\" has bits beyond its length: 10.2.0.0/16 is \
         meant, or another length",
    );
    check(
        "10.2.0.0/16",
        "10.2.0.0",
        "m.toml:10: zone \"west\": prefixes: \"10.2.0.0\" is not a prefix such as \"10.1.0.0/16\" or \
         \"2001:db8::/32\"",
    );
    check(
        "10.2.0.0/16",
        "::ffff:10.2.0.0/112",
        "m.toml:10: zone \"west\": prefixes: \"::ffff:10.2.0.0/112\" is a second spelling of IPv4 addresses: \
         write them as such",
    );
}

#[test]
fn zones_are_known_and_costs_are_costs() {
    check(
        "zone = \"east\"",
        "zone = \"est\"",
        "m.toml:17: instance \"a\": there is no zone \"est\"",
    );
    check(
        "west = 10",
        "wst = 10",
        "m.toml:7: zone \"east\": costs: there is no zone \"wst\"",
    );
    check(
        "west = 10",
        "west = -1",
        "m.toml:7: zone \"east\": costs: west must be 0 to 10000, not -1",
    );
    check(
        "west = 10",
        "west = \"far\"",
        "m.toml:7: zone \"east\": costs: west must be a number, not string",
    );
    check(
        "name = \"west\"",
        "name = \"east\"",
        "m.toml:7: zone \"east\": costs: there is no zone \"west\"\n\
         m.toml:9: zone \"east\": the name is used in line 5 too",
    );
}

#[test]
fn steering_has_ranges() {
    check(
        "halving_ms = 1",
        "halving_ms = 0",
        "m.toml:3: steering: halving_ms must be 0.01 to 1000, not 0",
    );
    check(
        "halving_ms = 1",
        "hot_ratio = 1.0",
        "m.toml:3: steering: hot_ratio must be 0 (no instance is ever hot) or at least 1.1: 1 is an \
         instance's part",
    );
    check(
        "halving_ms = 1",
        "explore = 0",
        "m.toml:3: steering: explore must be 0.001 to 0.5, not 0",
    );
}

#[test]
fn a_diff_names_zones() {
    let before = parse(GOOD).unwrap();
    let after = GOOD.replacen("west = 10", "west = 4", 1);
    let after = after.replacen("[[zone]]\nname = \"north\"\n", "", 1);
    let after = after.replacen(", north = 2.5", "", 1);
    let after = parse(&after.replacen("halving_ms = 1", "learn = true", 1)).unwrap();
    assert_eq!(
        before.diff(&after),
        [
            "~ steering: halving_ms 1.0 -> 2.0",
            "~ steering: learn false -> true",
            "- zone \"north\"",
            "~ zone \"east\": costs {\"north\":2.5,\"west\":10.0} -> {\"west\":4.0}",
        ]
    );
}
