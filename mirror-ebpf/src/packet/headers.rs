//! Ethernet, VLAN, IPv4 and IPv6 headers: in two stages, so that other traffic is told apart
//! before anything in it can be called malformed.

use aya_ebpf::programs::XdpContext;
use mirror_common::{
    flow::{Address, ipv4},
    limits::{IPV6_EXTENSIONS, VLAN_TAGS},
    reason::Reason,
};

use super::at;

const ETHERNET: usize = 14;
const VLAN: usize = 4;
const IPV4: u16 = 0x0800_u16.to_be();
const IPV6: u16 = 0x86dd_u16.to_be();
const VLAN_8021Q: u16 = 0x8100_u16.to_be();
const VLAN_8021AD: u16 = 0x88a8_u16.to_be();
/// Bound on where an IP or transport header can be, for the verifier; a power of two.
const OFFSET_MAX: u16 = 512;

/// The shortest transport header, UDP's and ICMP's. The frame may have more bytes than the packet:
/// padding, whose bytes are nobody's word.
const TRANSPORT_MIN: u16 = 8;

/// Addresses of a packet: enough to know whether it concerns a VNI.
#[repr(C)]
pub(crate) struct Network {
    pub(crate) source: Address,
    pub(crate) destination: Address,
    offset: u16,
    v4: u8,
    pad: u8,
}

impl Network {
    /// Offset of the IP header.
    #[inline(always)]
    pub(crate) fn offset(&self) -> usize {
        usize::from(self.offset & (OFFSET_MAX - 1))
    }

    /// Bytes of VLAN tags beyond the one for which the kernel leaves room on every link.
    #[inline(always)]
    fn tags(&self) -> u16 {
        (self.offset & (OFFSET_MAX - 1)).saturating_sub((ETHERNET + VLAN) as u16)
    }

    /// The largest packet with tags as this one's that a link takes.
    #[inline(always)]
    pub(crate) fn room(&self, mtu: u32) -> u32 {
        mtu - u32::from(self.tags())
    }

    /// IPv4, or else IPv6.
    #[inline(always)]
    pub(crate) fn is_v4(&self) -> bool {
        self.v4 != 0
    }

    /// Ones'-complement sum of the pseudo-header of a segment of `length` bytes (RFC 9293,
    /// section 3.1; RFC 8200, section 8.1).
    #[inline(always)]
    pub(crate) fn pseudo_header(&self, length: u16, protocol: u8) -> u32 {
        let mut sum = u32::from(length.to_be()) + u32::from(u16::from(protocol).to_be());
        // Spelt out: the verifier loses a pointer that walks through both.
        let (s, d) = (&self.source, &self.destination);
        for word in [s[0], s[1], s[2], s[3], d[0], d[1], d[2], d[3]] {
            sum += (word & 0xffff) + (word >> 16);
        }
        // The words that map IPv4 into IPv6 are no part of its pseudo-header: 0xffff twice,
        // which is zero in ones' complement.
        sum
    }
}

/// Where the payload of IP is.
#[repr(C)]
pub(crate) struct Transport {
    offset: u16,
    end: u16,
    pub(crate) protocol: u8,
    /// One of [`part`].
    part: u8,
    /// Bytes that it takes of a link's MTU.
    pub(crate) size: u16,
    /// The datagram's identification, if this is a fragment.
    pub(crate) id: u32,
}

/// What of a datagram a packet is.
mod part {
    pub(super) const WHOLE: u8 = 0;
    /// Its beginning, with the transport header.
    pub(super) const FIRST: u8 = 1;
    /// Something of what is behind that.
    pub(super) const LATER: u8 = 2;
}

impl Transport {
    /// Offset of the transport header.
    #[inline(always)]
    pub(crate) fn offset(&self) -> usize {
        usize::from(self.offset & (OFFSET_MAX - 1))
    }

    /// Bytes from the transport header to the end of the packet by the IP header's length.
    #[inline(always)]
    pub(crate) fn length(&self) -> u16 {
        self.end.wrapping_sub(self.offset)
    }

    /// Whether it is a fragment at all.
    #[inline(always)]
    pub(crate) fn is_fragment(&self) -> bool {
        self.part != part::WHOLE
    }

    /// Whether it is the first fragment of a datagram.
    #[inline(always)]
    pub(crate) fn is_first(&self) -> bool {
        self.part == part::FIRST
    }

    /// Whether it is another fragment: there is no transport header.
    #[inline(always)]
    pub(crate) fn is_later(&self) -> bool {
        self.part == part::LATER
    }

    /// Takes in where a fragment is in its datagram, and whether more of it follow.
    #[inline(always)]
    fn set_part(&mut self, place: u16, more: bool, id: u32) {
        self.part = match (place, more) {
            // All of it (RFC 6946).
            (0, false) => part::WHOLE,
            (0, true) => part::FIRST,
            _ => part::LATER,
        };
        self.id = id;
    }

    /// Whether so many bytes belong to the packet.
    #[inline(always)]
    pub(crate) fn holds(&self, bytes: usize) -> bool {
        bytes <= usize::from(self.length())
    }
}

