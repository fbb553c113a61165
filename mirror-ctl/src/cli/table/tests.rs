//! Tables as they are printed, character by character.

use super::*;
use crate::{agent::view::ShareRow, connections::ReplicaRow};

const PLAIN: Look = Look {
    colour: false,
    now_ns: 4_000_000_000_000,
};

#[track_caller]
fn check(text: &str, expected: &str) {
    assert!(text == expected, "printed\n{text}\nexpected\n{expected}");
}

fn instance(name: &str, state: &str, cause: &str) -> InstanceRow {
    InstanceRow {
        name: name.to_owned(),
        state: state.to_owned(),
        cause: cause.to_owned(),
        changed_ns: 3_990_000_000_000,
        weight: 100,
        share: 0.5,
        score: 1.0,
        link: format!("veth-{name}"),
        mac: Some("02:00:00:00:01:02".to_owned()),
        xdp_mode: "native".to_owned(),
        flows: 1_200,
        warm: 7,
        ..InstanceRow::default()
    }
}

fn flow(mirrors: &[(&str, Option<&str>)]) -> FlowRow {
    let replica = |(place, (instance, reason)): (usize, &(&str, Option<&str>))| ReplicaRow {
        instance: (*instance).to_owned(),
        slot: place as u8 + 1,
        role: "mirror".to_owned(),
        state: if reason.is_some() { "cold" } else { "warm" }.to_owned(),
        reason: reason.map(str::to_owned),
        diverged_within: (*reason == Some("diverged")).then_some(105),
        lag_bytes: 40,
    };
    FlowRow {
        client: "[fd77::2]:40000".to_owned(),
        vni: "web".to_owned(),
        address: "[fd77::100]:80".to_owned(),
        protocol: "tcp".to_owned(),
        state: "established".to_owned(),
        active: "a".to_owned(),
        replicas: mirrors.iter().enumerate().map(replica).collect(),
        age_s: 75,
        idle_s: 0,
        packets: 9,
        takeovers: 1,
        reason: None,
    }
}

#[test]
fn instances_are_a_table() {
    let rows = [
        instance("a", "up", "configured"),
        InstanceRow {
            mac: None,
            changed_ns: 0,
            ..instance("bee", "evacuating", "operator")
        },
    ];
    check(
        &instances(&rows, PLAIN),
        "\
INSTANCE  STATE       CAUSE       SINCE  WEIGHT  SHARE  SCORE  FLOWS  WARM  LINK      MAC                XDP
a         up          configured  10 s   100     50 %   1.00   1200   7     veth-a    02:00:00:00:01:02  native
bee       evacuating  operator    1 h    100     50 %   1.00   1200   7     veth-bee  ?                  native
",
    );
}

#[test]
fn flows_are_a_table() {
    let rows = [
        flow(&[("b", None), ("c", Some("lag_bytes"))]),
        flow(&[("b", Some("diverged"))]),
        flow(&[]),
        FlowRow {
            reason: Some("mirror_limit".to_owned()),
            ..flow(&[])
        },
    ];
    check(
        &flows(&rows, PLAIN),
        "\
CLIENT           VNI  ADDRESS         PROTO  STATE        ACTIVE  MIRRORS                         LAG  AGE    PACKETS  TAKEOVERS
[fd77::2]:40000  web  [fd77::100]:80  tcp    established  a       b warm, c cold (lag_bytes)      40   1 min  9        1
[fd77::2]:40000  web  [fd77::100]:80  tcp    established  a       b cold (diverged within 105 B)  40   1 min  9        1
[fd77::2]:40000  web  [fd77::100]:80  tcp    established  a       -                               -    1 min  9        1
[fd77::2]:40000  web  [fd77::100]:80  tcp    established  a       - (mirror_limit)                -    1 min  9        1
",
    );
}

