//! What grows with flows: memory and look-ups; and what must not: the write that is a takeover.

use std::os::fd::AsFd;
use std::time::Instant;

use anyhow::{Result, ensure};
use mirror_common::instance::state as health;
use mirror_common::reason::Reason;

use crate::assemble::{self, Feed, Feeder, Then};
use crate::report::{Goal, Results, Row};
use crate::rig::{self, Rig, from_client};
use crate::stats::Spread;
use crate::steering::{CLIENT_OFFSET_IN, FEW, MANY, PAYLOAD, SOME, frame, pairs};
use crate::{Effort, machine, many, opening, sys, tables};

const METHOD: &str = "memory by the growth of the kernel's slabs, with the table by its own account; a look-up as in `steering`, with nothing around it";
/// Flows that are taken over at once.
const TAKEN_OVER: u32 = 100_000;
/// Map writes of a round.
const WRITES: u32 = 1_000;
/// Mirrors, and the bytes that a flow with them may take, all in.
const MEMORY: [(usize, f64); 2] = [(0, 128.0), (3, 384.0)];

pub(crate) fn run(effort: &Effort) -> Result<Results> {
    let mut results = Results::new("scale", METHOD);
    let mut rig = Rig::set_up()?;
    let wants = |part| {
        let wanted = effort.wants(part);
        if wanted {
            effort.progress(part);
        }
        wanted
    };
    if wants("memory") {
        for (mirrors, limit) in MEMORY {
            results.rows.push(memory(&mut rig, mirrors, limit)?);
        }
    }
    if wants("look-up") {
        results.rows.extend(lookups(&mut rig, effort)?);
    }
    machine::pin()?;
    if wants("write that is a takeover") {
        rig.open(MANY, 3)?;
        results.rows.push(writes(&mut rig, effort)?);
    }
    if wants("flows taken over") {
        results.rows.push(takeover(&mut rig)?);
    }
    if wants("flows opened") {
        results.rows.extend(opening::rows(&mut rig, effort)?);
    }
    if wants("table") {
        results.rows.extend(tables::computed(effort));
        results.rows.extend(tables::written(&mut rig)?);
    }
    if wants("VNIs") {
        results.rows.extend(many::rows(effort)?);
    }
    Ok(results)
}

/// Nanoseconds of one look-up.
fn lookups(rig: &mut Rig, effort: &Effort) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for flows in [FEW, SOME, MANY] {
        rig.open(flows, 0)?;
        let key = rig::key(0, 0);
        let key = key_bytes(&key);
        let program = assemble::lookup(rig.flow_fds[0].as_fd(), &key, CLIENT_OFFSET_IN)?;
        let segment = from_client(0, PAYLOAD, true);
        let frame = frame(rig, &segment, None);
        let feed = Feed {
            flows,
            client_offset: CLIENT_OFFSET_IN,
            seq: segment.seq,
            step: 0,
        };
        let feeder = Feeder::new(&frame, feed, &Then::Run(program.as_fd()))?;
        let host = &rig.topology.host;
        let samples = pairs(host, &feeder, &frame, feed, rig.client_link(), effort)?;
        rows.push(Row {
            what: format!("look-up in FLOWS, {flows} flows"),
            value: Spread::of(&samples),
            unit: "ns".into(),
            ..Row::default()
        });
    }
    Ok(rows)
}

fn key_bytes(key: &mirror_common::flow::FlowKey) -> [u8; 24] {
    let mut bytes = [0; 24];
    for (place, word) in key.client.iter().enumerate() {
        bytes[4 * place..4 * place + 4].copy_from_slice(&word.to_ne_bytes());
    }
    bytes[16..18].copy_from_slice(&key.vni.to_ne_bytes());
    bytes[18] = key.address;
    bytes[19] = key.protocol;
    bytes[20..22].copy_from_slice(&key.client_port.to_ne_bytes());
    bytes[22..24].copy_from_slice(&key.vni_port.to_ne_bytes());
    bytes
}

/// Bytes per flow at a million: what the kernel's allocations of them take, and the table's own part.
fn memory(rig: &mut Rig, mirrors: usize, limit: f64) -> Result<Row> {
    rig.close_all()?;
    machine::shrink_slabs();
    let table = |rig: &Rig| sys::map_bytes(rig.flow_fds[usize::from(mirrors > 0)].as_fd());
    let (empty, slabs) = (table(rig)?, machine::slab_bytes()?);
    rig.open(MANY, mirrors)?;
    let allocated = machine::slab_bytes()?.saturating_sub(slabs);
    let per_flow = (empty + allocated) as f64 / f64::from(MANY);
    let counted = table(rig)? as f64 / f64::from(MANY);
    Ok(Row {
        what: format!("memory of a flow with {mirrors} mirror(s), table and all"),
        value: Spread::of(&[per_flow]),
        unit: "B".into(),
        goal: Some(Goal::at_most(per_flow, limit, "B")),
        note: format!("{counted:.1} B before allocations are rounded up"),
        ..Row::default()
    })
}

/// Microseconds of the map write that takes an instance out, while there are a million flows.
fn writes(rig: &mut Rig, effort: &Effort) -> Result<Row> {
    let entry = rig.instances.get(&1, 0)?;
    let mut samples = Vec::new();
    for _ in 0..effort.rounds {
        let start = Instant::now();
        for _ in 0..WRITES {
            rig.instances.set(1, entry, 0)?;
        }
        samples.push(start.elapsed().as_secs_f64() * 1e6 / f64::from(WRITES));
    }
    let value = Spread::of(&samples);
    Ok(Row {
        what: format!("write that is a takeover, {MANY} flows"),
        value,
        unit: "us".into(),
        goal: Some(Goal::at_most(value.median, 20.0, "us")),
        ..Row::default()
    })
}

/// All flows of an instance move, each at its next packet.
fn takeover(rig: &mut Rig) -> Result<Row> {
    rig.open(TAKEN_OVER, 1)?;
    let segment = from_client(1, PAYLOAD, true);
    let frame = frame(rig, &segment, None);
    let feed = Feed {
        flows: TAKEN_OVER,
        client_offset: CLIENT_OFFSET_IN,
        seq: segment.seq,
        step: PAYLOAD as u32,
    };
    let feeder = Feeder::new(&frame, feed, &Then::Run(rig.program("vni_ingress")?))?;
    let before = rig.count(Reason::Takeover)?;
    let up = rig.instances.get(&1, 0)?;
    let mut dead = up;
    dead.state = health::DEAD;
    rig.instances.set(1, dead, 0)?;
    let ingress = rig.client_link();
    let start = Instant::now();
    let host = &rig.topology.host;
    host.run(|| sys::run(feeder.program.as_fd(), ingress, &frame, TAKEN_OVER))??;
    let elapsed = start.elapsed().as_secs_f64();
    rig.instances.set(1, up, 0)?;
    let moved = rig.count(Reason::Takeover)? - before;
    ensure!(
        moved == u64::from(TAKEN_OVER),
        "{moved} of {TAKEN_OVER} flows were taken over"
    );
    Ok(Row {
        what: format!("{TAKEN_OVER} flows taken over, packets back to back"),
        value: Spread::of(&[elapsed * 1e3]),
        unit: "ms".into(),
        note: format!("{:.0} ns a flow", elapsed * 1e9 / f64::from(TAKEN_OVER)),
        ..Row::default()
    })
}
