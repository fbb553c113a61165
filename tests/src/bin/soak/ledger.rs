//! What the agent has told of each flow, and whether a harm that befell one had to be. No I/O.
//!
//! A connection may be lost when nobody warm was left to go on with it. The agent's events say so, with the
//! reason; and what they say must have a cause in what was really done to the instances.

use std::collections::{BTreeMap, BTreeSet};

use testbed::agent::Event;

/// Reasons that something must have been done to the instance for.
const PROVOKED: [&str; 6] = [
    "reset",
    "dead",
    "instance_dead",
    "closed_early",
    "refused",
    "suspected",
];
/// A reason for which something must have been done to the instance, or packets lost.
const MISSED: &str = "handshake_missed";
/// Reasons that can have no true cause here: the servers answer alike, and their kernels are the same.
const FALSE: [&str; 3] = ["diverged", "option_mismatch", "untranslatable"];

/// How long before its client's acknowledgement a connection's mirrors get warm, at most: with a
/// handshake's segment lost.
const OPENING_NS: u64 = 1_500_000_000;

/// What a harm is taken for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// A warm mirror was there, or what is said of the mirrors has no cause: this must not be.
    Wrong(String),
    /// Nobody was left, for this reason.
    Cold(String),
}

/// Something that happened in a flow.
#[derive(Clone, Debug)]
enum Change {
    Warm(String),
    Cold(String, String),
    Takeover {
        from: String,
        to: String,
        cause: String,
    },
}

/// A connection, from its first event on: mirrors get warm, and fail, before it is open.
#[derive(Clone, Debug, Default)]
struct Flow {
    since_ns: u64,
    opened_ns: Option<u64>,
    primary: Option<String>,
    closed_ns: Option<u64>,
    changes: Vec<(u64, Change)>,
}

/// The events of a run.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// By client and address; a port is used again and again.
    flows: BTreeMap<String, Vec<Flow>>,
    /// Each instance's states, with their beginnings.
    states: BTreeMap<String, Vec<(u64, String)>>,
    /// When something was done to an instance.
    struck: Vec<(u64, String)>,
    /// When packets began to be lost.
    lossy: Vec<u64>,
    /// Mirrors that went cold, by reason.
    pub(crate) cold: BTreeMap<String, u64>,
    /// Takeovers, by cause.
    pub(crate) takeovers: BTreeMap<String, u64>,
    /// The number of the last event.
    pub(crate) last: u64,
}

impl Ledger {
    /// Notes that something is done to an instance.
    pub(crate) fn strike(&mut self, at_ns: u64, instance: &str) {
        self.struck.push((at_ns, instance.to_owned()));
    }

    /// Notes that packets to every instance are lost from now on, for a while.
    pub(crate) fn lose(&mut self, at_ns: u64) {
        self.lossy.push(at_ns);
    }

    /// Takes in an event.
    pub(crate) fn take(&mut self, event: Event) {
        self.last = event.seq;
        let at_ns = event.time_ns;
        let word = |word: Option<String>| word.unwrap_or_default();
        let key = name(&word(event.client), &word(event.address));
        let change = match event.kind.as_str() {
            "flow-opened" => {
                return self.open(key, at_ns, word(event.to));
            }
            "flow-closed" => {
                self.flow(key, at_ns, |_| false)
                    .closed_ns
                    .get_or_insert(at_ns);
                return;
            }
            "instance-state" => {
                let states = self.states.entry(word(event.instance)).or_default();
                return states.push((at_ns, word(event.to)));
            }
            "flow-warm" => Change::Warm(word(event.to)),
            "flow-cold" => {
                let reason = word(event.cause);
                *self.cold.entry(reason.clone()).or_default() += 1;
                Change::Cold(word(event.from), reason)
            }
            "takeover" => {
                let cause = word(event.cause);
                *self.takeovers.entry(cause.clone()).or_default() += 1;
                Change::Takeover {
                    from: word(event.from),
                    to: word(event.to),
                    cause,
                }
            }
            _ => return,
        };
        // Who answers what is left of a connection that is over.
        let late = matches!(change, Change::Takeover { .. });
        let flow = self.flow(key, at_ns, |flow| flow.closed_ns.is_some() && !late);
        flow.changes.push((at_ns, change));
    }

