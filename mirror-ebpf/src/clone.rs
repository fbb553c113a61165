//! One copy on its way out of a device: addresses it to its replica and translates what the
//! replica must see in its own numbers.

use aya_ebpf::programs::XdpContext;
use mirror_common::{
    flow::{Flow, TcpFlow, protocol},
    limits::REPLICAS,
    plan::{self, Copy, Plan},
    reason::Reason,
    steering,
    tcp::client,
    vni::{Vni, VniKey},
};

use crate::{
    Action,
    flow::{self, Found},
    health, icmp, lock,
    maps::{DATAGRAM_FLOWS, INSTANCES, VNIS, forget},
    packet::{at, headers, rewrite, tcp_header},
    report::{self, Now},
    steer,
};

/// Takes in a frame that is about to leave.
#[inline(always)]
pub(crate) fn run(ctx: &XdpContext) -> Action {
    // SAFETY: devmap programs have this field (Linux 5.8, struct xdp_md).
    let egress = unsafe { (*ctx.ctx).egress_ifindex };
    if let Some(plan) = steer::detach(ctx) {
        for copy in &plan.copies {
            if copy.ifindex == egress {
                return send(ctx, &plan, copy);
            }
        }
        return report::drop(Reason::CloneUnwanted);
    }
    match rewrite::frame_addresses(ctx) {
        Some((destination, _)) if destination == steer::CLONE_MARK => look_up(ctx, egress),
        // Not a clone: addressed by whoever redirected it.
        _ => Action::Pass,
    }
}

/// Carries a plan out for one copy.
#[inline(always)]
fn send(ctx: &XdpContext, plan: &Plan, copy: &Copy) -> Action {
    let Some(instance) = INSTANCES.get(u32::from(copy.instance)) else {
        return report::drop(Reason::CloneLost);
    };
    if rewrite::address_frame(ctx, &instance.mac, &instance.source_mac).is_none()
        || translate(ctx, plan, copy).is_none()
    {
        return report::drop(Reason::CloneLost);
    }
    let asks = plan.flags & plan::flag::ASKS != 0;
    let now = Now::read();
    report::sent(copy.instance, asks, now);
    if plan.flags & plan::flag::SYN != 0 {
        report::invited(copy.instance, now);
    }
    report::count(Reason::CloneSent);
    Action::Pass
}

/// Translates the copy's numbers.
#[inline(always)]
fn translate(ctx: &XdpContext, plan: &Plan, copy: &Copy) -> Option<()> {
    let transport = usize::from(plan.transport & 0x3ff);
    if plan.flags & plan::flag::QUOTES_TCP != 0 {
        return icmp::translate_quotation(ctx, transport, usize::from(plan.edges), copy.delta);
    }
    if plan.flags & plan::flag::ACK == 0 {
        return Some(());
    }
    rewrite::acknowledgement(ctx, transport, plan.timestamps, copy)?;
    if plan.blocks != 0 {
        rewrite::sack_edges(ctx, transport, plan.edges, plan.blocks, copy)?;
    }
    Some(())
}

/// The slow way, where metadata cannot be seen: parses the packet and looks its flow up again.
#[inline(always)]
fn look_up(ctx: &XdpContext, egress: u32) -> Action {
    let Some(plan) = steer::new_plan(0, 0) else {
        return report::drop(Reason::CloneLost);
    };
    match plan_for(ctx, egress, plan) {
        Some(()) => send(ctx, plan, &plan.copies[0]),
        None => report::drop(Reason::CloneUnwanted),
    }
}

/// Makes the plan for the copy that leaves by `egress`: its first copy.
#[inline(always)]
fn plan_for(ctx: &XdpContext, egress: u32, plan: &mut Plan) -> Option<()> {
    let network = headers::network(ctx)?;
    let key = VniKey {
        address: network.destination,
    };
    // SAFETY: the agent replaces values as a whole.
    let vni = unsafe { VNIS.get(&key) }?;
    let transport = headers::transport(ctx, network).ok()?;
    plan.transport = transport.offset() as u16;
    match transport.protocol {
        protocol::TCP => {
            let header = tcp_header::parse(ctx, transport).ok()?;
            let key = flow::key(
                vni,
                &network.source,
                protocol::TCP,
                header.source,
                header.destination,
            );
            plan.flags = crate::tcp::plan_flags(&header.segment);
            plan.timestamps = header.options.timestamps;
            plan.edges = header.options.sack + 2;
            plan.blocks = header.options.blocks;
            let (Found::Mirrored(found) | Found::HalfOpen(found)) = flow::find_tcp(&key, vni)
            else {
                return None;
            };
            tcp_copy(
                found,
                &key,
                &header.segment,
                vni,
                egress,
                &mut plan.copies[0],
            )
        }
        protocol::UDP => {
            let header = at(ctx, transport.offset(), 8)?;
            // SAFETY: 8 bytes are there.
            let ports = u32::from_be(unsafe { header.load32::<0>() });
            let key = flow::key(
                vni,
                &network.source,
                protocol::UDP,
                (ports >> 16) as u16,
                ports as u16,
            );
            datagram_copy(vni, &key, egress, &mut plan.copies[0])
        }
        _ => {
            plan.flags = plan::flag::ASKS;
            let quoted = icmp::plan_for(ctx, network, transport, vni)?;
            plan.flags = quoted.flags;
            plan.edges = quoted.edges;
            match quoted.flow {
                icmp::Concerns::Tcp(key) => {
                    let (Found::Mirrored(found) | Found::HalfOpen(found)) =
                        flow::find_tcp(&key, vni)
                    else {
                        return None;
                    };
                    tcp_copy(
                        found,
                        &key,
                        &Default::default(),
                        vni,
                        egress,
                        &mut plan.copies[0],
                    )
                }
                icmp::Concerns::Datagram(key) => {
                    datagram_copy(vni, &key, egress, &mut plan.copies[0])
                }
            }
        }
    }
}

/// The copy of a TCP flow's replica behind `egress`.
#[inline(always)]
fn tcp_copy(
    found: *mut TcpFlow,
    key: &mirror_common::flow::FlowKey,
    segment: &mirror_common::tcp::Segment,
    vni: &Vni,
    egress: u32,
    copy: &mut Copy,
) -> Option<()> {
    // SAFETY: the value outlives the program run; it is read under the lock.
    let flow = unsafe { &*found };
    let now = Now::read();
    let world = health::of(&flow.flow, vni, now)?;
    let slot = slot_behind(&flow.flow, &world.ifindex, egress)?;
    let slot = forget(slot) & (REPLICAS as u8 - 1);
    let held = lock::take(steering::hash(key))?;
    let wanted = client::copy_for(flow, slot, segment, &world.conditions, copy);
    drop(held);
    wanted.then_some(())
}

/// The copy of a datagram flow's replica behind `egress`.
#[inline(always)]
fn datagram_copy(
    vni: &Vni,
    key: &mirror_common::flow::FlowKey,
    egress: u32,
    copy: &mut Copy,
) -> Option<()> {
    let flow = DATAGRAM_FLOWS.get_ptr(key)?;
    // SAFETY: the value outlives the program run.
    let flow = unsafe { &*flow };
    let world = health::of(flow, vni, Now::read())?;
    let slot = slot_behind(flow, &world.ifindex, egress)?;
    if !world.conditions.is_reachable(slot) {
        return None;
    }
    copy.instance = flow.instances[usize::from(slot) & (REPLICAS - 1)];
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
