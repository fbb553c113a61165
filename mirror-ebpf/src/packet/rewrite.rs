//! Changes to packets, each with the incremental update of the checksums it touches.

use aya_ebpf::{helpers::bpf_xdp_adjust_tail, programs::XdpContext};
use mirror_common::{
    checksum::{Delta, fold},
    ethernet::Addresses,
    limits::SACK_BLOCKS,
    plan::Copy,
    tcp::segment::bit,
};

use super::{
    Bytes, at,
    headers::{Network, Transport},
    tcp_header::Options,
};

/// Sets the addresses of the Ethernet header.
#[inline(always)]
pub(crate) fn address_frame(ctx: &XdpContext, addresses: &Addresses) -> Option<()> {
    let header = at(ctx, 0, 14)?;
    let [first, second, third] = addresses.0;
    // SAFETY: 14 bytes are there.
    unsafe {
        header.store32::<0>(first);
        header.store32::<4>(second);
        header.store32::<8>(third);
    }
    Some(())
}

/// The addresses of the Ethernet header.
#[inline(always)]
pub(crate) fn frame_addresses(ctx: &XdpContext) -> Option<Addresses> {
    let header = at(ctx, 0, 14)?;
    // SAFETY: 14 bytes are there.
    Some(unsafe {
        Addresses([
            header.load32::<0>(),
            header.load32::<4>(),
            header.load32::<8>(),
        ])
    })
}

/// New values of a TCP header's fields, host order.
#[derive(Clone, Copy)]
pub(crate) struct Fields {
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) window: u16,
    pub(crate) ts_val: u32,
    pub(crate) ts_ecr: u32,
    /// Clear the FIN flag.
    pub(crate) strip_fin: bool,
}

/// Rewrites a TCP header's numbers in place.
#[inline(always)]
pub(crate) fn tcp_fields(
    ctx: &XdpContext,
    offset: usize,
    options: &Options,
    new: &Fields,
) -> Option<()> {
    let mut delta = Delta::new();
    if options.timestamps != 0 {
        let position = usize::from(options.timestamps & 63);
        let values = at(ctx, offset + position, 8)?;
        // SAFETY: 8 bytes are there.
        unsafe {
            let (old_val, old_ecr) = (values.load32::<0>(), values.load32::<4>());
            let (val, ecr) = (new.ts_val.to_be(), new.ts_ecr.to_be());
            delta.double_at(position & 1 == 1, old_val, val);
            delta.double_at(position & 1 == 1, old_ecr, ecr);
            values.store32::<0>(val);
            values.store32::<4>(ecr);
        }
    }
    let header = at(ctx, offset, 20)?;
    // SAFETY: 20 bytes are there.
    unsafe {
        let (seq, ack) = (new.seq.to_be(), new.ack.to_be());
        delta.double(header.load32::<4>(), seq);
        delta.double(header.load32::<8>(), ack);
        header.store32::<4>(seq);
        header.store32::<8>(ack);
        let window = new.window.to_be();
        delta.word(header.load16::<14>(), window);
        header.store16::<14>(window);
        if new.strip_fin {
            let old = header.load16::<12>();
            let flags = old & !u16::from(bit::FIN).to_be();
            delta.word(old, flags);
            header.store16::<12>(flags);
        }
        header.store16::<16>(delta.apply(header.load16::<16>()));
    }
    Some(())
}

/// Translates SACK edges for a copy.
#[inline(always)]
pub(crate) fn sack_edges(
    ctx: &XdpContext,
    offset: usize,
    edges: u8,
    blocks: u8,
    copy: &Copy,
) -> Option<()> {
    let position = usize::from(edges & 63);
    let odd = position & 1 == 1;
    let mut delta = Delta::new();
    for block in 0..SACK_BLOCKS {
        if block >= usize::from(blocks) {
            break;
        }
        let edges = at(ctx, offset + position + block * 8, 8)?;
        // SAFETY: 8 bytes are there.
        unsafe {
            let (old_left, old_right) = (edges.load32::<0>(), edges.load32::<4>());
            let (left, right) = copy.sack_block(u32::from_be(old_left), u32::from_be(old_right));
            delta.double_at(odd, old_left, left.to_be());
            delta.double_at(odd, old_right, right.to_be());
            edges.store32::<0>(left.to_be());
            edges.store32::<4>(right.to_be());
        }
    }
    update_tcp_checksum(ctx, offset, delta)
}

