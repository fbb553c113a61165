//! What the programs cost per packet, by `BPF_PROG_TEST_RUN`.
//!
//! A repetition goes on with the packet that the one before left, so each packet is made anew by a feeder
//! (`assemble`), which then calls the program. What the feeder takes is measured in the same round with an empty
//! program behind it and subtracted.

use std::os::fd::AsFd;

use anyhow::{Context, Result, ensure};
use mirror_common::reason::Reason;
use testbed::netns::Namespace;

use crate::assemble::{self, Feed, Feeder, Then, XDP_PASS};
use crate::frame::{HEADERS, Segment, bit};
use crate::report::{Goal, Results, Row};
use crate::rig::{self, Rig, ZONED, from_client, from_replica};
use crate::stats::Spread;
use crate::{Effort, collector, machine, sys};

const METHOD: &str = "per packet by BPF_PROG_TEST_RUN on one processor, packet made anew each time, \
    less the same with an empty program, the middle one of a round's 20 turns; ratio: to a plain redirect";
pub(crate) const CLIENT_OFFSET_IN: i16 = 26;
pub(crate) const CLIENT_OFFSET_OUT: i16 = 30;
/// Of a packet with data.
pub(crate) const PAYLOAD: usize = 10;
pub(crate) const FEW: u32 = 1;
pub(crate) const SOME: u32 = 10_000;
pub(crate) const MANY: u32 = 1_000_000;
/// A round is cut into so many turns, of which the middle one counts: each takes about half a millisecond, and so most of them have the
/// processor for themselves even where others want it.
const TURNS: u32 = 20;

/// A packet in a situation.
pub(crate) struct Case {
    what: &'static str,
    program: &'static str,
    /// The instance that sends it; none: the client.
    from: Option<usize>,
    segment: Segment,
    /// What each packet of a flow adds to the sequence number.
    step: u32,
    /// The flows are open before.
    known: bool,
    mirrors: usize,
    /// Under which every packet must have been counted.
    reason: Reason,
    flows: &'static [u32],
    /// ns
    limit: Option<f64>,
}

/// The case of a name.
pub(crate) fn case_named(what: &str) -> Result<Case> {
    let found = cases().into_iter().find(|case| case.what == what);
    found.with_context(|| format!("no case {what}"))
}

fn cases() -> Vec<Case> {
    let data = |mirrors| from_client(mirrors, PAYLOAD, true);
    let client = |what, mirrors, reason, limit| Case {
        what,
        program: "vni_ingress",
        from: None,
        segment: data(mirrors),
        step: PAYLOAD as u32,
        known: true,
        mirrors,
        reason,
        flows: &[FEW, SOME, MANY],
        limit,
    };
    let syn = |mirrors| Segment {
        flags: bit::SYN,
        ack: 0,
        payload: 0,
        ..data(mirrors)
    };
    let reply = |what, mirrors, replica, payload: usize, reason| Case {
        what,
        program: "instance_return",
        from: Some(replica),
        segment: from_replica(mirrors, replica, payload),
        step: payload as u32,
        ..client(what, mirrors, reason, None)
    };
    let opening = |what, mirrors, reason| Case {
        segment: syn(mirrors),
        step: 0,
        known: false,
        flows: &[MANY],
        ..client(what, mirrors, reason, Some(120.0))
    };
    // Its flow is half-open since the first one: the same work but for a new entry, in the nearest caches.
    let again = |what, mirrors, reason| Case {
        flows: &[FEW],
        ..opening(what, mirrors, reason)
    };
    // It is noted with the half-open ones by its first packet; of so many flows the oldest have gone.
    let miss = |what, mirrors| Case {
        known: false,
        flows: &[MANY],
        ..client(what, mirrors, Reason::NoFlow, None)
    };
    let stranger = Segment {
        to: (std::net::Ipv4Addr::new(10, 77, 0, 1), 7000),
        ..data(0)
    };
    vec![
        client("known flow, unmirrored", 0, Reason::Steered, Some(60.0)),
        client("known flow, 1 mirror", 1, Reason::Cloned, Some(120.0)),
        Case {
            flows: &[FEW, SOME],
            ..client("known flow, 3 mirrors", 3, Reason::Cloned, None)
        },
        miss("no flow, no SYN: steered by its hash", 2),
        again("SYN sent again, unmirrored", 0, Reason::Steered),
        again("SYN sent again, 1 mirror", 1, Reason::Cloned),
        opening("SYN, unmirrored", 0, Reason::Steered),
        Case {
            segment: syn(ZONED),
            ..opening(
                "SYN, unmirrored, by the table of 1 of 1,024 prefixes",
                0,
                Reason::Steered,
            )
        },
        opening("SYN, 1 mirror", 1, Reason::Cloned),
        Case {
            segment: stranger,
            step: 0,
            known: false,
            flows: &[FEW, SOME],
            ..client("not for a VNI", 0, Reason::NotVni, None)
        },
        reply(
            "reply, unmirrored: delivered",
            0,
            0,
            PAYLOAD,
            Reason::Delivered,
        ),
        reply(
            "active's reply: delivered",
            1,
            0,
            PAYLOAD,
            Reason::Delivered,
        ),
        Case {
            flows: &[FEW, SOME],
            ..reply(
                "mirror's ACK: suppressed",
                1,
                1,
                0,
                Reason::MirrorSuppressed,
            )
        },
        Case {
            flows: &[FEW, SOME],
            ..reply(
                "mirror's data ahead: kept, suppressed",
                1,
                1,
                PAYLOAD,
                Reason::MirrorSuppressed,
            )
        },
    ]
}

