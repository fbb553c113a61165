//! Choosing instances for new flows, and sending packets on their way.

use aya_ebpf::{
    helpers::{bpf_redirect, bpf_xdp_adjust_meta},
    programs::XdpContext,
};
use mirror_common::{
    flow::Flow,
    limits::STEERING_BUCKETS,
    plan::{self, Plan},
    reason::Reason,
    replica_set::ReplicaSet,
    steering,
};

use crate::{
    Action,
    maps::{INSTANCES, PORTS, SCRATCH, SET_PORTS, SETS, STEERING},
    packet::rewrite::{Mac, address_frame},
    report::{self, Now, count},
};

/// `BPF_F_BROADCAST` (Linux 5.13, include/uapi/linux/bpf.h).
const BROADCAST: u64 = 1 << 3;
/// Destination address of a broadcast frame on its way to the clone program, which replaces it.
/// Where the metadata is not to be seen (generic mode) it tells clones from other frames.
pub(crate) const CLONE_MARK: Mac = *b"\x02CLONE";
/// Clones are one page each: headroom (256), frame and skb_shared_info (320) must fit
/// (`xdpf_clone`, net/core/xdp.c).
const CLONE_FRAME_MAX: usize = 4096 - 256 - 320 - core::mem::size_of::<Plan>() - 40;

/// The replica set for a new flow.
#[inline(always)]
pub(crate) fn choose(vni: u16, hash: u32) -> Option<(u32, &'static ReplicaSet)> {
    let bucket = steering::bucket(hash, STEERING_BUCKETS);
    let set = *STEERING.get_value(u32::from(vni), &bucket)?;
    let replicas = SETS.get(set)?;
    (replicas.replicas != 0).then_some((set, replicas))
}

/// Sends a packet to one instance, without a clone.
#[inline(always)]
pub(crate) fn to_instance(ctx: &XdpContext, instance: u16, asks: bool, now: Now) -> Action {
    let Some(entry) = INSTANCES.get(u32::from(instance)) else {
        return report::drop(Reason::NoPort);
    };
    if address_frame(ctx, &entry.mac, &entry.source_mac).is_none() {
        return report::drop(Reason::Malformed);
    }
    report::sent(instance, asks, now);
    to_port(entry.ifindex, Reason::Steered)
}

/// Sends a packet to the client of a flow.
#[inline(always)]
pub(crate) fn to_client(ctx: &XdpContext, flow: &Flow, reason: Reason) -> Action {
    if address_frame(ctx, &flow.client_mac, &flow.host_mac).is_none() {
        return report::drop(Reason::Malformed);
    }
    to_port(flow.ifindex, reason)
}

/// Sends a packet back out of the interface it came from.
///
/// Not by `XDP_TX`: veth puts such a frame into its peer's ring and wakes the peer only when that
/// has an XDP program itself (`veth_xdp_flush`, drivers/net/veth.c, up to Linux 6.18 at least), so
/// the frame would lie there until some other one goes the same way.
#[inline(always)]
pub(crate) fn back(ctx: &XdpContext) -> Action {
    // SAFETY: the helper takes numbers only.
    let action = unsafe { bpf_redirect(ctx.ingress_ifindex() as u32, 0) };
    Action::Redirect(action as u32)
}

/// Sends a packet out of an interface.
#[inline(always)]
pub(crate) fn to_port(ifindex: u32, reason: Reason) -> Action {
    match PORTS.redirect(ifindex, 0) {
        Ok(action) => {
            count(reason);
            Action::Redirect(action)
        }
        Err(_) => report::drop(Reason::NoPort),
    }
}

/// Whether a frame can be cloned.
#[inline(always)]
pub(crate) fn can_clone(ctx: &XdpContext) -> bool {
    crate::packet::length(ctx) <= CLONE_FRAME_MAX
}

/// The packet's plan, without copies yet.
#[inline(always)]
pub(crate) fn new_plan(transport: usize, flags: u8) -> Option<&'static mut Plan> {
    let scratch = SCRATCH.get_ptr_mut(0)?;
    // SAFETY: the scratch value is this CPU's own for the run of the program, and each run makes
    // one plan.
    let plan = unsafe {
        core::ptr::addr_of_mut!((*scratch).plan).write_bytes(0, 1);
        &mut (*scratch).plan
    };
    plan.magic = plan::MAGIC;
    plan.transport = transport as u16;
    plan.flags = flags;
    Some(plan)
}

/// Sends a copy to every replica of a set.
#[inline(always)]
pub(crate) fn broadcast(ctx: &XdpContext, set: u32, plan: &Plan) -> Action {
    if address_frame(ctx, &CLONE_MARK, &CLONE_MARK).is_none() {
        return report::drop(Reason::Malformed);
    }
    attach(ctx, plan);
    let Some(ports) = SET_PORTS.get(set) else {
        return report::drop(Reason::NoPort);
    };
    match ports.redirect(0, BROADCAST) {
        Ok(action) => {
            count(Reason::Cloned);
            Action::Redirect(action)
        }
        Err(_) => report::drop(Reason::NoPort),
    }
}

/// Puts the plan in front of the packet. Where a driver has no room for it, each clone looks its
/// flow up instead.
#[inline(always)]
fn attach(ctx: &XdpContext, plan: &Plan) {
    const SIZE: usize = core::mem::size_of::<Plan>();
    // SAFETY: the context is the one the kernel gave us.
    if unsafe { bpf_xdp_adjust_meta(ctx.ctx, -(SIZE as i32)) } != 0 {
        return;
    }
    let meta = ctx.metadata();
    if meta + SIZE <= ctx.metadata_end() {
        // SAFETY: the comparison above leaves room for the plan; metadata is 4-byte aligned
        // relative to the frame, and the architectures XDP runs on do unaligned stores.
        unsafe { (meta as *mut Plan).write(*plan) };
    }
}

/// Takes the plan off the packet again, if it has one.
#[inline(always)]
pub(crate) fn detach(ctx: &XdpContext) -> Option<Plan> {
    const SIZE: usize = core::mem::size_of::<Plan>();
    let meta = ctx.metadata();
    if meta + SIZE > ctx.metadata_end() {
        return None;
    }
    // SAFETY: the comparison above shows that the bytes are there.
    let plan = unsafe { (meta as *const Plan).read() };
    if plan.magic != plan::MAGIC {
        return None;
    }
    // The receiver would merge no segments whose metadata differ. SAFETY: as in `attach`.
    unsafe { bpf_xdp_adjust_meta(ctx.ctx, SIZE as i32) };
    Some(plan)
}
