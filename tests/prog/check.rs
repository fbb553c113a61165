//! The check that all rows go through: one packet in; verdict, bytes, plan, counters, events, vital
//! signs and map state out, each in full.

use std::collections::BTreeMap;

use mirror_common::event::kind;
use mirror_common::flow::FlowKey;
use mirror_common::instance::Vitals;
use mirror_common::plan;
use mirror_common::reason::{Cold, Reason};

use crate::bench::{Bench, Program, Verdict};
use crate::hosts::{CLONE_MARK, INSTANCES};
use crate::packet::{describe, transport_offset, wrong_checksums};
use crate::tables::Table;

/// A packet that arrives.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    program: Program,
    /// 0: the VNI interface; else an instance's link.
    link: u16,
    frame: Vec<u8>,
}

impl Input {
    /// On the VNI interface.
    pub(crate) fn from_client(frame: Vec<u8>) -> Self {
        Self {
            program: Program::VniIngress,
            link: 0,
            frame,
        }
    }

    /// On an instance's link.
    pub(crate) fn from_instance(instance: u16, frame: Vec<u8>) -> Self {
        Self {
            program: Program::InstanceReturn,
            link: instance,
            frame,
        }
    }

    /// On an interface that leads to no instance.
    pub(crate) fn from_unknown_link(frame: Vec<u8>) -> Self {
        Self {
            program: Program::InstanceReturn,
            link: 0,
            frame,
        }
    }
}

/// A copy in a plan: instance, acknowledgement and timestamp echo in its own space, 0 where nothing is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlannedCopy {
    pub(crate) instance: u16,
    pub(crate) ack: u32,
    pub(crate) ts_ecr: u32,
}

/// What is to be noted of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vital {
    Sent,
    Heard,
    Reset,
    EarlyClose,
    Retransmission,
}

/// An event without its time and flow: kind, cause, from, to.
type Told = (u8, u8, u16, u16);

/// What is expected of the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Maps {
    /// Whatever the events and counters say.
    Any,
    /// No change at all.
    Unchanged,
    /// The flow is kept there in this state.
    Flow(FlowKey, Table, u8),
    /// The flow is kept nowhere.
    NoFlow(FlowKey),
}

/// What is expected of a packet.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    verdict: Verdict,
    /// `None`: the packet as it came.
    frame: Option<Vec<u8>>,
    copies: Option<Vec<PlannedCopy>>,
    reasons: Vec<Reason>,
    events: Vec<Told>,
    vitals: Vec<(u16, Vital)>,
    maps: Maps,
}

impl Expected {
    fn new(verdict: Verdict, reason: Reason) -> Self {
        Self {
            verdict,
            frame: None,
            copies: None,
            reasons: vec![reason],
            events: Vec::new(),
            vitals: Vec::new(),
            maps: Maps::Any,
        }
    }

    /// Left to the kernel, as it is and without a trace but the counter's.
    pub(crate) fn pass(reason: Reason) -> Self {
        Self {
            maps: Maps::Unchanged,
            ..Self::new(Verdict::Pass, reason)
        }
    }

    pub(crate) fn drop(reason: Reason) -> Self {
        Self::new(Verdict::Drop, reason)
    }

    /// Dropped without a trace but the counter's.
    pub(crate) fn refuse(reason: Reason) -> Self {
        Self {
            maps: Maps::Unchanged,
            ..Self::drop(reason)
        }
    }

    /// Cloned to replicas.
    pub(crate) fn cloned(copies: &[PlannedCopy]) -> Self {
        Self {
            copies: Some(copies.to_vec()),
            ..Self::new(Verdict::Redirect, Reason::Cloned)
        }
    }

    /// Sent to one instance, in this form.
    pub(crate) fn steered(instance: u16, frame: Vec<u8>) -> Self {
        Self {
            frame: Some(frame),
            ..Self::new(Verdict::Redirect, Reason::Steered)
        }
        .vital(instance, Vital::Sent)
    }

