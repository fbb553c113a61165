//! Whether replicas say the same bytes.
//!
//! A replica that answers otherwise than the active one must never take over: the client would get
//! a stream that nobody has written. Payloads are not kept and not compared byte by byte. Their
//! ones'-complement sums are: a segment's checksum gives the sum of its payload away (RFC 1071),
//! and sums of consecutive segments add up, wherever each stack has cut its stream.
//!
//! Replicas that are level when the client says something (it acknowledges, or asks for more) must
//! have the same sum. Those that are not, because one is slower or because their answers differ in length, are
//! compared at a [`Waypoint`]: whoever passes where the other was then must have the sum there that the other had, and its
//! segment is summed up as far as that.
//!
//! A replica some of whose bytes were not seen in order (lost in front of us, cut anew) has
//! no sum until it is level with the active one again, whose sum it takes over then; when the active
//! one has lost its own, a new count begins with it.
//!
//! What this cannot see: 16-bit words in another order, differences that come to a multiple of
//! 65,535 wherever replicas are compared, and what a replica without a sum says that is never level again.

use super::{Notes, Replica, Segment, TcpFlow, flag, slot};
use crate::{
    assert_size,
    branchless::{is_before, is_equal, is_some, opaque, pick},
    checksum::fold,
    limits::REPLICAS,
    pod,
    reason::Cold,
};

/// Of all slots.
const ALL: u8 = (1 << REPLICAS) - 1;
/// Where the active slot is in [`Waypoint::by`], in bits.
const ACTIVE: u8 = 4;

/// Where in the stream a replica was when another was behind it, and what it had said by then: the other is compared there. One of
/// the two is the active replica.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Waypoint {
    /// One beyond the last byte in front of it, canonical.
    pub at: u32,
    /// Ones'-complement sum of what is in front of it, see [`Replica::sum`].
    pub sum: u16,
    /// Bit per slot: has yet to pass; 0 when there is no waypoint. In the upper half who has had a turn: mirrors that are
    /// ahead of the active replica each set a waypoint before one of them sets another.
    pub due: u8,
    /// Whose sum it is: a slot; in the upper half the slot that was active then. Once another is, it counts no more.
    pub by: u8,
}
assert_size!(Waypoint, 8);
pod!(Waypoint);

/// What the part of a segment comes to that is in front of a waypoint.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Part {
    /// Its length, bytes; 0: nothing is known.
    pub length: u32,
    /// Ones'-complement sum of it, as it lies in memory.
    pub sum: u16,
}

impl Waypoint {
    /// Bit per slot: has yet to pass, while so and so is active.
    #[inline(always)]
    fn due(self, active: u8) -> u32 {
        let counts = is_equal((self.by >> ACTIVE).into(), active.into());
        u32::from(self.due & ALL) & counts.wrapping_neg()
    }
}

impl Part {
    /// Of the sums of a segment's first `length` bytes and of all the others. They must come to what the checksum says, or the segment
    /// was damaged on its way.
    #[inline(always)]
    pub fn new(packet: &Segment, length: u32, sum: u16, rest: u16) -> Self {
        let all = fold(u32::from(sum) + turned(rest, length));
        Self {
            length: length & is_same(all, packet.sum).wrapping_neg(),
            sum,
        }
    }
}

/// How many bytes of a segment are in front of the waypoint that its replica passes with it; 0 if it passes none, or with its
/// last byte. Their sum is for the caller to find out.
#[inline(always)]
pub fn part(flow: &TcpFlow, from: u8, packet: &Segment) -> u32 {
    let way = flow.sync.waypoint;
    let place = way.at.wrapping_add(flow.delta(from));
    let length = place.wrapping_sub(packet.seq);
    // Both are less than 2^31, or the waypoint is behind the segment.
    let within = is_before(packet.seq, place) & is_before(length, packet.payload);
    length & (within & (u32::from(way.due) >> (from & 3))).wrapping_neg()
}

/// Takes in what a replica's segment says: adds it to the replica's sum, and compares that at the waypoint that it passes. Comes
/// before its end is taken into `snd_nxt`.
#[inline(always)]
pub(super) fn hear(flow: &mut TcpFlow, from: u8, packet: &Segment, part: &Part, notes: &mut Notes) {
    let before = flow.replica(from).sum;
    let known = add(flow.replica_mut(from), packet);
    let end = packet
        .seq
        .wrapping_add(packet.payload)
        .wrapping_sub(flow.delta(from));
    if flow.sync.waypoint.due & ALL != 0 {
        pass(flow, from, packet, part, (before, end, known), notes);
    }
}