#[test]
fn vnis_and_mirrors_are_tables() {
    let share = |instance: &str, share| ShareRow {
        instance: instance.to_owned(),
        share,
    };
    let vni = VniRow {
        name: "web".to_owned(),
        addresses: vec!["10.77.0.100".to_owned(), "fd77::100".to_owned()],
        interfaces: vec!["eth1".to_owned()],
        mirrors: 1,
        ack: "semi-sync".to_owned(),
        delivery: "first".to_owned(),
        close: "vote".to_owned(),
        flows: 30,
        unprotected: 2,
        instances: vec![share("a", 0.5), share("b", 0.5)],
        ..VniRow::default()
    };
    check(
        &vnis(&[vni], PLAIN),
        "\
VNI  ADDRESSES               INTERFACES  MIRRORS  FLOWS  UNPROTECTED  ACK        DELIVERY  CLOSE  INSTANCES
web  10.77.0.100, fd77::100  eth1        1        30     2            semi-sync  first     vote   a 50 %, b 50 %
",
    );
    let mirror = MirrorRow {
        vni: None,
        set: 4,
        primary: "a".to_owned(),
        mirrors: vec!["b".to_owned(), "c".to_owned()],
        state: "retired".to_owned(),
        share: 0.0,
    };
    check(
        &mirrors(&[mirror], PLAIN),
        "VNI  SET  PRIMARY  MIRRORS  STATE    SHARE\n-    4    a        b, c     retired  0 %\n",
    );
}

#[test]
fn events_are_a_table_or_lines() {
    let text = |text: &str| Some(text.to_owned());
    let takeover = LogEntry {
        seq: 12,
        time_ns: 3_995_000_000_000,
        kind: "takeover".to_owned(),
        client: text("10.0.0.2:40000"),
        vni: text("web"),
        from: text("a"),
        to: text("b"),
        cause: text("dead"),
        ..LogEntry::default()
    };
    let configured = LogEntry {
        seq: 13,
        kind: "configuration".to_owned(),
        time_ns: 3_999_000_000_000,
        ..LogEntry::default()
    };
    check(
        &events(&[takeover.clone(), configured.clone()], PLAIN),
        "\
SEQ  AGO  EVENT          WHAT                FROM  TO  CAUSE
12   5 s  takeover       10.0.0.2:40000 web  a     b   dead
13   1 s  configuration
",
    );
    assert_eq!(
        event(&takeover),
        "12  takeover  10.0.0.2:40000 web  a -> b  dead"
    );
    assert_eq!(event(&configured), "13  configuration");
}

#[test]
fn a_status_without_an_agent() {
    let status_row = StatusRow {
        version: "0.1.0".to_owned(),
        layout: 5,
        counters: [("cloned".to_owned(), 7)].into(),
        ..StatusRow::unattended()
    };
    check(
        &status(&status_row, PLAIN),
        "\
agent     not running; the dataplane runs on without it
version   0.1.0 (layout 5)
flows     none

INTERFACE  ROLE  XDP

PACKETS  COUNT
cloned   7
",
    );
}

#[test]
fn a_status_with_a_version_before() {
    let draining = DrainingRow {
        version: "0.1.0".to_owned(),
        pid: Some(7),
        socket: "/run/mirror/agent.sock.draining".to_owned(),
        flows: Some(12),
        left_s: 125,
    };
    let line = |row: DrainingRow| {
        let row = StatusRow {
            draining: Some(row),
            ..StatusRow::unattended()
        };
        let text = status(&row, PLAIN);
        text.lines().nth(3).map(ToOwned::to_owned)
    };
    assert_eq!(
        line(draining.clone()).as_deref(),
        Some(
            "draining  12 flows of 0.1.0 (pid 7, --socket /run/mirror/agent.sock.draining), cut in 2 min"
        )
    );
    let alone = DrainingRow {
        pid: None,
        flows: None,
        ..draining
    };
    assert_eq!(
        line(alone).as_deref(),
        Some("draining  flows of 0.1.0 (not looked after now), cut in 2 min")
    );
}

#[test]
fn colours_do_not_move_columns() {
    let rows = [
        instance("a", "dead", "silent"),
        instance("b", "up", "configured"),
    ];
    let coloured = instances(
        &rows,
        Look {
            colour: true,
            ..PLAIN
        },
    );
    assert!(coloured.contains("\x1b[38;5;9mdead"), "{coloured:?}");
    let mut plain = String::new();
    let mut escape = false;
    for c in coloured.chars() {
        match c {
            '\x1b' => escape = true,
            'm' if escape => escape = false,
            _ if escape => {}
            c => plain.push(c),
        }
    }
    let trimmed: String = plain
        .lines()
        .map(|line| format!("{}\n", line.trim_end()))
        .collect();
    check(&trimmed, &instances(&rows, PLAIN));
}
