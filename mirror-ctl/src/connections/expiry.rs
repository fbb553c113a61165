//! When a flow's entry may be forgotten. Pure.

use mirror_common::flow::{Flow, state};

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
    now_s.saturating_sub(flow.seen_s) > limit
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(state: u8) -> Flow {
        Flow {
            packets: 1,
            opened_s: 0,
            seen_s: 1_000,
            set: 0,
            ifindex: 0,
            instances: [0; 4],
            client_mac: [0; 6],
            host_mac: [0; 6],
            replicas: 1,
            active: 0,
            state,
            takeovers: 0,
            cold: 0,
            pad: [0; 7],
        }
    }

    #[track_caller]
    fn check(table: FlowTable, state: u8, limit: u32) {
        assert!(!is_expired(table, &flow(state), 1_000 + limit, 7_200));
        assert!(is_expired(table, &flow(state), 1_001 + limit, 7_200));
        assert!(!is_expired(table, &flow(state), 999, 7_200));
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