pub(crate) fn run(effort: &Effort) -> Result<Results> {
    rig::check_addresses()?;
    let mut results = Results::new("steering", METHOD);
    let mut rig = Rig::set_up()?;
    results.rows.extend(sizes(&rig)?);
    let floor = floor(&rig, effort)?;
    let per_packet = Spread::of(&floor);
    results.rows.push(Row {
        what: "plain redirect (the floor)".into(),
        value: per_packet,
        unit: "ns".into(),
        ..Row::default()
    });
    for case in cases() {
        if !effort.wants(case.what) {
            continue;
        }
        let mut some = None;
        for &flows in case.flows {
            effort.progress(&format!("{}, {flows} flows", case.what));
            let samples = measure(&mut rig, &case, flows, effort)?;
            let value = Spread::of(&samples);
            let mut note = String::new();
            let mut goal = case
                .limit
                .map(|limit| Goal::at_most(value.median, limit, "ns"));
            if flows == SOME {
                some = Some(value.median);
            }
            if let Some(some) = some.filter(|_| flows == MANY) {
                let growth = value.median / some;
                note = format!("{growth:.2} x that of {SOME}");
                goal = Some(Goal::at_most(growth, 1.5, "x"));
            }
            results.rows.push(Row {
                what: format!("{}, {flows} flows", case.what),
                against: Some("redirect".into()),
                ratio: Some(Spread::of_ratios(
                    samples.iter().copied().zip(floor.iter().copied()),
                )),
                value,
                unit: "ns".into(),
                goal,
                note,
                ..Row::default()
            });
        }
    }
    results.rows.extend(collector::rows(&mut rig, effort)?);
    Ok(results)
}

/// What the verifier walked and what the programs became: where no counter counts instructions, the
/// next best thing.
fn sizes(rig: &Rig) -> Result<Vec<Row>> {
    let rows = rig.sizes()?.into_iter().map(|size| Row {
        what: format!("{}: instructions verified", size.name),
        value: Spread::of(&[f64::from(size.verified)]),
        unit: "".into(),
        note: format!("{} B translated, {} B JITed", size.translated, size.jitted),
        ..Row::default()
    });
    Ok(rows.collect())
}

/// Nanoseconds of a redirect by a devmap, by round.
fn floor(rig: &Rig, effort: &Effort) -> Result<Vec<f64>> {
    let frame = frame(rig, &from_client(0, PAYLOAD, true), None);
    let feed = Feed {
        flows: 1,
        client_offset: CLIENT_OFFSET_IN,
        seq: 0,
        step: 0,
    };
    let host = &rig.topology.host;
    let devmap = sys::map(sys::MAP_DEVMAP, 4, 1)?;
    host.run(|| sys::update(devmap.as_fd(), 0, &rig.link(0).to_ne_bytes()))??;
    let redirect = assemble::redirect(devmap.as_fd(), 0)?;
    let feeder = Feeder::new(&frame, feed, &Then::Run(redirect.as_fd()))?;
    pairs(host, &feeder, &frame, feed, rig.client_link(), effort)
}

