//! The verdict on a scenario, from what was seen; no I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde::Serialize;

use super::{Fault, Plan};
use crate::agent::{Event, Flow};
use crate::clock::ms;
use crate::traffic::Profile;
use crate::traffic::report::{Connection, Percentiles};

/// What was seen.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// When the fault happened, or began.
    pub fault_ns: u64,
    /// When it killed the victim, if it took its time.
    pub killed_ns: Option<u64>,
    /// The instance that it happened to.
    pub victim: String,
    /// The flows just before it.
    pub before: Vec<Flow>,
    /// The flows some seconds after it.
    pub after: Vec<Flow>,
    /// The agent's events from just before it.
    pub events: Vec<Event>,
    /// What the client has measured.
    pub ended: Vec<Connection>,
}

/// A scenario's result, as `demo --json` writes it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// The scenario.
    pub name: &'static str,
    /// Connections whose active instance was the victim.
    pub connections: usize,
    /// Those of them that a mirror has taken over.
    pub taken_over: usize,
    /// Connections that were reset or closed; here and in the next two, of
    /// all connections, since a fault must not touch the others either.
    pub resets: u64,
    /// Bytes owed at the end.
    pub bytes_lost: u64,
    /// Bytes altered.
    pub bytes_altered: u64,
    /// The longest waits of the victim's connections.
    pub stall_ms: Percentiles,
    /// From the fault to the agent's first event about it.
    pub detection_ms: Option<f64>,
    /// From the evacuation to the death that it was for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lead_ms: Option<f64>,
    /// Their longest waits in the time before the fault.
    #[serde(skip)]
    pub baseline_ms: Percentiles,
    /// The longest waits again, by what the connection was used for.
    #[serde(skip)]
    pub by_use: Vec<(Profile, Percentiles)>,
    /// What a person should know.
    #[serde(skip)]
    pub notes: Vec<String>,
    #[serde(skip)]
    misses: Vec<String>,
}

impl Outcome {
    /// Judges.
    #[must_use]
    pub fn judge(plan: &Plan, evidence: &Evidence, notes: Vec<String>) -> Self {
        let victims = victims(evidence);
        let ended = || {
            evidence
                .ended
                .iter()
                .filter(|c| victims.contains(&c.local_port))
        };
        let sum = |field: fn(&Connection) -> u64| evidence.ended.iter().map(field).sum();
        let mut outcome = Self {
            name: plan.fault.name(),
            connections: victims.len(),
            taken_over: changed_hands(evidence).intersection(&victims).count(),
            resets: sum(|connection| connection.resets),
            bytes_lost: sum(|connection| connection.bytes_lost),
            bytes_altered: sum(|connection| connection.bytes_altered),
            stall_ms: Percentiles::of(ended().map(|connection| connection.stall_ms)),
            detection_ms: detection_ms(evidence),
            lead_ms: lead_ms(evidence),
            baseline_ms: Percentiles::of(ended().map(|connection| connection.baseline_ms)),
            by_use: Profile::ALL
                .map(|profile| {
                    let of_it = ended().filter(|connection| connection.profile == profile);
                    (
                        profile,
                        Percentiles::of(of_it.map(|connection| connection.stall_ms)),
                    )
                })
                .to_vec(),
            notes,
            misses: Vec::new(),
        };
        outcome.misses = outcome.bounds_missed(plan);
        outcome.misses.extend(unforeseen(evidence));
        if ended().count() != outcome.connections {
            let measured = ended().count();
            outcome
                .misses
                .push(format!("{measured} of the connections were measured"));
        }
        let errors = evidence
            .ended
            .iter()
            .filter_map(|connection| connection.error.as_deref());
        outcome.misses.extend(counted(errors));
        outcome
    }

    /// Each bound that was missed, in words.
    #[must_use]
    pub fn misses(&self) -> &[String] {
        &self.misses
    }

    fn bounds_missed(&self, plan: &Plan) -> Vec<String> {
        let mut misses = Vec::new();
        let mut check = |held: bool, miss: String| {
            if !held {
                misses.push(miss);
            }
        };
        let (connections, least) = (self.connections, plan.connections);
        check(
            connections >= least,
            format!("{connections} connections, {least} wanted"),
        );
        let left = connections - self.taken_over.min(connections);
        check(left == 0, format!("{left} connections were not taken over"));
        check(self.resets == 0, format!("{} resets", self.resets));
        check(
            self.bytes_lost == 0,
            format!("{} bytes lost", self.bytes_lost),
        );
        check(
            self.bytes_altered == 0,
            format!("{} bytes altered", self.bytes_altered),
        );
        let (p99, max) = (self.stall_ms.p99, plan.stall_p99_ms_max);
        check(
            p99 <= max,
            format!("stall p99 {p99:.1} ms, at most {max} ms allowed"),
        );
        let unseen = self.detection_ms.is_none() && plan.fault != Fault::Evacuated;
        check(!unseen, "no event of the agent shows the fault".into());
        misses
    }
}

