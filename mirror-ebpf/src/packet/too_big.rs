//! The error that tells a sender how much the way takes (RFC 1191, section 4; RFC 8201, section 4), in front of the packet that was too
//! large for it.

use aya_ebpf::{
    helpers::{bpf_csum_diff, bpf_xdp_adjust_head},
    programs::XdpContext,
};
use mirror_common::{checksum::fold, flow::protocol};

use super::{
    at,
    headers::{Network, Transport},
    rewrite::{cut, frame_addresses, store_turned_round},
};

/// Bytes of an ICMP header of either version.
const ICMP: usize = 8;
/// Quoted behind the IPv4 header (RFC 792).
const QUOTED_V4: usize = 8;
/// 32-bit words that are quoted of IPv4 at most: 60 bytes of header, and those.
const WORDS_V4: usize = 17;
/// As much is quoted of IPv6 as the error has room for in the packet that every way takes (RFC 4443, section 3.2).
const QUOTED_V6: usize = 1280 - 40 - ICMP;
/// `bpf_csum_diff` took no more at a time before Linux 6.13 (net/core/filter.c).
const SUMMED: usize = 512;
const HOPS: u8 = 64;

/// Makes a packet the error that quotes it, on its way back. `None`: it is too short for that.
#[inline(always)]
pub(crate) fn too_big(
    ctx: &XdpContext,
    network: &Network,
    transport: &Transport,
    mtu: u32,
) -> Option<()> {
    if network.is_v4() {
        too_big_v4(ctx, network, transport, mtu)
    } else {
        too_big_v6(ctx, network, mtu)
    }
}

#[inline(always)]
fn too_big_v4(ctx: &XdpContext, network: &Network, transport: &Transport, mtu: u32) -> Option<()> {
    const UNREACHABLE: u32 = 3;
    const FRAGMENTATION_NEEDED: u32 = 4;
    const DONT_FRAGMENT: u32 = 0x4000;
    const HEADER: usize = 20;
    make_room::<{ HEADER + ICMP }>(ctx)?;
    let quoted = (transport.offset() - network.offset() + QUOTED_V4) & 0x7c;
    let length = HEADER + ICMP + quoted;
    let start = network.offset();
    let head = [
        (0x4500_0000 | length as u32).to_be(),
        DONT_FRAGMENT.to_be(),
        (u32::from(HOPS) << 24 | u32::from(protocol::ICMP) << 16).to_be(),
        network.destination[3],
        network.source[3],
    ];
    let kind = (UNREACHABLE << 24 | FRAGMENTATION_NEEDED << 16).to_be();
    let mtu = (mtu & 0xffff).to_be();
    let mut sum = halves(kind) + halves(mtu);
    for word in 0..WORDS_V4 {
        if word * 4 >= quoted {
            break;
        }
        let bytes = at(ctx, start + HEADER + ICMP + word * 4, 4)?;
        // SAFETY: 4 bytes are there.
        sum += halves(unsafe { bytes.load32::<0>() });
    }
    let header = at(ctx, start, HEADER + ICMP)?;
    // SAFETY: 28 bytes are there.
    unsafe {
        header.store32::<0>(head[0]);
        header.store32::<4>(head[1]);
        header.store32::<8>(head[2]);
        header.store32::<12>(head[3]);
        header.store32::<16>(head[4]);
        let of_header =
            halves(head[0]) + halves(head[1]) + halves(head[2]) + halves(head[3]) + halves(head[4]);
        header.store16::<10>(!fold(of_header));
        header.store32::<20>(kind);
        header.store16::<22>(!fold(sum));
        header.store32::<24>(mtu);
    }
    cut(ctx, start + length)
}

#[inline(always)]
fn too_big_v6(ctx: &XdpContext, network: &Network, mtu: u32) -> Option<()> {
    const PACKET_TOO_BIG: u32 = 2;
    const HEADER: usize = 40;
    const PAYLOAD: usize = ICMP + QUOTED_V6;
    make_room::<{ HEADER + ICMP }>(ctx)?;
    let start = network.offset();
    let kind = (PACKET_TOO_BIG << 24).to_be();
    let mtu = mtu.to_be();
    let mut sum = network.pseudo_header(PAYLOAD as u16, protocol::ICMPV6);
    sum += halves(kind) + halves(mtu);
    let quoted = at(ctx, start + HEADER + ICMP, QUOTED_V6)?;
    let mut of_quoted = 0;
    for piece in 0..QUOTED_V6.div_ceil(SUMMED) {
        let length = (QUOTED_V6 - piece * SUMMED).min(SUMMED);
        let place = (quoted.0 + piece * SUMMED) as *mut u32;
        // SAFETY: the bytes are there, as `at` has checked; the helper reads them.
        let summed =
            unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, place, length as u32, of_quoted) };
        of_quoted = summed as u32;
    }
    sum += halves(of_quoted);
    let header = at(ctx, start, HEADER + ICMP)?;
    // SAFETY: 48 bytes are there.
    unsafe {
        header.store32::<0>(0x6000_0000_u32.to_be());
        let rest = (PAYLOAD as u32) << 16 | u32::from(protocol::ICMPV6) << 8 | u32::from(HOPS);
        header.store32::<4>(rest.to_be());
        store_turned_round(header, network);
        header.store32::<40>(kind);
        header.store16::<42>(!fold(sum));
        header.store32::<44>(mtu);
    }
    cut(ctx, start + HEADER + PAYLOAD)
}

/// Makes room for so many bytes between the header of the frame, which goes back to where it came from, and its packet.
#[inline(always)]
fn make_room<const BYTES: usize>(ctx: &XdpContext) -> Option<()> {
    let addresses = frame_addresses(ctx)?.turned_round();
    // What follows them, of which there are 2 bytes or, with tags, 6 or 10: the packet's own header is written over the rest.
    let tags = at(ctx, 12, 10)?;
    // SAFETY: 10 bytes are there.
    let (first, second, third) =
        unsafe { (tags.load32::<0>(), tags.load32::<4>(), tags.load16::<8>()) };
    // SAFETY: the context is the one the kernel gave us.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, -(BYTES as i32)) } != 0 {
        return None;
    }
    let header = at(ctx, 0, 22)?;
    let [to, between, from] = addresses.0;
    // SAFETY: 22 bytes are there.
    unsafe {
        header.store32::<0>(to);
        header.store32::<4>(between);
        header.store32::<8>(from);
        header.store32::<12>(first);
        header.store32::<16>(second);
        header.store16::<20>(third);
    }
    Some(())
}

/// The sum of a word's halves.
#[inline(always)]
fn halves(word: u32) -> u32 {
    (word & 0xffff) + (word >> 16)
}
