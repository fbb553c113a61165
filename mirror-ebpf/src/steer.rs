//! Choosing instances for new flows, and sending packets on their way.

use core::ptr::addr_of;

use aya_ebpf::{
    btf_maps::lpm_trie::Key,
    helpers::{bpf_redirect, bpf_xdp_adjust_meta},
    programs::XdpContext,
};
use mirror_common::{
    ethernet::Addresses,
    flow::{FlowKey, PlainFlow},
    instance::Instance,
    limits::{REPLICAS, STEERING_BUCKETS},
    plan::{self, Copy, Head, Plan},
    reason::Reason,
    replica_set::ReplicaSet,
    steering::{self, Source},
    tcp::{Segment, segment::bit},
    vni::flag,
};

use crate::{
    Action,
    maps::{INSTANCES, PORTS, SET_PORTS, SETS, SOURCES, STEERING},
    packet::{rewrite::address_frame, tcp_header},
    report::{self, count},
    trace,
};

/// `BPF_F_BROADCAST` (Linux 5.13, include/uapi/linux/bpf.h).
const BROADCAST: u64 = 1 << 3;
/// Addresses of a broadcast frame on its way to the clone program, which replaces them.
/// Where the metadata is not to be seen (generic mode) it tells clones from other frames.
pub(crate) const CLONE_MARK: Addresses = Addresses::new(*b"\x02CLONE", *b"\x02CLONE");
/// Clones are one page each: headroom (256), frame and skb_shared_info (320) must fit
/// (`xdpf_clone`, net/core/xdp.c).
const CLONE_FRAME_MAX: usize = 4096 - 256 - 320 - core::mem::size_of::<Plan>() - 40;

/// The replica set for a new flow. `flags`: those of its VNI.
#[inline(always)]
pub(crate) fn choose(key: &FlowKey, flags: u8) -> Option<(u16, &'static ReplicaSet)> {
    let bucket = steering::bucket(steering::hash(key), STEERING_BUCKETS);
    let table = match flags & flag::ZONED {
        0 => u32::from(key.vni),
        _ => table_of(key),
    };
    let set = *STEERING.get_value(table, &bucket)?;
    let replicas = SETS.get(set)?;
    (replicas.replicas != 0).then_some((set as u16, replicas))
}

/// The steering table for a client: its zone's where there is one, else the VNI's.
#[inline(always)]
fn table_of(key: &FlowKey) -> u32 {
    let vni = u32::from(key.vni);
    let client = key.client;
    let source = Key::new(Source::BITS, Source { vni, client });
    match SOURCES.get(&source) {
        Some(&table) if STEERING.get(table).is_some() => table,
        _ => vni,
    }
}

/// Sends a packet to one instance, without a clone.
#[inline(always)]
pub(crate) fn to_instance(ctx: &XdpContext, vni: u16, instance: u16, asks: bool) -> Action {
    match INSTANCES.get(u32::from(instance)) {
        Some(entry) => to_known_instance(ctx, vni, instance, entry, asks),
        None => report::drop(vni, Reason::NoPort),
    }
}

/// The same with the instance's entry at hand.
#[inline(always)]
pub(crate) fn to_known_instance(
    ctx: &XdpContext,
    vni: u16,
    instance: u16,
    entry: &Instance,
    asks: bool,
) -> Action {
    if address_frame(ctx, &entry.addresses).is_none() {
        return report::drop(vni, Reason::Malformed);
    }
    report::sent(instance, asks);
    to_port(vni, entry.ifindex, Reason::Steered)
}

/// Sends a packet to the client of a flow.
#[inline(always)]
pub(crate) fn to_client(ctx: &XdpContext, vni: u16, flow: &PlainFlow, reason: Reason) -> Action {
    if address_frame(ctx, &flow.addresses).is_none() {
        return report::drop(vni, Reason::Malformed);
    }
    to_port(vni, flow.ifindex, reason)
}

/// Sends a packet back out of the interface it came from.
///
/// Not by `XDP_TX`: veth puts such a frame into its peer's ring and wakes the peer only when that
/// has an XDP program itself (`veth_xdp_flush`, drivers/net/veth.c, up to Linux 6.18 at least), so
/// the frame would lie there until some other one goes the same way.
#[inline(always)]
pub(crate) fn back(ctx: &XdpContext) -> Action {
    trace::leaves_by(ctx.ingress_ifindex() as u32);
    // SAFETY: the helper takes numbers only.
    let action = unsafe { bpf_redirect(ctx.ingress_ifindex() as u32, 0) };
    Action::Redirect(action as u32)
}

