//! Counters, vital signs and events.

use aya_ebpf::{
    helpers::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns},
    programs::XdpContext,
};
use aya_log_ebpf::debug;
use mirror_common::{
    counts::Counts,
    event::{Event, cause, kind},
    flow::{FlowKey, TcpFlow, state},
    limits::REPLICAS,
    reason::Reason,
    tcp::Notes,
    time,
};

use crate::{
    Action,
    maps::{COUNTERS, EVENTS, VITALS},
    trace,
};

/// The time of one packet.
#[derive(Clone, Copy)]
pub(crate) struct Now {
    pub(crate) ns: u64,
}

impl Now {
    /// The time of the kernel's last tick, 10 ms ago at most: compared with bounds of tens of
    /// milliseconds. To read the clock would take as long as to look a flow up.
    #[inline(always)]
    pub(crate) fn read() -> Self {
        // SAFETY: the helper has no preconditions.
        Self {
            ns: unsafe { bpf_ktime_get_coarse_ns() },
        }
    }

    /// The time to the nanosecond: for handshakes, which wait for a few milliseconds, and events.
    #[inline(always)]
    pub(crate) fn exact() -> Self {
        // SAFETY: the helper has no preconditions.
        Self {
            ns: unsafe { bpf_ktime_get_ns() },
        }
    }

    /// See [`time::ms`].
    #[inline(always)]
    pub(crate) fn ms(self) -> u32 {
        time::ms(self.ns)
    }

    /// See [`time::steps`].
    #[inline(always)]
    pub(crate) fn steps(self) -> u32 {
        time::steps(self.ns)
    }

    /// See [`time::s`].
    #[inline(always)]
    pub(crate) fn s(self) -> u32 {
        time::s(self.ns)
    }
}

/// Counts a packet of a VNI. A reason that is not a constant has to be [`bounded`].
#[inline(always)]
pub(crate) fn count(vni: u16, reason: Reason) {
    trace::counted(reason);
    if let Some(counts) = COUNTERS.get_ptr_mut(u32::from(vni)) {
        // SAFETY: a per-CPU value, which nothing else on this CPU writes meanwhile.
        unsafe { (*counts).count(reason) };
    }
}

/// The same reason, whose number the verifier knows to be that of a count. The optimiser knows it anyway, and would leave an
/// ordinary mask out.
#[inline(always)]
pub(crate) fn bounded(reason: Reason) -> Reason {
    let mut number = reason as u64;
    // SAFETY: arithmetic on a register; it leaves every reason's number as it is, as `Counts` asserts.
    unsafe {
        core::arch::asm!("{n} &= {mask}", n = inout(reg) number, mask = const Counts::MASK,
            options(pure, nomem, nostack, preserves_flags));
        core::mem::transmute::<u8, Reason>(number as u8)
    }
}

/// Drops a packet of a VNI.
#[inline(always)]
pub(crate) fn drop(vni: u16, reason: Reason) -> Action {
    count(vni, bounded(reason));
    Action::Drop
}

/// Leaves a packet of a VNI to the kernel.
#[inline(always)]
pub(crate) fn pass(vni: u16, reason: Reason) -> Action {
    count(vni, bounded(reason));
    Action::Pass
}

/// A packet goes to an instance. `asks`: it asks for an answer.
#[inline(always)]
pub(crate) fn sent(instance: u16, asks: bool) {
    trace::concerns(instance);
    if let Some(vitals) = VITALS.get_ptr_mut(u32::from(instance)) {
        // SAFETY: single words of a live map value; counts may lose a race between CPUs, which
        // their readers allow for.
        unsafe {
            (*vitals).sent += 1;
            if asks && (*vitals).owes_since_ns == 0 {
                (*vitals).owes_since_ns = Now::read().ns;
            }
        }
    }
}

/// A SYN goes to an instance.
#[inline(always)]
pub(crate) fn invited(instance: u16) {
    if let Some(vitals) = VITALS.get_ptr_mut(u32::from(instance)) {
        // SAFETY: as in `sent`.
        unsafe {
            if (*vitals).syn_since_ns == 0 {
                (*vitals).syn_since_ns = Now::exact().ns;
            }
        }
    }
}

