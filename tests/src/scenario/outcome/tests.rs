//! Evidence made by hand, and what is said of it.

use super::*;

fn plan() -> Plan {
    Plan::new(Fault::Killed, 2)
}

fn flow(client: &str, active: &str, takeovers: u64) -> Flow {
    Flow {
        client: client.into(),
        vni: "web".into(),
        protocol: "tcp".into(),
        state: "established".into(),
        active: active.into(),
        replicas: Vec::new(),
        takeovers,
        reason: None,
    }
}

fn event(time_ns: u64, kind: &str, client: Option<&str>) -> Event {
    Event {
        seq: time_ns,
        time_ns,
        kind: kind.into(),
        client: client.map(Into::into),
        address: None,
        instance: client.is_none().then(|| "a".into()),
        from: Some("a".into()),
        to: Some("b".into()),
        cause: Some("evacuated".into()),
        by: None,
    }
}

fn connection(local_port: u16, stall_ms: f64) -> Connection {
    Connection {
        local_port,
        profile: Profile::Request,
        resets: 0,
        bytes_lost: 0,
        bytes_altered: 0,
        duplicates: 0,
        bytes_received: 1,
        bytes_sent: 1,
        stall_ms,
        baseline_ms: 1.0,
        error: None,
    }
}

/// One connection taken over by event, one (IPv6) by count, one of another instance.
fn evidence() -> Evidence {
    let (one, two, three) = ("10.77.0.2:40001", "[fd77::2]:40002", "10.77.0.2:40003");
    Evidence {
        fault_ns: 1_000_000,
        death: None,
        victim: "a".into(),
        before: vec![flow(one, "a", 0), flow(two, "a", 3), flow(three, "b", 0)],
        after: vec![flow(two, "c", 4), flow(three, "b", 0)],
        events: vec![
            event(500_000, "instance-state", None),
            event(3_500_000, "takeover", Some(one)),
            event(3_000_000, "instance-state", None),
        ],
        ended: vec![
            connection(40001, 20.0),
            connection(40002, 30.0),
            connection(40003, 900.0),
        ],
    }
}

#[track_caller]
fn check(change: impl FnOnce(&mut Evidence), misses: &[&str]) {
    let mut evidence = evidence();
    change(&mut evidence);
    assert_eq!(
        Outcome::judge(&plan(), &evidence, Vec::new()).misses(),
        misses
    );
}

#[test]
fn a_clean_takeover_is_counted() {
    let outcome = Outcome::judge(&plan(), &evidence(), Vec::new());
    assert_eq!((outcome.connections, outcome.taken_over), (2, 2));
    assert_eq!(
        outcome.stall_ms,
        Percentiles {
            p50: 20.0,
            p99: 30.0,
            max: 30.0
        }
    );
    assert_eq!(outcome.detection_ms, Some(2.0));
    assert!(outcome.misses().is_empty(), "{:?}", outcome.misses());
}

#[test]
fn each_missed_bound_is_said() {
    check(|e| e.ended[2].resets = 1, &["1 resets"]);
    check(|e| e.ended[0].bytes_lost = 7, &["7 bytes lost"]);
    check(|e| e.ended[0].bytes_altered = 7, &["7 bytes altered"]);
    check(|e| e.after.clear(), &["1 connections were not taken over"]);
    check(
        |e| e.ended[0].stall_ms = 300.5,
        &["stall p99 300.5 ms, at most 300 ms allowed"],
    );
    check(
        |e| e.events.truncate(1),
        &[
            "1 connections were not taken over",
            "no event of the agent shows the fault",
        ],
    );
    check(
        |e| e.ended[0].error = Some("gone".into()),
        &["1 connections: gone"],
    );
    check(
        |e| drop(e.ended.remove(0)),
        &["1 of the connections were measured"],
    );
}

fn death(killed_ns: u64, predicted: bool) -> Option<Death> {
    let step = Step {
        at_s: 1.5,
        risk: Some(0.75),
        flows: 2,
        state: "up".into(),
    };
    Some(Death {
        killed_ns,
        predicted,
        course: vec![step],
    })
}

fn evacuated(evidence: &mut Evidence) {
    evidence.death = death(5_000_000, true);
    evidence.events[2].to = Some("evacuating".into());
    let second = event(3_250_000, "takeover", Some("[fd77::2]:40002"));
    evidence.events.push(second);
}

#[test]
fn a_death_is_to_be_seen_coming() {
    check(evacuated, &[]);
    let mut foreseen = evidence();
    evacuated(&mut foreseen);
    let outcome = Outcome::judge(&plan(), &foreseen, Vec::new());
    assert_eq!(outcome.lead_ms, Some(2.0));
    check(
        |e| e.death = death(5_000_000, true),
        &["it was not evacuated before it died"],
    );
    // Nobody was to see it.
    check(|e| e.death = death(5_000_000, false), &[]);
    check(
        |e| {
            evacuated(e);
            e.death = death(3_200_000, true);
        },
        &["its death hit 2 connections"],
    );
}

#[test]
fn what_foresight_was_good_for_worked_by_hand() {
    let of = |change: &dyn Fn(&mut Evidence)| {
        let mut evidence = evidence();
        evacuated(&mut evidence);
        evidence.fault_ns = 0;
        evidence.death = death(2_003_500_000, true);
        change(&mut evidence);
        Outcome::judge(&plan(), &evidence, Vec::new())
            .foresight
            .unwrap()
    };
    let found = of(&|_| {});
    // The last one moved at 3.5 ms.
    assert_eq!(
        (found.migrated_before_failure, found.lead_s),
        (2, Some(2.0))
    );
    assert_eq!((found.failed, found.stalled, found.death_s), (0, 2, 2.004));
    let found = of(&|e| e.events.truncate(3));
    assert_eq!((found.migrated_before_failure, found.lead_s), (1, None));
    let found = of(&|e| e.events[1].cause = Some("reset".into()));
    assert_eq!((found.migrated_before_failure, found.lead_s), (1, None));
    let found = of(&|e| e.ended[2].resets = 1);
    assert_eq!((found.failed, found.lead_s), (1, None));
    let found = of(&|e| e.death = death(3_300_000, true));
    assert_eq!((found.migrated_before_failure, found.lead_s), (1, None));
}

#[test]
fn both_sides_are_in_the_json() {
    let (mut with, mut without) = (evidence(), evidence());
    evacuated(&mut with);
    without.death = death(5_000_000, false);
    without.ended[0].resets = 1;
    let judge = |evidence| Outcome::judge(&plan(), evidence, Vec::new());
    let outcome = judge(&with).against(judge(&without));
    assert_eq!(outcome.misses(), ["without prediction: 1 resets"]);
    let json = serde_json::to_value(outcome).unwrap();
    assert_eq!(json["migrated_before_failure"], 2);
    assert_eq!(json["timeline"][0]["risk"], 0.75);
    assert_eq!(json["without_prediction"]["resets"], 1);
    assert_eq!(
        json["without_prediction"]["lead_s"],
        serde_json::Value::Null
    );
}

#[test]
fn the_json_is_as_documented() {
    let json = serde_json::to_value(Outcome::judge(&plan(), &evidence(), Vec::new())).unwrap();
    let expected = serde_json::json!({
        "name": "killed", "connections": 2, "taken_over": 2, "resets": 0, "bytes_lost": 0,
        "bytes_altered": 0, "stall_ms": {"p50": 20.0, "p99": 30.0, "max": 30.0},
        "detection_ms": 2.0,
    });
    assert_eq!(json, expected);
}
