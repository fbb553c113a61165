//! FIN and RST of one replica: an application's close, or a dying process. The warm mirrors decide.

use super::{
    Conditions, Notes, Segment, TcpFlow, flag, handshake,
    replica::{Output, Verdict},
    roles, seq, slot,
};
use crate::{
    event::cause,
    flow::state,
    limits::REPLICAS,
    reason::{Cold, Reason},
    vni,
};

/// The canonical sequence number after a replica's FIN, if it has sent one.
#[inline(always)]
pub(super) fn fin_of(flow: &TcpFlow, slot: u8) -> Option<u32> {
    let replica = flow.replica(slot);
    (replica.flags & flag::FIN != 0).then(|| flow.canonical_fin(slot))
}

/// A mirror that goes on beyond the place where the active replica closed shows that the close
/// was a death: it takes over. One that had gone on before sends those bytes again soon, since
/// nobody acknowledged them.
#[inline(always)]
pub(super) fn judge(
    flow: &mut TcpFlow,
    from: u8,
    packet: &Segment,
    conditions: &Conditions,
    notes: &mut Notes,
) {
    let active = flow.flow.active;
    let has_closed = flow.replica(active).flags & flag::FIN != 0;
    if from == active || !has_closed || !conditions.has(vni::flag::VOTE_ON_CLOSE) {
        return;
    }
    // `fin` is after the FIN itself: the client has it when it says so, unless that is another
    // replica's byte. A FIN that was sent when nobody else was left may have been lost. One behind `sent` is a death too: of a replica that became active while it was
    // behind.
    let fin = flow.canonical_fin(active);
    let bytes_end = packet
        .seq
        .wrapping_add(packet.payload)
        .wrapping_sub(flow.delta(from));
    // The place of the FIN itself may be that of a FIN whose segment was lost: there only a byte
    // shows something.
    // And not that of a replica that closed there too: a keep-alive may carry a byte that is none
    // of the stream's (RFC 9293, section 3.8.4).
    let agrees = fin_of(flow, from) == Some(fin);
    let shows = (packet.payload > 0) & !seq::before(bytes_end, fin) & !agrees;
    let beyond = seq::after(flow.produced(from), fin) | shows;
    let delivered = (flow.sync.client_ack == fin) & (flow.flow.state >= state::CLOSING);
    if beyond & !delivered {
        flow.chill(active, Cold::ClosedEarly, notes);
        roles::activate(flow, from, cause::CLOSED_EARLY, notes);
        // Its FIN does not count any more, if it was sent.
        let has_client_closed = flow.sync.client_fin != flow.sync.client_isn;
        if (flow.flow.state == state::CLOSING) & !has_client_closed {
            flow.flow.state = state::ESTABLISHED;
        }
    }
}

/// Whether the active replica became active while it was behind, and closed in front of what the
/// client has: the client can never be told.
#[inline(always)]
pub(super) fn is_shut(flow: &TcpFlow, from: u8, conditions: &Conditions) -> bool {
    let has_closed = flow.replica(from).flags & flag::FIN != 0;
    (from == flow.flow.active)
        & has_closed
        & conditions.has(vni::flag::VOTE_ON_CLOSE)
        & seq::before(flow.canonical_fin(from), flow.sync.sent)
}

/// Whether every warm replica has closed at `fin`. A suspect one is waited for too: a close that
/// comes late does no harm, and one that is a death cuts the client short.
#[inline(always)]
pub(super) fn all_closed_at(flow: &TcpFlow, conditions: &Conditions, fin: u32) -> bool {
    let mut all = true;
    for slot in 0..REPLICAS as u8 {
        all &= slot >= flow.flow.replicas
            || !flow.is_warm(slot, conditions)
            || fin_of(flow, slot) == Some(fin);
    }
    all
}

/// Whether a reset lies far in front of what the replica was told is acknowledged: it is of the
/// port's last use and was long on its way. Should it be the replica's after all, the next copy is
/// answered with another one.
#[inline(always)]
fn is_foreign(flow: &TcpFlow, from: u8, packet: &Segment) -> bool {
    const NEAR: u32 = 1 << 16;
    let own = flow.sync.client_ack.wrapping_add(flow.delta(from));
    let told = seq::min(own, flow.replica(from).snd_nxt);
    seq::before(packet.seq.wrapping_add(NEAR), told)
}

/// Takes in a reset of replica `from`.
#[inline(always)]
pub(super) fn reset(
    flow: &mut TcpFlow,
    from: u8,
    packet: &Segment,
    conditions: &Conditions,
    notes: &mut Notes,
) -> Output {
    if flow.flow.state < state::ESTABLISHED {
        return handshake::refused(flow, from, packet, conditions, notes);
    }
    if is_foreign(flow, from, packet) {
        return Output::drop(Reason::MirrorSuppressed);
    }
    let open = flow.flow.state < state::CLOSED;
    if open && from == flow.flow.active && conditions.has(vni::flag::VOTE_ON_CLOSE) {
        roles::promote(flow, conditions, cause::RESET, roles::cost::NEVER, notes);
    }
    if from != flow.flow.active {
        let held = notes.takeover == cause::RESET;
        if open && flow.replica(from).state == slot::WARM {
            flow.chill(from, Cold::Reset, notes);
        }
        return Output::drop(if held {
            Reason::ResetHeld
        } else {
            Reason::MirrorSuppressed
        });
    }
    // It stays warm: the client may challenge the reset, and it must answer.
    if flow.flow.state != state::CLOSED {
        flow.flow.state = state::CLOSED;
        notes.closed = true;
    }
    // The client takes a reset only with the very number it waits for (RFC 5961, section 3.2): a
    // replica that is behind does not know it.
    let seq = packet.seq.wrapping_sub(flow.delta(from));
    Output {
        verdict: Verdict::ToClient,
        seq: seq::max(seq, flow.sync.client_ack),
        ack: packet.ack,
        window: packet.window,
        ts_val: packet.ts_val.wrapping_sub(flow.replica(from).ts_offset),
        ts_ecr: packet.ts_ecr,
        ..Output::drop(Reason::Delivered)
    }
}
