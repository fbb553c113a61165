//! Flows: how a client's conversation with a VNI is named and what is kept of it.

use core::ops::{Deref, DerefMut};

use crate::{assert_size, ethernet::Addresses, limits::REPLICAS, pod, tcp::TcpSync};

/// An IP address as four 32-bit words in memory (network) order; IPv4 is mapped into
/// `::ffff:0:0/96`.
pub type Address = [u32; 4];

/// Maps an IPv4 address, given as its four bytes read natively, into an [`Address`].
#[inline(always)]
pub const fn ipv4(address: u32) -> Address {
    [0, 0, 0x0000_ffff_u32.to_be(), address]
}

/// Whether an [`Address`] is a mapped IPv4 one.
#[inline(always)]
pub const fn is_ipv4(address: &Address) -> bool {
    address[0] == 0 && address[1] == 0 && address[2] == 0x0000_ffff_u32.to_be()
}

/// IP protocol numbers that flows are kept for.
pub mod protocol {
    /// ICMP for IPv4.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
}

/// Names a flow: the client's end, the VNI address it talks to, and the protocol.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// The client's address.
    pub client: Address,
    /// The VNI's number.
    pub vni: u16,
    /// Which of the VNI's addresses, by its place in the configuration.
    pub address: u8,
    /// IP protocol number.
    pub protocol: u8,
    /// The client's port; for ICMP echo the identifier.
    pub client_port: u16,
    /// The VNI's port; for ICMP echo 0.
    pub vni_port: u16,
}
assert_size!(FlowKey, 24);

/// Where a flow is in its life.
pub mod state {
    /// The handshake is not complete; the SYN-ACK is held until the mirrors answered too.
    pub const HANDSHAKE: u8 = 0;
    /// The SYN-ACK went to the client, its ACK has not been seen.
    pub const ANSWERED: u8 = 1;
    /// Data may flow. UDP and ICMP flows are always here.
    pub const ESTABLISHED: u8 = 2;
    /// One side has sent its last byte.
    pub const CLOSING: u8 = 3;
    /// Both sides have, and know it of each other, or the connection was reset.
    pub const CLOSED: u8 = 4;
}

/// What is kept of every flow, and all that is kept of one without mirrors. With its key and what the kernel keeps of an entry
/// (56 bytes) it fills two cache lines, which is also what an allocation of the kernel's has: a byte more is 64.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlainFlow {
    /// Packets in both directions as the client counts them.
    pub packets: u64,
    /// When the flow was opened, [`crate::time::s`].
    pub opened_s: u32,
    /// When its last packet in either direction passed, [`crate::time::s`].
    pub seen_s: u32,
    /// Interface on which the client's packets arrive.
    pub ifindex: u32,
    /// The client's sequence number after the segment that is timed, or that was last; after the SYN before there is one. See
    /// [`crate::answers`].
    pub timed_end: u32,
    /// Of frames to the client on that interface's link: where its own came from, and what they
    /// were sent to.
    pub addresses: Addresses,
    /// When the client's segment passed that is timed: lowest bits of [`crate::time::steps`].
    pub timed_at: u16,
    /// Replica set number; the flow keeps it for life.
    pub set: u16,
    /// The number of the instance in slot 0.
    pub primary: u16,
    /// Of TCP: from the client's first SYN to the first SYN-ACK of the instance that was active when it came, in
    /// [`crate::time::steps`] (16.4 µs); 1 for less than two steps, 65,535 for 1.07 s and more, 0 when it is not known. It goes
    /// on being that instance's when another becomes active.
    pub handshake: u16,
    /// One of [`state`].
    pub state: u8,
    /// Bits of [`crate::answers::mark`].
    pub marks: u8,
    /// [`crate::reason::Cold`] that concerns the flow as a whole, 0 when none.
    pub cold: u8,
    /// Zero.
    pub pad: u8,
}
assert_size!(PlainFlow, 48);

/// A flow that may have mirrors.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// What is kept of every flow.
    pub plain: PlainFlow,
    /// Instance numbers by slot.
    pub instances: [u16; REPLICAS],
    /// Used slots, 1..=4.
    pub replicas: u8,
    /// The slot whose output reaches the client.
    pub active: u8,
    /// How often another slot became active, saturating.
    pub takeovers: u16,
    /// Zero.
    pub pad: u32,
}
assert_size!(Flow, 64);

impl Flow {
    /// A flow without mirrors.
    pub const fn alone(plain: PlainFlow) -> Self {
        Self {
            plain,
            instances: [plain.primary, 0, 0, 0],
            replicas: 1,
            active: 0,
            takeovers: 0,
            pad: 0,
        }
    }
}

impl Deref for Flow {
    type Target = PlainFlow;

    #[inline(always)]
    fn deref(&self) -> &PlainFlow {
        &self.plain
    }
}

impl DerefMut for Flow {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut PlainFlow {
        &mut self.plain
    }
}

/// What [`PlainFlow::handshake`] says of so many steps.
#[inline(always)]
pub const fn handshake(steps: u32) -> u16 {
    match steps {
        0 => 1,
        0xffff.. => 0xffff,
        _ => steps as u16,
    }
}

/// A TCP flow with mirrors: the flow and the state that keeps its replicas in step.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpFlow {
    /// What is kept of every flow.
    pub flow: Flow,
    /// What keeps the replicas in step.
    pub sync: TcpSync,
}
assert_size!(TcpFlow, 64 + 224);

pod!(FlowKey, PlainFlow, Flow, TcpFlow);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_that_was_seen_is_never_unknown() {
        let kept = [0, 1, 61, 0xfffe, 0xffff, 0x1_0000, u32::MAX].map(handshake);
        assert_eq!(kept, [1, 1, 61, 0xfffe, 0xffff, 0xffff, 0xffff]);
    }
}
