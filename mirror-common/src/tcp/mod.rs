//! The takeover protocol of one mirrored TCP flow, as pure code: learn, translate, clamp, hold,
//! turn round, promote, close. `docs/takeover.md` is its specification.
//!
//! *Canonical* numbers are those that the client sees. Slot k's own numbers differ from them by
//! `delta_k = isn_k - isn`, modulo 2^32. The client's own sequence numbers are the same for all.

pub mod seq;

use crate::{assert_size, limits::REPLICAS, pod};

/// State of one replica of a flow.
pub mod slot {
    /// It has not answered the handshake.
    pub const PENDING: u8 = 0;
    /// It can become active with nothing lost.
    pub const WARM: u8 = 1;
    /// It cannot; [`super::Replica::cold`] says why.
    pub const COLD: u8 = 2;
}

/// One replica's side of the flow. Sequence numbers without remark are in its own space.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Replica {
    /// Its initial sequence number.
    pub isn: u32,
    /// One beyond the highest byte it has produced.
    pub snd_nxt: u32,
    /// The highest acknowledgement of the client's bytes that it sent (client's space).
    pub rcv_nxt: u32,
    /// The highest right window edge that it offered (client's space).
    pub edge: u32,
    /// Its timestamp clock minus the canonical one.
    pub ts_offset: u32,
    /// Its last timestamp value, its own clock.
    pub ts_last: u32,
    /// The sequence number after its FIN, when [`flag::FIN`] is set.
    pub fin: u32,
    /// Since when it is behind the active replica without progress: `CLOCK_MONOTONIC` in ms,
    /// wrapping; 0 when it is not.
    pub behind_ms: u32,
    /// Bits of [`flag`].
    pub flags: u8,
    /// One of [`slot`].
    pub state: u8,
    /// [`crate::reason::Cold`].
    pub cold: u8,
    /// The window scale it announced.
    pub window_scale: u8,
    /// The segment size it announced.
    pub mss: u16,
    /// Zero.
    pub pad: u16,
}
assert_size!(Replica, 40);

/// Bits of [`Replica::flags`].
pub mod flag {
    /// Its SYN-ACK was seen.
    pub const SYN_ACK: u8 = 1;
    /// It sent a FIN.
    pub const FIN: u8 = 2;
}

/// Bits of [`TcpSync::options`]: what the connection negotiated.
pub mod option {
    /// Timestamps (RFC 7323).
    pub const TIMESTAMP: u8 = 1;
    /// Selective acknowledgement (RFC 2018).
    pub const SACK: u8 = 2;
    /// Window scaling (RFC 7323).
    pub const WINDOW_SCALE: u8 = 4;
    /// Something that cannot be translated: MD5, AO, Fast Open with data, MPTCP.
    pub const UNTRANSLATABLE: u8 = 8;
}

/// What keeps the replicas of one TCP flow in step.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct TcpSync {
    /// The client's initial sequence number.
    pub client_isn: u32,
    /// One beyond the highest byte the client has sent.
    pub client_nxt: u32,
    /// The highest canonical acknowledgement the client has sent.
    pub client_ack: u32,
    /// The client's last timestamp value.
    pub client_ts: u32,
    /// Canonical initial sequence number: that of the replica whose SYN-ACK the client saw.
    pub isn: u32,
    /// One beyond the highest canonical byte that was sent on to the client.
    pub sent: u32,
    /// The highest acknowledgement the client was told.
    pub told_ack: u32,
    /// The highest right window edge the client was told.
    pub told_edge: u32,
    /// The last canonical timestamp value the client was told.
    pub ts_sent: u32,
    /// When the SYN passed, `CLOCK_MONOTONIC` in ms, wrapping.
    pub syn_ms: u32,
    /// The client's sequence number after its FIN; equal to `client_isn` until then.
    pub client_fin: u32,
    /// The window the client last offered, unscaled.
    pub client_window: u16,
    /// Bits of [`option`].
    pub options: u8,
    /// The window scale that the client was told.
    pub window_scale: u8,
    /// By slot.
    pub replicas: [Replica; REPLICAS],
}
assert_size!(TcpSync, 208);

pod!(Replica, TcpSync);