/// Sends a packet out of an interface.
#[inline(always)]
pub(crate) fn to_port(vni: u16, ifindex: u32, reason: Reason) -> Action {
    // Whoever replaces an entry (an upgrade, a trace) has the kernel take the old one out before it puts the new one
    // in: who finds none looks once more.
    let found = PORTS.redirect(ifindex, 0);
    match found.or_else(|_| PORTS.redirect(ifindex, 0)) {
        Ok(action) => {
            trace::leaves_by(ifindex);
            count(vni, reason);
            Action::Redirect(action)
        }
        Err(_) => report::drop(vni, Reason::NoPort),
    }
}

/// Whether a frame can be cloned.
#[inline(always)]
pub(crate) fn can_clone(ctx: &XdpContext) -> bool {
    crate::packet::length(ctx) <= CLONE_FRAME_MAX
}

/// Begins a plan, without copies yet: of those without an interface nothing else counts.
#[inline(always)]
pub(crate) fn begin(plan: &mut Plan, vni: u16, transport: usize, flags: u8) {
    plan.head = Head::new(vni, transport, flags | trace::plan_flag());
    for copy in &mut plan.copies {
        copy.ifindex = 0;
    }
}

/// The plan's flags for a segment.
#[inline(always)]
pub(crate) fn plan_flags(segment: &Segment) -> u8 {
    let mut flags = 0;
    if segment.is(bit::ACK) {
        flags |= plan::flag::ACK;
    }
    if tcp_header::asks(segment) {
        flags |= plan::flag::ASKS;
    }
    if segment.is(bit::SYN) {
        flags |= plan::flag::SYN;
    }
    flags
}

/// Sends a copy to every replica of a set.
#[inline(always)]
pub(crate) fn broadcast(ctx: &XdpContext, set: u16, plan: &Plan) -> Action {
    let vni = plan.head.vni as u16;
    if address_frame(ctx, &CLONE_MARK).is_none() {
        return report::drop(vni, Reason::Malformed);
    }
    attach(ctx, plan);
    let Some(ports) = SET_PORTS.get(u32::from(set)) else {
        return report::drop(vni, Reason::NoPort);
    };
    match ports.redirect(0, BROADCAST) {
        Ok(action) => {
            count(vni, Reason::Cloned);
            Action::Redirect(action)
        }
        Err(_) => report::drop(vni, Reason::NoPort),
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
        // By words and not as a value: a plan is aligned to 4 bytes, and would be copied by those.
        // SAFETY: the comparison above leaves room for the plan; it is aligned to 8 bytes in `World`, which asserts it, and
        // the architectures XDP runs on do unaligned stores, which metadata may need.
        unsafe {
            let (from, to) = (core::ptr::from_ref(plan).cast::<u64>(), meta as *mut u64);
            for word in 0..SIZE / size_of::<u64>() {
                to.add(word).write(from.add(word).read());
            }
        }
    }
}

/// Takes the plan off the packet again, if it has one: what it says of all copies and of the one
/// that leaves by `egress`, which has no interface if there is none.
#[inline(always)]
pub(crate) fn detach(ctx: &XdpContext, egress: u32) -> Option<(Head, Copy)> {
    const SIZE: usize = core::mem::size_of::<Plan>();
    let meta = ctx.metadata();
    if meta + SIZE > ctx.metadata_end() {
        return None;
    }
    let plan = meta as *const Plan;
    // SAFETY: the comparison above shows that the bytes are there. Only what is needed is copied.
    let (head, copy) = unsafe {
        let mut found = Copy::default();
        for slot in 0..REPLICAS {
            let copy = addr_of!((*plan).copies[slot]);
            if (*copy).ifindex == egress {
                found = copy.read();
                break;
            }
        }
        (addr_of!((*plan).head).read(), found)
    };
    if head.magic != plan::MAGIC {
        return None;
    }
    // The receiver would merge no segments whose metadata differ. SAFETY: as in `attach`.
    unsafe { bpf_xdp_adjust_meta(ctx.ctx, SIZE as i32) };
    Some((head, copy))
}
