//! One copy on its way out of a device: addresses it to its replica and translates what the
//! replica must see in its own numbers.

use aya_ebpf::programs::XdpContext;
use mirror_common::{
    counts::NO_VNI,
    flow::{Flow, FlowKey, protocol},
    fragment::CLIENT,
    limits::REPLICAS,
    plan::{self, Copy, Head},
    reason::Reason,
    steering,
    tcp::{Segment, client},
    trace::NOBODY,
    vni::{Vni, VniKey},
};

use crate::{
    Action,
    flow::{self, Found},
    fragment,
    health::{self, World},
    icmp, lock,
    maps::{self, DATAGRAM_FLOWS, INSTANCES, Scratch, VNIS},
    packet::{at, headers, rewrite, tcp_header},
    report::{self, Now},
    steer, trace,
};

/// Takes in a frame that is about to leave.
#[inline(always)]
pub(crate) fn run(ctx: &XdpContext) -> Action {
    // SAFETY: devmap programs have this field (Linux 5.8, struct xdp_md).
    let egress = unsafe { (*ctx.ctx).egress_ifindex };
    trace::leaves_by(egress);
    if let Some((head, copy)) = steer::detach(ctx, egress) {
        trace::planned(ctx, &head);
        return match copy.ifindex {
            0 => report::drop(head.vni as u16, Reason::CloneUnwanted),
            _ => send(ctx, &head, &copy),
        };
    }
    match rewrite::frame_addresses(ctx) {
        Some(steer::CLONE_MARK) => look_up(ctx, egress),
        // Not a clone: addressed by whoever redirected it.
        _ => Action::Pass,
    }
}

/// Carries a plan out for one copy.
#[inline(always)]
fn send(ctx: &XdpContext, head: &Head, copy: &Copy) -> Action {
    let vni = head.vni as u16;
    let Some(instance) = INSTANCES.get(u32::from(copy.instance)) else {
        return report::drop(vni, Reason::CloneLost);
    };
    if rewrite::address_frame(ctx, &instance.addresses).is_none()
        || translate(ctx, head, copy).is_none()
    {
        return report::drop(vni, Reason::CloneLost);
    }
    report::sent(copy.instance, head.flags & plan::flag::ASKS != 0);
    if head.flags & plan::flag::SYN != 0 {
        report::invited(copy.instance);
    }
    report::count(vni, Reason::CloneSent);
    Action::Pass
}

/// Translates the copy's numbers.
#[inline(always)]
fn translate(ctx: &XdpContext, head: &Head, copy: &Copy) -> Option<()> {
    let transport = usize::from(head.transport & 0x3ff);
    if head.flags & plan::flag::QUOTES_TCP != 0 {
        return icmp::translate_quotation(ctx, transport, usize::from(head.edges), copy.delta);
    }
    if head.flags & plan::flag::ACK == 0 {
        return Some(());
    }
    rewrite::acknowledgement(ctx, transport, head.timestamps, copy)?;
    if head.blocks != 0 {
        rewrite::sack_edges(ctx, transport, head.edges, head.blocks, copy)?;
    }
    Some(())
}

/// The slow way, where metadata cannot be seen: parses the packet and looks its flow up again.
#[inline(always)]
fn look_up(ctx: &XdpContext, egress: u32) -> Action {
    let Some(scratch) = maps::scratch() else {
        return report::drop(NO_VNI, Reason::CloneLost);
    };
    scratch.world.plan.head.vni = NO_VNI.into();
    let found = plan_for(ctx, egress, scratch);
    let plan = &scratch.world.plan;
    match found {
        Some(()) => send(ctx, &plan.head, &plan.copies[0]),
        None => report::drop(plan.head.vni as u16, Reason::CloneUnwanted),
    }
}