/// An instance accepted or refused a SYN.
#[inline(always)]
pub(crate) fn answered(instance: u16) {
    if let Some(vitals) = VITALS.get_ptr_mut(u32::from(instance)) {
        // SAFETY: as in `sent`.
        unsafe { (*vitals).syn_since_ns = 0 };
    }
}

/// A packet came from an instance.
#[inline(always)]
pub(crate) fn heard(instance: u16, now: Now) {
    if let Some(vitals) = VITALS.get_ptr_mut(u32::from(instance)) {
        // SAFETY: as in `sent`.
        unsafe {
            (*vitals).received += 1;
            (*vitals).heard_ns = now.ns;
            (*vitals).owes_since_ns = 0;
        }
    }
}

/// Tells the agent of something about a flow.
#[inline(always)]
pub(crate) fn flow_event(key: &FlowKey, kind: u8, cause: u8, from: u16, to: u16) {
    // Written in place: the stack has no room for events.
    let Some(mut entry) = EVENTS.reserve(0) else {
        return count(key.vni, Reason::EventLost);
    };
    entry.write(Event {
        time_ns: Now::exact().ns,
        flow: *key,
        kind,
        cause,
        from,
        to,
        pad: 0,
    });
    entry.submit(0);
}

/// Carries out what the protocol noted about a TCP flow. `OF_CLIENT`: at a client's segment. Each program has a message of its own: one in
/// common would be a function, and older verifiers make little of programs with functions.
#[inline(always)]
pub(crate) fn notes<const OF_CLIENT: bool>(
    ctx: &XdpContext,
    key: &FlowKey,
    flow: &mut TcpFlow,
    notes: &Notes,
) {
    if notes.takeover | notes.went_cold | notes.went_warm == 0
        && !notes.closed
        && !notes.retransmission
    {
        return;
    }
    if notes.takeover != 0 {
        flow.begin_stall(Now::exact().steps());
    }
    let instance = |slot: u8| flow.flow.instances[usize::from(slot) & (REPLICAS - 1)];
    if notes.retransmission || notes.takeover != 0 {
        evidence(instance(notes.from), notes);
    }
    if notes.takeover != 0 {
        count(key.vni, Reason::Takeover);
        let (from, to) = (instance(notes.from), instance(flow.flow.active));
        flow_event(key, kind::TAKEOVER, notes.takeover, from, to);
        if OF_CLIENT {
            debug!(
                ctx,
                "takeover from {} to {}, at a client's segment", from, to
            );
        } else {
            debug!(
                ctx,
                "takeover from {} to {}, at a replica's segment", from, to
            );
        }
    }
    // Whoever is warm before is told of when the flow is established. By bits: the verifier would follow a comparison through
    // every slot.
    const { assert!(state::ESTABLISHED == 2 && state::CLOSED == 4) };
    let is_told = (flow.flow.state >> 1 | flow.flow.state >> 2) & 1;
    let went_warm = notes.went_warm & is_told.wrapping_neg();
    for slot in 0..REPLICAS as u8 {
        if notes.went_cold & 1 << slot != 0 {
            count(key.vni, Reason::WentCold);
            let cold = flow.sync.replicas[usize::from(slot)].cold;
            flow_event(key, kind::FLOW_COLD, cold, instance(slot), 0);
        } else if went_warm & 1 << slot != 0 && slot != flow.flow.active {
            flow_event(key, kind::FLOW_WARM, 0, 0, instance(slot));
        }
    }
    if notes.closed {
        flow_event(key, kind::FLOW_CLOSED, 0, 0, instance(flow.flow.active));
    }
}

/// Counts what speaks against an instance.
#[inline(always)]
fn evidence(instance: u16, notes: &Notes) {
    let Some(vitals) = VITALS.get_ptr_mut(u32::from(instance)) else {
        return;
    };
    // SAFETY: as in `sent`.
    unsafe {
        match notes.takeover {
            cause::RESET => (*vitals).resets += 1,
            cause::CLOSED_EARLY => (*vitals).early_closes += 1,
            _ if notes.retransmission => (*vitals).retransmissions += 1,
            _ => {}
        }
    }
}
