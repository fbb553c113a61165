//! Packets from the client: what they tell us, and how each replica must see them.

use super::{
    Conditions, Notes, Segment, TcpFlow, divergence, flag, option, roles, segment::bit, seq, slot,
};
use crate::{
    flow::state,
    limits::REPLICAS,
    plan::Copy,
    reason::{Cold, Reason},
    vni,
};

/// What becomes of a client's packet.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Clone it to the replicas.
    Clone,
    /// Nobody is left to answer: reset the client's connection.
    Reset,
    /// Drop it.
    Drop(Reason),
}

/// Starts a flow from the client's SYN. The flow's header (`flow.flow`) is set already.
#[inline(always)]
pub fn open(flow: &mut TcpFlow, syn: &Segment, now_steps: u32) {
    let sync = &mut flow.sync;
    sync.client_isn = syn.seq;
    sync.client_nxt = syn.seq.wrapping_add(1);
    sync.client_fin = syn.seq;
    sync.client_ts = syn.ts_val;
    sync.client_window = syn.window;
    sync.client_scale = syn.window_scale;
    sync.syn_steps = now_steps;
    sync.told_ack = syn.seq.wrapping_add(1);
    sync.told_edge = sync.told_ack;
    // Until a new count begins, also for who answers only after that.
    for replica in &mut sync.replicas {
        replica.flags = flag::SUM;
    }
}

/// Takes in a packet of the client.
#[inline(always)]
pub fn receive(
    flow: &mut TcpFlow,
    packet: &Segment,
    conditions: &Conditions,
    notes: &mut Notes,
) -> Verdict {
    learn(flow, packet);
    // Before anybody is made active.
    divergence::compare(flow, notes);
    flow.close_when_done(notes);
    roles::follow_health(flow, conditions, notes);
    roles::bound_lag(flow, conditions, notes);
    if carries_new_bytes(flow, packet) {
        chill_the_absent(flow, conditions, notes);
    }
    let was_open = flow.flow.state < state::CLOSED;
    if packet.is(bit::RST) {
        // Only a reset with an exact number closes (RFC 5961, section 3.2); the replicas judge
        // the others.
        let exact = (packet.seq == flow.sync.client_nxt) | (packet.seq == flow.sync.told_ack);
        if was_open & exact {
            flow.flow.state = state::CLOSED;
            notes.closed = true;
        }
        return Verdict::Clone;
    }
    let active = flow.flow.active;
    let served = (flow.replica(active).state != slot::COLD) & conditions.is_reachable(active);
    // What was closed in order needs nobody any more.
    if served | (!was_open & flow.is_done()) {
        return Verdict::Clone;
    }
    if conditions.has(vni::flag::LEAVE_LOST) {
        return Verdict::Drop(Reason::NoReplica);
    }
    // Also when it is closed already: the reset may have been lost, or have come with a number that the client had just left behind.
    flow.flow.state = state::CLOSED;
    notes.closed |= was_open;
    Verdict::Reset
}

/// Keeps the client's numbers, if the segment is one that every warm replica takes in. Others
/// teach nothing, and the replicas will judge them: a stray SYN, a reset, a segment
/// outside the window that the client was offered, an acknowledgement of what it was not sent.
#[inline(always)]
fn learn(flow: &mut TcpFlow, packet: &Segment) {
    // One condition without a branch inside: the verifier would follow each of them through all
    // that comes after.
    const DECIDES: u8 = bit::SYN | bit::RST | bit::ACK;
    let sync = &mut flow.sync;
    let end = packet.end();
    let foreign = (flow.flow.state < state::ESTABLISHED)
        | (packet.flags & DECIDES != bit::ACK)
        | seq::before(end, sync.told_ack)
        // One beyond the edge: a probe of a closed window.
        | seq::after(end, sync.told_edge.wrapping_add(1))
        | seq::after(packet.ack, sync.sent);
    if foreign {
        return;
    }
    sync.client_nxt = seq::max(sync.client_nxt, end);
    if packet.options & option::TIMESTAMP != 0 {
        sync.client_ts = seq::max(sync.client_ts, packet.ts_val);
    }
    if !seq::before(packet.ack, sync.client_ack) {
        sync.client_ack = packet.ack;
        sync.client_window = packet.window;
    }
    if packet.is(bit::FIN) {
        sync.client_fin = end;
        if flow.flow.state == state::ESTABLISHED {
            flow.flow.state = state::CLOSING;
        }
    }
}

