//! When a flow's entry may be forgotten. Pure.

use mirror_common::{
    flow::{Flow, state},
    time,
};

use crate::dataplane::FlowTable;

/// A closed flow is kept for late segments.
pub const CLOSED_S: u32 = 10;
/// A flow of which one side has closed, or whose handshake is not complete.
pub const CLOSING_S: u32 = 120;
/// A UDP or ICMP flow, which has no end of its own (RFC 4787 asks for two minutes at least).
pub const DATAGRAM_S: u32 = 300;

/// Whether a flow that was last seen at `seen_s` has outlived its connection.
pub fn is_expired(table: FlowTable, flow: &Flow, now_s: u32, idle_s: u32) -> bool {
    let limit = match (table, flow.state) {
        (_, state::CLOSED) => CLOSED_S,
        (FlowTable::HalfOpen, _) | (_, state::CLOSING) => CLOSING_S,
        (FlowTable::Datagram, _) => DATAGRAM_S.min(idle_s),
        _ => idle_s,
    };
    // The dataplane may have seen it after the clock was read.
    time::seconds_between(flow.seen_s, now_s) > limit
}

/// A client that has not answered a SYN-ACK for so long has begun anew, or given up.
const HANDSHAKE_S: u32 = 10;

/// Whether anything is lost with a flow's entry: a closed one is kept for late segments. (A datagram's is not: the next one
/// opens another.)
pub fn is_needed(table: FlowTable, flow: &Flow, now_s: u32) -> bool {
    match table {
        FlowTable::Mirrored | FlowTable::Unmirrored => true,
        FlowTable::HalfOpen => {
            flow.state != state::CLOSED && time::seconds_between(flow.seen_s, now_s) <= HANDSHAKE_S
        }
        FlowTable::Datagram => false,
    }
}

#[cfg(test)]
mod tests {

    use mirror_common::flow::PlainFlow;

    use super::*;

    const SEEN_NS: u64 = 1_000 << 30;

    fn flow(state: u8) -> Flow {
        Flow::alone(PlainFlow {
            packets: 1,
            seen_s: time::s(SEEN_NS),
            state,
            ..PlainFlow::default()
        })
    }

    #[track_caller]
    fn check(table: FlowTable, state: u8, limit: u32) {
        let is_expired = |now_s| is_expired(table, &flow(state), now_s, 7_200);
        let after = |seconds: u32| time::s(SEEN_NS + u64::from(seconds) * 1_000_000_000);
        assert!(!is_expired(after(limit)));
        assert!(is_expired(after(limit + 3)));
        assert!(!is_expired(time::s(SEEN_NS) - 1));
    }

    #[test]
    fn what_is_waited_for() {
        let needed = |table, state, after: u64| {
            let now_s = time::s(SEEN_NS + after * 1_000_000_000);
            is_needed(table, &flow(state), now_s)
        };
        for table in [FlowTable::Mirrored, FlowTable::Unmirrored] {
            assert!(needed(table, state::ESTABLISHED, 7_000));
            // Late segments of it find it until it has expired.
            assert!(needed(table, state::CLOSED, 1));
        }
        assert!(needed(FlowTable::HalfOpen, state::ANSWERED, 5));
        assert!(!needed(FlowTable::HalfOpen, state::ANSWERED, 15));
        assert!(!needed(FlowTable::HalfOpen, state::CLOSED, 0));
        assert!(!needed(FlowTable::Datagram, state::ESTABLISHED, 0));
    }

    #[test]
    fn each_state_has_its_limit() {
        check(FlowTable::Mirrored, state::ESTABLISHED, 7_200);
        check(FlowTable::Unmirrored, state::ESTABLISHED, 7_200);
        check(FlowTable::Mirrored, state::CLOSING, CLOSING_S);
        check(FlowTable::Mirrored, state::CLOSED, CLOSED_S);
        check(FlowTable::HalfOpen, state::HANDSHAKE, CLOSING_S);
        check(FlowTable::HalfOpen, state::CLOSED, CLOSED_S);
        check(FlowTable::Datagram, state::ESTABLISHED, DATAGRAM_S);
    }
}
