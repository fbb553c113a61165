//! A death that takes its time: what was seen coming, and what that was good for.

use serde::Serialize;

use super::{Evidence, taken_over, victims};
use crate::agent::Event;
use crate::clock::ms;
use crate::traffic::report::Connection;

/// A fault that grows until it kills.
#[derive(Clone, Debug)]
pub struct Death {
    /// When it did.
    pub killed_ns: u64,
    /// Whether it was to be seen coming.
    pub predicted: bool,
    /// The victim while it grew.
    pub course: Vec<Step>,
}

/// The victim at one moment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// Seconds since the fault began.
    pub at_s: f64,
    /// How likely it is to fail, by the agent; none: nobody predicts.
    pub risk: Option<f64>,
    /// Flows that it is active for.
    pub flows: u64,
    /// Its state.
    pub state: String,
}

/// What a death that took its time did, with or without anybody who saw it coming.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Foresight {
    /// The victim's connections that had moved when it died.
    pub migrated_before_failure: usize,
    /// From the last of them to the first failed request, or to the death if none failed; none if some had not moved.
    pub lead_s: Option<f64>,
    /// Connections, of all, that failed.
    pub failed: usize,
    /// Connections, of all, with a wait of more than [`STALLED_MS`].
    pub stalled: usize,
    /// From the fault to the death.
    pub death_s: f64,
    /// How the risk rose and the flows left.
    pub timeline: Vec<Step>,
}

/// A wait that a person or a time limit may notice: what counts as slow in predictions, too.
pub const STALLED_MS: f64 = 20.0;

/// What of a death that was to be seen coming was not.
pub(super) fn unforeseen(evidence: &Evidence) -> Vec<String> {
    let Some(death) = evidence.death.as_ref().filter(|death| death.predicted) else {
        return Vec::new();
    };
    let mut misses = Vec::new();
    if lead_ms(evidence).is_none() {
        misses.push("it was not evacuated before it died".to_owned());
    }
    let is_late = |event: &&Event| event.time_ns >= death.killed_ns;
    let late: Vec<_> = evidence.events.iter().filter(is_late).cloned().collect();
    let late = taken_over(&late, Some(&evidence.victim));
    let hit = late.intersection(&victims(evidence)).count();
    if hit > 0 {
        misses.push(format!("its death hit {hit} connections"));
    }
    misses
}

pub(super) fn foresight(evidence: &Evidence, death: &Death) -> Foresight {
    let victims = victims(evidence);
    let moves = evidence.events.iter().filter(|event| {
        event.kind == "takeover"
            && event.from.as_deref() == Some(&evidence.victim)
            // A process that is killed closes its connections before it has ended: those did not leave it.
            && event.cause.as_deref() == Some("evacuated")
            && event.time_ns < death.killed_ns
    });
    let moves: Vec<Event> = moves.cloned().collect();
    let migrated = taken_over(&moves, None).intersection(&victims).count();
    let done_ns = moves.iter().map(|event| event.time_ns).max();
    let all_moved = migrated == victims.len();
    let lead = done_ns
        .filter(|_| all_moved)
        .map(|done_ns| death.killed_ns - done_ns);
    let ended = evidence.ended.iter();
    Foresight {
        migrated_before_failure: migrated,
        // A connection that failed did so at a time that nobody noted: then there was no lead.
        lead_s: lead
            .filter(|_| evidence.ended.iter().all(Connection::is_whole))
            .map(|lead_ns| ms(lead_ns).round() / 1e3),
        failed: ended.clone().filter(|c| !c.is_whole()).count(),
        stalled: ended.filter(|c| c.stall_ms > STALLED_MS).count(),
        death_s: ms(death.killed_ns - evidence.fault_ns).round() / 1e3,
        timeline: death.course.clone(),
    }
}

pub(super) fn lead_ms(evidence: &Evidence) -> Option<f64> {
    let is_evacuation = |event: &&Event| {
        event.kind == "instance-state"
            && event.instance.as_deref() == Some(&evidence.victim)
            && event.to.as_deref() == Some("evacuating")
    };
    let first = evidence.events.iter().find(is_evacuation)?;
    let killed_ns = evidence.death.as_ref()?.killed_ns;
    let lead_ns = killed_ns.checked_sub(first.time_ns)?;
    Some((ms(lead_ns) * 1e3).round() / 1e3)
}
