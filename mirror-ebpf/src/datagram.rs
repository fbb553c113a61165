//! UDP and ICMP echo: the same steering and cloning as TCP, mirrors suppressed, nothing to
//! translate.

use aya_ebpf::programs::XdpContext;
use mirror_common::{
    event::{cause, kind},
    flow::{Flow, FlowKey, PlainFlow, protocol, state},
    fragment::CLIENT,
    limits::REPLICAS,
    plan,
    quic::{ConnectionId, Served},
    reason::{Cold, Reason},
    tcp::Conditions,
    trace::NOBODY,
    vni::{self, Vni},
};

use crate::{
    Action, flow, fragment,
    health::{self, World},
    limit,
    maps::{DATAGRAM_FLOWS, Scratch},
    narrow,
    packet::{at, headers::Transport, rewrite::frame_addresses},
    predecessor, quic,
    report::{self, Now},
    steer, trace,
};

/// The ports of a UDP header, source first, host order.
#[inline(always)]
fn udp_ports(ctx: &XdpContext, transport: &Transport) -> Option<(u16, u16)> {
    let header = at(ctx, transport.offset(), 8)?;
    // SAFETY: 8 bytes are there.
    let ports = u32::from_be(unsafe { header.load32::<0>() });
    Some(((ports >> 16) as u16, ports as u16))
}

/// Takes in a client's UDP datagram, or a later fragment of any.
#[inline(always)]
pub(crate) fn udp_from_client(
    ctx: &XdpContext,
    scratch: &mut Scratch,
    vni: &Vni,
    now: Now,
) -> Action {
    let (network, transport) = (&scratch.network, &scratch.transport);
    let place = &mut scratch.fragment;
    let key = if transport.is_later() {
        match fragment::follow(place, network, transport, CLIENT, now) {
            Ok(key) => key,
            Err(reason) => return report::drop(vni.vni, reason),
        }
    } else {
        let Some((source, destination)) = udp_ports(ctx, transport) else {
            return report::drop(vni.vni, Reason::Malformed);
        };
        let key = flow::key(vni, &network.source, protocol::UDP, source, destination);
        fragment::note(place, network, transport, CLIENT, &key, now);
        key
    };
    let id = Some(&mut scratch.id);
    from_client(
        ctx,
        transport,
        vni,
        &key,
        id,
        false,
        now,
        &mut scratch.world,
    )
}

/// Takes in an instance's UDP datagram, or a later fragment of any.
#[inline(always)]
pub(crate) fn udp_from_replica(
    ctx: &XdpContext,
    scratch: &mut Scratch,
    vni: &Vni,
    instance: u16,
    now: Now,
) -> Action {
    let (network, transport) = (&scratch.network, &scratch.transport);
    let place = &mut scratch.fragment;
    let key = if transport.is_later() {
        match fragment::follow(place, network, transport, instance, now) {
            Ok(key) => key,
            Err(reason) => return report::drop(vni.vni, reason),
        }
    } else {
        let Some((source, destination)) = udp_ports(ctx, transport) else {
            return report::drop(vni.vni, Reason::Malformed);
        };
        let client = &network.destination;
        let key = flow::key(vni, client, protocol::UDP, destination, source);
        fragment::note(place, network, transport, instance, &key, now);
        key
    };
    let action = from_replica(ctx, vni, &key, instance, now, &mut scratch.world);
    if vni.flags & vni::flag::QUIC != 0 && matches!(action, Action::Redirect(_)) {
        quic::learn(ctx, transport, &key, &mut scratch.id);
    }
    action
}

/// Sends a client's datagram of a flow on. `id`: room for a QUIC connection's, if it may be of one. `asks`: it asks for an answer.
#[inline(always)]
#[expect(
    clippy::too_many_arguments,
    reason = "each is a fact of its own about one packet"
)]
pub(crate) fn from_client(
    ctx: &XdpContext,
    transport: &Transport,
    vni: &Vni,
    key: &FlowKey,
    id: Option<&mut ConnectionId>,
    asks: bool,
    now: Now,
    world: &mut World,
) -> Action {
    trace::arrived(ctx, key, NOBODY);
    let flow = match DATAGRAM_FLOWS.get_ptr_mut(key) {
        Some(flow) => flow,
        None => {
            let served = match id {
                Some(id) if vni.flags & vni::flag::QUIC != 0 => {
                    quic::follow(ctx, transport, key, id)
                }
                _ => None,
            };
            match open(ctx, key, vni.flags, served, now) {
                Ok(flow) => flow,
                Err(action) => return action,
            }
        }
    };
    // SAFETY: the value outlives the program run; the fields that two CPUs may write are single
    // words for which the last writer may win.
    let flow = unsafe { &mut *flow };
    flow.packets += 1;
    flow.seen_s = now.s();
    health::look(world, flow, vni, now);
    let Some(active) = follow_health(flow, key, &world.conditions) else {
        return report::drop(vni.vni, Reason::NoReplica);
    };
    let mtu = narrow::least(world);
    if narrow::is_larger(transport, mtu) {
        return Action::TooBig(mtu);
    }
    if flow.replicas < 2 || !steer::can_clone(ctx) {
        if flow.replicas >= 2 {
            report::count(vni.vni, Reason::TooLargeToClone);
        }
        return steer::to_instance(ctx, vni.vni, active, asks);
    }
    let flags = if asks { plan::flag::ASKS } else { 0 };
    let plan = &mut world.plan;
    steer::begin(plan, vni.vni, transport.offset(), flags);
    for slot in 0..REPLICAS {
        if world.conditions.is_reachable(slot as u8) {
            // The clone program looks at nothing else: there is no acknowledgement in it.
            let copy = &mut plan.copies[slot];
            copy.ifindex = world.ifindex[slot];
            copy.instance = flow.instances[slot];
        }
    }
    steer::broadcast(ctx, flow.set, plan)
}

