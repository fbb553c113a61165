//! What the dataplane tells the agent through the ring buffer.

use crate::{assert_size, flow::FlowKey, pod};

/// Numbers of [`Event::kind`].
pub mod kind {
    /// A flow was opened. `to`: its primary.
    pub const FLOW_OPENED: u8 = 1;
    /// A mirror is warm. `to`: the mirror.
    pub const FLOW_WARM: u8 = 2;
    /// A replica went cold. `from`: the replica; `cause`: [`crate::reason::Cold`].
    pub const FLOW_COLD: u8 = 3;
    /// Another slot became active. `from`, `to`: instances; `cause`: [`super::cause`].
    pub const TAKEOVER: u8 = 4;
    /// The flow was closed.
    pub const FLOW_CLOSED: u8 = 5;
    /// A partly computed checksum was seen. `from`: the instance, or 0xffff for a client.
    pub const PARTIAL_CHECKSUM: u8 = 6;
}

/// Why a takeover happened.
pub mod cause {
    /// The agent declared the instance dead.
    pub const DEAD: u8 = 1;
    /// The agent evacuates the instance.
    pub const EVACUATED: u8 = 2;
    /// The active replica sent a reset that no other sent.
    pub const RESET: u8 = 3;
    /// The active replica closed while a mirror went on.
    pub const CLOSED_EARLY: u8 = 4;
    /// The primary refused the connection and a mirror accepted it.
    pub const REFUSED: u8 = 5;
    /// The agent suspects the instance.
    pub const SUSPECTED: u8 = 6;
    /// The active replica closed, and no mirror did within a retransmission time.
    pub const CLOSED_ALONE: u8 = 7;
    /// The active replica has left the SYN unanswered for too long: a full listen queue, a lost packet, what is
    /// left of the port's last use. Nothing that speaks against its service.
    pub const UNANSWERED: u8 = 8;
}

/// One event.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, `CLOCK_MONOTONIC`, ns.
    pub time_ns: u64,
    /// Which flow.
    pub flow: FlowKey,
    /// One of [`kind`].
    pub kind: u8,
    /// Depends on the kind.
    pub cause: u8,
    /// An instance number.
    pub from: u16,
    /// An instance number.
    pub to: u16,
    /// Zero.
    pub pad: u16,
}
assert_size!(Event, 40);

pod!(Event);
