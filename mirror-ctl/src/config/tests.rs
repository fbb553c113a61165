//! Wrong files and what is said about them.

use std::path::Path;

use proptest::{collection::vec, prelude::*, sample::Index};

use super::{Ack, Config, Mode};

const GOOD: &str = r#"
[agent]
socket = "/run/mirror/agent.sock"
[[interface]]
name = "c0"
mode = "generic"
[[instance]]
name = "a"
link = "ia"
mac = "02:00:00:00:01:02"
[instance.probe]
tcp = "10.66.1.2:7000"
[[instance]]
name = "b"
link = "ib"
address = "10.66.2.2"
[[vni]]
name = "web"
addresses = ["10.77.0.100", "fd77::100"]
interfaces = ["c0"]
ack = "async"
"#;

#[track_caller]
fn check(text: &str, expected: &str) {
    let error = Config::parse(Path::new("mirror.toml"), text).expect_err("must be refused");
    assert_eq!(error.to_string(), expected);
}

/// The good file with one line replaced.
#[track_caller]
fn check_with(from: &str, to: &str, expected: &str) {
    assert!(GOOD.contains(from), "{from}");
    check(&GOOD.replacen(from, to, 1), expected);
}

#[test]
fn prediction_is_off_unless_asked_for() {
    let config = Config::parse(Path::new("mirror.toml"), GOOD).unwrap();
    assert!(config.health.model.is_none() && config.instances[1].metrics.is_none());
    let text = GOOD.replacen(
        "address = \"10.66.2.2\"\n",
        "address = \"10.66.2.2\"\nmetrics = \"http://10.66.2.2:9100\"\n",
        1,
    );
    let text = format!("{text}[health]\nmodel = \"/var/lib/mirror/health.model\"\n");
    let config = Config::parse(Path::new("mirror.toml"), &text).unwrap();
    assert!(config.health.model.is_some());
    let metrics = config.instances[1].metrics.as_ref().unwrap();
    assert_eq!(metrics.to_string(), "http://10.66.2.2:9100/metrics");
}

#[test]
fn what_predictions_may_do_is_checked() {
    let with = |lines: &str| format!("[health]\n{lines}\n{GOOD}");
    let good = with("apply = \"new-flows\"\ninterval_ms = 250\nevacuate_risk = 0.7");
    let config = Config::parse(Path::new("mirror.toml"), &good).unwrap();
    assert_eq!(config.health.apply, super::Apply::NewFlows);
    assert!(!config.predicts() && !config.watches());
    let good = with("record = \"/var/lib/mirror/record\"");
    let config = Config::parse(Path::new("mirror.toml"), &good).unwrap();
    // Recording what the dataplane notices is no reason to act on it.
    assert!(!config.predicts() && config.watches());
    assert_eq!(config.health.record_mib, 256);
    for (lines, wrong) in [
        (
            "apply = \"all\"",
            "mirror.toml:2: health: apply must be \"nothing\" or \"new-flows\" or \"all-flows\", not \"all\"",
        ),
        (
            "model = \"/m\"\ninterval_ms = 250",
            "mirror.toml:3: health: a model was trained on readings every 1000 ms: with one, interval_ms must be that",
        ),
        (
            "challenger = \"/c\"",
            "mirror.toml:2: health: a challenger needs a model that it is compared with",
        ),
        (
            "record = \"here\"",
            "mirror.toml:2: health: record: \"here\" is not an absolute path",
        ),
        (
            "record = \"/r\"\nrecord_mib = 0",
            "mirror.toml:3: health: record_mib must be 1 to 1048576, not 0",
        ),
        (
            "shed_max = 1.5",
            "mirror.toml:2: health: shed_max must be 0.0 to 1.0, not 1.5",
        ),
    ] {
        check(&with(lines), wrong);
    }
}

#[test]
fn a_good_file_has_defaults() {
    let config = Config::parse(Path::new("mirror.toml"), GOOD).unwrap();
    assert_eq!(config.mode("c0"), Mode::Generic);
    assert_eq!(config.mode("ia"), Mode::Auto);
    assert_eq!(config.detect.silent_ms, 60);
    let vni = &config.vnis[0];
    assert_eq!(vni.instances, ["a", "b"]);
    assert_eq!((vni.mirrors, vni.ack, vni.announce), (1, Ack::Async, true));
    assert_eq!(config.instances[0].probe.as_ref().unwrap().rise, 3);
    assert_eq!(
        config
            .ports()
            .iter()
            .map(|(name, _)| name.as_str())
            .collect::<Vec<_>>(),
        ["ia", "ib", "c0"]
    );
}

