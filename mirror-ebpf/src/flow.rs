//! Finding and naming flows.

use mirror_common::{
    flow::{Address, Flow, FlowKey, PlainFlow, TcpFlow},
    limits::REPLICAS,
    reason::Cold,
    vni::{Vni, flag},
};

use crate::maps::{FLOWS, HALF_OPEN, MIRRORED_FLOWS};

/// Names a flow.
#[inline(always)]
pub(crate) fn key(
    vni: &Vni,
    client: &Address,
    protocol: u8,
    client_port: u16,
    vni_port: u16,
) -> FlowKey {
    FlowKey {
        client: *client,
        vni: vni.vni,
        address: vni.address,
        protocol,
        client_port,
        vni_port,
    }
}

/// The instance in slot 0.
#[inline(always)]
pub(crate) fn primary(instances: &[u16; REPLICAS]) -> u16 {
    // SAFETY: a field of an array that is borrowed; volatile, since the compiler would copy the others by themselves then, with a call.
    unsafe { core::ptr::read_volatile(&raw const instances[0]) }
}

/// Where a TCP flow's state is.
#[derive(Clone, Copy)]
pub(crate) enum Found {
    /// Established, with mirrors.
    Mirrored(*mut TcpFlow),
    /// Established, alone.
    Plain(*mut PlainFlow),
    /// In its handshake.
    HalfOpen(*mut TcpFlow),
    None,
}

/// Looks a TCP flow up, in the most likely table first.
#[inline(always)]
pub(crate) fn find_tcp(key: &FlowKey, vni: &Vni) -> Found {
    let mirrored = vni.flags & flag::MIRRORED != 0;
    if mirrored && let Some(flow) = MIRRORED_FLOWS.get_ptr_mut(key) {
        return Found::Mirrored(flow);
    }
    if let Some(flow) = FLOWS.get_ptr_mut(key) {
        return Found::Plain(flow);
    }
    if let Some(flow) = HALF_OPEN.get_ptr_mut(key) {
        return Found::HalfOpen(flow);
    }
    // The VNI had mirrors when the flow was opened.
    if !mirrored && let Some(flow) = MIRRORED_FLOWS.get_ptr_mut(key) {
        return Found::Mirrored(flow);
    }
    Found::None
}

/// Whether a flow was met in the middle: nobody has seen its handshake.
#[inline(always)]
pub(crate) fn is_met(flow: &PlainFlow) -> bool {
    flow.cold == Cold::JoinedLate as u8
}

/// The slot of an instance in a flow's replica set.
#[inline(always)]
pub(crate) fn slot_of(flow: &Flow, instance: u16) -> Option<u8> {
    let mut found = None;
    for slot in 0..REPLICAS as u8 {
        if slot < flow.replicas && flow.instances[usize::from(slot)] == instance {
            found = Some(slot);
        }
    }
    found
}