/// Replaces a SACK option by NOPs.
#[inline(always)]
pub(crate) fn blank_sack(ctx: &XdpContext, offset: usize, options: &Options) -> Option<()> {
    const NOPS: u32 = 0x0101_0101;
    if options.sack == 0 {
        return Some(());
    }
    let position = usize::from(options.sack & 63);
    let odd = position & 1 == 1;
    let mut delta = Delta::new();
    let start = at(ctx, offset + position, 2)?;
    // SAFETY: 2 bytes are there.
    unsafe {
        let old = start.load16::<0>();
        let old = if odd { old.swap_bytes() } else { old };
        delta.word(old, NOPS as u16);
        start.store16::<0>(NOPS as u16);
    }
    for block in 0..SACK_BLOCKS {
        if block >= usize::from(options.blocks) {
            break;
        }
        let edges = at(ctx, offset + position + 2 + block * 8, 8)?;
        // SAFETY: 8 bytes are there.
        unsafe {
            delta.double_at(odd, edges.load32::<0>(), NOPS);
            delta.double_at(odd, edges.load32::<4>(), NOPS);
            edges.store32::<0>(NOPS);
            edges.store32::<4>(NOPS);
        }
    }
    update_tcp_checksum(ctx, offset, delta)
}

#[inline(always)]
fn update_tcp_checksum(ctx: &XdpContext, offset: usize, delta: Delta) -> Option<()> {
    let header = at(ctx, offset, 20)?;
    // SAFETY: 20 bytes are there.
    unsafe { header.store16::<16>(delta.apply(header.load16::<16>())) };
    Some(())
}

/// A bare segment that takes the place of a packet.
#[derive(Clone, Copy)]
pub(crate) struct Bare {
    pub(crate) fields: Fields,
    pub(crate) flags: u8,
    /// Carries timestamps.
    pub(crate) timestamps: bool,
    /// Goes back to where the packet came from.
    pub(crate) back: bool,
}

/// Replaces the packet by a segment without payload and cuts the frame to it. The checksum is
/// computed anew: nothing of the old segment remains but ports.
#[inline(always)]
pub(crate) fn bare_segment(
    ctx: &XdpContext,
    network: &Network,
    transport: &Transport,
    bare: &Bare,
) -> Option<()> {
    let length: usize = if bare.timestamps { 32 } else { 20 };
    let offset = transport.offset();
    let header = at(ctx, offset, 20)?;
    // SAFETY: 20 bytes are there.
    let mut ports = unsafe { header.load32::<0>() };
    if bare.back {
        ports = ports.rotate_left(16);
        swap_addresses(ctx, network)?;
    }
    let fields = &bare.fields;
    let offset_flags = u16::from_ne_bytes([(length as u8 / 4) << 4, bare.flags]);
    let mut sum = network.pseudo_header(length as u16, 6);
    for word in [ports, fields.seq.to_be(), fields.ack.to_be()] {
        sum += (word & 0xffff) + (word >> 16);
    }
    sum += u32::from(offset_flags) + u32::from(fields.window.to_be());
    if bare.timestamps {
        const OPTION: u32 = 0x0101_080a_u32.to_be();
        let options = at(ctx, offset, 32)?;
        // SAFETY: 32 bytes are there.
        unsafe {
            options.store32::<20>(OPTION);
            options.store32::<24>(fields.ts_val.to_be());
            options.store32::<28>(fields.ts_ecr.to_be());
        }
        for word in [OPTION, fields.ts_val.to_be(), fields.ts_ecr.to_be()] {
            sum += (word & 0xffff) + (word >> 16);
        }
    }
    let header = at(ctx, offset, 20)?;
    // SAFETY: 20 bytes are there.
    unsafe {
        header.store32::<0>(ports);
        header.store32::<4>(fields.seq.to_be());
        header.store32::<8>(fields.ack.to_be());
        header.store16::<12>(offset_flags);
        header.store16::<14>(fields.window.to_be());
        header.store16::<16>(!fold(sum));
        header.store16::<18>(0);
    }
    set_ip_length(ctx, network, transport, length)?;
    cut(ctx, offset + length)
}