#[test]
fn a_written_file_means_the_same() {
    let file = Path::new("mirror.toml");
    let prediction = format!(
        "{}[health]\nmodel = \"/var/lib/mirror/health.model\"\nchallenger = \"/c\"\nrecord = \"/r\"\n",
        GOOD.replacen(
            "address =",
            "metrics = \"http://10.66.2.2:9100\"\naddress =",
            1
        )
    );
    let metrics = "[agent]\nmetrics = \"[::1]:9477\"\n[detect]\nsilent_ms = 90\n";
    let text = GOOD
        .replacen("[agent]\n", metrics, 1)
        .replacen("[detect]\nsilent_ms = 90\n", "", 1);
    for text in [GOOD, &text, &prediction] {
        let config = Config::parse(file, text).unwrap();
        let written = config.to_toml();
        assert_eq!(Config::parse(file, &written).expect(&written), config);
    }
}

#[test]
fn ports_of_quic_are_named() {
    let file = Path::new("mirror.toml");
    let rows: [(&str, &[u16]); 4] = [
        ("", &[]),
        ("quic_ports = []\n", &[]),
        ("quic_ports = [443]\n", &[443]),
        (
            "quic_ports = [1, 0x1bb, 8443, 65535]\n",
            &[1, 443, 8443, 65_535],
        ),
    ];
    for (line, ports) in rows {
        let text = GOOD.replacen("ack = \"async\"\n", line, 1);
        let config = Config::parse(file, &text).unwrap();
        assert_eq!(config.vnis[0].quic_ports, ports);
        let written = config.to_toml();
        assert_eq!(Config::parse(file, &written).expect(&written), config);
    }
}

#[test]
fn what_is_mirrored_in_a_second_is_limited_or_not() {
    let file = Path::new("mirror.toml");
    for (line, limit) in [
        ("", Some(10_000)),
        ("mirrored_per_s = 1\n", Some(1)),
        ("mirrored_per_s = 0x100\n", Some(256)),
        ("mirrored_per_s = \"unlimited\"\n", None),
    ] {
        let text = GOOD.replacen("ack = \"async\"\n", line, 1);
        let config = Config::parse(file, &text).unwrap();
        assert_eq!(config.vnis[0].mirrored_per_s.times(), limit);
        let written = config.to_toml();
        assert_eq!(Config::parse(file, &written).expect(&written), config);
    }
}

#[test]
fn the_api_is_for_other_hosts_with_everything_that_protects_it() {
    let listen = "[agent.listen]\naddress = \"0.0.0.0:9480\"\ncertificate = \"/c\"\nkey = \"/k\"\ntoken = \"/t\"\n";
    let config = Config::parse(Path::new("mirror.toml"), &format!("{GOOD}{listen}")).unwrap();
    assert_eq!(config.agent.listen.unwrap().address.port(), 9480);
    check(
        "[agent.listen]\naddress = \"0.0.0.0\"\nkey = \"k\"\nca = \"/c\"\n",
        "mirror.toml:1: agent: listen: certificate is missing\n\
         mirror.toml:1: agent: listen: token is missing\n\
         mirror.toml:2: agent: listen: address: \"0.0.0.0\" is not an address with a port such as \"10.66.1.2:7000\"\n\
         mirror.toml:3: agent: listen: key: \"k\" is not an absolute path\n\
         mirror.toml:4: agent: listen: unknown key \"ca\" (known: address, certificate, key, token)",
    );
}