/// Adds what a segment says to its replica's sum. Returns 1 if it says something new and the sum is known, else 0.
#[inline(always)]
fn add(replica: &mut Replica, packet: &Segment) -> u32 {
    // Arithmetic that the compiler does not see through: the verifier would follow each branch through all that comes after.
    let new = opaque(is_before(
        replica.snd_nxt,
        packet.seq.wrapping_add(packet.payload),
    ));
    let next = opaque(is_equal(packet.seq, replica.snd_nxt) & u32::from(packet.has_sum));
    let part = in_place(replica, packet, packet.sum);
    replica.sum = fold(u32::from(replica.sum) + part * new);
    let unsure = new & (next ^ 1);
    replica.flags &= !(unsure as u8 * flag::SUM);
    new & u32::from(replica.flags / flag::SUM)
}

/// The sum of the beginning of a segment as it counts in its replica's: the stream's first byte is `isn + 1`, and at an odd
/// offset a byte counts in the other half of its word.
#[inline(always)]
fn in_place(replica: &Replica, packet: &Segment, sum: u16) -> u32 {
    turned(sum, packet.seq.wrapping_sub(replica.isn) ^ 1)
}

/// A sum as it counts at an offset.
#[inline(always)]
fn turned(sum: u16, offset: u32) -> u32 {
    let sum = u32::from(sum) << ((offset & 1) * 8);
    (sum | sum >> 16) & 0xffff
}

/// Compares a replica with the one whose waypoint it passes, and sends the mirror of the two to the cold if they have said different things.
/// The last but one: its sum before the segment, its canonical end, and what [`add`] returned.
#[inline(always)]
fn pass(
    flow: &mut TcpFlow,
    from: u8,
    packet: &Segment,
    part: &Part,
    (before, end, known): (u16, u32, u32),
    notes: &mut Notes,
) {
    let way = flow.sync.waypoint;
    let replica = flow.replica(from);
    let there = in_place(replica, packet, part.sum);
    let there = u32::from(fold(u32::from(before) + there));
    let ends = is_equal(end, way.at);
    let sum = pick(ends, replica.sum.into(), there) as u16;
    let active = flow.flow.active;
    let due = way.due(active);
    let passes = (due >> (from & 3)) & (is_before(end, way.at) ^ 1);
    // It may have been summed up as far as another waypoint, of a moment ago.
    let reaches = end.wrapping_sub(packet.payload).wrapping_add(part.length);
    let fits = is_some(part.length) & is_equal(reaches, way.at);
    let differs = passes & known & (ends | fits) & (is_same(sum, way.sum) ^ 1);
    flow.sync.waypoint.due = way.due & !ALL | due as u8 & !((passes as u8) << (from & 3));
    // Older verifiers (Linux 6.1) do not see that this is a slot, and the optimiser does.
    let mirror = opaque(pick(
        is_equal(from.into(), active.into()),
        (way.by & 3).into(),
        from.into(),
    )) as u8;
    // How far it was compared; nothing else is asked of a cold one's numbers.
    let place = way.at.wrapping_add(flow.delta(mirror));
    let replica = flow.replica_mut(mirror);
    let differs = differs & is_equal(replica.state.into(), slot::WARM.into());
    replica.snd_nxt = pick(differs, place, replica.snd_nxt);
    if differs != 0 {
        flow.chill(mirror, Cold::Diverged, notes);
    }
}

impl Replica {
    /// Of a replica that is cold because it has said something else: within how many bytes from the beginning of its stream, modulo 2^32.
    pub const fn diverged_within(&self) -> u32 {
        let closed = self.flags & flag::FIN != 0 && self.fin == self.snd_nxt;
        self.snd_nxt
            .wrapping_sub(self.isn)
            .wrapping_sub(1 + closed as u32)
    }
}

/// The replicas of a flow by where they are, a bit per slot.
#[derive(Clone, Copy, Default)]
struct Places {
    warm: u32,
    /// Warm with a sum, and behind the active replica,
    behind: u32,
    /// or ahead of it.
    ahead: u32,
}

impl Places {
    /// Takes a replica in that has said so much, while the active one is `here`.
    #[inline(always)]
    fn take(&mut self, slot: u8, replica: &Replica, there: u32, here: u32) {
        let is_warm = is_equal(replica.state.into(), slot::WARM.into());
        let counts = is_warm & u32::from(replica.flags / flag::SUM);
        self.warm |= is_warm << slot;
        self.behind |= (counts & is_before(there, here)) << slot;
        self.ahead |= (counts & is_before(here, there)) << slot;
    }
}

