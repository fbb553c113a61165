//! The takeover protocol of one mirrored TCP flow, as pure code: learn, translate, clamp, hold,
//! turn round, promote, close. `docs/takeover.md` is its specification.
//!
//! *Canonical* numbers are those that the client sees. Slot k's own numbers differ from them by
//! `delta_k = isn_k - isn`, modulo 2^32. The client's own sequence numbers are the same for all.

pub mod client;
mod closing;
pub mod divergence;
pub mod handshake;
pub mod replica;
pub mod roles;
pub mod segment;
pub mod seq;
#[cfg(test)]
mod tests;

pub use divergence::{Part, Waypoint};
pub use segment::Segment;

use crate::{
    assert_size,
    branchless::{is_before, is_some},
    flow::{TcpFlow, state},
    instance,
    limits::REPLICAS,
    pod,
    reason::Cold,
    vni,
};

/// State of one replica of a flow.
pub mod slot {
    /// It has not answered the handshake.
    pub const PENDING: u8 = 0;
    /// It can become active with nothing lost.
    pub const WARM: u8 = 1;
    /// It cannot; [`super::Replica::cold`] says why.
    pub const COLD: u8 = 2;
}

/// One replica's side of the flow. Sequence numbers without remark are in its own space.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Replica {
    /// Its initial sequence number.
    pub isn: u32,
    /// One beyond the highest byte it has produced.
    pub snd_nxt: u32,
    /// The highest acknowledgement of the client's bytes that it sent (client's space).
    pub rcv_nxt: u32,
    /// The highest right window edge that it offered (client's space).
    pub edge: u32,
    /// Its timestamp clock minus the canonical one.
    pub ts_offset: u32,
    /// Its last timestamp value, its own clock.
    pub ts_last: u32,
    /// The sequence number after its FIN, when [`flag::FIN`] is set.
    pub fin: u32,
    /// Since when it is behind the active replica without progress, or, if it is the active one, since
    /// when its FIN is held: `CLOCK_MONOTONIC` in ms, wrapping; 0 when it is not.
    pub behind_ms: u32,
    /// Bits of [`flag`].
    pub flags: u8,
    /// One of [`slot`].
    pub state: u8,
    /// [`crate::reason::Cold`].
    pub cold: u8,
    /// The window scale it announced.
    pub window_scale: u8,
    /// Bits of [`option`] that its SYN-ACK carried.
    pub options: u8,
    /// Zero.
    pub pad: u8,
    /// Ones'-complement sum of what it has said, while [`flag::SUM`] is set.
    pub sum: u16,
}
assert_size!(Replica, 40);

/// Bits of [`Replica::flags`].
pub mod flag {
    /// Its SYN-ACK was seen.
    pub const SYN_ACK: u8 = 1;
    /// It sent a FIN.
    pub const FIN: u8 = 2;
    /// Its sum counts from where that of the others does.
    pub const SUM: u8 = 4;
    /// Its sum has been compared with an active replica's since it counts, and was not merely taken over from it.
    pub const AGREES: u8 = 8;
}

/// Bits of [`TcpSync::options`]: what the connection negotiated.
pub mod option {
    /// Timestamps (RFC 7323).
    pub const TIMESTAMP: u8 = 1;
    /// Selective acknowledgement (RFC 2018).
    pub const SACK: u8 = 2;
    /// Window scaling (RFC 7323).
    pub const WINDOW_SCALE: u8 = 4;
    /// Something that cannot be translated: MD5, AO, Fast Open with data, MPTCP.
    pub const UNTRANSLATABLE: u8 = 8;
}

/// What keeps the replicas of one TCP flow in step.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TcpSync {
    /// The client's initial sequence number.
    pub client_isn: u32,
    /// One beyond the highest byte the client has sent.
    pub client_nxt: u32,
    /// The highest canonical acknowledgement the client has sent.
    pub client_ack: u32,
    /// The client's last timestamp value.
    pub client_ts: u32,
    /// Canonical initial sequence number: that of the replica whose SYN-ACK the client saw.
    pub isn: u32,
    /// One beyond the highest canonical byte that was sent on to the client.
    pub sent: u32,
    /// The highest acknowledgement the client was told.
    pub told_ack: u32,
    /// The highest right window edge the client was told.
    pub told_edge: u32,
    /// The last canonical timestamp value the client was told.
    pub ts_sent: u32,
    /// When the SYN passed, [`crate::time::steps`].
    pub syn_steps: u32,
    /// The client's sequence number after its FIN; equal to `client_isn` until then.
    pub client_fin: u32,
    /// The window the client last offered, unscaled.
    pub client_window: u16,
    /// Bits of [`option`].
    pub options: u8,
    /// The window scale that the client was told.
    pub window_scale: u8,
    /// The window scale of the client's own windows.
    pub client_scale: u8,
    /// Zero.
    pub pad: [u8; 3],
    /// When a takeover left the client waiting and nothing has been sent to it since: the lower 31 bits of
    /// [`crate::time::steps`], made odd; 0 otherwise. Nothing of the protocol depends on it.
    pub stalled_steps: u32,
    /// Where replicas that are not level are compared next.
    pub waypoint: Waypoint,
    /// By slot. Last of all: of a flow with few mirrors the end is never looked at.
    pub replicas: [Replica; REPLICAS],
}
assert_size!(TcpSync, 224);

