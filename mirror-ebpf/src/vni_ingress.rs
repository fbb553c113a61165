//! Client traffic: finds the VNI and hands the packet to the code of its protocol.

use aya_ebpf::programs::XdpContext;
use mirror_common::{flow::protocol, reason::Reason, vni::VniKey};

use crate::{
    Action, datagram, icmp,
    maps::VNIS,
    packet::headers::{self},
    report::{self, Now},
    tcp,
};

/// Takes in a packet on a VNI interface.
#[inline(always)]
pub(crate) fn run(ctx: &XdpContext) -> Action {
    let Some(network) = headers::network(ctx) else {
        return report::pass(Reason::NotVni);
    };
    let key = VniKey {
        address: network.destination,
    };
    // SAFETY: the agent replaces values as a whole and deletes only VNIs that are gone.
    let Some(vni) = (unsafe { VNIS.get(&key) }) else {
        return report::pass(Reason::NotVni);
    };
    let transport = match headers::transport(ctx, network) {
        Ok(transport) => transport,
        Err(reason) => return report::drop(reason),
    };
    let now = Now::read();
    match transport.protocol {
        protocol::TCP => tcp::from_client(ctx, network, transport, vni, now),
        protocol::UDP => datagram::udp_from_client(ctx, network, transport, vni, now),
        protocol::ICMP | protocol::ICMPV6 => icmp::from_client(ctx, network, transport, vni, now),
        _ => report::drop(Reason::UnknownProtocol),
    }
}