/// A case about to be measured.
pub(crate) struct Prepared {
    pub(crate) feeder: Feeder,
    pub(crate) frame: Vec<u8>,
    pub(crate) ingress: u32,
    feed: Feed,
}

/// Opens the case's flows and puts the feeder before its program.
pub(crate) fn prepare(rig: &mut Rig, case: &Case, flows: u32) -> Result<Prepared> {
    if case.known {
        rig.open(flows, case.mirrors)?;
    }
    let frame = frame(rig, &case.segment, case.from);
    let feed = Feed {
        flows,
        client_offset: match case.from {
            None => CLIENT_OFFSET_IN,
            Some(_) => CLIENT_OFFSET_OUT,
        },
        seq: case.segment.seq,
        step: case.step,
    };
    let ingress = match case.from {
        None => rig.client_link(),
        Some(instance) => rig.link(instance),
    };
    let target = rig.program(case.program)?;
    let feeder = Feeder::new(&frame, feed, &Then::Run(target))?;
    Ok(Prepared {
        feeder,
        frame,
        ingress,
        feed,
    })
}

fn measure(rig: &mut Rig, case: &Case, flows: u32, effort: &Effort) -> Result<Vec<f64>> {
    let Prepared {
        feeder,
        frame,
        ingress,
        feed,
    } = prepare(rig, case, flows)?;
    let before = rig.count(case.reason)?;
    let samples = pairs(&rig.topology.host, &feeder, &frame, feed, ingress, effort)?;
    let counted = rig.count(case.reason)? - before;
    let sent = u64::from(effort.packets) * (effort.rounds as u64 + 1) + warm_up(flows, effort);
    ensure!(
        counted == sent,
        "{}, {flows} flows: {counted} of {sent} packets were counted as {}",
        case.what,
        case.reason.name()
    );
    Ok(samples)
}

/// Every flow is seen once before.
fn warm_up(flows: u32, effort: &Effort) -> u64 {
    u64::from(flows.max(effort.packets))
}

/// The middle one of a round's turns, each of which measures a pair with so many packets.
pub(crate) fn round(effort: &Effort, mut turn: impl FnMut(u32) -> Result<f64>) -> Result<f64> {
    let turns = (0..TURNS).map(|_| turn(effort.packets / TURNS));
    let turns = turns.collect::<Result<Vec<_>>>()?;
    Ok(Spread::of(&turns).median)
}

/// Rounds of the feeder with its program and with an empty one in turn; the differences, ns a packet.
pub(crate) fn pairs(
    host: &Namespace,
    feeder: &Feeder,
    frame: &[u8],
    feed: Feed,
    ingress: u32,
    effort: &Effort,
) -> Result<Vec<f64>> {
    let empty = assemble::constant(XDP_PASS)?;
    let bare = Feeder::new(frame, feed, &Then::Run(empty.as_fd()))?;
    // Interface numbers are looked up in the namespace of who runs a program.
    host.run(|| {
        machine::pin()?;
        let warm_up = warm_up(feed.flows, effort) as u32;
        sys::run(feeder.program.as_fd(), ingress, frame, warm_up)?;
        let time = |feeder: &Feeder, packets| {
            let ns = sys::run(feeder.program.as_fd(), ingress, frame, packets)?;
            anyhow::Ok(f64::from(ns))
        };
        // One round more, which is not kept.
        let mut samples = Vec::new();
        for _ in 0..=effort.rounds {
            samples.push(round(effort, |packets| {
                let base = time(&bare, packets)?;
                Ok(time(feeder, packets)? - base)
            })?);
        }
        Ok(samples.split_off(1))
    })?
}

/// The frame as it arrives from an instance, or from the client.
pub(crate) fn frame(rig: &Rig, segment: &Segment, from: Option<usize>) -> Vec<u8> {
    use testbed::net::MacAddr;
    let number = from.map_or(0, |instance| instance as u8 + 1);
    debug_assert!(usize::from(number) <= rig.topology.instances.len());
    let frame = segment.frame(MacAddr::local(number, 1).0, MacAddr::local(number, 2).0);
    debug_assert!(frame.len() >= HEADERS);
    frame
}
