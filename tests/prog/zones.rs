//! New flows of clients at some places use a steering table of their own: found by the longest prefix of the source, by
//! every protocol, with and without a flow; and everybody else the VNI's.

use std::net::{IpAddr, SocketAddr};

use mirror_common::flow::{protocol, state};
use mirror_common::reason::Reason;

use crate::bench::{Bench, with_bench};
use crate::check::{Expected, Input, check};
use crate::conversation::Conversation;
use crate::hosts::{A, B, Family, PLAIN, Steering, VniHost, ZONED};
use crate::tables::Table;

/// Sources of ZONED and the instance of their table, by the prefixes in `tables.rs`.
const SOURCES: [(&str, u16); 7] = [
    // In no zone.
    ("198.51.100.1", A),
    ("2001:db9::1", A),
    ("192.0.2.1", B),
    ("2001:db8::1", B),
    // Within a zone's prefix a longer one, of a zone that uses the VNI's table.
    ("192.0.2.129", A),
    ("192.0.2.127", B),
    // A prefix names a table that is not there.
    ("203.0.113.1", A),
];

/// A connection of a source that is to reach an instance.
fn talk(vni: VniHost, source: &str, instance: u16) -> Conversation {
    let source: IpAddr = source.parse().unwrap();
    let family = match source {
        IpAddr::V4(_) => Family::V4,
        IpAddr::V6(_) => Family::V6,
    };
    let steering = match instance {
        A => Steering::Set(&[A]),
        _ => Steering::Set(&[B]),
    };
    Conversation {
        client: SocketAddr::new(source, 40_000),
        ..Conversation::new(VniHost { steering, ..vni }, family)
    }
}

#[track_caller]
fn check_syn(bench: &mut Bench, talk: &Conversation, instance: u16) {
    let syn = talk.syn();
    let expected = Expected::steered(instance, talk.to_instance(0).tcp(&syn));
    let expected = expected.flow(talk.key(), Table::HalfOpen, state::HANDSHAKE);
    check(
        bench,
        &Input::from_client(talk.inbound().tcp(&syn)),
        &expected,
    );
}

#[test]
fn a_syn_goes_by_its_sources_table() {
    with_bench(|bench| {
        for (source, instance) in SOURCES {
            bench.reset();
            check_syn(bench, &talk(ZONED, source, instance), instance);
        }
    });
}

#[test]
fn a_datagram_goes_by_its_sources_table() {
    with_bench(|bench| {
        for (source, instance) in SOURCES {
            bench.reset();
            let talk = talk(ZONED, source, instance);
            let key = talk.key_for(protocol::UDP, talk.client.port(), talk.server.port());
            let expected = Expected::steered(instance, talk.to_instance(0).udp(b"question"))
                .and(Reason::FlowOpened)
                .flow(key, Table::Datagram, state::ESTABLISHED);
            check(
                bench,
                &Input::from_client(talk.inbound().udp(b"question")),
                &expected,
            );
        }
    });
}

/// A flow whose state is lost is found again by its hash and its source, in both directions.
#[test]
fn a_flow_that_is_kept_nowhere_goes_by_its_sources_table() {
    with_bench(|bench| {
        for (source, instance) in SOURCES {
            bench.reset();
            let talk = talk(ZONED, source, instance);
            let answer = talk.of_instance(0).tcp(&talk.replica(0, 0, 4));
            let passed = Expected::pass(Reason::ReturnWithoutFlow).heard(instance);
            check(bench, &Input::from_instance(instance, answer), &passed);
            let data = talk.client(0, 0).with_payload(b"data");
            let steered = Expected::steered(instance, talk.to_instance(0).tcp(&data));
            let steered = steered.and(Reason::NoFlow);
            check(
                bench,
                &Input::from_client(talk.inbound().tcp(&data)),
                &steered,
            );
        }
    });
}

/// The prefixes are one VNI's, and only for one that says that it has some.
#[test]
fn other_vnis_have_other_tables() {
    with_bench(|bench| {
        for (source, _) in SOURCES {
            bench.reset();
            check_syn(bench, &talk(PLAIN, source, A), A);
        }
    });
}
