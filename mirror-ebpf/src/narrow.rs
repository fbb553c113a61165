//! Links to instances that take less than a client sends: it is told so in the VNI's name, as a router would, and sends less.
//!
//! Without that the kernel drops what is larger without a word (`xdp_ok_fwd_dev`, net/core/filter.c and include/linux/filter.h): for a mirror, which
//! then lacks it, or for the active replica, and the connection stands still.

use aya_ebpf::programs::XdpContext;
use mirror_common::{limits::REPLICAS, reason::Reason};

use crate::{
    Action,
    health::World,
    packet::{
        at,
        headers::{Network, Transport},
        too_big::too_big,
    },
    report, steer,
};

/// No host acts on less (RFC 8200, section 5).
const IPV6_LEAST: u32 = 1280;

/// What every replica's link takes, of those that get copies; 0 if that is not known.
#[inline(always)]
pub(crate) fn least(world: &World) -> u32 {
    // One less, so that what is not known is more than anything.
    let mut least = u32::MAX;
    for slot in 0..REPLICAS {
        if world.conditions.is_reachable(slot as u8) {
            least = least.min(world.mtu[slot].wrapping_sub(1));
        }
    }
    least.wrapping_add(1)
}

/// Whether a packet is larger than a link takes.
#[inline(always)]
pub(crate) fn is_larger(transport: &Transport, mtu: u32) -> bool {
    mtu != 0 && u32::from(transport.size) > mtu
}

/// Tells the sender of a packet that is larger than a link takes what it may send, if it has asked to be told.
///
/// No answer is larger than what it answers, and there are as many: nobody is flooded by it who is not anyway.
#[inline(always)]
pub(crate) fn answer(
    ctx: &XdpContext,
    network: &Network,
    transport: &Transport,
    vni: u16,
    mtu: u32,
) -> Action {
    let room = network.room(mtu);
    let is_wanted = if network.is_v4() {
        is_whole_v4(ctx, network)
    } else {
        room >= IPV6_LEAST
    };
    if !is_wanted {
        return report::drop(vni, Reason::NotFragmented);
    }
    if too_big(ctx, network, transport, room).is_none() {
        return report::drop(vni, Reason::Malformed);
    }
    report::count(vni, Reason::PacketTooBig);
    steer::back(ctx)
}

/// Whether an IPv4 packet may not be cut into fragments.
#[inline(always)]
fn is_whole_v4(ctx: &XdpContext, network: &Network) -> bool {
    const DONT_FRAGMENT: u16 = 0x4000_u16.to_be();
    let Some(header) = at(ctx, network.offset(), 20) else {
        return false;
    };
    // SAFETY: 20 bytes are there.
    unsafe { header.load16::<6>() & DONT_FRAGMENT != 0 }
}