/// Cuts a frame off behind its IP packet, but for a trailer of some zeros.
///
/// The receiver's IP cuts the trailer off and so sets the packet's end anew. It must: generic XDP
/// leaves that 14 bytes too far behind a frame whose end has moved (`bpf_prog_run_generic_xdp`,
/// net/core/dev.c, Linux 6.18: it counts from the Ethernet header and sets it from the IP header), and a stack that appends the next segment's bytes there (`tcp_add_backlog`,
/// net/ipv4/tcp_ipv4.c) gives wrong ones to its application.
#[inline(always)]
pub(super) fn cut(ctx: &XdpContext, end: usize) -> Option<()> {
    const TRAILER: usize = 4;
    let excess = super::length(ctx) as i64 - end as i64;
    if excess <= TRAILER as i64 {
        return Some(());
    }
    let trailer = at(ctx, end, TRAILER)?;
    // SAFETY: four bytes are there.
    unsafe { trailer.store32::<0>(0) };
    // SAFETY: the context is the one the kernel gave us.
    (unsafe { bpf_xdp_adjust_tail(ctx.ctx, (TRAILER as i64 - excess) as i32) } == 0).then_some(())
}

/// Swaps source and destination, of the frame and of IP. Sums do not change.
#[inline(always)]
fn swap_addresses(ctx: &XdpContext, network: &Network) -> Option<()> {
    let addresses = frame_addresses(ctx)?;
    address_frame(ctx, &addresses.turned_round())?;
    if network.is_v4() {
        let header = at(ctx, network.offset(), 20)?;
        // SAFETY: 20 bytes are there.
        unsafe {
            header.store32::<12>(network.destination[3]);
            header.store32::<16>(network.source[3]);
        }
    } else {
        let header = at(ctx, network.offset(), 40)?;
        // SAFETY: 40 bytes are there.
        unsafe { store_turned_round(header, network) };
    }
    Some(())
}

/// Writes a packet's addresses into an IPv6 header, each in the other one's place.
///
/// # Safety
///
/// 40 bytes of the header are there.
#[inline(always)]
pub(super) unsafe fn store_turned_round(header: Bytes, network: &Network) {
    let (s, d) = (&network.source, &network.destination);
    // SAFETY: as the caller promises.
    unsafe {
        header.store32::<8>(d[0]);
        header.store32::<12>(d[1]);
        header.store32::<16>(d[2]);
        header.store32::<20>(d[3]);
        header.store32::<24>(s[0]);
        header.store32::<28>(s[1]);
        header.store32::<32>(s[2]);
        header.store32::<36>(s[3]);
    }
}

/// Sets the length in the IP header for a transport segment of `length` bytes.
#[inline(always)]
fn set_ip_length(
    ctx: &XdpContext,
    network: &Network,
    transport: &Transport,
    length: usize,
) -> Option<()> {
    if network.is_v4() {
        let header = at(ctx, network.offset(), 20)?;
        let total = ((transport.offset() - network.offset() + length) as u16).to_be();
        let mut delta = Delta::new();
        // SAFETY: 20 bytes are there.
        unsafe {
            delta.word(header.load16::<2>(), total);
            header.store16::<2>(total);
            header.store16::<10>(delta.apply(header.load16::<10>()));
        }
    } else {
        let header = at(ctx, network.offset(), 40)?;
        let payload = ((transport.offset() - network.offset() - 40 + length) as u16).to_be();
        // SAFETY: 40 bytes are there.
        unsafe { header.store16::<4>(payload) };
    }
    Some(())
}

/// Rewrites acknowledgement number, window and timestamp echo of a client's segment in place. Those of the replica whose
/// numbers the client sees are right already, and the segment is left as it is.
#[inline(always)]
pub(crate) fn acknowledgement(
    ctx: &XdpContext,
    offset: usize,
    timestamps: u8,
    copy: &Copy,
) -> Option<()> {
    let mut delta = Delta::new();
    let mut differs = 0;
    if timestamps != 0 {
        let position = usize::from(timestamps & 63);
        let values = at(ctx, offset + position, 8)?;
        // SAFETY: 8 bytes are there.
        unsafe {
            let (old, ts_ecr) = (values.load32::<4>(), copy.ts_ecr.to_be());
            differs = old ^ ts_ecr;
            delta.double_at(position & 1 == 1, old, ts_ecr);
            values.store32::<4>(ts_ecr);
        }
    }
    let header = at(ctx, offset, 20)?;
    // SAFETY: 20 bytes are there.
    unsafe {
        let (ack, window) = (copy.ack.to_be(), copy.window.to_be());
        let (old_ack, old_window) = (header.load32::<8>(), header.load16::<14>());
        if differs | (old_ack ^ ack) | u32::from(old_window ^ window) == 0 {
            return Some(());
        }
        delta.double(old_ack, ack);
        header.store32::<8>(ack);
        delta.word(old_window, window);
        header.store16::<14>(window);
        header.store16::<16>(delta.apply(header.load16::<16>()));
    }
    Some(())
}
