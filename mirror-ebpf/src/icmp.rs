//! ICMP: echo is a datagram flow; errors go to the replicas of the flow that they quote, with
//! the quoted sequence number in each replica's own space. Eight quoted bytes are enough.

use aya_ebpf::programs::XdpContext;
use mirror_common::{
    checksum::Delta,
    flow::{Address, FlowKey, protocol},
    fragment::CLIENT,
    limits::REPLICAS,
    plan,
    reason::Reason,
    tcp::{Segment, client, segment::bit},
    trace::NOBODY,
    vni::Vni,
};

use crate::{
    Action, datagram,
    flow::{self, Found},
    fragment,
    health::{self, World},
    maps::{DATAGRAM_FLOWS, Scratch},
    packet::{
        at,
        headers::{Network, Transport, quoted_v4},
    },
    predecessor,
    report::{self, Now},
    steer, trace,
};

/// What an ICMP message concerns.
pub(crate) enum Concerns {
    Tcp(FlowKey),
    Datagram(FlowKey),
}

/// What a clone of an ICMP message needs.
pub(crate) struct Quoted {
    pub(crate) flow: Concerns,
    pub(crate) flags: u8,
    pub(crate) edges: u8,
}

/// Kinds of ICMP messages, for both versions.
enum Kind {
    Echo,
    EchoReply,
    Error,
    /// Neighbour discovery and its like: the host's own business.
    Local,
    Other,
}

#[inline(always)]
fn kind(v4: bool, number: u8) -> Kind {
    match (v4, number) {
        (true, 8) | (false, 128) => Kind::Echo,
        (true, 0) | (false, 129) => Kind::EchoReply,
        (true, 3 | 11 | 12) | (false, 1..=4) => Kind::Error,
        (false, 130..=137 | 143) => Kind::Local,
        _ => Kind::Other,
    }
}

/// Number and echo identifier of an ICMP header.
#[inline(always)]
fn header(ctx: &XdpContext, transport: &Transport) -> Option<(u8, u16)> {
    let header = at(ctx, transport.offset(), 8)?;
    // SAFETY: 8 bytes are there.
    Some(unsafe { (header.load8::<0>(), u16::from_be(header.load16::<4>())) })
}

/// Takes in a client's or a router's message for a VNI.
#[inline(always)]
pub(crate) fn from_client(ctx: &XdpContext, scratch: &mut Scratch, vni: &Vni, now: Now) -> Action {
    let (network, transport) = (&scratch.network, &scratch.transport);
    let world = &mut scratch.world;
    let Some((number, identifier)) = header(ctx, transport) else {
        return report::drop(vni.vni, Reason::Malformed);
    };
    match kind(network.is_v4(), number) {
        Kind::Echo => {
            let key = flow::key(vni, &network.source, transport.protocol, identifier, 0);
            let place = &mut scratch.fragment;
            fragment::note(place, network, transport, CLIENT, &key, now);
            // One that is not put together is not answered.
            let asks = !transport.is_fragment();
            datagram::from_client(ctx, transport, vni, &key, None, asks, now, world)
        }
        _ if transport.is_fragment() => report::drop(vni.vni, Reason::Fragment),
        Kind::Error => error_from_client(ctx, network, transport, vni, now, world),
        Kind::Local => report::pass(vni.vni, Reason::NotVni),
        Kind::EchoReply | Kind::Other => report::drop(vni.vni, Reason::UnknownProtocol),
    }
}

/// Takes in an instance's message.
#[inline(always)]
pub(crate) fn from_replica(
    ctx: &XdpContext,
    scratch: &mut Scratch,
    vni: &Vni,
    instance: u16,
    now: Now,
) -> Action {
    let (network, transport) = (&scratch.network, &scratch.transport);
    let world = &mut scratch.world;
    let Some((number, identifier)) = header(ctx, transport) else {
        return report::drop(vni.vni, Reason::Malformed);
    };
    match kind(network.is_v4(), number) {
        Kind::EchoReply => {
            let key = flow::key(vni, &network.destination, transport.protocol, identifier, 0);
            let place = &mut scratch.fragment;
            fragment::note(place, network, transport, instance, &key, now);
            datagram::from_replica(ctx, vni, &key, instance, now, world)
        }
        _ if transport.is_fragment() => report::drop(vni.vni, Reason::Fragment),
        Kind::Error => error_from_replica(ctx, scratch, vni, instance, now),
        Kind::Local => report::pass(vni.vni, Reason::NotVni),
        Kind::Echo | Kind::Other => report::drop(vni.vni, Reason::UnknownProtocol),
    }
}

