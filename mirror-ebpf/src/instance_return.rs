//! Replies of instances: finds the VNI, the instance and the flow, and lets only the active
//! replica's packets through.

use aya_ebpf::programs::XdpContext;
use mirror_common::{flow::protocol, reason::Reason, vni::VniKey};

use crate::{
    Action, datagram, icmp,
    maps::{LINKS, VNIS},
    packet::headers,
    report::{self, Now},
    tcp,
};

/// Takes in a packet on an instance link.
#[inline(always)]
pub(crate) fn run(ctx: &XdpContext) -> Action {
    let Some(network) = headers::network(ctx) else {
        return report::pass(Reason::NotVni);
    };
    let key = VniKey {
        address: network.source,
    };
    // SAFETY: the agent replaces values as a whole and deletes only VNIs that are gone.
    let Some(vni) = (unsafe { VNIS.get(&key) }) else {
        return report::pass(Reason::NotVni);
    };
    let ifindex = ctx.ingress_ifindex() as u32;
    // SAFETY: as above.
    let Some(&instance) = (unsafe { LINKS.get(&ifindex) }) else {
        return report::drop(Reason::NotReplica);
    };
    let instance = instance as u16;
    let transport = match headers::transport(ctx, network) {
        Ok(transport) => transport,
        Err(reason) => return report::drop(reason),
    };
    let now = Now::read();
    match transport.protocol {
        protocol::TCP => tcp::returned::receive(ctx, network, transport, vni, instance, now),
        protocol::UDP => datagram::udp_from_replica(ctx, network, transport, vni, instance, now),
        protocol::ICMP | protocol::ICMPV6 => {
            icmp::from_replica(ctx, network, transport, vni, instance, now)
        }
        _ => report::drop(Reason::UnknownProtocol),
    }
}
