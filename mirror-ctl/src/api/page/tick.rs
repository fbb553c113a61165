//! What the page is told each second. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::agent::{
    log::LogEntry,
    view::{InstanceRow, ShareRow, View, VniRow},
};

/// Events of a second that are told singly; of the others the number.
const EVENTS_MAX: usize = 20;
/// Kinds of events that are told singly. Flows come and go too often for it.
const TOLD: [&str; 6] = [
    "instance-state",
    "prediction",
    "order",
    "configuration",
    "interface",
    "partial-checksum",
];

/// One second.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(super) struct Tick {
    /// When, seconds since 1970.
    pub(super) time_s: f64,
    pub(super) instances: Vec<InstanceNow>,
    pub(super) vnis: Vec<VniNow>,
    /// Flows that moved in this second.
    pub(super) moves: Vec<Moved>,
    /// The last events of this second, oldest first.
    pub(super) events: Vec<Told>,
    /// Events of this second that are not among them.
    pub(super) more: u64,
}

/// An instance.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(super) struct InstanceNow {
    pub(super) name: String,
    pub(super) state: String,
    pub(super) cause: String,
    /// 0 to 1: the risk that is predicted, or that follows from its score where nothing is.
    pub(super) risk: f64,
    /// The probability of failing within 30 s, by a model.
    pub(super) p30: Option<f64>,
    /// Its part of new flows, of all VNIs the greatest.
    pub(super) share: f64,
    pub(super) flows: u64,
    pub(super) warm: u64,
}

/// A VNI.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct VniNow {
    name: String,
    addresses: Vec<String>,
    flows: u64,
    unprotected: u64,
    instances: Vec<ShareRow>,
}

/// Flows that moved from one instance to another for the same cause.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Moved {
    pub(super) time_s: f64,
    pub(super) from: String,
    pub(super) to: String,
    pub(super) cause: String,
    pub(super) flows: u64,
}

/// An event.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Told {
    /// When, seconds since 1970.
    time_s: f64,
    #[serde(flatten)]
    entry: LogEntry,
}

/// One moment by two clocks.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Now {
    /// Seconds since 1970.
    pub(super) unix_s: f64,
    /// `CLOCK_MONOTONIC`, by which events are noted.
    pub(super) monotonic_ns: u64,
}

impl Now {
    fn told(self, entry: LogEntry) -> Told {
        let ago_ns = self.monotonic_ns.saturating_sub(entry.time_ns);
        Told {
            time_s: self.unix_s - ago_ns as f64 / 1e9,
            entry,
        }
    }
}

/// Gathers a second's events.
#[derive(Default)]
pub(super) struct Gathered {
    moves: BTreeMap<[String; 3], u64>,
    events: Vec<LogEntry>,
    more: u64,
}

impl Gathered {
    pub(super) fn add(&mut self, entry: LogEntry) {
        if entry.kind == "takeover" {
            let key = [entry.from, entry.to, entry.cause].map(Option::unwrap_or_default);
            *self.moves.entry(key).or_default() += 1;
        } else if TOLD.contains(&entry.kind.as_str()) {
            self.events.push(entry);
        }
        if self.events.len() > EVENTS_MAX {
            self.events.remove(0);
            self.more += 1;
        }
    }

    /// Counts events that were forgotten before they were seen here.
    pub(super) fn miss(&mut self, forgotten: u64) {
        self.more += forgotten;
    }

    /// The tick: how everything is, and what happened.
    pub(super) fn tick(self, view: &View, now: Now) -> Tick {
        let time_s = now.unix_s;
        let moved = |([from, to, cause], flows): ([String; 3], u64)| Moved {
            time_s,
            from,
            to,
            cause,
            flows,
        };
        Tick {
            time_s,
            instances: view.instances.iter().map(InstanceNow::of).collect(),
            vnis: view.vnis.iter().map(VniNow::of).collect(),
            moves: self.moves.into_iter().map(moved).collect(),
            events: self.events.into_iter().map(|e| now.told(e)).collect(),
            more: self.more,
        }
    }
}

impl InstanceNow {
    fn of(row: &InstanceRow) -> Self {
        let risk = match row.state.as_str() {
            "dead" => 1.0,
            _ => 1.0 - row.predicted_score.unwrap_or(row.score),
        };
        Self {
            name: row.name.clone(),
            state: row.state.clone(),
            cause: row.cause.clone(),
            risk: thousandths(risk.clamp(0.0, 1.0)),
            p30: row.p30.map(thousandths),
            share: thousandths(row.share),
            flows: row.flows,
            warm: row.warm,
        }
    }
}

impl VniNow {
    fn of(row: &VniRow) -> Self {
        Self {
            name: row.name.clone(),
            addresses: row.addresses.clone(),
            flows: row.flows,
            unprotected: row.unprotected,
            instances: row.instances.clone(),
        }
    }
}

/// No more digits than are shown.
fn thousandths(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: &str, from: &str, to: &str) -> LogEntry {
        LogEntry {
            kind: kind.to_owned(),
            from: Some(from.to_owned()),
            to: Some(to.to_owned()),
            cause: Some("dead".to_owned()),
            time_ns: 1_000_000_000,
            ..LogEntry::default()
        }
    }

    #[test]
    fn takeovers_are_counted_and_rare_events_told() {
        let mut gathered = Gathered::default();
        for _ in 0..300 {
            gathered.add(entry("takeover", "a", "b"));
            gathered.add(entry("flow-opened", "", "b"));
        }
        gathered.add(entry("takeover", "a", "c"));
        for _ in 0..EVENTS_MAX + 3 {
            gathered.add(entry("instance-state", "up", "dead"));
        }
        gathered.miss(2);
        let now = Now {
            unix_s: 9.0,
            monotonic_ns: 2_500_000_000,
        };
        let tick = gathered.tick(&View::default(), now);
        let moves: Vec<_> = tick
            .moves
            .iter()
            .map(|m| (m.to.as_str(), m.flows))
            .collect();
        assert_eq!(moves, [("b", 300), ("c", 1)]);
        assert_eq!((tick.events.len(), tick.more), (EVENTS_MAX, 5));
        assert_eq!((tick.time_s, tick.events[0].time_s), (9.0, 7.5));
    }

    #[test]
    fn risk_is_the_predicted_one_and_that_of_the_dead_is_certain() {
        let row = |state: &str, score, predicted_score| InstanceRow {
            state: state.to_owned(),
            score,
            predicted_score,
            ..InstanceRow::default()
        };
        let risk = |row| InstanceNow::of(&row).risk;
        assert_eq!(risk(row("up", 1.0, None)), 0.0);
        assert_eq!(risk(row("up", 1.0, Some(0.25))), 0.75);
        assert_eq!(risk(row("evacuating", 0.8, None)), 0.2);
        assert_eq!(risk(row("dead", 1.0, Some(1.0))), 1.0);
    }
}