/// The packet that an error quotes.
struct Quotation {
    source: Address,
    destination: Address,
    protocol: u8,
    /// Source and destination port, host order.
    ports: (u16, u16),
    /// Offset of its transport header from the ICMP header.
    offset: usize,
}

/// Reads the quotation behind an ICMP header.
#[inline(always)]
fn quotation(ctx: &XdpContext, network: &Network, transport: &Transport) -> Option<Quotation> {
    let start = transport.offset() + 8;
    let (source, destination, protocol, offset) = if network.is_v4() {
        let header = at(ctx, start, 20)?;
        let (protocol, offset) = quoted_v4(ctx, start)?;
        // SAFETY: 20 bytes are there.
        let (source, destination) = unsafe { (header.load32::<12>(), header.load32::<16>()) };
        (
            mirror_common::flow::ipv4(source),
            mirror_common::flow::ipv4(destination),
            protocol,
            offset - transport.offset(),
        )
    } else {
        let header = at(ctx, start, 40)?;
        // SAFETY: 40 bytes are there.
        unsafe {
            (
                header.load_address::<8>(),
                header.load_address::<24>(),
                header.load8::<6>(),
                48,
            )
        }
    };
    if !transport.holds(offset + 8) {
        return None;
    }
    let quoted = at(ctx, transport.offset() + offset, 8)?;
    // SAFETY: 8 bytes are there.
    let ports = u32::from_be(unsafe { quoted.load32::<0>() });
    Some(Quotation {
        source,
        destination,
        protocol,
        ports: ((ports >> 16) as u16, ports as u16),
        offset,
    })
}

/// What a message for a VNI concerns, for the clone program.
#[inline(always)]
pub(crate) fn plan_for(
    ctx: &XdpContext,
    network: &Network,
    transport: &Transport,
    vni: &Vni,
) -> Option<Quoted> {
    let (number, identifier) = header(ctx, transport)?;
    if let Kind::Echo = kind(network.is_v4(), number) {
        let key = flow::key(vni, &network.source, transport.protocol, identifier, 0);
        return Some(Quoted {
            flow: Concerns::Datagram(key),
            flags: if transport.is_fragment() {
                0
            } else {
                plan::flag::ASKS
            },
            edges: 0,
        });
    }
    let quoted = quotation(ctx, network, transport)?;
    // The VNI's packet to the client is quoted: its destination is the client.
    let key = flow::key(
        vni,
        &quoted.destination,
        quoted.protocol,
        quoted.ports.1,
        quoted.ports.0,
    );
    let tcp = quoted.protocol == protocol::TCP;
    Some(Quoted {
        flow: if tcp {
            Concerns::Tcp(key)
        } else {
            Concerns::Datagram(key)
        },
        flags: if tcp { plan::flag::QUOTES_TCP } else { 0 },
        edges: quoted.offset as u8,
    })
}

/// Finds the flow that a client's error is about, which may be traced.
#[inline(always)]
fn traced(ctx: &XdpContext, key: &FlowKey, vni: &Vni) -> Found {
    trace::arrived(ctx, key, NOBODY);
    flow::find_tcp(key, vni)
}

