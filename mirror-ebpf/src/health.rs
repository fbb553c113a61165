//! What the instance table says of a flow's replicas.

use mirror_common::{
    flow::Flow,
    limits::REPLICAS,
    plan::Plan,
    tcp::{Conditions, Notes, replica::Output},
    vni::Vni,
};

use crate::{
    maps::{INSTANCES, VITALS, zero},
    report::Now,
};

/// A flow's replicas by slot, as the protocol and the plan need them, and what is made of them.
pub(crate) struct World {
    pub(crate) conditions: Conditions,
    /// The interface that leads to each replica; 0 for unused slots.
    pub(crate) ifindex: [u32; REPLICAS],
    /// What the link to each replica takes; 0 where that is not known.
    pub(crate) mtu: [u32; REPLICAS],
    /// How long ago the flow's SYN passed, when its SYN-ACK does, [`mirror_common::time::steps`].
    pub(crate) handshake: u32,
    /// When the client's packet passes, in steps, if it may be timed.
    pub(crate) now_steps: Opaque,
    /// Bit per slot: it gets a copy of the client's packet.
    pub(crate) copied: Opaque,
    /// Whether the client's packet begins a request.
    pub(crate) begins: Opaque,
    /// What the protocol notes.
    pub(crate) notes: Notes,
    /// What it makes of a replica's packet. Kept here so that the verifier goes on with one state
    /// after the protocol, not with one for each way through it.
    pub(crate) output: Output,
    /// What each replica is to see of a client's packet.
    pub(crate) plan: Plan,
    /// See [`Self::forget`].
    forgotten: u8,
}

// A plan is copied from here by words.
const _: () =
    assert!(core::mem::offset_of!(World, plan).is_multiple_of(8) && align_of::<World>() == 8);

/// A number that the verifier does not follow: it goes on with one state instead of one for each value.
pub(crate) struct Opaque(u32);

impl Opaque {
    #[inline(always)]
    pub(crate) fn set(&mut self, value: u32) {
        // SAFETY: the place is a field of our own; volatile, so that the optimiser does not take the short cut that the
        // verifier is not to take.
        unsafe { core::ptr::addr_of_mut!(self.0).write_volatile(value) };
    }

    #[inline(always)]
    pub(crate) fn get(&self) -> u32 {
        // SAFETY: as in `set`.
        unsafe { core::ptr::addr_of!(self.0).read_volatile() }
    }
}

impl World {
    /// Makes the verifier forget what it knows of a value, so that it goes on with one state
    /// instead of one for each value.
    #[inline(always)]
    pub(crate) fn forget(&mut self, value: u8) -> u8 {
        let place = core::ptr::addr_of_mut!(self.forgotten);
        // SAFETY: the place is a field of our own; volatile, so that the optimiser does not take
        // the short cut that the verifier is not to take.
        unsafe {
            place.write_volatile(value);
            place.read_volatile()
        }
    }
}

/// Looks up a flow's replicas. The table's words are copied as they are, without a branch on
/// them: the verifier would follow every combination of four states.
#[inline(always)]
pub(crate) fn look(world: &mut World, flow: &Flow, vni: &Vni, now: Now) {
    // SAFETY: it is made of integers and `false`.
    unsafe { zero(&mut world.notes) };
    world.conditions.now_ms = now.ms();
    world.conditions.unresponsive = 0;
    world.conditions.vni = *vni;
    for slot in 0..REPLICAS {
        world.conditions.state[slot] = 0;
        world.ifindex[slot] = 0;
        world.mtu[slot] = 0;
        if slot < usize::from(flow.replicas)
            && let Some(instance) = INSTANCES.get(u32::from(flow.instances[slot]))
        {
            world.conditions.state[slot] = instance.state as u8;
            world.conditions.deadline_ms[slot] = instance.deadline_ms;
            world.ifindex[slot] = instance.ifindex;
            world.mtu[slot] = instance.mtu;
        }
    }
}

/// Finds out whose instance has left SYNs unanswered for longer than the VNI waits. Only a SYN-ACK
/// needs to know.
#[inline(always)]
pub(crate) fn find_unresponsive(flow: &Flow, world: &mut World, now: Now) {
    let patience_ns = u64::from(world.conditions.vni.handshake_ms) * 1_000_000;
    let mut unresponsive = 0;
    for slot in 0..REPLICAS {
        if slot < usize::from(flow.replicas)
            && let Some(vitals) = VITALS.get(u32::from(flow.instances[slot]))
        {
            let owes = vitals.syn_since_ns != 0;
            let late = now.ns.wrapping_sub(vitals.syn_since_ns) > patience_ns;
            unresponsive |= u8::from(owes & late) << slot;
        }
    }
    world.conditions.unresponsive = unresponsive;
}
