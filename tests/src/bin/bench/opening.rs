//! How many connections a second one processor opens: SYN, the SYN-ACK of each replica, and the client's ACK.

use anyhow::{Result, ensure};
use mirror_common::reason::Reason;

use crate::Effort;
use crate::assemble::{Feed, Feeder, Then};
use crate::frame::{Segment, bit};
use crate::report::Row;
use crate::rig::{CLIENT_SEQ, Rig, from_client, from_replica, replica_seq};
use crate::stats::Spread;
use crate::steering::{CLIENT_OFFSET_IN, CLIENT_OFFSET_OUT, frame};
use crate::sys;

/// Fewer than are kept half-open.
const FLOWS: u32 = 50_000;
const MIRRORS: [usize; 2] = [0, 1];

pub(crate) fn rows(rig: &mut Rig, effort: &Effort) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for mirrors in MIRRORS {
        let mut rates = Vec::new();
        let mut per_flow = Vec::new();
        // One round more, which is not kept.
        for round in 0..=effort.rounds.div_ceil(3) {
            rig.close_all()?;
            let ns = open(rig, mirrors)?;
            if round > 0 {
                rates.push(1e6 / ns);
                per_flow.push(ns);
            }
        }
        rows.push(Row {
            what: format!("{FLOWS} flows opened, {mirrors} mirror(s)"),
            value: Spread::of(&rates),
            unit: "1,000/s".into(),
            note: format!(
                "{:.0} ns a flow, all its packets",
                Spread::of(&per_flow).median
            ),
            ..Row::default()
        });
    }
    rig.close_all()?;
    Ok(rows)
}

/// Nanoseconds of one flow's handshake.
fn open(rig: &Rig, mirrors: usize) -> Result<f64> {
    let before = rig.count(Reason::FlowOpened)?;
    let syn = Segment {
        flags: bit::SYN,
        seq: CLIENT_SEQ - 1,
        ack: 0,
        ..from_client(mirrors, 0, true)
    };
    let mut ns = pass(rig, &syn, None)?;
    for replica in 0..=mirrors {
        let answer = Segment {
            flags: bit::SYN | bit::ACK,
            seq: replica_seq(replica) - 1,
            ..from_replica(mirrors, replica, 0)
        };
        ns += pass(rig, &answer, Some(replica))?;
    }
    ns += pass(rig, &from_client(mirrors, 0, true), None)?;
    let opened = rig.count(Reason::FlowOpened)? - before;
    ensure!(
        opened == u64::from(FLOWS),
        "{opened} of {FLOWS} flows were opened"
    );
    Ok(ns)
}

/// One packet of every flow, from the client or from a replica; ns each.
fn pass(rig: &Rig, segment: &Segment, from: Option<usize>) -> Result<f64> {
    let (program, ingress, client_offset) = match from {
        None => ("vni_ingress", rig.client_link(), CLIENT_OFFSET_IN),
        Some(replica) => ("instance_return", rig.link(replica), CLIENT_OFFSET_OUT),
    };
    let frame = frame(rig, segment, from);
    let feed = Feed {
        flows: FLOWS,
        client_offset,
        seq: segment.seq,
        step: 0,
    };
    let feeder = Feeder::new(&frame, feed, &Then::Run(rig.program(program)?))?;
    let run = || {
        sys::run(
            std::os::fd::AsFd::as_fd(&feeder.program),
            ingress,
            &frame,
            FLOWS,
        )
    };
    Ok(f64::from(rig.topology.host.run(run)??))
}
