//! Whether replicas say the same bytes.
//!
//! A replica that answers otherwise than the active one must never take over: the client would get
//! a stream that nobody has written. Payloads are not kept and not compared byte by byte. Their
//! ones'-complement sums are: a segment's checksum gives the sum of its payload away (RFC 1071),
//! and sums of consecutive segments add up, wherever each stack has cut its stream.
//!
//! Replicas that are level when the client says something (it acknowledges, or asks for more) must
//! have the same sum. A replica some of whose bytes were not seen in order (lost in front of us, cut anew) has
//! none until it is level with the active one again, whose sum it takes over then; when the active
//! one has lost its own, a new count begins with it.
//!
//! What this cannot see: 16-bit words in another order, differences that come to a multiple of
//! 65,535 whenever replicas are level, and replicas that are never level.

use super::{Notes, Replica, Segment, TcpFlow, flag, seq, slot};
use crate::{checksum::fold, limits::REPLICAS, reason::Cold};

/// Adds what a segment says to its replica's sum. Comes before its end is taken into `snd_nxt`.
#[inline(always)]
pub(super) fn add(replica: &mut Replica, packet: &Segment) {
    // Products, not branches: the verifier would follow each of them through all that comes after.
    let new = seq::after(packet.seq.wrapping_add(packet.payload), replica.snd_nxt);
    let next = (packet.seq == replica.snd_nxt) & packet.has_sum;
    // The stream's first byte is `isn + 1`: at an odd offset a byte counts in the other half of
    // its word.
    let odd = packet.seq.wrapping_sub(replica.isn) & 1 ^ 1;
    let part = u32::from(packet.sum) << (odd * 8);
    let part = (part | part >> 16) & 0xffff;
    replica.sum = fold(u32::from(replica.sum) + part * u32::from(new));
    let unsure = u8::from(new & !next) * flag::SUM;
    let unequal = u8::from(new) * flag::AGREES;
    replica.flags &= !(unsure | unequal);
}

/// Sends each mirror to the cold that is level with the active replica and has said something else.
#[inline(always)]
pub(super) fn compare(flow: &mut TcpFlow, notes: &mut Notes) {
    let active = flow.flow.active;
    let (at, sum) = (said(flow, active), flow.replica(active).sum);
    if flow.replica(active).flags & flag::SUM == 0 {
        // A new count is everybody's who is there when it begins.
        for slot in 0..REPLICAS as u8 {
            flow.replica_mut(slot).flags &= !flag::SUM;
        }
        flow.replica_mut(active).flags |= flag::SUM;
    }
    // A bit each, not a comparison: the verifier would remember who is active, and follow each of
    // them through all that comes after.
    let mirrors = !(1u8 << (active & 3));
    for slot in 0..REPLICAS as u8 {
        let level = said(flow, slot) == at;
        let replica = flow.replica_mut(slot);
        if !level || (mirrors >> slot) & 1 == 0 || replica.state != slot::WARM {
            continue;
        }
        if replica.flags & flag::SUM != 0 && !same(replica.sum, sum) {
            flow.chill(slot, Cold::Diverged, notes);
        } else {
            let agrees = u8::from(replica.flags & flag::SUM != 0) * flag::AGREES;
            replica.flags |= flag::SUM | agrees;
            replica.sum = sum;
        }
    }
}

/// One beyond the last byte of a replica that is not its FIN, canonical.
#[inline(always)]
fn said(flow: &TcpFlow, slot: u8) -> u32 {
    let replica = flow.replica(slot);
    let closed = (replica.flags & flag::FIN != 0) & (replica.fin == replica.snd_nxt);
    flow.produced(slot).wrapping_sub(u32::from(closed))
}

/// Zero has two forms.
#[inline(always)]
fn same(one: u16, other: u16) -> bool {
    (one == other) | ((one.wrapping_add(1) < 2) & (other.wrapping_add(1) < 2))
}