/// What the protocol knows of the world when a packet arrives.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Conditions {
    /// The time, [`crate::time::ms`].
    pub now_ms: u32,
    /// The VNI's settings.
    pub vni: vni::Vni,
    /// One of [`instance::state`] by slot; [`instance::state::NONE`] for unused slots.
    pub state: [u8; REPLICAS],
    /// When an evacuation stops waiting for a good moment, by slot.
    pub deadline_ms: [u32; REPLICAS],
    /// Bit per slot: its instance has owed an answer to a SYN for longer than the VNI waits.
    pub unresponsive: u8,
    /// Of a replica's segment: the part of which [`divergence::part`] wants to know the sum.
    pub part: Part,
}

impl Conditions {
    /// Whether a bit of [`vni::flag`] is set.
    #[inline(always)]
    pub const fn has(&self, flag: u8) -> bool {
        self.vni.flags & flag != 0
    }

    /// Whether a slot's instance may be active without reserve.
    #[inline(always)]
    pub const fn is_up(&self, slot: u8) -> bool {
        self.state_of(slot) as u32 & instance::state::STAYS != 0
    }

    /// Whether a slot's instance is relied on: it is up, or is being evacuated.
    #[inline(always)]
    pub const fn is_alive(&self, slot: u8) -> bool {
        self.state_of(slot) as u32 & instance::state::ALIVE != 0
    }

    /// Whether a slot's instance gets copies and is listened to: it is alive, or may be.
    #[inline(always)]
    pub const fn is_reachable(&self, slot: u8) -> bool {
        self.state_of(slot) as u32 & instance::state::REACHABLE != 0
    }

    /// The state of a slot's instance: the greater, the further it can be relied on.
    #[inline(always)]
    pub const fn state_of(&self, slot: u8) -> u8 {
        self.state[slot as usize & (REPLICAS - 1)]
    }

    /// Whether the time to wait for a good moment is over.
    #[inline(always)]
    pub const fn is_overdue(&self, slot: u8) -> bool {
        !seq::before(
            self.now_ms,
            self.deadline_ms[slot as usize & (REPLICAS - 1)],
        )
    }
}

/// What happened besides the verdict: the shell turns it into counters and events. One
/// word, so that one store clears it.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// [`crate::event::cause`] of a takeover, 0 when there was none.
    pub takeover: u8,
    /// The slot that was active before it.
    pub from: u8,
    /// Bit per slot: went cold now; [`Replica::cold`] says why.
    pub went_cold: u8,
    /// Bit per slot: became warm now.
    pub went_warm: u8,
    /// The flow was closed now.
    pub closed: bool,
    /// The replica sent bytes that it had sent before.
    pub retransmission: bool,
}

impl TcpFlow {
    /// One replica. The index is masked, so that it is in bounds whatever it is.
    #[inline(always)]
    pub fn replica(&self, slot: u8) -> &Replica {
        &self.sync.replicas[usize::from(slot) & (REPLICAS - 1)]
    }

    /// One replica, to be changed.
    #[inline(always)]
    pub fn replica_mut(&mut self, slot: u8) -> &mut Replica {
        &mut self.sync.replicas[usize::from(slot) & (REPLICAS - 1)]
    }

    /// Replica `slot`'s sequence numbers minus the canonical ones.
    #[inline(always)]
    pub fn delta(&self, slot: u8) -> u32 {
        self.replica(slot).isn.wrapping_sub(self.sync.isn)
    }

    /// One beyond the highest byte that a replica has produced, canonical.
    #[inline(always)]
    pub fn produced(&self, slot: u8) -> u32 {
        self.replica(slot).snd_nxt.wrapping_sub(self.delta(slot))
    }

    /// Window field for a replica that is told an acknowledgement `behind` bytes less than the
    /// client's: the right edge stays where the client put it. Else a replica that has yet to produce
    /// what the client has already would wait for a window that the client shut long after.
    #[inline(always)]
    pub fn window_behind(&self, window: u16, behind: u32) -> u16 {
        let more = behind >> (self.sync.client_scale & 15);
        let sum = u32::from(window).saturating_add(more);
        if sum > 0xffff { 0xffff } else { sum as u16 }
    }

