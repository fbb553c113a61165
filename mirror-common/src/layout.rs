//! Where every field of a shared type is: the programs that are pinned go on with the layout that
//! they were compiled for, whatever an agent that adopts them was compiled for. A line that has to
//! change here is a new [`crate::LAYOUT_VERSION`].

use core::mem::offset_of;

use crate::{
    allowance::Allowance,
    event::Event,
    flow::{Flow, FlowKey, PlainFlow, TcpFlow},
    fragment::{FragmentKey, Fragmented},
    histogram::Histogram,
    instance::{Instance, Measures, Vitals},
    parked::Parked,
    plan::{Copy, Head, Plan},
    quic::{ConnectionId, Quic, Served},
    replica_set::ReplicaSet,
    steering::Source,
    tcp::{Replica, TcpSync, Waypoint},
    trace::{Filter, Record},
    vni::{Vni, VniKey},
};

/// Asserts at compile time where each field is, and that none is left out.
macro_rules! assert_offsets {
    ($type:ident { $($field:ident: $offset:expr),+ $(,)? }) => {
        const _: () = {
            $(assert!(offset_of!($type, $field) == $offset);)+
            // The pattern names every field.
            let _: fn(&$type) = |value| {
                let $type { $($field: _),+ } = value;
            };
        };
    };
}

assert_offsets!(Allowance {
    full_ns: 0,
    every_ns: 8,
    pad: 12,
});
assert_offsets!(ConnectionId {
    bytes: 0,
    vni: 20,
    length: 22,
    pad: 23,
});
assert_offsets!(Copy {
    ifindex: 0,
    ack: 4,
    delta: 8,
    snd_nxt: 12,
    ts_ecr: 16,
    instance: 20,
    window: 22,
});
assert_offsets!(Event {
    time_ns: 0,
    flow: 8,
    kind: 32,
    cause: 33,
    from: 34,
    to: 36,
    pad: 38,
});
assert_offsets!(Filter {
    until_ns: 0,
    mask: 8,
    key: 32,
    frame_bytes: 56,
    programs: 60,
});
assert_offsets!(Flow {
    plain: 0,
    instances: 48,
    replicas: 56,
    active: 57,
    takeovers: 58,
    pad: 60,
});
assert_offsets!(FlowKey {
    client: 0,
    vni: 16,
    address: 18,
    protocol: 19,
    client_port: 20,
    vni_port: 22,
});
assert_offsets!(Fragmented {
    flow: 0,
    first_s: 24,
});
assert_offsets!(FragmentKey {
    source: 0,
    destination: 16,
    id: 32,
    instance: 36,
    protocol: 38,
    pad: 39,
});
assert_offsets!(Histogram { sum: 0, counts: 8 });
assert_offsets!(Instance {
    state: 0,
    ifindex: 4,
    addresses: 8,
    deadline_ms: 20,
    mtu: 24,
});
assert_offsets!(Parked {
    key: 0,
    end: 24,
    parked_ms: 28,
    length: 32,
    slot: 34,
    pad: 35,
    frame: 36,
});
assert_offsets!(PlainFlow {
    packets: 0,
    opened_s: 8,
    seen_s: 12,
    ifindex: 16,
    timed_end: 20,
    addresses: 24,
    timed_at: 36,
    set: 38,
    primary: 40,
    handshake: 42,
    state: 44,
    marks: 45,
    cold: 46,
    pad: 47,
});
assert_offsets!(Plan {
    head: 0,
    copies: 16
});
assert_offsets!(Head {
    magic: 0,
    transport: 2,
    flags: 4,
    timestamps: 5,
    edges: 6,
    blocks: 7,
    vni: 8,
    pad: 12,
});
assert_offsets!(Measures {
    handshake: 0,
    ack: 520,
    answer: 1040,
    stall: 1560,
    requests: 2080,
    unanswered: 2088,
});
assert_offsets!(Quic {
    ports: 0,
    lengths: 8,
    pad: 12,
});
assert_offsets!(Record {
    time_ns: 0,
    reasons: 8,
    flow: 16,
    packet: 40,
    cpu: 44,
    length: 48,
    captured: 52,
    ifindex: 56,
    instance: 60,
    program: 62,
    moment: 63,
    action: 64,
    pad: 65,
});
assert_offsets!(Replica {
    isn: 0,
    snd_nxt: 4,
    rcv_nxt: 8,
    edge: 12,
    ts_offset: 16,
    ts_last: 20,
    fin: 24,
    behind_ms: 28,
    flags: 32,
    state: 33,
    cold: 34,
    window_scale: 35,
    options: 36,
    pad: 37,
    sum: 38,
});
assert_offsets!(ReplicaSet {
    instances: 0,
    replicas: 8,
    pad: 9,
});
assert_offsets!(Served {
    instances: 0,
    set: 8,
    replicas: 10,
    active: 11,
    pad: 12,
});
assert_offsets!(Source { vni: 0, client: 4 });
assert_offsets!(TcpFlow { flow: 0, sync: 64 });
assert_offsets!(TcpSync {
    client_isn: 0,
    client_nxt: 4,
    client_ack: 8,
    client_ts: 12,
    isn: 16,
    sent: 20,
    told_ack: 24,
    told_edge: 28,
    ts_sent: 32,
    syn_steps: 36,
    client_fin: 40,
    client_window: 44,
    options: 46,
    window_scale: 47,
    client_scale: 48,
    pad: 49,
    stalled_steps: 52,
    waypoint: 56,
    replicas: 64,
});
assert_offsets!(Vitals {
    heard_ns: 0,
    owes_since_ns: 8,
    sent: 16,
    received: 24,
    resets: 32,
    early_closes: 40,
    retransmissions: 48,
    syn_since_ns: 56,
});
assert_offsets!(Vni {
    vni: 0,
    address: 2,
    flags: 3,
    lag_bytes_max: 4,
    lag_ms_max: 8,
    handshake_ms: 12,
});
assert_offsets!(VniKey { address: 0 });
assert_offsets!(Waypoint {
    at: 0,
    sum: 4,
    due: 6,
    by: 7,
});
