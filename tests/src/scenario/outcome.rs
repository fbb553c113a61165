//! The verdict on a scenario, from what was seen; no I/O.

mod foresight;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde::Serialize;

use super::{Fault, Plan};
use crate::agent::{Event, Flow};
use crate::clock::ms;
use crate::traffic::Profile;
use crate::traffic::report::{Connection, Percentiles};
use foresight::{foresight, lead_ms, unforeseen};

pub use foresight::{Death, Foresight, STALLED_MS, Step};

/// What was seen.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// When the fault happened, or began.
    pub fault_ns: u64,
    /// A death that took its time, if it did.
    pub death: Option<Death>,
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
    /// What it was good for that the death was seen coming.
    #[serde(flatten)]
    pub foresight: Option<Foresight>,
    /// The same fault where nobody predicts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub without_prediction: Option<Box<Outcome>>,
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
            detection_ms: detection_ms(&evidence.events, &evidence.victim, evidence.fault_ns),
            lead_ms: lead_ms(evidence),
            foresight: evidence
                .death
                .as_ref()
                .map(|death| foresight(evidence, death)),
            without_prediction: None,
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

    /// Adds the same fault where nobody predicted it. That it was survived, too, is not what prediction is for, but what it
    /// is measured against.
    #[must_use]
    pub fn against(mut self, unpredicted: Self) -> Self {
        let misses = unpredicted.misses.iter();
        let misses = misses.map(|miss| format!("without prediction: {miss}"));
        self.misses.extend(misses);
        let notes = unpredicted.notes.iter();
        self.notes
            .extend(notes.map(|note| format!("without prediction: {note}")));
        self.without_prediction = Some(Box::new(unpredicted));
        self
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

/// How long after a fault the first event came that shows it, ms.
#[must_use]
pub fn detection_ms(events: &[Event], victim: &str, fault_ns: u64) -> Option<f64> {
    let shows = |event: &&Event| {
        let by = match event.kind.as_str() {
            "instance-state" | "prediction" => &event.instance,
            "takeover" => &event.from,
            _ => return false,
        };
        by.as_deref() == Some(victim) && event.time_ns >= fault_ns
    };
    let first = events
        .iter()
        .filter(shows)
        .map(|event| event.time_ns)
        .min()?;
    Some((ms(first - fault_ns) * 1e3).round() / 1e3)
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
mod tests;
