//! Which replica is active: takeover, migration, and the bounds within which a mirror may lag.

use super::{Conditions, Notes, TcpFlow, seq, slot};
use crate::{event::cause, flow::state, limits::REPLICAS, reason::Cold};

/// Moves the flow off an instance that may no longer be active, if a replica can take over now.
///
/// A dead instance is left at once. An evacuated one is left as soon as the new replica has
/// produced no more than the old one has delivered, so that nothing has to be sent again, or when
/// the evacuation's deadline has passed.
#[inline(always)]
pub fn follow_health(flow: &mut TcpFlow, conditions: &Conditions, notes: &mut Notes) {
    let active = flow.flow.active;
    if conditions.is_up(active) {
        return;
    }
    let alive = conditions.is_alive(active);
    let why = if alive { cause::EVACUATED } else { cause::DEAD };
    let retransmit = !alive || conditions.is_overdue(active);
    promote(flow, conditions, why, retransmit, notes);
}

/// Makes the best other replica active, if there is one. With `retransmit` it may have produced
/// bytes that were suppressed and that its own TCP has to send again.
///
/// Best is who has produced just what the client was sent: a replica that is behind catches up by
/// itself, one that is ahead needs a retransmission. Evacuating instances come last.
#[inline(always)]
pub fn promote(
    flow: &mut TcpFlow,
    conditions: &Conditions,
    why: u8,
    retransmit: bool,
    notes: &mut Notes,
) {
    const NONE: u32 = u32::MAX;
    let old = flow.flow.active;
    let mut best = old;
    let mut best_cost = NONE;
    for candidate in 0..REPLICAS as u8 {
        let cost = promotion_cost(flow, conditions, candidate, retransmit);
        if candidate != old && candidate < flow.flow.replicas && cost < best_cost {
            best = candidate;
            best_cost = cost;
        }
    }
    if best_cost != NONE {
        activate(flow, best, why, notes);
    }
}

/// What making a replica active would cost: bytes it is apart from what was delivered, plus
/// penalties; `u32::MAX` when it cannot be.
#[inline(always)]
fn promotion_cost(flow: &TcpFlow, conditions: &Conditions, candidate: u8, retransmit: bool) -> u32 {
    const AHEAD: u32 = 1 << 30;
    const EVACUATING: u32 = 1 << 31;
    let replica = flow.replica(candidate);
    // Before the SYN-ACK went out nothing binds the flow to anybody.
    let able = replica.state == slot::WARM
        || (replica.state == slot::PENDING && flow.flow.state == state::HANDSHAKE);
    let up = conditions.is_up(candidate);
    if !able || !conditions.is_alive(candidate) || (!up && !retransmit) {
        return u32::MAX;
    }
    let penalty = if up { 0 } else { EVACUATING };
    let produced = replica.snd_nxt.wrapping_sub(flow.delta(candidate));
    if flow.flow.state == state::HANDSHAKE {
        penalty
    } else if !seq::after(produced, flow.sync.sent) {
        penalty | (flow.sync.sent.wrapping_sub(produced) & (AHEAD - 1))
    } else if retransmit {
        penalty | AHEAD | (produced.wrapping_sub(flow.sync.sent) & (AHEAD - 1))
    } else {
        u32::MAX
    }
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

/// Whether a warm replica other than `slot` is there to take over.
#[inline(always)]
pub fn has_other_warm(flow: &TcpFlow, conditions: &Conditions, slot: u8) -> bool {
    let mut found = false;
    for other in 0..REPLICAS as u8 {
        found |= other != slot && other < flow.flow.replicas && flow.is_warm(other, conditions);
    }
    found
}

/// Sends mirrors that are too far behind the active replica to the cold.
#[inline(always)]
pub fn bound_lag(flow: &mut TcpFlow, conditions: &Conditions, notes: &mut Notes) {
    let received = flow.replica(flow.flow.active).rcv_nxt;
    for mirror in 0..REPLICAS as u8 {
        if mirror == flow.flow.active || !flow.is_warm(mirror, conditions) {
            continue;
        }
        let replica = flow.replica_mut(mirror);
        if !seq::after(received, replica.rcv_nxt) {
            replica.behind_ms = 0;
        } else if received.wrapping_sub(replica.rcv_nxt) > conditions.vni.lag_bytes_max {
            flow.chill(mirror, Cold::LagBytes, notes);
        } else if replica.behind_ms == 0 {
            // Odd, since 0 means "not behind".
            replica.behind_ms = conditions.now_ms | 1;
        } else if conditions.now_ms.wrapping_sub(replica.behind_ms) as i32
            > conditions.vni.lag_ms_max as i32
        {
            flow.chill(mirror, Cold::LagTime, notes);
        }
    }
}