    /// A connection is open. What was told of its mirrors before may be with the one before it, should
    /// that have ended without a word.
    fn open(&mut self, connection: String, at_ns: u64, primary: String) {
        let flows = self.flows.entry(connection.clone()).or_default();
        let before = flows.last_mut().filter(|flow| flow.primary.is_some());
        let early = before.map_or_else(Vec::new, |before| {
            let own_ns = before.opened_ns.unwrap_or(before.since_ns);
            let is_early = |(when, change): &(u64, Change)| {
                *when > own_ns && *when + OPENING_NS >= at_ns && matches!(change, Change::Warm(_))
            };
            let first = before.changes.iter().position(is_early);
            first.map_or_else(Vec::new, |first| before.changes.split_off(first))
        });
        let flow = self.flow(connection, at_ns, |flow| flow.primary.is_some());
        flow.primary = Some(primary);
        flow.opened_ns = Some(at_ns);
        flow.changes.extend(early);
    }

    /// The present flow of that name; a new one if there is none, or `is_over` says so of the last one.
    fn flow(
        &mut self,
        connection: String,
        at_ns: u64,
        is_over: impl FnOnce(&Flow) -> bool,
    ) -> &mut Flow {
        let flows = self.flows.entry(connection).or_default();
        if flows.last().is_none_or(is_over) {
            flows.push(Flow {
                since_ns: at_ns,
                ..Flow::default()
            });
        }
        flows
            .last_mut()
            .expect("one was just added if there was none")
    }

    /// Judges a harm that befell a connection, which was made at `since_ns`. It tells of
    /// the harm when it wants to go on; its port may be another connection's by then.
    pub(crate) fn judge(&self, connection: &str, since_ns: u64, at_ns: u64) -> Judgement {
        let flows = self
            .flows
            .get(connection)
            .map(Vec::as_slice)
            .unwrap_or_default();
        // The acknowledgement that opens a flow may be lost, and the next segment be the first.
        let opened = flows.iter().filter(|flow| flow.opened_ns.is_some());
        let apart_ns = |flow: &&Flow| flow.opened_ns.unwrap_or(0).abs_diff(since_ns);
        let Some(flow) = opened.min_by_key(apart_ns) else {
            return Judgement::Wrong("the agent never told of it".into());
        };
        // A client that was thinking learns of it later.
        let at_ns = flow
            .closed_ns
            .map_or(at_ns, |closed_ns| closed_ns.min(at_ns));
        let (warm, reasons) = self.standing(flow, at_ns);
        if let Some(mirror) = warm.first() {
            return Judgement::Wrong(format!("{mirror} was warm"));
        }
        let Some((_, last)) = reasons.last() else {
            return match self.unable_at(flow.since_ns) {
                true => Judgement::Cold("unmirrored".into()),
                false => Judgement::Wrong("it never had a mirror, for no reason".into()),
            };
        };
        for (instance, reason) in &reasons {
            if FALSE.contains(&reason.as_str()) {
                return Judgement::Wrong(format!("{instance} was cold, {reason}"));
            }
            let struck = |strike: &(u64, String)| strike.1 == *instance && strike.0 <= at_ns;
            let provoked = PROVOKED.contains(&reason.as_str());
            let missed = reason == MISSED && !self.lossy.iter().any(|begin| *begin <= at_ns);
            if (provoked || missed) && !self.struck.iter().any(struck) {
                return Judgement::Wrong(format!("{instance} was {reason} for no cause"));
            }
        }
        Judgement::Cold(last.clone())
    }

    /// The warm mirrors of a flow at a time, and who was cold for which reason.
    fn standing(&self, flow: &Flow, at_ns: u64) -> (BTreeSet<String>, Vec<(String, String)>) {
        let mut warm = BTreeSet::new();
        let mut reasons = Vec::new();
        let mut active = flow.primary.as_deref().unwrap_or_default();
        for (_, change) in flow.changes.iter().filter(|(when, _)| *when <= at_ns) {
            match change {
                Change::Warm(instance) => {
                    warm.insert(instance.clone());
                }
                Change::Cold(instance, reason) => {
                    warm.remove(instance);
                    reasons.push((instance.clone(), reason.clone()));
                }
                Change::Takeover { from, to, cause } => {
                    warm.remove(to);
                    active = to;
                    // Who was left without having failed stays a mirror.
                    match cause.as_str() {
                        "evacuated" | "suspected" => drop(warm.insert(from.clone())),
                        _ => reasons.push((from.clone(), cause.clone())),
                    }
                }
            }
        }
        warm.remove(active);
        for instance in std::mem::take(&mut warm) {
            match self.state(&instance, at_ns) {
                "dead" => reasons.push((instance, "instance_dead".into())),
                _ => drop(warm.insert(instance)),
            }
        }
        (warm, reasons)
    }

    fn state(&self, instance: &str, at_ns: u64) -> &str {
        let states = self.states.get(instance).into_iter().flatten();
        let mut before = states.filter(|(since, _)| *since <= at_ns);
        before.next_back().map_or("up", |(_, state)| state)
    }