/// An error on the way from the client's side: to every replica of the flow.
#[inline(always)]
fn error_from_client(
    ctx: &XdpContext,
    network: &Network,
    transport: &Transport,
    vni: &Vni,
    now: Now,
    world: &mut World,
) -> Action {
    let Some(quoted) = plan_for(ctx, network, transport, vni) else {
        return report::drop(vni.vni, Reason::Malformed);
    };
    match quoted.flow {
        Concerns::Tcp(key) => match traced(ctx, &key, vni) {
            // Errors are short (RFC 1812, 4.3.2.3; RFC 4443, 2.4): no honest one is lost.
            Found::Mirrored(_) if !steer::can_clone(ctx) => {
                report::drop(vni.vni, Reason::TooLargeToClone)
            }
            Found::Mirrored(flow) => {
                // SAFETY: the value outlives the program run; offsets are fixed by now.
                let flow = unsafe { &*flow };
                health::look(world, &flow.flow, vni, now);
                let plan = &mut world.plan;
                steer::begin(plan, vni.vni, transport.offset(), quoted.flags);
                plan.head.edges = quoted.edges;
                // A reset is the segment that every replica with a connection gets.
                let any = Segment {
                    flags: bit::RST,
                    ..Segment::default()
                };
                for slot in 0..REPLICAS {
                    let copy = &mut plan.copies[slot];
                    if client::copy_for(flow, slot as u8, &any, &world.conditions, copy) {
                        copy.ifindex = world.ifindex[slot];
                    }
                }
                report::count(vni.vni, Reason::IcmpError);
                steer::broadcast(ctx, flow.flow.set, plan)
            }
            Found::Plain(flow) => {
                report::count(vni.vni, Reason::IcmpError);
                // SAFETY: as above.
                steer::to_instance(ctx, vni.vni, unsafe { (*flow).primary }, false)
            }
            Found::HalfOpen(_) | Found::None => {
                predecessor::take_from_client(ctx);
                report::drop(vni.vni, Reason::NoFlow)
            }
        },
        Concerns::Datagram(key) => {
            if DATAGRAM_FLOWS.get_ptr(&key).is_none() {
                predecessor::take_from_client(ctx);
                return report::drop(vni.vni, Reason::NoFlow);
            }
            report::count(vni.vni, Reason::IcmpError);
            datagram::from_client(ctx, transport, vni, &key, None, false, now, world)
        }
    }
}

/// An instance's error about a client's packet: the active replica's goes to the client.
#[inline(always)]
fn error_from_replica(
    ctx: &XdpContext,
    scratch: &mut Scratch,
    vni: &Vni,
    instance: u16,
    now: Now,
) -> Action {
    let (network, transport) = (&scratch.network, &scratch.transport);
    let Some(quoted) = quotation(ctx, network, transport) else {
        return report::drop(vni.vni, Reason::Malformed);
    };
    let key = flow::key(
        vni,
        &quoted.source,
        quoted.protocol,
        quoted.ports.0,
        quoted.ports.1,
    );
    if quoted.protocol != protocol::TCP {
        return datagram::from_replica(ctx, vni, &key, instance, now, &mut scratch.world);
    }
    trace::arrived(ctx, &key, instance);
    report::heard(instance, now);
    let flow = match flow::find_tcp(&key, vni) {
        // SAFETY: the value outlives the program run.
        Found::Mirrored(flow) | Found::HalfOpen(flow) => {
            let flow = unsafe { &(*flow).flow };
            if flow::slot_of(flow, instance) != Some(flow.active) {
                return report::drop(vni.vni, Reason::MirrorSuppressed);
            }
            &flow.plain
        }
        // SAFETY: as above.
        Found::Plain(flow) => {
            let flow = unsafe { &*flow };
            if flow.primary != instance {
                return report::drop(vni.vni, Reason::MirrorSuppressed);
            }
            flow
        }
        Found::None => {
            predecessor::take_from_instance(ctx);
            return report::drop(vni.vni, Reason::ReturnWithoutFlow);
        }
    };
    steer::to_client(ctx, vni.vni, flow, Reason::IcmpError)
}

/// Puts the quoted sequence number into the replica's space. The quoted header's own checksum is
/// left: it is seldom quoted and never checked.
#[inline(always)]
pub(crate) fn translate_quotation(
    ctx: &XdpContext,
    offset: usize,
    quoted: usize,
    delta: u32,
) -> Option<()> {
    let header = at(ctx, offset + (quoted & 127), 8)?;
    let mut change = Delta::new();
    // SAFETY: 8 bytes are there.
    unsafe {
        let old = header.load32::<4>();
        let new = u32::from_be(old).wrapping_add(delta).to_be();
        change.double(old, new);
        header.store32::<4>(new);
    }
    let icmp = at(ctx, offset, 8)?;
    // SAFETY: 8 bytes are there.
    unsafe { icmp.store16::<2>(change.apply(icmp.load16::<2>())) };
    Some(())
}
