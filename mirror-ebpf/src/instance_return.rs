//! Replies of instances: finds the VNI, the instance and the flow, and lets only the active
//! replica's packets through.

use aya_ebpf::programs::XdpContext;
use mirror_common::{counts::NO_VNI, flow::protocol, reason::Reason, vni::VniKey};

use crate::{
    Action, datagram, icmp,
    maps::{self, LINKS, VNIS},
    packet::headers,
    report::{self, Now},
    tcp,
};

/// Takes in a packet on an instance link.
#[inline(always)]
pub(crate) fn run(ctx: &XdpContext) -> Action {
    let Some(scratch) = maps::scratch() else {
        return report::pass(NO_VNI, Reason::NotVni);
    };
    if headers::network(ctx, &mut scratch.network).is_none() {
        return report::pass(NO_VNI, Reason::NotVni);
    }
    let key = VniKey {
        address: scratch.network.source,
    };
    // SAFETY: the agent replaces values as a whole and deletes only VNIs that are gone.
    let Some(vni) = (unsafe { VNIS.get(&key) }) else {
        return report::pass(NO_VNI, Reason::NotVni);
    };
    let ifindex = ctx.ingress_ifindex() as u32;
    // SAFETY: as above.
    let Some(&instance) = (unsafe { LINKS.get(&ifindex) }) else {
        return report::drop(vni.vni, Reason::NotReplica);
    };
    let instance = instance as u16;
    if let Err(reason) = headers::transport(ctx, &scratch.network, &mut scratch.transport) {
        return report::drop(vni.vni, reason);
    }
    let now = Now::read();
    match scratch.transport.protocol {
        protocol::TCP if scratch.transport.is_fragment() => report::drop(vni.vni, Reason::Fragment),
        // There is nothing of its protocol in it.
        _ if scratch.transport.is_later() => {
            datagram::udp_from_replica(ctx, scratch, vni, instance, now)
        }
        protocol::TCP => tcp::returned::receive(ctx, scratch, vni, instance, now),
        protocol::UDP => datagram::udp_from_replica(ctx, scratch, vni, instance, now),
        protocol::ICMP | protocol::ICMPV6 => icmp::from_replica(ctx, scratch, vni, instance, now),
        _ => report::drop(vni.vni, Reason::UnknownProtocol),
    }
}