/// Whether the segment has bytes that belong to the flow and that the client must still deliver.
#[inline(always)]
fn carries_new_bytes(flow: &TcpFlow, packet: &Segment) -> bool {
    let end = packet.end();
    (packet.length() > 0)
        & !seq::before(flow.sync.client_nxt, end)
        & seq::after(end, flow.sync.told_ack)
}

/// Replicas that miss bytes of the client, because their instance is dead or because they have not
/// answered the handshake, cannot come back. The active one is not among them: when it is lost
/// and nobody can take over, nobody gets the bytes, and the client sends them again.
#[inline(always)]
fn chill_the_absent(flow: &mut TcpFlow, conditions: &Conditions, notes: &mut Notes) {
    for slot in 0..REPLICAS as u8 {
        if slot >= flow.flow.replicas || slot == flow.flow.active {
            continue;
        }
        let state = flow.replica(slot).state;
        if state == slot::PENDING {
            flow.chill(slot, Cold::HandshakeMissed, notes);
        } else if state == slot::WARM && !conditions.is_reachable(slot) {
            flow.chill(slot, Cold::InstanceDead, notes);
        }
    }
}

/// How replica `slot` must see the client's packet. Returns false when it gets no copy; the
/// interface is for the caller to fill in.
///
/// The acknowledgement is clamped to what the replica has produced: a stack drops a segment that
/// acknowledges what it has not sent, and the data in it. One that acknowledges more than the
/// client was sent is false and stays so, by the same distance: a replica that has produced more
/// than the client was sent would believe it otherwise, and forget bytes that the client lacks.
#[inline(always)]
pub fn copy_for(
    flow: &TcpFlow,
    slot: u8,
    packet: &Segment,
    conditions: &Conditions,
    copy: &mut Copy,
) -> bool {
    let replica = flow.replica(slot);
    let pending = replica.flags & super::flag::SYN_ACK == 0;
    // Bytes that the client was told are acknowledged it does not send again. A keep-alive that looks
    // like that carries a byte that is none of the stream's (RFC 9293, section 3.8.4), and a
    // replica that lacks the true one would take it for that.
    let false_byte = flow.is_lacking(slot)
        & (packet.payload > 0)
        & !seq::after(packet.end(), flow.sync.told_ack);
    let wanted = slot < flow.flow.replicas
        && replica.state != slot::COLD
        && !false_byte
        && (!pending || packet.is(bit::SYN | bit::RST))
        && conditions.is_reachable(slot);
    if !wanted {
        return false;
    }
    let delta = flow.delta(slot);
    let own = packet.ack.wrapping_add(delta);
    let ack = if seq::after(packet.ack, flow.sync.sent) {
        let beyond = packet.ack.wrapping_sub(flow.sync.sent);
        replica.snd_nxt.wrapping_add(beyond)
    } else {
        seq::min(own, replica.snd_nxt)
    };
    // A stack may reject an echo of a timestamp that it has not sent yet (Linux 6.15 does in
    // the handshake, net/ipv4/tcp_minisocks.c).
    let ts_ecr = seq::min(
        packet.ts_ecr.wrapping_add(replica.ts_offset),
        replica.ts_last,
    );
    let clamped = seq::after(own, ack) & !seq::after(packet.ack, flow.sync.sent);
    let behind = u32::from(clamped) * own.wrapping_sub(ack);
    copy.ack = if packet.is(bit::ACK) { ack } else { packet.ack };
    copy.window = flow.window_behind(packet.window, behind);
    copy.delta = delta;
    copy.snd_nxt = replica.snd_nxt;
    copy.ts_ecr = if packet.ts_ecr == 0 { 0 } else { ts_ecr };
    copy.instance = flow.flow.instances[usize::from(slot) & (REPLICAS - 1)];
    true
}

/// Whether the client's packet completes the handshake.
#[inline(always)]
pub fn completes_handshake(flow: &TcpFlow, packet: &Segment) -> bool {
    flow.flow.state == state::ANSWERED
        && packet.is(bit::ACK)
        && !packet.is(bit::SYN | bit::RST)
        && packet.ack == flow.sync.isn.wrapping_add(1)
}