/// Finds the IP header. `None`: not IP, or too short to tell.
#[inline(always)]
pub(crate) fn network(ctx: &XdpContext, network: &mut Network) -> Option<()> {
    let ethernet = at(ctx, 0, ETHERNET)?;
    // SAFETY: 14 bytes are there.
    let mut kind = unsafe { ethernet.load16::<12>() };
    let mut offset = ETHERNET;
    for _ in 0..VLAN_TAGS {
        if kind != VLAN_8021Q && kind != VLAN_8021AD {
            break;
        }
        let tag = at(ctx, offset, VLAN)?;
        // SAFETY: 4 bytes are there.
        kind = unsafe { tag.load16::<2>() };
        offset += VLAN;
    }
    network.offset = offset as u16;
    if kind == IPV4 {
        let header = at(ctx, network.offset(), 20)?;
        // SAFETY: 20 bytes are there.
        unsafe {
            network.source = ipv4(header.load32::<12>());
            network.destination = ipv4(header.load32::<16>());
        }
        network.v4 = 1;
        return Some(());
    }
    if kind == IPV6 {
        let header = at(ctx, network.offset(), 40)?;
        // SAFETY: 40 bytes are there.
        unsafe {
            network.source = header.load_address::<8>();
            network.destination = header.load_address::<24>();
        }
        network.v4 = 0;
        return Some(());
    }
    None
}

/// Finds the transport header.
#[inline(always)]
pub(crate) fn transport(
    ctx: &XdpContext,
    network: &Network,
    found: &mut Transport,
) -> Result<(), Reason> {
    if network.is_v4() {
        transport_v4(ctx, network.offset(), found)?;
    } else {
        transport_v6(ctx, network.offset(), found)?;
    }
    let least = if found.is_later() { 1 } else { TRANSPORT_MIN };
    if found.offset >= OFFSET_MAX
        || found.offset + least > found.end
        || usize::from(found.end) > super::length(ctx)
    {
        return Err(Reason::Malformed);
    }
    found.size = found.end - network.offset + network.tags();
    Ok(())
}

/// The transport header behind an IPv4 header.
#[inline(always)]
fn transport_v4(ctx: &XdpContext, offset: usize, found: &mut Transport) -> Result<(), Reason> {
    const MORE_FRAGMENTS: u16 = 0x2000;
    const FRAGMENT_OFFSET: u16 = 0x1fff;
    let header = at(ctx, offset, 20).ok_or(Reason::Malformed)?;
    // SAFETY: 20 bytes are there.
    let (version, total, id, fragment, protocol) = unsafe {
        (
            header.load8::<0>(),
            u16::from_be(header.load16::<2>()),
            header.load16::<4>(),
            u16::from_be(header.load16::<6>()),
            header.load8::<9>(),
        )
    };
    let length = u16::from(version & 15) * 4;
    if version >> 4 != 4 || length < 20 {
        return Err(Reason::Malformed);
    }
    let (at, more) = (fragment & FRAGMENT_OFFSET, fragment & MORE_FRAGMENTS != 0);
    found.set_part(at, more, u32::from(id));
    found.offset = offset as u16 + length;
    found.end = (offset as u16)
        .checked_add(total)
        .ok_or(Reason::Malformed)?;
    found.protocol = protocol;
    Ok(())
}

/// The transport header behind an IPv6 header and its extensions.
#[inline(always)]
fn transport_v6(ctx: &XdpContext, offset: usize, found: &mut Transport) -> Result<(), Reason> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const DESTINATION: u8 = 60;
    let header = at(ctx, offset, 40).ok_or(Reason::Malformed)?;
    // SAFETY: 40 bytes are there.
    let (payload, protocol) = unsafe { (u16::from_be(header.load16::<4>()), header.load8::<6>()) };
    found.offset = offset as u16 + 40;
    found.end = (found.offset)
        .checked_add(payload)
        .ok_or(Reason::Malformed)?;
    found.protocol = protocol;
    found.part = part::WHOLE;
    for _ in 0..IPV6_EXTENSIONS {
        let protocol = found.protocol;
        if found.is_later() {
            break;
        }
        if protocol == FRAGMENT {
            if found.offset >= OFFSET_MAX {
                return Err(Reason::Malformed);
            }
            let fragment = at(ctx, found.offset(), 8).ok_or(Reason::Malformed)?;
            // SAFETY: 8 bytes are there.
            let (next, place, id) = unsafe {
                (
                    fragment.load8::<0>(),
                    u16::from_be(fragment.load16::<2>()),
                    fragment.load32::<4>(),
                )
            };
            found.protocol = next;
            found.offset += 8;
            found.set_part(place >> 3, place & 1 != 0, id);
            continue;
        }
        if protocol != HOP_BY_HOP && protocol != ROUTING && protocol != DESTINATION {
            break;
        }
        if found.offset >= OFFSET_MAX {
            return Err(Reason::Malformed);
        }
        let extension = at(ctx, found.offset(), 8).ok_or(Reason::Malformed)?;
        // SAFETY: 8 bytes are there.
        unsafe {
            found.protocol = extension.load8::<0>();
            found.offset += 8 + u16::from(extension.load8::<1>()) * 8;
        }
    }
    Ok(())
}

/// The transport header of a quoted IPv4 packet: its protocol and offset.
#[inline(always)]
pub(crate) fn quoted_v4(ctx: &XdpContext, offset: usize) -> Option<(u8, usize)> {
    let header = at(ctx, offset, 20)?;
    // SAFETY: 20 bytes are there.
    let (version, protocol) = unsafe { (header.load8::<0>(), header.load8::<9>()) };
    let length = usize::from(version & 15) * 4;
    (version >> 4 == 4 && length >= 20).then_some((protocol, offset + length))
}
