//! TCP of clients: parses, finds the flow, runs the protocol of `mirror-common` under the flow's
//! lock, and carries out its verdict. The other direction is in [`returned`].

pub(crate) mod returned;

use aya_ebpf::programs::XdpContext;
use mirror_common::{
    branchless::{is_before, is_some},
    ethernet::Addresses,
    event::kind,
    flow::{FlowKey, PlainFlow, TcpFlow, protocol, state},
    instance,
    limits::REPLICAS,
    reason::{Cold, Reason},
    steering,
    tcp::{Notes, Segment, client, option, segment::bit, slot},
    trace::NOBODY,
    vni::{self, Vni},
};

use crate::{
    Action,
    flow::{self, Found},
    health::{self, World},
    limit, lock,
    maps::{FLOWS, HALF_OPEN, INSTANCES, MIRRORED_FLOWS, Scratch, zero},
    measure::{self, Stopwatch},
    narrow,
    packet::{
        headers::{Network, Transport},
        rewrite::{self, Bare, Fields, frame_addresses},
        tcp_header::{self, TcpHeader},
    },
    predecessor,
    report::{self, Now},
    steer, trace,
};

/// Everything about one packet that the steps below share.
struct Packet<'a> {
    ctx: &'a XdpContext,
    network: &'a Network,
    transport: &'a Transport,
    header: &'a TcpHeader,
    vni: &'a Vni,
    key: &'a FlowKey,
    now: Now,
}

/// Takes in a client's segment.
#[inline(always)]
pub(crate) fn from_client(ctx: &XdpContext, scratch: &mut Scratch, vni: &Vni, now: Now) -> Action {
    let (network, transport) = (&scratch.network, &scratch.transport);
    if let Err(reason) = tcp_header::parse(ctx, transport, &mut scratch.header) {
        return report::drop(vni.vni, reason);
    }
    let header = &scratch.header;
    let key = flow::key(
        vni,
        &network.source,
        protocol::TCP,
        header.source,
        header.destination,
    );
    let packet = Packet {
        ctx,
        network,
        transport,
        header,
        vni,
        key: &key,
        now,
    };
    trace::arrived(ctx, &key, NOBODY);
    match way_of(&packet, &mut scratch.flow) {
        Way::Mirrored(flow) => {
            mirrored_from_client(&packet, flow, &mut scratch.world, &mut scratch.stopwatch)
        }
        Way::Plain(flow) => plain_from_client(&packet, flow, &mut scratch.stopwatch),
        Way::Alone(instance) => {
            report::count(vni.vni, Reason::MirrorLimit);
            steer::to_instance(ctx, vni.vni, instance, true)
        }
        Way::Stateless(reason) => {
            if matches!(reason, Reason::NoFlow) {
                predecessor::take_from_client(ctx);
            }
            stateless(&packet, &mut scratch.flow, reason)
        }
        Way::Dropped(reason) => report::drop(vni.vni, reason),
    }
}

/// Which way a client's segment goes. One of each, so that each is compiled and verified once.
enum Way {
    /// To a replica set, in step.
    Mirrored(*mut TcpFlow),
    /// To the flow's one instance.
    Plain(*mut PlainFlow),
    /// A SYN that is repeated beyond what the VNI may mirror, to the active replica.
    Alone(u16),
    /// To whom its hash steers it.
    Stateless(Reason),
    Dropped(Reason),
}

