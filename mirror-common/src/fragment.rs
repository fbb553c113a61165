//! Fragments of datagrams: the first one has the ports, the others follow it.
//!
//! A receiver puts together what has the same addresses, identification and protocol (RFC 791, section 3.2; RFC 8200, section
//! 4.5, where the protocol does not count), and so does whoever sends the others after the first.

use crate::{
    assert_size,
    flow::{Address, FlowKey},
    pod,
};

/// How long a receiver waits for the rest, [`crate::time::s`] (`net.ipv4.ipfrag_time`, 30 s): an identification is used
/// again, and what comes later is of another datagram.
pub const WAIT_S: u32 = 30;

/// What fragments of one datagram have in common.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentKey {
    /// Who sent it.
    pub source: Address,
    /// To whom.
    pub destination: Address,
    /// The datagram's identification; of IPv4 the lower half.
    pub id: u32,
    /// The instance that it came from, or [`CLIENT`]: replicas speak in one name, and each counts for itself.
    pub instance: u16,
    /// IPv4's protocol number; 0 for IPv6.
    pub protocol: u8,
    /// Zero.
    pub pad: u8,
}
assert_size!(FragmentKey, 40);

/// Stands for no instance.
pub const CLIENT: u16 = u16::MAX;

/// What the first fragment of a datagram told.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragmented {
    /// The datagram's flow.
    pub flow: FlowKey,
    /// When the first fragment passed, [`crate::time::s`].
    pub first_s: u32,
}
assert_size!(Fragmented, 28);

impl Fragmented {
    /// Whether a receiver would still put a fragment to the first.
    #[inline(always)]
    pub const fn is_current(&self, now_s: u32) -> bool {
        now_s.wrapping_sub(self.first_s) <= WAIT_S
    }
}

pod!(FragmentKey, Fragmented);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_fragment_is_remembered_for_as_long_as_receivers_wait() {
        let flow = FlowKey {
            client: [0; 4],
            vni: 1,
            address: 0,
            protocol: 17,
            client_port: 1,
            vni_port: 2,
        };
        for first_s in [0, 77, u32::MAX - 3] {
            let first = Fragmented { flow, first_s };
            let after = |s: u32| first.is_current(first_s.wrapping_add(s));
            assert_eq!(
                [0, 1, 30, 31, 1 << 20].map(after),
                [true, true, true, false, false]
            );
        }
    }
}
