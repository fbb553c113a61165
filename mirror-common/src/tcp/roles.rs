//! Which replica is active: takeover, migration, and the bounds within which a mirror may lag.

use super::{Conditions, Notes, Segment, TcpFlow, divergence, flag, seq, slot};
use crate::{
    branchless::{is_before, is_equal, is_some, pick},
    event::cause,
    flow::state,
    instance,
    limits::REPLICAS,
    reason::Cold,
    vni,
};

/// What a takeover costs, ordered: each bit outweighs all that is below it. The lowest 27 bits
/// are the bytes that the replica is apart from what the client was sent.
pub mod cost {
    /// The replica has produced bytes that were suppressed: its own TCP has to send them again. One
    /// that is behind catches up by itself.
    pub const AHEAD: u32 = 1 << 27;
    /// The replica's instance is being evacuated.
    pub const EVACUATING: u32 = 1 << 28;
    /// The replica has closed while the connection goes on.
    pub const CLOSED: u32 = 1 << 29;
    /// The replica has not acknowledged what the client was told is acknowledged.
    pub const LACKING: u32 = 1 << 30;
    /// The replica's instance is suspect.
    pub const SUSPECT: u32 = 1 << 31;
    /// It cannot take over. As a limit: at any cost.
    pub const NEVER: u32 = u32::MAX;
}

/// Moves the flow off an instance that may no longer be active, if a replica can take over now.
///
/// A dead instance is left at once, and so is a suspect one, but not for another suspect. An evacuated one is left as soon as the new replica has
/// produced no more than the old one has delivered, so that nothing has to be sent again, or when
/// the evacuation's deadline has passed; but never for a replica that is no better off.
#[inline(always)]
pub fn follow_health(flow: &mut TcpFlow, conditions: &Conditions, notes: &mut Notes) {
    let active = flow.flow.active;
    // When it went cold nobody could take over; somebody may have become warm since.
    let is_cold = flow.replica(active).state == slot::COLD;
    if conditions.is_up(active) & !is_cold {
        return;
    }
    if !conditions.is_reachable(active) | is_cold {
        promote(flow, conditions, cause::DEAD, cost::NEVER, notes);
    } else if !conditions.is_alive(active) {
        promote(flow, conditions, cause::SUSPECTED, cost::LACKING, notes);
    } else if conditions.is_overdue(active) {
        promote(flow, conditions, cause::EVACUATED, cost::EVACUATING, notes);
    } else {
        promote(flow, conditions, cause::EVACUATED, cost::AHEAD, notes);
    }
}

/// Makes the cheapest other replica active, if there is one that costs less than `limit`. A shadow
/// never becomes active, whatever it costs.
#[inline(always)]
pub fn promote(
    flow: &mut TcpFlow,
    conditions: &Conditions,
    why: u8,
    limit: u32,
    notes: &mut Notes,
) {
    let old = flow.flow.active;
    let mut best = old;
    let mut best_cost = limit;
    for candidate in 0..REPLICAS as u8 {
        let cost = cost_of(flow, conditions, candidate);
        if candidate != old && candidate < flow.flow.replicas && cost < best_cost {
            best = candidate;
            best_cost = cost;
        }
    }
    if best != old && !conditions.has(vni::flag::SHADOW) {
        activate(flow, best, why, notes);
    }
}

/// What making a replica active would cost.
#[inline(always)]
fn cost_of(flow: &TcpFlow, conditions: &Conditions, candidate: u8) -> u32 {
    let replica = flow.replica(candidate);
    // Before the SYN-ACK went out nothing binds the flow to anybody.
    let unbound = flow.flow.state == state::HANDSHAKE;
    let able = (replica.state == slot::WARM) | ((replica.state == slot::PENDING) & unbound);
    if !(able & conditions.is_reachable(candidate)) {
        return cost::NEVER;
    }
    let (alive, up) = (conditions.is_alive(candidate), conditions.is_up(candidate));
    let lacking = conditions.has(vni::flag::HOLD_ACKS) & flow.is_lacking(candidate);
    // Sums, not branches: the verifier would follow each of them through all that comes after.
    let penalty = u32::from(!alive) * cost::SUSPECT + u32::from(alive & !up) * cost::EVACUATING;
    if unbound {
        return penalty;
    }
    let penalty = penalty + u32::from(lacking) * cost::LACKING;
    let ahead = flow.produced(candidate).wrapping_sub(flow.sync.sent) as i32;
    if ahead <= 0 {
        return penalty | (ahead.wrapping_neg() as u32 & (cost::AHEAD - 1));
    }
    let closed = u32::from(replica.flags & flag::FIN) * (cost::CLOSED / flag::FIN as u32);
    penalty | cost::AHEAD | closed | (ahead as u32 & (cost::AHEAD - 1))
}

/// Makes a replica active.
#[inline(always)]
pub fn activate(flow: &mut TcpFlow, slot: u8, why: u8, notes: &mut Notes) {
    notes.takeover = why;
    notes.from = flow.flow.active;
    flow.flow.active = slot;
    flow.flow.takeovers = flow.flow.takeovers.saturating_add(1);
    flow.replica_mut(slot).behind_ms = 0;
}