/// The ports of the connections that an event says were taken over, of all or
/// from one instance.
#[must_use]
pub fn taken_over(events: &[Event], from: Option<&str>) -> BTreeSet<u16> {
    let takeovers = events.iter().filter(|event| event.kind == "takeover");
    takeovers
        .filter(|event| from.is_none() || event.from.as_deref() == from)
        .filter_map(|event| port(event.client.as_deref()?))
        .collect()
}

fn victims(evidence: &Evidence) -> BTreeSet<u16> {
    let flows = evidence.before.iter();
    flows
        .filter(|flow| flow.protocol == "tcp" && flow.active == evidence.victim)
        .filter_map(|flow| port(&flow.client))
        .collect()
}

/// By the events, and by the flows' own counts for what the events' ring has lost.
fn changed_hands(evidence: &Evidence) -> BTreeSet<u16> {
    let before: BTreeMap<_, _> = evidence
        .before
        .iter()
        .map(|flow| (&flow.client, flow.takeovers))
        .collect();
    let more = |flow: &&Flow| {
        before
            .get(&flow.client)
            .is_some_and(|n| flow.takeovers > *n)
    };
    let by_count = evidence
        .after
        .iter()
        .filter(|flow| flow.active != evidence.victim)
        .filter(more)
        .filter_map(|flow| port(&flow.client));
    taken_over(&evidence.events, Some(&evidence.victim))
        .into_iter()
        .chain(by_count)
        .collect()
}

fn detection_ms(evidence: &Evidence) -> Option<f64> {
    let shows = |event: &&Event| {
        let by = match event.kind.as_str() {
            "instance-state" | "prediction" => &event.instance,
            "takeover" => &event.from,
            _ => return false,
        };
        by.as_deref() == Some(&evidence.victim) && event.time_ns >= evidence.fault_ns
    };
    let first = evidence
        .events
        .iter()
        .filter(shows)
        .map(|event| event.time_ns)
        .min()?;
    Some((ms(first - evidence.fault_ns) * 1e3).round() / 1e3)
}

/// What of a death that was to be seen coming was not.
fn unforeseen(evidence: &Evidence) -> Vec<String> {
    let Some(killed_ns) = evidence.killed_ns else {
        return Vec::new();
    };
    let mut misses = Vec::new();
    if lead_ms(evidence).is_none() {
        misses.push("it was not evacuated before it died".to_owned());
    }
    let is_late = |event: &&Event| event.time_ns >= killed_ns;
    let late: Vec<_> = evidence.events.iter().filter(is_late).cloned().collect();
    let late = taken_over(&late, Some(&evidence.victim));
    let hit = late.intersection(&victims(evidence)).count();
    if hit > 0 {
        misses.push(format!("its death hit {hit} connections"));
    }
    misses
}

fn lead_ms(evidence: &Evidence) -> Option<f64> {
    let is_evacuation = |event: &&Event| {
        event.kind == "instance-state"
            && event.instance.as_deref() == Some(&evidence.victim)
            && event.to.as_deref() == Some("evacuating")
    };
    let first = evidence.events.iter().find(is_evacuation)?;
    let lead_ns = evidence.killed_ns?.checked_sub(first.time_ns)?;
    Some((ms(lead_ns) * 1e3).round() / 1e3)
}

fn port(client: &str) -> Option<u16> {
    client
        .parse::<SocketAddr>()
        .ok()
        .map(|address| address.port())
}

fn counted<'a>(errors: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut counts = BTreeMap::<&str, usize>::new();
    errors.for_each(|error| *counts.entry(error).or_default() += 1);
    counts
        .into_iter()
        .map(|(error, count)| format!("{count} connections: {error}"))
        .collect()
}

#[cfg(test)]
mod tests {
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
            cause: None,
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
            killed_ns: None,
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

    #[test]
    fn a_death_is_to_be_seen_coming() {
        let evacuated = |e: &mut Evidence| {
            e.killed_ns = Some(5_000_000);
            e.events[2].to = Some("evacuating".into());
        };
        check(evacuated, &[]);
        let mut foreseen = evidence();
        evacuated(&mut foreseen);
        let outcome = Outcome::judge(&plan(), &foreseen, Vec::new());
        assert_eq!(outcome.lead_ms, Some(2.0));
        check(
            |e| e.killed_ns = Some(5_000_000),
            &["it was not evacuated before it died"],
        );
        check(
            |e| {
                evacuated(e);
                e.killed_ns = Some(3_200_000);
            },
            &["its death hit 1 connections"],
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
}