    /// Whether at that time an instance could not have been a mirror.
    fn unable_at(&self, at_ns: u64) -> bool {
        self.states
            .keys()
            .any(|instance| self.state(instance, at_ns) != "up")
    }
}

/// What a connection is called, by its ends.
pub(crate) fn name(client: &str, address: &str) -> String {
    format!("{client} with {address}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: &str = "10.77.0.2:4000";

    fn event(time_ns: u64, kind: &str, from: &str, to: &str, cause: &str) -> Event {
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        Event {
            seq: time_ns,
            time_ns,
            kind: kind.into(),
            client: Some(CLIENT.into()),
            address: None,
            instance: text(from),
            from: text(from),
            to: text(to),
            cause: text(cause),
            by: None,
        }
    }

    #[track_caller]
    fn check(
        events: &[Event],
        struck: &[(u64, &str)],
        (since_ns, at_ns): (u64, u64),
        expected: Judgement,
    ) {
        let mut ledger = Ledger::default();
        events.iter().for_each(|event| ledger.take(event.clone()));
        struck
            .iter()
            .for_each(|(when, who)| ledger.strike(*when, who));
        assert_eq!(ledger.judge(&name(CLIENT, ""), since_ns, at_ns), expected);
    }

    fn wrong(why: &str) -> Judgement {
        Judgement::Wrong(why.into())
    }

    #[test]
    fn a_harm_needs_a_reason_with_a_cause() {
        let opened = event(1, "flow-opened", "", "a", "");
        let warm = event(2, "flow-warm", "", "b", "");
        let taken = event(10, "takeover", "a", "b", "reset");
        let alone = [opened.clone(), warm.clone(), taken.clone()];
        check(&[], &[], (1, 5), wrong("the agent never told of it"));
        check(&alone[..2], &[], (1, 5), wrong("b was warm"));
        check(
            &alone,
            &[(9, "a")],
            (1, 11),
            Judgement::Cold("reset".into()),
        );
        check(
            &alone,
            &[(9, "b")],
            (1, 11),
            wrong("a was reset for no cause"),
        );
        // At the time of the harm the mirror was there.
        check(&alone, &[(9, "a")], (1, 9), wrong("b was warm"));
        check(
            &alone[..1],
            &[],
            (1, 5),
            wrong("it never had a mirror, for no reason"),
        );
        let diverged = event(3, "flow-cold", "b", "", "diverged");
        check(
            &[opened.clone(), warm.clone(), diverged],
            &[(1, "b")],
            (1, 5),
            wrong("b was cold, diverged"),
        );
        let left = event(10, "takeover", "a", "b", "suspected");
        check(
            &[opened, warm, left],
            &[(9, "a")],
            (1, 11),
            wrong("a was warm"),
        );
    }

    #[test]
    fn a_handshake_is_missed_where_packets_are_lost() {
        let events = [
            event(1, "flow-cold", "b", "", "handshake_missed"),
            event(2, "flow-opened", "", "a", ""),
        ];
        let judge = |lossy: &[u64]| {
            let mut ledger = Ledger::default();
            events.iter().for_each(|event| ledger.take(event.clone()));
            lossy.iter().for_each(|at_ns| ledger.lose(*at_ns));
            ledger.judge(&name(CLIENT, ""), 2, 5)
        };
        assert_eq!(judge(&[1]), Judgement::Cold("handshake_missed".into()));
        assert_eq!(judge(&[6]), wrong("b was handshake_missed for no cause"));
    }

    #[test]
    fn a_port_is_used_again() {
        let events = [
            event(1, "flow-opened", "", "a", ""),
            event(2, "flow-cold", "b", "", "reset"),
            event(5, "flow-closed", "", "", ""),
            // Said of what is over.
            event(6, "takeover", "a", "c", "dead"),
            event(7, "flow-warm", "", "b", ""),
            event(8, "flow-opened", "", "a", ""),
        ];
        check(
            &events,
            &[(1, "b")],
            (1, 4),
            Judgement::Cold("reset".into()),
        );
        check(&events, &[(1, "b")], (8, 9), wrong("b was warm"));
        // Told when another connection had its port already.
        check(
            &events,
            &[(1, "b")],
            (4, 9),
            Judgement::Cold("reset".into()),
        );
    }

    #[test]
    fn a_mirror_whose_instance_is_dead_is_none() {
        let events = [
            event(1, "flow-opened", "", "a", ""),
            event(2, "flow-warm", "", "b", ""),
            event(5, "instance-state", "b", "dead", "probe"),
        ];
        check(
            &events,
            &[(4, "b")],
            (1, 6),
            Judgement::Cold("instance_dead".into()),
        );
        check(
            &events,
            &[],
            (1, 6),
            wrong("b was instance_dead for no cause"),
        );
    }
}