    /// Sent to the client, in this form.
    pub(crate) fn to_client(reason: Reason, frame: Vec<u8>) -> Self {
        Self {
            frame: Some(frame),
            ..Self::new(Verdict::Redirect, reason)
        }
    }

    /// Sent back, in this form.
    pub(crate) fn turned(reason: Reason, frame: Vec<u8>) -> Self {
        Self {
            frame: Some(frame),
            ..Self::new(Verdict::Redirect, reason)
        }
    }

    /// Counted under another reason besides.
    pub(crate) fn and(mut self, reason: Reason) -> Self {
        self.reasons.push(reason);
        self
    }

    pub(crate) fn vital(mut self, instance: u16, vital: Vital) -> Self {
        self.vitals.push((instance, vital));
        self
    }

    /// The instance was heard, as it is whenever a packet of a VNI comes from it.
    pub(crate) fn heard(self, instance: u16) -> Self {
        self.vital(instance, Vital::Heard)
    }

    pub(crate) fn event(mut self, kind: u8, cause: u8, from: u16, to: u16) -> Self {
        self.events.push((kind, cause, from, to));
        self
    }

    /// Another replica became active.
    pub(crate) fn takeover(self, cause: u8, from: u16, to: u16) -> Self {
        self.event(kind::TAKEOVER, cause, from, to)
            .and(Reason::Takeover)
    }

    /// A replica went cold.
    pub(crate) fn cold(self, instance: u16, why: Cold) -> Self {
        self.event(kind::FLOW_COLD, why as u8, instance, 0)
            .and(Reason::WentCold)
    }

    /// A mirror became warm.
    pub(crate) fn warm(self, instance: u16) -> Self {
        self.event(kind::FLOW_WARM, 0, 0, instance)
    }

    /// The flow ended.
    pub(crate) fn closed(self, active: u16) -> Self {
        self.event(kind::FLOW_CLOSED, 0, 0, active)
    }

    /// Where the flow is kept then.
    pub(crate) fn flow(mut self, key: FlowKey, table: Table, state: u8) -> Self {
        self.maps = Maps::Flow(key, table, state);
        self
    }

    /// The flow is kept nowhere then.
    pub(crate) fn no_flow(mut self, key: FlowKey) -> Self {
        self.maps = Maps::NoFlow(key);
        self
    }
}

/// Runs a packet and compares everything that it leaves.
#[track_caller]
pub(crate) fn check(bench: &mut Bench, input: &Input, expected: &Expected) {
    let ingress = match input.link {
        0 => bench.network.vni_interface(),
        instance => bench.network.link(instance),
    };
    let unchanged = expected.maps == Maps::Unchanged && expected.vitals.is_empty();
    let before = unchanged.then(|| bench.tables.snapshot().unwrap());
    let counters = bench.tables.counters().unwrap();
    let vitals = INSTANCES.map(|instance| bench.tables.vitals(instance).unwrap());
    let outcome = bench.run(input.program, ingress, &input.frame);

    let counted = counted(&counters, &bench.tables.counters().unwrap());
    assert_eq!(outcome.verdict, expected.verdict, "counted {counted:?}");
    assert_eq!(counted, tally(&expected.reasons), "counters");
    let copies = outcome.plan.map(|plan| {
        assert_eq!(plan.head.magic, plan::MAGIC, "the plan's mark");
        let offset = transport_offset(&input.frame);
        assert_eq!(
            usize::from(plan.head.transport),
            offset,
            "the plan's offset"
        );
        let acknowledges = u32::from(plan.head.flags & plan::flag::ACK != 0);
        let live = plan.copies.iter().filter(|copy| copy.ifindex != 0);
        live.map(|copy| {
            let link = bench.network.link(copy.instance);
            assert_eq!(copy.ifindex, link, "interface of a copy");
            PlannedCopy {
                instance: copy.instance,
                // Without the flag the clone program looks at neither.
                ack: copy.ack * acknowledges,
                ts_ecr: copy.ts_ecr * acknowledges,
            }
        })
        .collect()
    });
    assert_eq!(copies, expected.copies, "copies");
    if outcome.verdict != Verdict::Drop {
        compare_frames(&outcome.frame, &expected_frame(input, expected));
        for wrong in wrong_checksums(&outcome.frame) {
            let came_so = wrong_checksums(&input.frame).contains(&wrong);
            assert!(came_so, "a checksum became wrong: {wrong}");
        }
    }
    let events: Vec<Told> = (bench.tables.events().iter())
        .map(|event| (event.kind, event.cause, event.from, event.to))
        .collect();
    assert_eq!(events, expected.events, "events");
    for (instance, before) in INSTANCES.into_iter().zip(vitals) {
        let noted = noted(&before, &bench.tables.vitals(instance).unwrap());
        let mut wanted: Vec<Vital> = expected
            .vitals
            .iter()
            .filter(|v| v.0 == instance)
            .map(|v| v.1)
            .collect();
        wanted.sort_by_key(|vital| *vital as u8);
        assert_eq!(noted, wanted, "vital signs of instance {instance}");
    }
    match expected.maps {
        Maps::Any => {}
        Maps::Unchanged => {
            if let Some(before) = before {
                assert_eq!(bench.tables.snapshot().unwrap(), before, "maps");
            }
        }
        Maps::NoFlow(key) => assert_eq!(bench.tables.find(&key), None, "flow"),
        Maps::Flow(key, table, state) => {
            let found = bench.tables.find(&key);
            let found = found.map(|(table, flow)| (table, flow.state));
            assert_eq!(found, Some((table, state)), "flow");
        }
    }
}