    /// The canonical sequence number after a replica's FIN, when it has sent one.
    #[inline(always)]
    pub fn canonical_fin(&self, slot: u8) -> u32 {
        self.replica(slot).fin.wrapping_sub(self.delta(slot))
    }

    /// 1 if the client waits for something, else 0: the active replica owes it an answer, or it lacks bytes that were sent to it
    /// or that the active replica has produced. By arithmetic, see [`crate::branchless`].
    #[inline(always)]
    pub fn is_waited_for(&self) -> u32 {
        let active = self.flow.active;
        self.flow.owes(active)
            | is_before(self.sync.client_ack, self.sync.sent)
            | is_before(self.sync.sent, self.produced(active))
    }

    /// Another replica is active now: if the client waits for something, it has done so since `now_steps`.
    #[inline(always)]
    pub fn begin_stall(&mut self, now_steps: u32) {
        let stalled = self.sync.stalled_steps;
        let begins = (self.is_waited_for() & (is_some(stalled) ^ 1)).wrapping_neg();
        self.sync.stalled_steps = stalled | (now_steps << 1 >> 1 | 1) & begins;
    }

    /// A segment goes to a client that waits. For how long it has, [`crate::time::steps`].
    #[inline(always)]
    pub fn end_stall(&mut self, now_steps: u32) -> u32 {
        let since = core::mem::take(&mut self.sync.stalled_steps);
        now_steps.wrapping_sub(since) << 1 >> 1
    }

    /// Closes the flow when each side has acknowledged the other's FIN. Not before: bytes may have
    /// to be sent again, and a replica may die, until then.
    #[inline(always)]
    pub fn close_when_done(&mut self, notes: &mut Notes) {
        if (self.flow.state == state::CLOSING) & self.is_done() {
            self.flow.state = state::CLOSED;
            notes.closed = true;
        }
    }

    /// Whether each side has acknowledged the other's FIN.
    #[inline(always)]
    pub(crate) fn is_done(&self) -> bool {
        let active = self.flow.active;
        let sync = &self.sync;
        (self.replica(active).flags & flag::FIN != 0)
            & (sync.client_fin != sync.client_isn)
            & (sync.sent == self.canonical_fin(active))
            & !seq::before(sync.client_ack, self.canonical_fin(active))
            & !seq::before(sync.told_ack, sync.client_fin)
    }

    /// Whether no warm replica is left but on instances that are dead or take nobody over: nobody will serve the client.
    pub fn is_abandoned(&self, is_no_heir: impl Fn(u16) -> bool) -> bool {
        (0..self.flow.replicas).all(|slot| {
            let number = self.flow.instances[usize::from(slot) % REPLICAS];
            self.replica(slot).state != slot::WARM || is_no_heir(number)
        })
    }

    /// The sequence number of the reset that lets a replica go when the flow is forgotten while it is open. What a replica says of a
    /// flow that is kept nowhere passes as it is: only one whose numbers are those that the client sees may still say something.
    #[inline(always)]
    pub fn farewell(&self, slot: u8) -> Option<u32> {
        let replica = self.replica(slot);
        let open = (self.flow.state >= state::ESTABLISHED) & (self.flow.state < state::CLOSED);
        let warm = (slot < self.flow.replicas) & (replica.state == slot::WARM);
        // The very number that it waits for (RFC 5961, section 3.2).
        (open & warm & (replica.isn != self.sync.isn)).then_some(replica.rcv_nxt)
    }

    /// Marks a replica as cold.
    #[inline(always)]
    pub fn chill(&mut self, slot: u8, why: Cold, notes: &mut Notes) {
        let replica = self.replica_mut(slot);
        replica.state = slot::COLD;
        replica.cold = why as u8;
        notes.went_cold |= 1 << (slot & 3);
    }

    /// Whether a replica is warm and is listened to.
    #[inline(always)]
    pub fn is_warm(&self, slot: u8, conditions: &Conditions) -> bool {
        (self.replica(slot).state == slot::WARM) & conditions.is_reachable(slot)
    }

    /// Whether a replica has not acknowledged what the client was told is acknowledged: nobody
    /// waited for it while its instance was suspect, or the flow is asynchronous.
    #[inline(always)]
    pub fn is_lacking(&self, slot: u8) -> bool {
        seq::before(self.replica(slot).rcv_nxt, self.sync.told_ack)
    }

    /// Whether a replica is warm and is waited for.
    #[inline(always)]
    pub fn is_relied_on(&self, slot: u8, conditions: &Conditions) -> bool {
        (self.replica(slot).state == slot::WARM) & conditions.is_alive(slot)
    }
}

pod!(Replica, TcpSync);
