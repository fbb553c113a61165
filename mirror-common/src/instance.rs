//! Compute instances as the dataplane knows them, and what it notices of them.

use crate::{assert_size, ethernet::Addresses, histogram::Histogram, pod};

/// What an instance may be used for. One write of this takes an instance out.
///
/// Made of bits, each of which includes those below it, so that the dataplane needs no comparison
/// and a greater state is one that can be relied on further.
pub mod state {
    /// It gets copies and is listened to.
    pub const REACHABLE: u32 = 1;
    /// It is relied on: waited for, and fit to be active.
    pub const ALIVE: u32 = 2;
    /// It is relied on without reserve.
    pub const STAYS: u32 = 4;

    /// Not configured.
    pub const NONE: u32 = 0;
    /// Takes part in nothing: its flows move at their next packet and nobody waits for it.
    pub const DEAD: u32 = 8;
    /// Dead for all that depends on it, alive for all that it may still do: its flows move and
    /// nobody waits for it, but copies go on to it, so that a false alarm costs no warm replica.
    pub const SUSPECT: u32 = DEAD | REACHABLE;
    /// Its flows move to warm mirrors, each at a moment when nothing has to be retransmitted; it
    /// stays a mirror of them.
    pub const EVACUATING: u32 = SUSPECT | ALIVE;
    /// Serves.
    pub const UP: u32 = EVACUATING | STAYS;
}

/// One entry of the instance table. Written by the agent, read by the dataplane.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Instance {
    /// One of [`state`].
    pub state: u32,
    /// The interface that leads to it.
    pub ifindex: u32,
    /// Of frames to it: its hardware address, and that of our end.
    pub addresses: Addresses,
    /// When an evacuation stops waiting for a good moment, [`crate::time::ms`].
    pub deadline_ms: u32,
    /// The largest packet that the interface takes; 0 when that is not known.
    pub mtu: u32,
}
assert_size!(Instance, 28);

/// What the dataplane noticed of an instance. Written by the dataplane, read by the agent.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Vitals {
    /// When its last packet of a VNI arrived, `CLOCK_MONOTONIC`, ns; 0: never.
    pub heard_ns: u64,
    /// Since when it owes an answer: the first packet after `heard_ns` that asks for one (SYN,
    /// data, FIN), `CLOCK_MONOTONIC`, ns; 0: owes none.
    pub owes_since_ns: u64,
    /// Packets to it.
    pub sent: u64,
    /// Packets of VNIs from it.
    pub received: u64,
    /// Resets of established flows that no other replica sent.
    pub resets: u64,
    /// FINs that no other replica had sent.
    pub early_closes: u64,
    /// Segments it sent again.
    pub retransmissions: u64,
    /// Since when it owes an answer to a SYN: the first after its last answer to one,
    /// `CLOCK_MONOTONIC`, ns; 0: owes none. A full listen queue answers nothing, while
    /// established connections go on.
    pub syn_since_ns: u64,
}
assert_size!(Vitals, 64);

/// What the dataplane measures of an instance, as the active replica of flows and as a mirror. Written by the dataplane, each
/// CPU its own, read by the agent.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Measures {
    /// From a client's first SYN to the instance's first SYN-ACK.
    pub handshake: Histogram,
    /// From a client's segment to its acknowledgement, of a sample.
    pub ack: Histogram,
    /// From a client's segment to the first byte that is said after it, of a sample: what a client waits for.
    pub answer: Histogram,
    /// From the takeover of a flow whose client waited for something to the first segment that the instance, active since then,
    /// sent to it.
    pub stall: Histogram,
    /// Requests that began: bytes of the client when the flow's active replica owed no answer.
    pub requests: u64,
    /// SYNs that clients sent again because the instance had not answered.
    pub unanswered: u64,
}
assert_size!(Measures, 2096);

impl Measures {
    /// Adds what another CPU has measured.
    pub fn add(&mut self, other: &Self) {
        self.handshake.add(&other.handshake);
        self.ack.add(&other.ack);
        self.answer.add(&other.answer);
        self.stall.add(&other.stall);
        self.requests += other.requests;
        self.unanswered += other.unanswered;
    }
}

pod!(Instance, Measures, Vitals);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cpus_measure_adds_up() {
        let one = |steps, requests| {
            let mut measures = Measures {
                requests,
                unanswered: 1,
                ..Measures::default()
            };
            measures.handshake.count(steps);
            (0..2).for_each(|_| measures.ack.count(steps));
            measures.answer.count(steps + 2);
            measures.stall.count(steps + 1);
            measures
        };
        let mut total = one(3, 5);
        total.add(&one(9, 7));
        let mut expected = Measures {
            requests: 12,
            unanswered: 2,
            ..Measures::default()
        };
        for steps in [3, 9] {
            expected.handshake.count(steps);
            (0..2).for_each(|_| expected.ack.count(steps));
            expected.answer.count(steps + 2);
            expected.stall.count(steps + 1);
        }
        assert_eq!(total, expected);
        assert_eq!(total.ack.number(), 4);
    }
}