/// 0 if a mirror that is level with the active replica has said the same, as far as sums tell; else something else.
#[inline(always)]
pub(super) fn apart(mirror: &Replica, active: &Replica) -> u32 {
    const KNOWN: u8 = flag::SUM | flag::AGREES;
    let unknown = !(mirror.flags & (active.flags | flag::AGREES)) & KNOWN;
    u32::from(mirror.sum ^ active.sum) | u32::from(unknown)
}

/// Sets a waypoint if there is none: where the active replica is, for the mirrors behind it, or where one of those ahead is, for the active
/// one.
#[inline(always)]
fn set(flow: &mut TcpFlow, places: Places) {
    let Places {
        warm,
        behind,
        ahead,
    } = places;
    let active = flow.flow.active;
    let lead = 1 << (active & 3);
    let way = flow.sync.waypoint;
    // Before the active one has answered the handshake nobody is anywhere.
    let answered = ((warm >> (active & 3)) & 1).wrapping_neg();
    let (behind, ahead) = (behind & answered, ahead & answered);
    let had_turn = u32::from(way.due >> REPLICAS);
    // When all had their turn they begin again.
    let waiting = (behind | ahead) & !had_turn;
    let had_turn = had_turn & is_some(waiting).wrapping_neg();
    let of_active = is_some(behind & !had_turn);
    let next = ahead & !had_turn;
    // The lowest of those whose turn it is.
    let mirror = next & next.wrapping_neg();
    let number = is_before(1, mirror) + is_before(2, mirror) + is_before(4, mirror);
    let by = pick(of_active, active.into(), number);
    let due = pick(of_active, behind, lead);
    let turns = had_turn | pick(of_active, behind, mirror);
    let sets = is_some(behind | ahead) & (is_some(way.due(active) & warm) ^ 1);
    let (at, sum) = (said(flow, by as u8), flow.replica(by as u8).sum);
    let waypoint = &mut flow.sync.waypoint;
    waypoint.at = pick(sets, at, way.at);
    waypoint.sum = pick(sets, sum.into(), way.sum.into()) as u16;
    waypoint.due = pick(sets, due | turns << REPLICAS, way.due.into()) as u8;
    waypoint.by = pick(sets, by | u32::from(active) << ACTIVE, way.by.into()) as u8;
}

/// Sends each mirror to the cold that is level with the active replica and has said something else.
#[inline(always)]
pub(super) fn compare(flow: &mut TcpFlow, notes: &mut Notes) {
    let active = flow.flow.active;
    let (at, sum) = (said(flow, active), flow.replica(active).sum);
    if flow.replica(active).flags & flag::SUM == 0 {
        // A new count is everybody's who is there when it begins.
        flow.sync.waypoint.due = 0;
        for slot in 0..REPLICAS as u8 {
            flow.replica_mut(slot).flags &= !(flag::SUM | flag::AGREES);
        }
    }
    flow.replica_mut(active).flags |= flag::SUM | flag::AGREES;
    // A bit each, not a comparison: the verifier would remember who is active, and follow each of
    // them through all that comes after.
    let mirrors = !(1u8 << (active & 3));
    let mut places = Places::default();
    for slot in 0..REPLICAS as u8 {
        let there = said(flow, slot);
        let level = there == at;
        let replica = flow.replica_mut(slot);
        places.take(slot, replica, there, at);
        if !level || (mirrors >> slot) & 1 == 0 || replica.state != slot::WARM {
            continue;
        }
        if replica.flags & flag::SUM != 0 && is_same(replica.sum, sum) == 0 {
            flow.chill(slot, Cold::Diverged, notes);
        } else {
            let agrees = u8::from(replica.flags & flag::SUM != 0) * flag::AGREES;
            replica.flags = replica.flags & !flag::AGREES | flag::SUM | agrees;
            replica.sum = sum;
        }
    }
    set(flow, places);
}

/// One beyond the last byte of a replica that is not its FIN, canonical.
#[inline(always)]
fn said(flow: &TcpFlow, slot: u8) -> u32 {
    let replica = flow.replica(slot);
    let closed = (replica.flags & flag::FIN != 0) & (replica.fin == replica.snd_nxt);
    flow.produced(slot).wrapping_sub(u32::from(closed))
}

/// 1 if two sums are equal, else 0. Zero has two forms.
#[inline(always)]
fn is_same(one: u16, other: u16) -> u32 {
    let is_nothing = |sum: u16| is_before(u32::from(sum.wrapping_add(1)), 2);
    is_equal(one.into(), other.into()) | is_nothing(one) & is_nothing(other)
}