/// First-writer delivery: 1 if a mirror now says the client's next bytes and becomes active by that, else 0.
///
/// The client's stream stays one that a single replica has written: the mirror's segment begins just where that ends, and it has
/// said the same until there. What the others say of the same bytes is theirs to be turned round.
/// Comes before the segment is learnt.
#[inline(always)]
pub(super) fn leads(flow: &TcpFlow, from: u8, packet: &Segment, conditions: &Conditions) -> u32 {
    let active = flow.flow.active;
    let (replica, sent) = (flow.replica(from), flow.sync.sent);
    let is_first = u32::from(conditions.vni.flags / vni::flag::FIRST) & 1;
    let begins = is_some(packet.payload) & is_equal(packet.seq, replica.snd_nxt);
    let apart = flow.produced(from) ^ sent | flow.produced(active) ^ sent;
    let same = is_equal(apart | divergence::apart(replica, flow.replica(active)), 0);
    let stays = u32::from(conditions.state_of(from)) & instance::state::STAYS;
    let lacking = is_before(replica.rcv_nxt, flow.sync.told_ack);
    is_first
        & begins
        & same
        & is_some(stays)
        & (lacking ^ 1)
        & (is_equal(from.into(), active.into()) ^ 1)
}

/// Makes a mirror active that `leads`, 1 or 0. That is no takeover: nothing has failed, and nobody is told.
#[inline(always)]
pub(super) fn take_lead(flow: &mut TcpFlow, from: u8, leads: u32) {
    let (active, takeovers) = (flow.flow.active, flow.flow.takeovers);
    let more = leads & (is_equal(takeovers.into(), u16::MAX.into()) ^ 1);
    flow.flow.active = pick(leads, from.into(), active.into()) as u8;
    flow.flow.takeovers = takeovers.wrapping_add(more as u16);
    let replica = flow.replica_mut(from);
    replica.behind_ms = pick(leads, 0, replica.behind_ms);
}

/// Sends mirrors to the cold that hold the client back for too long, or that cannot take over any
/// more.
#[inline(always)]
pub fn bound_lag(flow: &mut TcpFlow, conditions: &Conditions, notes: &mut Notes) {
    // Sequence numbers further apart cannot be told in order for much longer.
    const FAR: i32 = 1 << 30;
    // Before that the active replica's numbers may not be known.
    if flow.flow.state < state::ESTABLISHED {
        return;
    }
    let active = flow.flow.active;
    let received = flow.replica(active).rcv_nxt;
    for mirror in 0..REPLICAS as u8 {
        let replica = flow.replica(mirror);
        if mirror == active || replica.state != slot::WARM {
            continue;
        }
        let behind = seq::after(received, replica.rcv_nxt);
        let missing = received.wrapping_sub(replica.rcv_nxt);
        if closed_early(flow, mirror) {
            flow.chill(mirror, Cold::ClosedEarly, notes);
        } else if flow.sync.sent.wrapping_sub(flow.produced(mirror)) as i32 > FAR {
            flow.chill(mirror, Cold::LagBytes, notes);
        } else if !conditions.is_reachable(mirror) {
            // Nobody waits for it, so what it lacks the client will not send again.
            if behind {
                flow.chill(mirror, Cold::InstanceDead, notes);
            }
        } else if behind && missing > conditions.vni.lag_bytes_max {
            flow.chill(mirror, Cold::LagBytes, notes);
        } else if !conditions.is_alive(mirror) {
            // The agent bounds the time for which an instance is suspect.
            flow.replica_mut(mirror).behind_ms = 0;
        } else if behind || shuts_out(flow, mirror, conditions) {
            if has_waited(flow, mirror, conditions) {
                flow.chill(mirror, Cold::LagTime, notes);
            }
        } else {
            flow.replica_mut(mirror).behind_ms = 0;
        }
    }
}

/// Whether the active replica went on beyond a mirror's FIN. Beyond, because the place of the FIN
/// itself may be that of an equal FIN whose segment was lost.
#[inline(always)]
fn closed_early(flow: &TcpFlow, mirror: u8) -> bool {
    (flow.replica(mirror).flags & flag::FIN != 0)
        & seq::after(flow.produced(flow.flow.active), flow.canonical_fin(mirror))
}

/// Whether a mirror's window alone keeps the client from sending: its application does not read.
#[inline(always)]
fn shuts_out(flow: &TcpFlow, mirror: u8, conditions: &Conditions) -> bool {
    let edge = flow.replica(mirror).edge;
    let room = edge.wrapping_sub(flow.sync.client_nxt) as i32;
    conditions.has(vni::flag::HOLD_ACKS)
        & seq::before(edge, flow.replica(flow.flow.active).edge)
        // Less than the client's unit is no window.
        & (room < 1 << (flow.sync.window_scale & 15))
}

/// Starts a replica's time, or tells that it is over. Progress starts it anew.
#[inline(always)]
pub(super) fn has_waited(flow: &mut TcpFlow, slot: u8, conditions: &Conditions) -> bool {
    let replica = flow.replica_mut(slot);
    if replica.behind_ms == 0 {
        // Odd, since 0 means "not behind".
        replica.behind_ms = conditions.now_ms | 1;
        return false;
    }
    let waited = conditions.now_ms.wrapping_sub(replica.behind_ms) as i32;
    waited > conditions.vni.lag_ms_max as i32
}
