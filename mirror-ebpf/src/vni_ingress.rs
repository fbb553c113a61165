//! Client traffic: finds the VNI and hands the packet to the code of its protocol.

use aya_ebpf::programs::XdpContext;
use mirror_common::{counts::NO_VNI, flow::protocol, reason::Reason, vni::VniKey};

use crate::{
    Action, datagram, icmp,
    maps::{self, VNIS},
    narrow,
    packet::headers,
    report::{self, Now},
    tcp,
};

/// Takes in a packet on a VNI interface.
#[inline(always)]
pub(crate) fn run(ctx: &XdpContext) -> Action {
    let Some(scratch) = maps::scratch() else {
        return report::pass(NO_VNI, Reason::NotVni);
    };
    if headers::network(ctx, &mut scratch.network).is_none() {
        return report::pass(NO_VNI, Reason::NotVni);
    }
    let key = VniKey {
        address: scratch.network.destination,
    };
    // SAFETY: the agent replaces values as a whole and deletes only VNIs that are gone.
    let Some(vni) = (unsafe { VNIS.get(&key) }) else {
        return report::pass(NO_VNI, Reason::NotVni);
    };
    if let Err(reason) = headers::transport(ctx, &scratch.network, &mut scratch.transport) {
        return report::drop(vni.vni, reason);
    }
    let now = Now::read();
    let action = match scratch.transport.protocol {
        protocol::TCP if scratch.transport.is_fragment() => report::drop(vni.vni, Reason::Fragment),
        // There is nothing of its protocol in it.
        _ if scratch.transport.is_later() => datagram::udp_from_client(ctx, scratch, vni, now),
        protocol::TCP => tcp::from_client(ctx, scratch, vni, now),
        protocol::UDP => datagram::udp_from_client(ctx, scratch, vni, now),
        protocol::ICMP | protocol::ICMPV6 => icmp::from_client(ctx, scratch, vni, now),
        _ => report::drop(vni.vni, Reason::UnknownProtocol),
    };
    match action {
        Action::TooBig(mtu) => {
            let (network, transport) = (&scratch.network, &scratch.transport);
            narrow::answer(ctx, network, transport, vni.vni, mtu)
        }
        action => action,
    }
}
