//! Reads TCP headers into the protocol's [`Segment`].

use aya_ebpf::programs::XdpContext;
use mirror_common::{
    checksum::fold,
    limits::{SACK_BLOCKS, TCP_OPTIONS},
    reason::Reason,
    tcp::{Segment, option, segment::bit},
};

use super::{at, headers::Transport};

/// A parsed TCP header and where its translatable options are.
pub(crate) struct TcpHeader {
    pub(crate) segment: Segment,
    /// Source and destination port, host order.
    pub(crate) source: u16,
    pub(crate) destination: u16,
    /// Header length, bytes.
    pub(crate) length: u8,
    /// Where the walk through the options is.
    cursor: u8,
    pub(crate) options: Options,
}

/// Offsets from the start of the TCP header; 0: not there.
#[derive(Clone, Copy, Default)]
pub(crate) struct Options {
    /// The timestamp value; the echo reply follows.
    pub(crate) timestamps: u8,
    /// The SACK option; its first edge is two bytes on.
    pub(crate) sack: u8,
    /// SACK blocks.
    pub(crate) blocks: u8,
}

/// Parses a TCP header.
#[inline(always)]
pub(crate) fn parse(
    ctx: &XdpContext,
    transport: &Transport,
    parsed: &mut TcpHeader,
) -> Result<(), Reason> {
    /// NOP, NOP, timestamps of ten bytes: how every common stack lays out a header with
    /// timestamps and nothing else.
    const ALIGNED_TIMESTAMPS: u32 = 0x0101_080a_u32.to_be();
    let offset = transport.offset();
    let header = at(ctx, offset, 20).ok_or(Reason::Malformed)?;
    // SAFETY: 20 bytes are there.
    let (ports, seq, ack, length, flags, window) = unsafe {
        (
            u32::from_be(header.load32::<0>()),
            u32::from_be(header.load32::<4>()),
            u32::from_be(header.load32::<8>()),
            usize::from(header.load8::<12>() >> 4) * 4,
            header.load8::<13>() & 0x3f,
            u16::from_be(header.load16::<14>()),
        )
    };
    if length < 20 || length > usize::from(transport.length()) {
        return Err(Reason::Malformed);
    }
    *parsed = TcpHeader {
        segment: Segment {
            seq,
            ack,
            window,
            flags,
            payload: u32::from(transport.length()) - length as u32,
            ..Segment::default()
        },
        source: (ports >> 16) as u16,
        destination: ports as u16,
        length: length as u8,
        cursor: 20,
        options: Options::default(),
    };
    if length == 20 {
        return Ok(());
    }
    if length == 32 {
        let options = at(ctx, offset, 32).ok_or(Reason::Malformed)?;
        // SAFETY: 32 bytes are there.
        unsafe {
            if options.load32::<20>() == ALIGNED_TIMESTAMPS {
                parsed.segment.ts_val = u32::from_be(options.load32::<24>());
                parsed.segment.ts_ecr = u32::from_be(options.load32::<28>());
                parsed.segment.options = option::TIMESTAMP;
                parsed.options.timestamps = 24;
                return Ok(());
            }
        }
    }
    if walk(ctx, offset, parsed).is_none() {
        return Err(Reason::Malformed);
    }
    Ok(())
}