/// Lets the active replica's datagram through.
#[inline(always)]
pub(crate) fn from_replica(
    ctx: &XdpContext,
    vni: &Vni,
    key: &FlowKey,
    instance: u16,
    now: Now,
    world: &mut World,
) -> Action {
    trace::arrived(ctx, key, instance);
    report::heard(instance, now);
    let Some(flow) = DATAGRAM_FLOWS.get_ptr_mut(key) else {
        // Asked before this version was there: what the client sends next opens a flow here.
        predecessor::take_from_instance(ctx);
        return report::drop(vni.vni, Reason::ReturnWithoutFlow);
    };
    // SAFETY: as in `from_client`.
    let flow = unsafe { &mut *flow };
    health::look(world, flow, vni, now);
    if follow_health(flow, key, &world.conditions) != Some(instance) {
        return report::drop(vni.vni, Reason::MirrorSuppressed);
    }
    flow.packets += 1;
    flow.seen_s = now.s();
    steer::to_client(ctx, vni.vni, flow, Reason::Delivered)
}

/// Opens a flow. `served`: who serves it, if that is known; else its hash says it.
#[inline(always)]
fn open(
    ctx: &XdpContext,
    key: &FlowKey,
    flags: u8,
    served: Option<Served>,
    now: Now,
) -> Result<*mut Flow, Action> {
    let Some(mut served) = served.or_else(|| steered(key, flags)) else {
        return Err(report::drop(key.vni, Reason::NoReplicaSet));
    };
    let Some(addresses) = frame_addresses(ctx) else {
        return Err(report::drop(key.vni, Reason::Malformed));
    };
    let limited = served.replicas > 1 && !limit::may_mirror(key.vni, Now::exact());
    if limited {
        report::count(key.vni, Reason::MirrorLimit);
        served = served.alone();
    }
    let flow = Flow {
        plain: PlainFlow {
            opened_s: now.s(),
            seen_s: now.s(),
            set: served.set,
            ifindex: ctx.ingress_ifindex() as u32,
            addresses: addresses.turned_round(),
            primary: flow::primary(&served.instances),
            state: state::ESTABLISHED,
            cold: if limited { Cold::MirrorLimit as u8 } else { 0 },
            packets: 0,
            timed_end: 0,
            timed_at: 0,
            handshake: 0,
            marks: 0,
            pad: 0,
        },
        instances: served.instances,
        replicas: served.replicas,
        active: served.active,
        takeovers: 0,
        pad: 0,
    };
    if DATAGRAM_FLOWS.insert(key, flow, 0).is_err() {
        report::count(key.vni, Reason::FlowTableFull);
        return Err(steer::to_instance(ctx, key.vni, served.instance(), false));
    }
    report::count(key.vni, Reason::FlowOpened);
    DATAGRAM_FLOWS
        .get_ptr_mut(key)
        .ok_or_else(|| report::drop(key.vni, Reason::FlowTableFull))
}

/// Who serves a flow by its hash.
#[inline(always)]
fn steered(key: &FlowKey, flags: u8) -> Option<Served> {
    let (set, replicas) = steer::choose(key, flags)?;
    Some(Served {
        instances: replicas.instances,
        set,
        replicas: replicas.replicas,
        active: 0,
        pad: 0,
    })
}

/// The instance whose output reaches the client; another than before when that one may not be
/// active any more. `None`: nobody is left.
#[inline(always)]
fn follow_health(flow: &mut Flow, key: &FlowKey, conditions: &Conditions) -> Option<u16> {
    let active = flow.active & (REPLICAS as u8 - 1);
    let instance = |slot: u8| flow.instances[usize::from(slot) & (REPLICAS - 1)];
    if conditions.is_up(active) {
        return Some(instance(active));
    }
    let mut best = active;
    for slot in 0..REPLICAS as u8 {
        if conditions.state_of(slot) > conditions.state_of(best) {
            best = slot;
        }
    }
    if conditions.has(vni::flag::SHADOW) {
        best = active;
    }
    if !conditions.is_reachable(best) {
        return None;
    }
    let (from, to) = (instance(active), instance(best));
    if best != active {
        let why = if conditions.is_alive(active) {
            cause::EVACUATED
        } else if conditions.is_reachable(active) {
            cause::SUSPECTED
        } else {
            cause::DEAD
        };
        flow.active = best;
        flow.takeovers = flow.takeovers.saturating_add(1);
        report::count(key.vni, Reason::Takeover);
        report::flow_event(key, kind::TAKEOVER, why, from, to);
    }
    Some(to)
}
