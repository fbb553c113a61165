//! VNIs as the dataplane knows them.

use crate::{assert_size, flow::Address, pod};

/// Bits of [`Vni::flags`].
pub mod flag {
    /// New flows get mirrors.
    pub const MIRRORED: u8 = 1;
    /// The client is told only what every warm mirror has received (semi-synchronous).
    pub const HOLD_ACKS: u8 = 2;
    /// A FIN or RST counts only when the warm mirrors sent it too.
    pub const VOTE_ON_CLOSE: u8 = 4;
    /// A flow whose active instance died without a warm mirror is left alone, not reset.
    pub const LEAVE_LOST: u8 = 8;
    /// There are steering tables for the clients of some zones.
    pub const ZONED: u8 = 16;
    /// Mirrors are compared and never made active. Goes without [`HOLD_ACKS`] and [`VOTE_ON_CLOSE`].
    pub const SHADOW: u8 = 32;
    /// Whichever replica says the client's next bytes first is active. Goes without [`SHADOW`].
    pub const FIRST: u8 = 64;
    /// QUIC is spoken on some ports of it ([`crate::quic::Quic`]).
    pub const QUIC: u8 = 128;
}

/// One VNI address: key of the VNI table.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VniKey {
    /// The address that clients use.
    pub address: Address,
}
assert_size!(VniKey, 16);

/// What the dataplane needs to know of a VNI address. Written by the agent.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Vni {
    /// The VNI's number: index of its steering table.
    pub vni: u16,
    /// The address's place in the VNI's configuration.
    pub address: u8,
    /// Bits of [`flag`].
    pub flags: u8,
    /// A mirror that is further behind the active replica in received bytes goes cold.
    pub lag_bytes_max: u32,
    /// A mirror that is behind for longer without progress goes cold, ms.
    pub lag_ms_max: u32,
    /// How long a SYN-ACK may be held for a mirror's, ms.
    pub handshake_ms: u32,
}
assert_size!(Vni, 16);

pod!(VniKey, Vni);