/// Makes the plan for the copy that leaves by `egress`: its first copy.
#[inline(always)]
fn plan_for(ctx: &XdpContext, egress: u32, scratch: &mut Scratch) -> Option<()> {
    headers::network(ctx, &mut scratch.network)?;
    let key = VniKey {
        address: scratch.network.destination,
    };
    // SAFETY: the agent replaces values as a whole.
    let vni = unsafe { VNIS.get(&key) }?;
    headers::transport(ctx, &scratch.network, &mut scratch.transport).ok()?;
    let (network, transport) = (&scratch.network, &scratch.transport);
    let world = &mut scratch.world;
    world.plan.head = Head::new(vni.vni, transport.offset(), 0);
    if transport.is_later() {
        let place = &mut scratch.fragment;
        let key = fragment::follow(place, network, transport, CLIENT, Now::read()).ok()?;
        trace::arrived(ctx, &key, NOBODY);
        return datagram_copy(vni, &key, egress, world);
    }
    match transport.protocol {
        protocol::TCP => {
            let header = &mut scratch.header;
            tcp_header::parse(ctx, transport, header).ok()?;
            let source = &network.source;
            let ports = (header.source, header.destination);
            let key = flow::key(vni, source, protocol::TCP, ports.0, ports.1);
            let flags = steer::plan_flags(&header.segment);
            world.plan.head = Head {
                timestamps: header.options.timestamps,
                edges: header.options.sack + 2,
                blocks: header.options.blocks,
                ..Head::new(vni.vni, transport.offset(), flags)
            };
            trace::arrived(ctx, &key, NOBODY);
            tcp_copy(&key, &header.segment, vni, egress, world)
        }
        protocol::UDP => {
            let header = at(ctx, transport.offset(), 8)?;
            // SAFETY: 8 bytes are there.
            let ports = u32::from_be(unsafe { header.load32::<0>() });
            let ports = ((ports >> 16) as u16, ports as u16);
            let key = flow::key(vni, &network.source, protocol::UDP, ports.0, ports.1);
            trace::arrived(ctx, &key, NOBODY);
            datagram_copy(vni, &key, egress, world)
        }
        _ => {
            let quoted = icmp::plan_for(ctx, network, transport, vni)?;
            world.plan.head = Head {
                edges: quoted.edges,
                ..Head::new(vni.vni, transport.offset(), quoted.flags)
            };
            match quoted.flow {
                icmp::Concerns::Tcp(key) => {
                    trace::arrived(ctx, &key, NOBODY);
                    tcp_copy(&key, &Segment::default(), vni, egress, world)
                }
                icmp::Concerns::Datagram(key) => {
                    trace::arrived(ctx, &key, NOBODY);
                    datagram_copy(vni, &key, egress, world)
                }
            }
        }
    }
}

/// The copy of a TCP flow's replica behind `egress`.
#[inline(always)]
fn tcp_copy(
    key: &FlowKey,
    segment: &Segment,
    vni: &Vni,
    egress: u32,
    world: &mut World,
) -> Option<()> {
    let (Found::Mirrored(found) | Found::HalfOpen(found)) = flow::find_tcp(key, vni) else {
        return None;
    };
    // SAFETY: the value outlives the program run; it is read under the lock.
    let flow = unsafe { &*found };
    health::look(world, &flow.flow, vni, Now::read());
    let slot = slot_behind(&flow.flow, &world.ifindex, egress)?;
    let slot = world.forget(slot) & (REPLICAS as u8 - 1);
    let held = lock::take(steering::hash(key))?;
    let (conditions, copy) = (&world.conditions, &mut world.plan.copies[0]);
    let wanted = client::copy_for(flow, slot, segment, conditions, copy);
    drop(held);
    wanted.then_some(())
}

/// The copy of a datagram flow's replica behind `egress`.
#[inline(always)]
fn datagram_copy(vni: &Vni, key: &FlowKey, egress: u32, world: &mut World) -> Option<()> {
    let flow = DATAGRAM_FLOWS.get_ptr(key)?;
    // SAFETY: the value outlives the program run.
    let flow = unsafe { &*flow };
    health::look(world, flow, vni, Now::read());
    let slot = slot_behind(flow, &world.ifindex, egress)?;
    if !world.conditions.is_reachable(slot) {
        return None;
    }
    world.plan.copies[0].instance = flow.instances[usize::from(slot) & (REPLICAS - 1)];
    Some(())
}

/// The slot whose instance is behind an interface.
#[inline(always)]
fn slot_behind(flow: &Flow, ifindex: &[u32; REPLICAS], egress: u32) -> Option<u8> {
    let mut found = None;
    for slot in 0..REPLICAS as u8 {
        if slot < flow.replicas && ifindex[usize::from(slot)] == egress {
            found = Some(slot);
        }
    }
    found
}
