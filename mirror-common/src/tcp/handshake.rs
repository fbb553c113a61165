//! The gated handshake: the last SYN-ACK of the set opens the connection.
//!
//! The client's ACK must not overtake a mirror's SYN-ACK, or that mirror would miss the ACK and
//! perhaps data. So each SYN-ACK but the last is held; the last one is rewritten into the active
//! replica's numbers and sent on. A mirror that does not answer costs at most the time until the
//! next SYN-ACK after the deadline. So that this is not a retransmission (a second), SYN-ACKs that are
//! held are parked, and the agent lets the programs take them in again when an instance has not
//! answered SYNs for too long; from then on nobody waits for it until it answers one.

use super::{
    Conditions, Notes, Segment, TcpFlow, flag, option,
    replica::{Output, Verdict},
    roles,
    segment::bit,
    seq, slot,
};
use crate::{
    event::cause,
    flow::state,
    limits::REPLICAS,
    reason::{Cold, Reason},
    vni,
};

/// Takes in a SYN-ACK of replica `from`.
#[inline(always)]
pub fn syn_ack(
    flow: &mut TcpFlow,
    from: u8,
    packet: &Segment,
    conditions: &Conditions,
    notes: &mut Notes,
) -> Output {
    if packet.ack != flow.sync.client_isn.wrapping_add(1) || !packet.is(bit::ACK) {
        // The replica begins anew with a client that began anew: our flow is a thing of the past.
        if flow.flow.state >= state::ESTABLISHED && from == flow.flow.active {
            flow.flow.state = state::CLOSED;
            notes.closed = true;
        }
        let young = flow.flow.state < state::ESTABLISHED;
        if young & packet.is(bit::ACK) & conditions.is_reachable(from) {
            // It answers a SYN of the port's last use, and would go on to.
            return Output::refuse(packet);
        }
        return Output::drop(Reason::BadHandshakeAck);
    }
    if flow.replica(from).state == slot::COLD {
        return Output::refuse(packet);
    }
    if !conditions.is_reachable(from) {
        return Output::drop(Reason::MirrorSuppressed);
    }
    if flow.flow.state == state::HANDSHAKE {
        learn(flow, from, packet, notes);
        return gate(flow, from, packet, conditions, notes);
    }
    if flow.flow.state == state::CLOSED {
        // Reset before it was established, and this replica does not know.
        return Output::refuse(packet);
    }
    // With another number it is a replica that began anew.
    let learnt = flow.replica(from);
    let known = (learnt.flags & flag::SYN_ACK != 0) & (learnt.isn == packet.seq);
    if !known {
        if flow.sync.client_nxt != flow.sync.client_isn.wrapping_add(1) {
            if from == flow.flow.active {
                // It will reset what it does not know, and is left then.
                return Output::drop(Reason::BadHandshakeAck);
            }
            flow.chill(from, Cold::HandshakeMissed, notes);
            return Output::refuse(packet);
        }
        if packet.options != flow.sync.options {
            flow.chill(from, Cold::OptionMismatch, notes);
            return Output::refuse(packet);
        }
        learn(flow, from, packet, notes);
        let offset = packet.ts_val.wrapping_sub(flow.sync.ts_sent);
        flow.replica_mut(from).ts_offset = offset;
    }
    let replica = flow.replica_mut(from);
    replica.ts_last = seq::max(replica.ts_last, packet.ts_val);
    if flow.flow.state >= state::ESTABLISHED {
        // The client's ACK was lost on its way to this replica.
        return Output::turn_round(flow, from, packet);
    }
    if repeats(flow, from, conditions) {
        flow.sync.window_scale = packet.window_scale;
        return answer(flow, packet);
    }
    Output::drop(Reason::MirrorSuppressed)
}

/// Whether a replica may repeat the SYN-ACK. The client may have the first one: only a replica
/// that tells it the same window scale may, the active one if it does. When nobody does any more,
/// the active one may: without a SYN-ACK there is no connection, and if the client has the first
/// one after all, windows are misread until segments outside of them were sent again.
#[inline(always)]
fn repeats(flow: &TcpFlow, from: u8, conditions: &Conditions) -> bool {
    let told = flow.sync.window_scale;
    let mut able = 0u8;
    for slot in 0..REPLICAS as u8 {
        let same = flow.is_warm(slot, conditions) & (flow.replica(slot).window_scale == told);
        able |= u8::from(same) << slot;
    }
    let active = 1 << (flow.flow.active & 3);
    let speaker = 1 << (from & 3);
    if able & active != 0 || able == 0 {
        speaker == active
    } else {
        able & speaker != 0
    }
}

/// A segment of a replica that is not warm. One that has not answered this SYN and says anything
/// else holds what is left of the port's last use, and would never answer.
#[inline(always)]
pub(super) fn stale(flow: &TcpFlow, from: u8, packet: &Segment, conditions: &Conditions) -> Output {
    let silent = flow.replica(from).state == slot::PENDING;
    let young = flow.flow.state < state::ESTABLISHED;
    if silent & young & packet.is(bit::ACK) & conditions.is_reachable(from) {
        Output::refuse(packet)
    } else {
        Output::drop(Reason::MirrorSuppressed)
    }
}

/// Keeps what a replica's SYN-ACK says.
#[inline(always)]
fn learn(flow: &mut TcpFlow, from: u8, packet: &Segment, notes: &mut Notes) {
    let replica = flow.replica_mut(from);
    if replica.state == slot::PENDING {
        replica.state = slot::WARM;
        notes.went_warm |= 1 << (from & 3);
    }
    replica.flags |= flag::SYN_ACK;
    replica.sum = 0;
    replica.isn = packet.seq;
    replica.snd_nxt = packet.seq.wrapping_add(1);
    replica.rcv_nxt = packet.ack;
    replica.edge = packet.ack.wrapping_add(u32::from(packet.window));
    replica.ts_last = packet.ts_val;
    replica.window_scale = packet.window_scale;
    replica.options = packet.options;
}

