//! TCP segments of instances: what the protocol says of them is carried out here.

use aya_ebpf::programs::XdpContext;
use mirror_common::{
    event::kind,
    flow::{PlainFlow, TcpFlow, handshake, protocol, state},
    limits::REPLICAS,
    reason::Reason,
    steering,
    tcp::{
        Part, Segment, divergence, flag, option,
        replica::{self, Output, Verdict},
        segment::bit,
    },
    vni::{Vni, flag::MIRRORED},
};

use super::{Packet, close_plain};
use crate::{
    Action,
    flow::{self, Found},
    health::{self, World},
    lock,
    maps::{FLOWS, HALF_OPEN, Scratch},
    measure,
    packet::{
        part,
        rewrite::{self, Bare, Fields},
        tcp_header,
    },
    park, predecessor,
    report::{self, Now},
    steer, trace,
};

/// Takes in an instance's segment.
#[inline(always)]
pub(crate) fn receive(
    ctx: &XdpContext,
    scratch: &mut Scratch,
    vni: &Vni,
    instance: u16,
    now: Now,
) -> Action {
    let (network, transport, header) = (&scratch.network, &scratch.transport, &mut scratch.header);
    if let Err(reason) = tcp_header::parse(ctx, transport, header) {
        return report::drop(vni.vni, reason);
    }
    if vni.flags & MIRRORED != 0 && header.segment.payload > 0 {
        // Without a sum replicas are not compared here, and go on.
        let _ = tcp_header::sum_payload(ctx, network, transport, header);
    }
    let key = flow::key(
        vni,
        &network.destination,
        protocol::TCP,
        header.destination,
        header.source,
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
    trace::arrived(ctx, &key, instance);
    report::heard(instance, now);
    let segment = &packet.header.segment;
    if segment.is(bit::SYN | bit::RST) {
        report::answered(instance);
    }
    if segment.is(bit::SYN)
        && tcp_header::has_partial_checksum(ctx, network, transport, packet.header)
    {
        report::count(vni.vni, Reason::PartialChecksum);
        report::flow_event(packet.key, kind::PARTIAL_CHECKSUM, 0, instance, 0);
    }
    let mut is_met = false;
    let (mirrored, plain) = match flow::find_tcp(packet.key, vni) {
        Found::Mirrored(flow) => (Some(flow), None),
        Found::Plain(flow) => (None, Some(flow)),
        Found::HalfOpen(flow) => {
            // SAFETY: the value outlives the program run; an instance alone has no mirror whose
            // packets could meet this one.
            let half = unsafe { &mut *flow };
            if half.flow.replicas > 1 {
                (Some(flow), None)
            } else {
                if segment.is(bit::SYN) && half.flow.instances[0] == instance {
                    answered(half, segment);
                }
                is_met = flow::is_met(&half.flow);
                (None, Some(&raw mut half.flow.plain))
            }
        }
        Found::None => {
            predecessor::take_from_instance(ctx);
            return return_without_flow(&packet, instance);
        }
    };
    match (mirrored, plain) {
        (Some(flow), _) => mirrored_from_replica(&packet, flow, instance, &mut scratch.world),
        (None, Some(flow)) => plain_from_replica(&packet, flow, instance, is_met),
        (None, None) => report::drop(vni.vni, Reason::NoReplica),
    }
}

/// Takes in a SYN-ACK of a flow without mirrors.
#[inline(always)]
fn answered(half: &mut TcpFlow, segment: &Segment) {
    half.sync.isn = segment.seq;
    if half.flow.state == state::HANDSHAKE {
        half.flow.state = state::ANSWERED;
        half.sync.replicas[0].flags |= flag::SYN_ACK;
        let steps = Now::exact().steps().wrapping_sub(half.sync.syn_steps);
        half.flow.handshake = handshake(steps);
        measure::handshake(half.flow.instances[0], steps);
    }
}

/// Establishes a flow that was met in the middle, since its instance knows it: of others it says nothing but a reset.
#[inline(always)]
fn vouch(packet: &Packet<'_>, flow: &PlainFlow) {
    if !packet.header.segment.is(bit::SYN | bit::RST) && FLOWS.insert(packet.key, flow, 0).is_ok() {
        let _ = HALF_OPEN.remove(packet.key);
        report::count(packet.vni.vni, Reason::FlowOpened);
    }
}

/// An instance's segment of a flow without mirrors.
#[inline(always)]
fn plain_from_replica(
    packet: &Packet<'_>,
    flow: *mut PlainFlow,
    instance: u16,
    is_met: bool,
) -> Action {
    // SAFETY: as in `plain_from_client`.
    let flow = unsafe { &mut *flow };
    if flow.primary != instance {
        return report::drop(packet.vni.vni, Reason::NotReplica);
    }
    let segment = &packet.header.segment;
    measure::heard(flow, 0, instance, segment, packet.now);
    if segment.is(bit::FIN) && flow.state == state::CLOSING {
        flow.state = state::CLOSED;
    }
    close_plain(flow, segment);
    flow.packets += 1;
    flow.seen_s = packet.now.s();
    let action = steer::to_client(packet.ctx, packet.vni.vni, flow, Reason::Delivered);
    if is_met {
        // Last of all: the entry is somebody else's after that, and the verifier would follow all that comes behind it.
        vouch(packet, flow);
    }
    action
}

/// An instance's segment of a flow that is kept nowhere. Only the instance that the flow's hash
/// steers to may answer; the routing table of the host says where the client is.
#[inline(always)]
fn return_without_flow(packet: &Packet<'_>, instance: u16) -> Action {
    match steer::choose(packet.key, packet.vni.flags) {
        Some((_, replicas)) if replicas.instances[0] == instance => {
            report::pass(packet.vni.vni, Reason::ReturnWithoutFlow)
        }
        _ => report::drop(packet.vni.vni, Reason::NotReplica),
    }
}

/// A replica's segment of a mirrored flow.
#[inline(always)]
fn mirrored_from_replica(
    packet: &Packet<'_>,
    flow: *mut TcpFlow,
    instance: u16,
    world: &mut World,
) -> Action {
    // SAFETY: as in `mirrored_from_client`.
    let flow = unsafe { &mut *flow };
    let Some(from) = flow::slot_of(&flow.flow, instance) else {
        return report::drop(packet.vni.vni, Reason::NotReplica);
    };
    let from = world.forget(from) & (REPLICAS as u8 - 1);
    let segment = &packet.header.segment;
    measure::heard(&mut flow.flow, from, instance, segment, packet.now);
    health::look(world, &flow.flow, packet.vni, packet.now);
    if segment.is(bit::SYN) {
        let now = Now::exact();
        world.conditions.now_ms = now.ms();
        world.handshake = now.steps().wrapping_sub(flow.sync.syn_steps);
        let accepts = segment.is(bit::ACK) & (segment.ack == flow.sync.client_isn.wrapping_add(1));
        if accepts & (flow.replica(from).flags & flag::SYN_ACK == 0) {
            measure::handshake(instance, world.handshake);
        }
        health::find_unresponsive(&flow.flow, world, now);
    }
    sum_part(packet, flow, from, world);
    let (conditions, notes) = (&world.conditions, &mut world.notes);
    let Some(held) = lock::take(steering::hash(packet.key)) else {
        return report::drop(packet.vni.vni, Reason::NoReplica);
    };
    world.output = replica::receive(flow, from, segment, conditions, notes);
    // Warm by its first SYN-ACK, and active, perhaps since just now.
    if (notes.went_warm != 0) & (from == flow.flow.active) {
        flow.flow.handshake = handshake(world.handshake);
    }
    if world.output.verdict == Verdict::ToClient {
        flow.flow.packets += 1;
        flow.flow.seen_s = packet.now.s();
    }
    drop(held);
    report::notes::<false>(packet.ctx, packet.key, flow, notes);
    let output = &world.output;
    if output.parks(flow, segment) {
        park::keep(packet.ctx, packet.key, from, segment.end(), packet.now);
    }
    carry_out(packet, flow, instance, output)
        .unwrap_or_else(|| report::drop(packet.vni.vni, Reason::Malformed))
}

/// Sums up what of the segment is in front of the flow's waypoint. Before the flow is locked, since it calls helpers: another waypoint
/// that is set meanwhile has to wait for the next one.
#[inline(always)]
fn sum_part(packet: &Packet<'_>, flow: &TcpFlow, from: u8, world: &mut World) {
    let part = &mut world.conditions.part;
    part.length = 0;
    let segment = &packet.header.segment;
    let length = divergence::part(flow, from, segment);
    if length == 0 {
        return;
    }
    let payload = (packet.transport.offset() + usize::from(packet.header.length)) as u32;
    let sum = |from, length| part::sum(packet.ctx, payload + from, length);
    if let (Some(sum), Some(rest)) = (sum(0, length), sum(length, segment.payload - length)) {
        *part = Part::new(segment, length, sum, rest);
    }
}

/// Rewrites a replica's segment as the protocol decided and sends it on.
#[inline(always)]
fn carry_out(
    packet: &Packet<'_>,
    flow: &mut TcpFlow,
    instance: u16,
    output: &Output,
) -> Option<Action> {
    let segment = &packet.header.segment;
    let fields = Fields {
        seq: output.seq,
        ack: output.ack,
        window: output.window,
        ts_val: output.ts_val,
        ts_ecr: output.ts_ecr,
        strip_fin: output.strip_fin,
    };
    let back = match output.verdict {
        Verdict::Drop => return Some(report::drop(packet.vni.vni, output.reason)),
        Verdict::TurnRound => {
            // Not a connection that the version before knows, whose client a late or forged SYN seems to come from.
            if matches!(output.reason, Reason::ColdReset) && flow.flow.state == state::HANDSHAKE {
                predecessor::take_from_instance(packet.ctx);
            }
            true
        }
        Verdict::ToClient | Verdict::AckToClient => false,
    };
    let in_place = !back && (output.verdict == Verdict::ToClient || segment.length() == 0);
    if in_place {
        let options = &packet.header.options;
        rewrite::tcp_fields(packet.ctx, packet.transport.offset(), options, &fields)?;
        if output.blank_sack {
            rewrite::blank_sack(packet.ctx, packet.transport.offset(), options)?;
        }
    } else {
        let bare = Bare {
            fields,
            flags: output.flags,
            timestamps: segment.options & option::TIMESTAMP != 0,
            back,
        };
        // The frame is as long as the new header at least, or it is not changed at all.
        let needed = if bare.timestamps { 32 } else { 20 };
        if u32::from(packet.header.length) + segment.payload < needed {
            return Some(report::drop(packet.vni.vni, Reason::MirrorSuppressed));
        }
        rewrite::bare_segment(packet.ctx, packet.network, packet.transport, &bare)?;
    }
    if back {
        report::count(packet.vni.vni, report::bounded(output.reason));
        return Some(steer::back(packet.ctx));
    }
    if output.verdict == Verdict::ToClient {
        measure::delivered(flow, instance);
    }
    let reason = report::bounded(output.reason);
    Some(steer::to_client(
        packet.ctx,
        packet.vni.vni,
        &flow.flow,
        reason,
    ))
}
