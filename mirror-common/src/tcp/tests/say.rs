//! The words of the scripts: what a host says, and what is expected to become of it. All numbers
//! are stream offsets.

use crate::{reason::Reason, tcp::segment::bit};

/// A segment as a script says it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Say {
    pub(super) seq: Option<i32>,
    pub(super) ack: Option<i32>,
    pub(super) payload: u32,
    pub(super) window: Option<u32>,
    pub(super) flags: u8,
    pub(super) sack: bool,
    pub(super) clock: i32,
    /// Added to the payload's sum: other bytes than those of the others.
    pub(super) astray: u16,
    pub(super) echo: Option<u32>,
}

/// Data at an offset.
pub(super) fn data(seq: i32, payload: u32) -> Say {
    Say {
        seq: Some(seq),
        payload,
        flags: bit::ACK,
        ..Say::default()
    }
}

/// A pure acknowledgement, sent from where the host's stream is.
pub(super) fn ack(ack: i32) -> Say {
    Say {
        ack: Some(ack),
        flags: bit::ACK,
        ..Say::default()
    }
}

/// A FIN at an offset.
pub(super) fn fin(seq: i32) -> Say {
    data(seq, 0).with(bit::FIN)
}

/// A reset at an offset.
pub(super) fn rst(seq: i32) -> Say {
    data(seq, 0).with(bit::RST)
}

impl Say {
    pub(super) fn with(mut self, flags: u8) -> Self {
        self.flags |= flags;
        self
    }
    pub(super) fn without(mut self, flags: u8) -> Self {
        self.flags &= !flags;
        self
    }
    pub(super) fn at(mut self, seq: i32) -> Self {
        self.seq = Some(seq);
        self
    }
    pub(super) fn acks(mut self, ack: i32) -> Self {
        self.ack = Some(ack);
        self
    }
    pub(super) fn window(mut self, bytes: u32) -> Self {
        self.window = Some(bytes);
        self
    }
    pub(super) fn sack(mut self) -> Self {
        self.sack = true;
        self
    }
    /// Says something else than the others.
    pub(super) fn astray(mut self) -> Self {
        self.astray = 0x0100;
        self
    }
    /// Stamped so much later (earlier) than now.
    pub(super) fn clock(mut self, ms: i32) -> Self {
        self.clock = ms;
        self
    }
    /// Echoes a timestamp of the sender's counterpart.
    pub(super) fn echo(mut self, value: u32) -> Self {
        self.echo = Some(value);
        self
    }
}

/// What a script expects of a replica's segment; offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Went to the client with these numbers, all flags kept.
    Delivered { seq: i32, ack: i32 },
    /// The same, its FIN cut off.
    Stripped { seq: i32, ack: i32 },
    /// Went to the client as a pure acknowledgement.
    Acked(i32),
    /// Went back to the replica, acknowledging so much.
    Turned(i32),
    /// Went back to the replica as a reset, numbered so far.
    Refused(i32),
    /// Went nowhere.
    Dropped(Reason),
}

pub(super) fn delivered(seq: i32, ack: i32) -> Seen {
    Seen::Delivered { seq, ack }
}

pub(super) fn stripped(seq: i32, ack: i32) -> Seen {
    Seen::Stripped { seq, ack }
}