/// Finds the flow, or opens one.
#[inline(always)]
fn way_of(packet: &Packet<'_>, new: &mut TcpFlow) -> Way {
    // A SYN that also resets or closes opens nothing: no stack answers it.
    const OPENS: u8 = bit::SYN | bit::ACK | bit::RST | bit::FIN;
    let segment = &packet.header.segment;
    let opens = segment.flags & OPENS == bit::SYN;
    let mut found = flow::find_tcp(packet.key, packet.vni);
    if opens {
        found = begin_anew(packet, found);
    }
    let repeated = opens && matches!(found, Found::HalfOpen(_));
    let half = match found {
        Found::Plain(flow) => return Way::Plain(flow),
        Found::Mirrored(flow) => return Way::Mirrored(flow),
        Found::HalfOpen(flow) => flow,
        Found::None if opens => match open(packet, new) {
            Ok(flow) => flow,
            Err(way) => return way,
        },
        Found::None => return Way::Stateless(Reason::NoFlow),
    };
    // SAFETY: the value outlives the program run; the protocol state is only read here.
    let flow = unsafe { &mut *half };
    let alone = flow.flow.replicas < 2;
    if flow::is_met(&flow.flow) {
        // Its instance has not answered yet.
        return Way::Plain(&raw mut flow.flow.plain);
    }
    if repeated {
        measure::repeated_syn(flow, packet.now);
        // Each SYN is copied to every replica, whether it is the first of its flow or the thousandth.
        if !alone && !limit::may_mirror(packet.key.vni, Now::exact()) {
            let active = usize::from(flow.flow.active) & (REPLICAS - 1);
            return Way::Alone(flow.flow.instances[active]);
        }
    }
    if segment.is(bit::SYN | bit::RST) {
        return if alone {
            Way::Plain(&raw mut flow.flow.plain)
        } else {
            Way::Mirrored(half)
        };
    }
    if !client::completes_handshake(flow, segment) {
        // A SYN that came late, or that somebody forged, must not cut its flow off from the version before: a client that
        // has sent a first SYN has nothing else to say until it is answered.
        if flow.flow.state == state::HANDSHAKE && predecessor::is_there() {
            let _ = HALF_OPEN.remove(packet.key);
            return Way::Stateless(Reason::NoFlow);
        }
        return Way::Dropped(Reason::BadHandshakeAck);
    }
    flow.flow.state = state::ESTABLISHED;
    let way = if alone {
        establish_plain(packet, flow)
    } else {
        establish_mirrored(packet, flow)
    };
    let _ = HALF_OPEN.remove(packet.key);
    way.unwrap_or(Way::Stateless(Reason::FlowTableFull))
}

/// Moves a flow without mirrors to the established ones.
#[inline(always)]
fn establish_plain(packet: &Packet<'_>, half: &TcpFlow) -> Option<Way> {
    FLOWS.insert(packet.key, &half.flow.plain, 0).ok()?;
    report::count(packet.vni.vni, Reason::FlowOpened);
    FLOWS.get_ptr_mut(packet.key).map(Way::Plain)
}

/// Moves a mirrored flow to the established ones and tells the agent, for the first time: of a flow whose client was never
/// heard again nobody needs to know, and a flood of SYNs would be a flood of events.
#[inline(always)]
fn establish_mirrored(packet: &Packet<'_>, half: &TcpFlow) -> Option<Way> {
    MIRRORED_FLOWS.insert(packet.key, half, 0).ok()?;
    report::count(packet.vni.vni, Reason::FlowOpened);
    let primary = half.flow.instances[usize::from(half.flow.active) & (REPLICAS - 1)];
    report::flow_event(packet.key, kind::FLOW_OPENED, 0, 0, primary);
    for slot in 0..REPLICAS {
        let is_warm = half.sync.replicas[slot].state == slot::WARM;
        if slot != usize::from(half.flow.active) && is_warm {
            let mirror = half.flow.instances[slot];
            report::flow_event(packet.key, kind::FLOW_WARM, 0, 0, mirror);
        }
    }
    MIRRORED_FLOWS.get_ptr_mut(packet.key).map(Way::Mirrored)
}