/// Walks the options one by one. `None`: malformed.
#[inline(always)]
fn walk(ctx: &XdpContext, offset: usize, parsed: &mut TcpHeader) -> Option<()> {
    const END: u8 = 0;
    const NOP: u8 = 1;
    const WINDOW_SCALE: u8 = 3;
    const SACK_PERMITTED: u8 = 4;
    const SACK: u8 = 5;
    const TIMESTAMPS: u8 = 8;
    const MD5: u8 = 19;
    const AO: u8 = 29;
    const MPTCP: u8 = 30;
    for _ in 0..TCP_OPTIONS {
        if parsed.cursor >= parsed.length {
            break;
        }
        let position = usize::from(parsed.cursor & 63);
        let kind = at(ctx, offset + position, 1)?;
        // SAFETY: one byte is there.
        let kind = unsafe { kind.load8::<0>() };
        if kind == END {
            break;
        }
        if kind == NOP {
            parsed.cursor += 1;
            continue;
        }
        let option = at(ctx, offset + position, 2)?;
        // SAFETY: two bytes are there.
        let length = usize::from(unsafe { option.load8::<1>() });
        if length < 2 || position + length > usize::from(parsed.length) {
            return None;
        }
        match kind {
            WINDOW_SCALE if length == 3 => {
                let option = at(ctx, offset + position, 3)?;
                // SAFETY: three bytes are there. RFC 7323, 2.3: more than 14 means 14.
                parsed.segment.window_scale = unsafe { option.load8::<2>() }.min(14);
                parsed.segment.options |= option::WINDOW_SCALE;
            }
            SACK_PERMITTED => parsed.segment.options |= option::SACK,
            SACK if length >= 10 && (length - 2).is_multiple_of(8) => {
                parsed.segment.options |= option::SACK;
                parsed.options.sack = position as u8;
                parsed.options.blocks = ((length - 2) / 8).min(SACK_BLOCKS) as u8;
            }
            TIMESTAMPS if length == 10 => {
                let option = at(ctx, offset + position, 10)?;
                // SAFETY: ten bytes are there.
                unsafe {
                    parsed.segment.ts_val = u32::from_be(option.load32::<2>());
                    parsed.segment.ts_ecr = u32::from_be(option.load32::<6>());
                }
                parsed.segment.options |= option::TIMESTAMP;
                parsed.options.timestamps = position as u8 + 2;
            }
            MD5 | AO | MPTCP => parsed.segment.options |= option::UNTRANSLATABLE,
            _ => {}
        }
        parsed.cursor = (position + length) as u8;
    }
    Some(())
}

/// Finds the sum of the payload out: the checksum makes the sum of everything nothing, and the rest
/// is known. Only of headers that are as long as every common stack makes them; others carry
/// options that come and go.
#[inline(always)]
pub(crate) fn sum_payload(
    ctx: &XdpContext,
    network: &super::headers::Network,
    transport: &Transport,
    parsed: &mut TcpHeader,
) -> Option<()> {
    let mut sum = network.pseudo_header(transport.length(), transport.protocol);
    let header = at(ctx, transport.offset(), 20)?;
    // SAFETY: 20 bytes are there.
    let words = unsafe {
        [
            header.load32::<0>(),
            header.load32::<4>(),
            header.load32::<8>(),
            header.load32::<12>(),
            header.load32::<16>(),
        ]
    };
    for word in words {
        sum += (word & 0xffff) + (word >> 16);
    }
    if parsed.length == 32 {
        let options = at(ctx, transport.offset(), 32)?;
        // SAFETY: 32 bytes are there.
        let words = unsafe {
            [
                options.load32::<20>(),
                options.load32::<24>(),
                options.load32::<28>(),
            ]
        };
        for word in words {
            sum += (word & 0xffff) + (word >> 16);
        }
    } else if parsed.length != 20 {
        return None;
    }
    parsed.segment.sum = !fold(sum);
    parsed.segment.has_sum = true;
    Some(())
}

/// Whether the checksum of a segment without payload covers no more than the pseudo-header: the sender
/// left the rest to a device that the packet never saw. One checksum in 65,536 looks like that and is
/// right.
#[inline(always)]
pub(crate) fn has_partial_checksum(
    ctx: &XdpContext,
    network: &super::headers::Network,
    transport: &Transport,
    parsed: &TcpHeader,
) -> bool {
    const WORDS_MAX: usize = 15;
    let Some(header) = at(ctx, transport.offset(), 20) else {
        return false;
    };
    let mut sum = network.pseudo_header(transport.length(), transport.protocol);
    // SAFETY: 20 bytes are there.
    let checksum = unsafe { header.load16::<16>() };
    if checksum != fold(sum) {
        return false;
    }
    for number in 0..WORDS_MAX {
        if number * 4 >= usize::from(parsed.length) {
            break;
        }
        let Some(word) = at(ctx, transport.offset() + number * 4, 4) else {
            return false;
        };
        // SAFETY: 4 bytes are there.
        let word = unsafe { word.load32::<0>() };
        sum += (word & 0xffff) + (word >> 16);
    }
    fold(sum) != 0xffff
}

/// Whether a segment asks for an answer.
#[inline(always)]
pub(crate) fn asks(segment: &Segment) -> bool {
    segment.payload > 0 || segment.is(bit::SYN | bit::FIN)
}