/// Holds the SYN-ACK until the whole set has answered, or sends it on.
#[inline(always)]
fn gate(
    flow: &mut TcpFlow,
    from: u8,
    packet: &Segment,
    conditions: &Conditions,
    notes: &mut Notes,
) -> Output {
    // To the end of this millisecond, so that the time is never before the SYN's.
    let now_steps = conditions.now_ms << 6 | 63;
    let waited = now_steps.wrapping_sub(flow.sync.syn_steps) >> 6;
    let mut waiting = false;
    for other in 0..REPLICAS as u8 {
        waiting |= other < flow.flow.replicas
            && flow.replica(other).state == slot::PENDING
            && conditions.unresponsive & (1 << other) == 0
            && conditions.is_alive(other);
    }
    waiting &= waited < conditions.vni.handshake_ms;
    // Where mirrors are shadows, the client waits for the one that serves it, as it would without them.
    let unserved = conditions.has(vni::flag::SHADOW) & !flow.is_warm(flow.flow.active, conditions);
    if waiting | unserved {
        return Output {
            park: waiting,
            ..Output::drop(Reason::SynAckHeld)
        };
    }
    if !flow.is_warm(flow.flow.active, conditions) {
        let active = flow.replica(flow.flow.active);
        let why = if active.state == slot::PENDING {
            cause::UNANSWERED
        } else {
            cause::REFUSED
        };
        roles::activate(flow, from, why, notes);
    }
    let active = *flow.replica(flow.flow.active);
    for other in 0..REPLICAS as u8 {
        let replica = flow.replica_mut(other);
        if replica.state == slot::WARM {
            // The client echoes the active replica's value; it must become exactly the value
            // that each replica sent.
            replica.ts_offset = replica.ts_last.wrapping_sub(active.ts_last);
            if replica.options != active.options {
                flow.chill(other, Cold::OptionMismatch, notes);
            }
        }
    }
    flow.sync.isn = active.isn;
    flow.sync.ts_sent = active.ts_last;
    if flow.replica(from).state != slot::WARM {
        // Its options are not the active replica's. The next SYN-ACK of the active one opens.
        return Output::drop(Reason::SynAckHeld);
    }
    let sync = &mut flow.sync;
    // Counted as acknowledged already: it is never compared before the client has acknowledged it.
    sync.client_ack = active.isn.wrapping_add(1);
    sync.sent = active.isn.wrapping_add(1);
    sync.window_scale = packet.window_scale;
    sync.options = packet.options;
    // Both scale their windows, or none (RFC 7323, section 2.2).
    if packet.options & option::WINDOW_SCALE == 0 {
        sync.client_scale = 0;
    }
    flow.flow.state = state::ANSWERED;
    answer(flow, packet)
}

/// The SYN-ACK in canonical numbers.
#[inline(always)]
fn answer(flow: &mut TcpFlow, packet: &Segment) -> Output {
    let mut window = packet.window;
    for other in 0..REPLICAS as u8 {
        let replica = flow.replica(other);
        if replica.state == slot::WARM && flow.flow.state == state::ANSWERED {
            // Windows of SYN-ACKs are not scaled.
            let offered = replica
                .edge
                .wrapping_sub(flow.sync.client_isn)
                .wrapping_sub(1);
            window = window.min(offered.min(0xffff) as u16);
        }
    }
    flow.sync.told_ack = packet.ack;
    // A mirror with a smaller window may have joined since the client was told first, and it goes by what it was told.
    let edge = packet.ack.wrapping_add(u32::from(window));
    flow.sync.told_edge = seq::max(flow.sync.told_edge, edge);
    Output {
        verdict: Verdict::ToClient,
        seq: flow.sync.isn,
        ack: packet.ack,
        window,
        ts_val: flow.sync.ts_sent,
        ts_ecr: packet.ts_ecr,
        ..Output::drop(Reason::Delivered)
    }
}

/// Takes in a reset of replica `from` before the connection is established.
#[inline(always)]
pub fn refused(
    flow: &mut TcpFlow,
    from: u8,
    packet: &Segment,
    conditions: &Conditions,
    notes: &mut Notes,
) -> Output {
    // A reset of the port's last use, that was long on its way, says nothing of this SYN.
    let learnt = flow.replica(from);
    let of_syn = packet.is(bit::ACK) & (packet.ack == flow.sync.client_isn.wrapping_add(1));
    let of_answer = (learnt.flags & flag::SYN_ACK != 0) & (packet.seq == learnt.snd_nxt);
    if !of_syn & !of_answer {
        return Output::drop(Reason::BadHandshakeAck);
    }
    flow.chill(from, Cold::Refused, notes);
    if from == flow.flow.active {
        roles::promote(flow, conditions, cause::REFUSED, roles::cost::NEVER, notes);
    }
    if from != flow.flow.active {
        return Output::drop(Reason::ResetHeld);
    }
    flow.flow.state = state::CLOSED;
    notes.closed = true;
    // A reset of the SYN itself has no sequence number to translate.
    let delta = if packet.seq == 0 { 0 } else { flow.delta(from) };
    Output {
        verdict: Verdict::ToClient,
        seq: packet.seq.wrapping_sub(delta),
        ack: packet.ack,
        window: packet.window,
        ts_val: packet.ts_val,
        ts_ecr: packet.ts_ecr,
        ..Output::drop(Reason::Delivered)
    }
}