/// A SYN of a flow that is over, or another SYN than the one we wait for, begins a new flow.
#[inline(always)]
fn begin_anew(packet: &Packet<'_>, found: Found) -> Found {
    // SAFETY: map values outlive the program run; single words are read.
    unsafe {
        match found {
            Found::Mirrored(flow) if (*flow).flow.plain.state >= state::CLOSED => {
                let _ = MIRRORED_FLOWS.remove(packet.key);
                Found::None
            }
            Found::Plain(flow) if (*flow).state >= state::CLOSED => {
                let _ = FLOWS.remove(packet.key);
                Found::None
            }
            Found::HalfOpen(flow)
                if (*flow).flow.plain.state >= state::CLOSED
                    || flow::is_met(&(*flow).flow)
                    || (*flow).sync.client_isn != packet.header.segment.seq =>
            {
                Found::None
            }
            found => found,
        }
    }
}

/// Opens a flow: half-open until the client has acknowledged our SYN-ACK.
#[inline(always)]
fn open(packet: &Packet<'_>, flow: &mut TcpFlow) -> Result<*mut TcpFlow, Way> {
    let Some((set, replicas)) = steer::choose(packet.key, packet.vni.flags) else {
        return Err(Way::Dropped(Reason::NoReplicaSet));
    };
    if tcp_header::has_partial_checksum(packet.ctx, packet.network, packet.transport, packet.header)
    {
        report::count(packet.vni.vni, Reason::PartialChecksum);
        let ifindex = packet.ctx.ingress_ifindex() as u16;
        report::flow_event(packet.key, kind::PARTIAL_CHECKSUM, 0, 0xffff, ifindex);
    }
    let Some(addresses) = frame_addresses(packet.ctx) else {
        return Err(Way::Dropped(Reason::Malformed));
    };
    let segment = &packet.header.segment;
    let now = Now::exact();
    let translatable = segment.options & option::UNTRANSLATABLE == 0 && segment.payload == 0;
    let cold = if !translatable {
        Cold::Untranslatable
    } else if replicas.replicas > 1 && !limit::may_mirror(packet.key.vni, now) {
        report::count(packet.vni.vni, Reason::MirrorLimit);
        Cold::MirrorLimit
    } else {
        Cold::Warm
    };
    begin(packet, flow, set, &replicas.instances, &addresses);
    flow.flow.timed_end = segment.seq.wrapping_add(1);
    flow.flow.replicas = match cold {
        Cold::Warm => replicas.replicas,
        _ => 1,
    };
    flow.flow.cold = cold as u8;
    client::open(flow, segment, now.steps());
    if HALF_OPEN.insert(packet.key, &*flow, 0).is_err() {
        return Err(Way::Stateless(Reason::FlowTableFull));
    }
    HALF_OPEN
        .get_ptr_mut(packet.key)
        .ok_or(Way::Stateless(Reason::FlowTableFull))
}

/// Begins the entry of a new flow: where its packets come from and go to.
#[inline(always)]
fn begin(
    packet: &Packet<'_>,
    flow: &mut TcpFlow,
    set: u16,
    instances: &[u16; REPLICAS],
    addresses: &Addresses,
) {
    // SAFETY: it is made of integers.
    unsafe { zero(flow) };
    flow.flow.opened_s = packet.now.s();
    flow.flow.seen_s = packet.now.s();
    flow.flow.set = set;
    flow.flow.ifindex = packet.ctx.ingress_ifindex() as u32;
    flow.flow.instances = *instances;
    flow.flow.primary = flow::primary(instances);
    flow.flow.addresses = addresses.turned_round();
}

/// A packet of a flow that is kept nowhere: to the primary that its hash steers to. A flow that
/// was never taken over survives so, because its primary's numbers are the canonical ones.
#[inline(always)]
fn stateless(packet: &Packet<'_>, flow: &mut TcpFlow, reason: Reason) -> Action {
    report::count(packet.vni.vni, report::bounded(reason));
    let Some((set, replicas)) = steer::choose(packet.key, packet.vni.flags) else {
        return report::drop(packet.vni.vni, Reason::NoReplicaSet);
    };
    let segment = &packet.header.segment;
    if segment.flags & (bit::SYN | bit::RST | bit::ACK) == bit::ACK {
        meet(packet, flow, set, &replicas.instances);
    }
    let asks = tcp_header::asks(segment);
    steer::to_instance(packet.ctx, packet.vni.vni, replicas.instances[0], asks)
}