#[test]
fn shadows_hold_nobody_back_and_canaries_serve_nobody() {
    let file = Path::new("mirror.toml");
    let with = |lines: &str| GOOD.replacen("ack = \"async\"\n", lines, 1);
    let config = Config::parse(file, &with("mode = \"shadow\"\ncanaries = [\"a\"]\n")).unwrap();
    let vni = &config.vnis[0];
    assert_eq!(vni.mode, super::MirrorMode::Shadow);
    assert_eq!(
        (vni.ack, vni.close, vni.mirrors),
        (Ack::Async, super::Close::Trust, 1)
    );
    assert_eq!(vni.instances, ["b", "a"], "canaries come last");
    let written = config.to_toml();
    assert_eq!(Config::parse(file, &written).expect(&written), config);
    for (lines, wrong) in [
        (
            "mode = \"shadow\"\nack = \"semi-sync\"\n",
            "mirror.toml:17: vni \"web\": mode = \"shadow\" goes with ack = \"async\" and close = \"trust\": its mirrors hold nobody back",
        ),
        (
            "mode = \"shadow\"\ndelivery = \"first\"\n",
            "mirror.toml:17: vni \"web\": delivery = \"first\" lets mirrors answer clients, and mode = \"shadow\" does not",
        ),
        (
            "canaries = [\"a\"]\n",
            "mirror.toml:21: vni \"web\": canaries need mode = \"shadow\": they are never to take over",
        ),
        (
            "mode = \"shadow\"\ncanaries = [\"a\", \"b\"]\n",
            "mirror.toml:22: vni \"web\": all of its instances are canaries, so that nobody serves",
        ),
        (
            "mode = \"shadow\"\ncanaries = [\"c\"]\n",
            "mirror.toml:22: vni \"web\": canary \"c\" is none of its instances",
        ),
        (
            "mode = \"shadow\"\ncanaries = [\"a\"]\nmirrors = 0\n",
            "mirror.toml:23: vni \"web\": the canaries are the mirrors: leave `mirrors` out",
        ),
    ] {
        check(&with(lines), wrong);
    }
}

#[test]
fn metrics_are_for_this_host_only() {
    for address in ["0.0.0.0:9477", "127.0.0.1", "10.0.0.1:9477", "127.0.0.1:0"] {
        check_with(
            "[agent]",
            &format!("[agent]\nmetrics = {address:?}"),
            &format!(
                "mirror.toml:3: agent: metrics: {address:?} is not a loopback address with a port \
                 such as \"127.0.0.1:9477\""
            ),
        );
    }
}

#[test]
fn the_sockets_group_is_one_that_there_is() {
    check_with(
        "[agent]",
        "[agent]\ngroup = \"no-such-group\"",
        "mirror.toml:3: agent: group: there is no group \"no-such-group\"",
    );
}

#[test]
fn links_are_not_shared() {
    check_with(
        r#"link = "ib""#,
        r#"link = "ia""#,
        "mirror.toml:15: instance \"b\": link \"ia\" is used by instance \"a\" too",
    );
}

#[test]
fn names_are_known_and_differ() {
    check_with(
        r#"name = "b""#,
        r#"name = "a""#,
        "mirror.toml:14: instance \"a\": the name is used in line 8 too",
    );
    check_with(
        r#"ack = "async""#,
        r#"instances = ["a", "x", "b"]"#,
        "mirror.toml:21: vni \"web\": there is no instance \"x\"",
    );
}

#[test]
fn addresses_are_one_vnis() {
    check_with(
        r#""fd77::100""#,
        r#""10.77.0.100""#,
        "mirror.toml:19: vni \"web\": addresses names \"10.77.0.100\" twice",
    );
    check_with(
        r#""fd77::100""#,
        r#""::ffff:10.77.0.100""#,
        "mirror.toml:19: vni \"web\": address 10.77.0.100 is named twice",
    );
    check_with(
        "ack = \"async\"\n",
        "[[vni]]\nname = \"x\"\naddresses = [\"10.77.0.100\"]\ninterfaces = [\"c0\"]\n",
        "mirror.toml:23: vni \"x\": address 10.77.0.100 is an address of vni \"web\" too",
    );
}

#[test]
fn an_interface_has_one_role() {
    check_with(
        r#"interfaces = ["c0"]"#,
        r#"interfaces = ["ia"]"#,
        "mirror.toml:20: vni \"web\": interface \"ia\" is the link of instance \"a\": \
         one interface cannot be both",
    );
}

#[test]
fn instances_can_be_reached() {
    check_with(
        "address = \"10.66.2.2\"\n",
        "",
        "mirror.toml:13: instance \"b\": neither mac nor address is given",
    );
    check_with(
        "02:00:00:00:01:02",
        "02:00:00:00:01",
        "mirror.toml:10: instance \"a\": mac: \"02:00:00:00:01\" is not a hardware address \
         such as \"02:00:00:00:01:02\"",
    );
    check_with(
        "02:00:00:00:01:02",
        "03:00:00:00:01:02",
        "mirror.toml:10: instance \"a\": mac: \"03:00:00:00:01:02\" is not the address of one host",
    );
}