/// The bytes that must come out: of a clone, those that came in with the mark in front.
fn expected_frame(input: &Input, expected: &Expected) -> Vec<u8> {
    let mut frame = expected.frame.clone().unwrap_or(input.frame.clone());
    if expected.copies.is_some() {
        frame[..6].copy_from_slice(&CLONE_MARK);
        frame[6..12].copy_from_slice(&CLONE_MARK);
    }
    // Of what was behind the end of a packet that became shorter, four bytes stay, of zeros if there
    // were more.
    let rest = &input.frame[frame.len().min(input.frame.len())..];
    match rest.len() {
        0..=4 => frame.extend(rest),
        _ => frame.extend([0; 4]),
    }
    frame
}

#[track_caller]
fn compare_frames(found: &[u8], expected: &[u8]) {
    if found != expected {
        // What people compare best is the headers.
        pretty_compare(&describe(found), &describe(expected));
        panic!("bytes differ: {found:02x?}\nexpected {expected:02x?}");
    }
}

#[track_caller]
fn pretty_compare(found: &str, expected: &str) {
    let differing: Vec<String> = (found.lines().zip(expected.lines()))
        .filter(|(found, expected)| found != expected)
        .map(|(found, expected)| format!("{} (expected {})", found.trim(), expected.trim()))
        .collect();
    assert!(differing.is_empty(), "the frame differs: {differing:#?}");
}

fn counted(before: &[u64], after: &[u64]) -> BTreeMap<&'static str, u64> {
    (Reason::ALL.iter().zip(before.iter().zip(after)))
        .filter(|(_, (before, after))| before != after)
        .map(|(reason, (before, after))| (reason.name(), after - before))
        .collect()
}

fn tally(reasons: &[Reason]) -> BTreeMap<&'static str, u64> {
    let mut tally = BTreeMap::new();
    for reason in reasons {
        *tally.entry(reason.name()).or_default() += 1;
    }
    tally
}

fn noted(before: &Vitals, after: &Vitals) -> Vec<Vital> {
    let mut noted = Vec::new();
    let mut add = |vital, before: u64, after: u64| {
        noted.extend((before..after).map(|_| vital));
    };
    add(Vital::Sent, before.sent, after.sent);
    add(Vital::Heard, before.received, after.received);
    add(Vital::Reset, before.resets, after.resets);
    add(Vital::EarlyClose, before.early_closes, after.early_closes);
    add(
        Vital::Retransmission,
        before.retransmissions,
        after.retransmissions,
    );
    noted
}