/// Notes a flow that is met in the middle, so that what its instance answers finds the client. With the half-open ones, of
/// which the oldest go first, because anybody can send such a segment: the instance's word makes it an
/// established one (`returned::vouch`).
#[inline(always)]
fn meet(packet: &Packet<'_>, flow: &mut TcpFlow, set: u16, instances: &[u16; REPLICAS]) {
    let Some(addresses) = frame_addresses(packet.ctx) else {
        return;
    };
    begin(packet, flow, set, instances, &addresses);
    flow.flow.timed_end = packet.header.segment.end();
    flow.flow.replicas = 1;
    flow.flow.state = state::ESTABLISHED;
    flow.flow.cold = Cold::JoinedLate as u8;
    // Without an entry the host's routing finds the client, as far as it goes.
    let _ = HALF_OPEN.insert(packet.key, &*flow, 0);
}

/// A client's segment of a flow without mirrors.
#[inline(always)]
fn plain_from_client(
    packet: &Packet<'_>,
    flow: *mut PlainFlow,
    stopwatch: &mut Stopwatch,
) -> Action {
    // SAFETY: the value outlives the program run; fields that two CPUs may write are single
    // words for which the last writer may win.
    let flow = unsafe { &mut *flow };
    let segment = &packet.header.segment;
    flow.packets += 1;
    flow.seen_s = packet.now.s();
    close_plain(flow, segment);
    let instance = flow.primary;
    match INSTANCES.get(u32::from(instance)) {
        Some(entry) if entry.state & instance::state::REACHABLE != 0 => {
            if narrow::is_larger(packet.transport, entry.mtu) {
                return Action::TooBig(entry.mtu);
            }
            if measure::IS_ON && segment.payload > 0 && !flow.goes_on(segment) {
                let now_steps = match flow.owes(0) {
                    0 => stopwatch.start(packet.now),
                    _ => 0,
                };
                if flow.ask_alone(segment, now_steps) != 0 {
                    measure::request(instance);
                }
            }
            steer::to_known_instance(
                packet.ctx,
                packet.vni.vni,
                instance,
                entry,
                tcp_header::asks(segment),
            )
        }
        _ if packet.vni.flags & vni::flag::LEAVE_LOST != 0 => {
            report::drop(packet.vni.vni, Reason::NoReplica)
        }
        _ => {
            flow.state = state::CLOSED;
            reset_client(packet)
        }
    }
}

/// Follows the closing of a flow without mirrors, roughly: it only decides when the entry may go.
#[inline(always)]
fn close_plain(flow: &mut PlainFlow, segment: &Segment) {
    if segment.is(bit::RST) {
        flow.state = state::CLOSED;
    } else if segment.is(bit::FIN) && flow.state == state::ESTABLISHED {
        flow.state = state::CLOSING;
    }
}