#[test]
fn numbers_have_ranges() {
    check_with(
        r#"ack = "async""#,
        "mirrors = 2",
        "mirror.toml:21: vni \"web\": mirrors = 2 needs 3 instances and there are 2",
    );
    check_with(
        r#"ack = "async""#,
        "mirrors = 4",
        "mirror.toml:21: vni \"web\": mirrors must be 0 to 3, not 4",
    );
    for (wrong, found) in [
        ("0", "0"),
        ("1000001", "1000001"),
        ("-1", "-1"),
        ("0.5", "float"),
        ("\"none\"", "\"none\""),
    ] {
        check_with(
            r#"ack = "async""#,
            &format!("mirrored_per_s = {wrong}"),
            &format!(
                "mirror.toml:21: vni \"web\": mirrored_per_s must be 1 to 1000000 or \"unlimited\", not {found}"
            ),
        );
    }
    for (wrong, reason) in [
        ("443", "must be a list of ports, not integer"),
        ("true", "must be a list of ports, not boolean"),
        ("[\"443\"]", "must hold ports only, which are 1 to 65535"),
        ("[0]", "must hold ports only, which are 1 to 65535"),
        ("[65536]", "must hold ports only, which are 1 to 65535"),
        ("[443, 8443, 443]", "names 443 twice"),
        ("[1, 2, 3, 4, 5]", "names more than 4 ports"),
    ] {
        check_with(
            r#"ack = "async""#,
            &format!("quic_ports = {wrong}"),
            &format!("mirror.toml:21: vni \"web\": quic_ports {reason}"),
        );
    }
    check_with(
        r#"link = "ia""#,
        "link = \"ia\"\nweight = -1\nscore = 1.5",
        "mirror.toml:10: instance \"a\": weight must be 0 to 1000, not -1\n\
         mirror.toml:11: instance \"a\": score must be 0.0 to 1.0, not 1.5",
    );
    check_with(
        "[agent]",
        "[detect]\npoll_ms = 50\n[agent]",
        "mirror.toml:2: detect: silent_ms (60) must be at least four times poll_ms (50)",
    );
}

#[test]
fn unknown_keys_and_wrong_types_are_told_together() {
    check(
        "[agent]\nsokcet = \"/x\"\nsocket = 5\n[[vni]]\nname = \"v\"\n[other]\n",
        "mirror.toml:2: agent: unknown key \"sokcet\" (known: group, metrics, page, pin_dir, socket)\n\
         mirror.toml:3: agent: socket must be a string, not integer\n\
         mirror.toml:4: vni \"v\": addresses is missing\n\
         mirror.toml:4: vni \"v\": interfaces is missing\n\
         mirror.toml:4: vni \"v\": there is no [[instance]] to serve it\n\
         mirror.toml:6: unknown key \"other\" (known: agent, detect, health, instance, interface, steering, vni, zone)",
    );
    check_with(
        r#"ack = "async""#,
        r#"ack = "sync""#,
        "mirror.toml:21: vni \"web\": ack must be \"semi-sync\" or \"async\", not \"sync\"",
    );
}

#[test]
fn syntax_errors_have_a_line() {
    check(
        "[agent]\nsocket = \n",
        "mirror.toml:2: string values must be quoted, expected literal string",
    );
}

/// Pieces that files are made of, right ones in wrong places among them.
const PIECES: [&str; 12] = [
    "=",
    "[[vni]]",
    "[agent]",
    "\"",
    "'",
    "-1",
    "1e999",
    "{",
    "\n",
    "\u{0}",
    "mirrors = 9",
    "[[",
];

proptest! {
    /// However a file was damaged: it is refused with lines that it has, or it means something that can be written again.
    #[test]
    fn a_damaged_file_is_refused_by_line_or_means_something(
        damage in vec((any::<Index>(), any::<Index>(), any::<Index>()), 1..6),
    ) {
        let mut text: Vec<char> = GOOD.chars().collect();
        for (from, length, piece) in damage {
            let from = from.index(text.len() + 1);
            let length = length.index(20).min(text.len() - from);
            let piece = PIECES[piece.index(PIECES.len())];
            text.splice(from..from + length, piece.chars());
        }
        let text: String = text.into_iter().collect();
        let file = Path::new("mirror.toml");
        match Config::parse(file, &text) {
            Ok(config) => {
                let again = Config::parse(file, &config.to_toml());
                prop_assert_eq!(again.map_err(|error| error.to_string()), Ok(config));
            }
            Err(super::ConfigError::Invalid { findings, .. }) => {
                let lines = text.matches('\n').count() + 1;
                prop_assert!(!findings.is_empty());
                for finding in findings {
                    prop_assert!((1..=lines).contains(&finding.line), "{finding:?} of {lines}");
                }
            }
            Err(error) => prop_assert!(false, "{error}"),
        }
    }
}
