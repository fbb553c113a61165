//! Random segments: half of them what a host could say now, the others near numbers that mean something, or anything.

use fastrand::Rng;
use mirror_common::{
    flow::{TcpFlow, state},
    limits::REPLICAS,
    tcp::{Segment, flag, option, segment::bit},
};

/// A window's size at most (RFC 7323, section 2.3).
const WINDOW_MAX: u32 = 1 << 30;

/// What hosts were given at the beginning.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Numbers {
    pub(super) client_isn: u32,
    pub(super) isn: [u32; REPLICAS],
    pub(super) options: [u8; REPLICAS],
}

/// Numbers where something may go wrong: the ends of the number space, its middle, anything.
pub(super) fn awkward(rng: &mut Rng) -> u32 {
    let edge = [0, u32::MAX, i32::MAX as u32, 1 << 31][rng.usize(..4)];
    match rng.u8(..4) {
        0 => rng.u32(..),
        _ => edge.wrapping_add_signed(rng.i32(-3_000..3_000)),
    }
}

/// A number near one of these.
fn near(rng: &mut Rng, all: &[u32]) -> u32 {
    let number = all[rng.usize(..all.len())];
    let off = match rng.u8(..8) {
        0..=3 => 0,
        4 => rng.i32(-2..=2),
        5 => [-1_460, 1_460, -65_535, 65_535][rng.usize(..4)],
        6 => rng.i32(-100_000..100_000),
        _ => rng.i32(..),
    };
    number.wrapping_add_signed(off)
}

fn flags(rng: &mut Rng) -> u8 {
    match rng.u8(..32) {
        0..=21 => bit::ACK,
        22..=23 => bit::ACK | bit::PSH,
        24..=26 => bit::ACK | bit::FIN,
        27 => bit::RST,
        28 => bit::RST | bit::ACK,
        29 => bit::SYN,
        30 => bit::SYN | bit::ACK,
        _ => rng.u8(..32),
    }
}

fn payload(rng: &mut Rng) -> u32 {
    match rng.u8(..8) {
        0..=3 => 0,
        4 => 1,
        5 => 100,
        6 => 1_460,
        _ => rng.u32(..65_000),
    }
}

/// What both sides' segments have in common.
fn any(rng: &mut Rng, clocks: &[u32], echoes: &[u32]) -> Segment {
    let flags = flags(rng);
    let options = match rng.u8(..8) {
        0 => rng.u8(..16),
        1 => option::TIMESTAMP | option::SACK,
        _ => option::TIMESTAMP,
    };
    Segment {
        ts_val: near(rng, clocks),
        ts_ecr: near(rng, echoes),
        payload: payload(rng),
        window: [0, 1, 1_000, 0xffff, rng.u16(..)][rng.usize(..5)],
        flags,
        options,
        window_scale: rng.u8(..15),
        sum: [0, 0x1234, rng.u16(..)][rng.usize(..3)],
        has_sum: rng.bool(),
        ..Segment::default()
    }
}

/// The client's SYN.
pub(super) fn syn(rng: &mut Rng, numbers: &Numbers) -> Segment {
    Segment {
        seq: numbers.client_isn,
        ts_val: awkward(rng),
        window: 64_240,
        flags: bit::SYN,
        options: option::TIMESTAMP | option::SACK | option::WINDOW_SCALE,
        window_scale: rng.u8(..15),
        ..Segment::default()
    }
}

/// Something that seems to come from the client.
pub(super) fn of_client(rng: &mut Rng, flow: &TcpFlow) -> Segment {
    let sync = &flow.sync;
    let active = flow.flow.active;
    let mut segment = any(rng, &[sync.client_ts], &[sync.ts_sent]);
    let honest = rng.bool();
    if honest {
        segment.flags &= !(bit::SYN | bit::RST);
        segment.flags |= bit::ACK;
        segment.seq = sync.client_nxt;
        segment.ack = sync.sent;
        // What it acknowledges may be old.
        if rng.u8(..4) == 0 {
            segment.ack = sync.client_ack;
        }
        if flow.flow.state < state::ESTABLISHED {
            segment.ack = sync.isn.wrapping_add(1);
        }
    } else {
        let places = [
            sync.client_isn,
            sync.client_isn.wrapping_add(1),
            sync.client_nxt,
            sync.told_ack,
            sync.told_edge,
            sync.client_fin,
        ];
        let other = rng.u8(..flow.flow.replicas);
        let acks = [
            sync.isn,
            sync.isn.wrapping_add(1),
            sync.sent,
            sync.client_ack,
            flow.produced(active),
            flow.produced(other),
        ];
        segment.seq = near(rng, &places);
        segment.ack = near(rng, &acks);
    }
    segment
}

/// Something that comes from a replica's instance.
pub(super) fn of_replica(rng: &mut Rng, flow: &TcpFlow, slot: u8, numbers: &Numbers) -> Segment {
    let (sync, replica) = (&flow.sync, flow.replica(slot));
    let place = usize::from(slot) & (REPLICAS - 1);
    let mut segment = any(rng, &[replica.ts_last], &[sync.client_ts]);
    let honest = rng.u8(..8) < 5;
    if honest && replica.flags & flag::SYN_ACK == 0 {
        segment.flags = bit::SYN | bit::ACK;
        segment.payload = 0;
        segment.seq = numbers.isn[place];
        segment.ack = sync.client_isn.wrapping_add(1);
        segment.options = numbers.options[place];
    } else if honest {
        segment.flags &= !(bit::SYN | bit::RST);
        segment.flags |= bit::ACK;
        segment.seq = replica.snd_nxt;
        segment.ack = sync.client_nxt;
        if rng.u8(..4) == 0 {
            segment.ack = replica.rcv_nxt;
        }
        // Again what the active one has said.
        if rng.u8(..4) == 0 {
            segment.seq = sync.sent.wrapping_add(flow.delta(slot));
        }
    } else {
        let places = [
            numbers.isn[place],
            replica.isn.wrapping_add(1),
            replica.snd_nxt,
            replica.fin,
            sync.sent.wrapping_add(flow.delta(slot)),
            sync.client_ack.wrapping_add(flow.delta(slot)),
        ];
        let acks = [
            sync.client_isn.wrapping_add(1),
            sync.client_nxt,
            sync.told_ack,
            replica.rcv_nxt,
            sync.told_edge,
        ];
        segment.seq = near(rng, &places);
        segment.ack = near(rng, &acks);
    }
    // Servers are not forged: none is further ahead of its peer, or behind it, than the largest window that there is.
    let far = |number: u32, from: u32| {
        number.wrapping_sub(from).cast_signed().unsigned_abs() > WINDOW_MAX
    };
    if segment.is(bit::SYN) {
        return segment;
    }
    if far(segment.seq, sync.client_ack.wrapping_add(flow.delta(slot))) {
        segment.seq = replica.snd_nxt;
        segment.payload = 0;
    }
    if far(segment.ack, sync.client_nxt) {
        segment.ack = sync.client_nxt;
    }
    segment
}