/// A client's segment of a mirrored flow.
#[inline(always)]
fn mirrored_from_client(
    packet: &Packet<'_>,
    flow: *mut TcpFlow,
    world: &mut World,
    stopwatch: &mut Stopwatch,
) -> Action {
    // SAFETY: the value outlives the program run; protocol state is only changed under the lock.
    let flow = unsafe { &mut *flow };
    let segment = &packet.header.segment;
    health::look(world, &flow.flow, packet.vni, packet.now);
    // Before anything is taken in: it comes again in smaller segments.
    let mtu = narrow::least(world);
    if narrow::is_larger(packet.transport, mtu) {
        return Action::TooBig(mtu);
    }
    let (conditions, notes, plan) = (&world.conditions, &mut world.notes, &mut world.plan);
    steer::begin(
        plan,
        packet.vni.vni,
        packet.transport.offset(),
        steer::plan_flags(segment),
    );
    plan.head.timestamps = packet.header.options.timestamps;
    plan.head.edges = packet.header.options.sack + 2;
    plan.head.blocks = packet.header.options.blocks;
    let too_large = !steer::can_clone(packet.ctx);
    world.now_steps.set(0);
    world.copied.set(0);
    if is_some(segment.payload) & (flow.flow.is_timed(flow.flow.active) ^ 1) != 0 {
        world.now_steps.set(stopwatch.start(packet.now));
    }
    let Some(held) = lock::take(steering::hash(packet.key)) else {
        return report::drop(packet.vni.vni, Reason::NoReplica);
    };
    flow.flow.packets += 1;
    flow.flow.seen_s = packet.now.s();
    if too_large {
        chill_mirrors(flow, notes);
    }
    let passed = flow.sync.client_nxt;
    let verdict = client::receive(flow, segment, conditions, notes);
    for slot in 0..REPLICAS as u8 {
        let index = usize::from(slot);
        let copy = &mut plan.copies[index];
        if client::copy_for(flow, slot, segment, conditions, copy) {
            copy.ifindex = world.ifindex[index];
            world.copied.set(world.copied.get() | 1 << slot);
        }
    }
    let asks = is_some(segment.payload);
    let again = is_before(segment.seq, passed);
    let new = (again ^ 1) & (is_before(flow.sync.client_nxt, segment.end()) ^ 1);
    let (slots, now_steps) = (world.copied.get() as u8, world.now_steps.get());
    let begins = match measure::IS_ON {
        true => {
            let active = flow.flow.active;
            let (new, again) = (asks & new, asks & again);
            (flow.flow).ask(segment, active, slots, new, again, now_steps)
        }
        false => 0,
    };
    world.begins.set(begins);
    drop(held);
    report::notes::<true>(packet.ctx, packet.key, flow, notes);
    if world.begins.get() != 0 {
        for copy in &plan.copies {
            if copy.ifindex != 0 {
                measure::request(copy.instance);
            }
        }
    }
    match verdict {
        client::Verdict::Clone if too_large => {
            report::drop(packet.vni.vni, Reason::TooLargeToClone)
        }
        client::Verdict::Clone => steer::broadcast(packet.ctx, flow.flow.set, plan),
        client::Verdict::Reset => reset_client(packet),
        client::Verdict::Drop(reason) => report::drop(packet.vni.vni, reason),
    }
}

/// A frame of the flow cannot be cloned: only the active replica can follow from here.
#[inline(always)]
fn chill_mirrors(flow: &mut TcpFlow, notes: &mut Notes) {
    for mirror in 0..REPLICAS as u8 {
        if mirror != flow.flow.active && flow.replica(mirror).state == slot::WARM {
            flow.chill(mirror, Cold::TooLargeToClone, notes);
        }
    }
}

/// Resets the client's connection in the name of an instance that is gone (RFC 9293, 3.10.7.1).
#[inline(always)]
fn reset_client(packet: &Packet<'_>) -> Action {
    let segment = &packet.header.segment;
    if segment.is(bit::RST) {
        return report::drop(packet.vni.vni, Reason::NoReplica);
    }
    let acknowledges = segment.is(bit::ACK);
    let bare = Bare {
        fields: Fields {
            seq: if acknowledges { segment.ack } else { 0 },
            ack: segment.end(),
            window: 0,
            ts_val: 0,
            ts_ecr: 0,
            strip_fin: false,
        },
        flags: if acknowledges {
            bit::RST
        } else {
            bit::RST | bit::ACK
        },
        timestamps: false,
        back: true,
    };
    if rewrite::bare_segment(packet.ctx, packet.network, packet.transport, &bare).is_none() {
        return report::drop(packet.vni.vni, Reason::Malformed);
    }
    report::count(packet.vni.vni, Reason::ResetSent);
    steer::back(packet.ctx)
}
