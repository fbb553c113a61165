//! Checksums that a stack left to a device to complete: noticed, and not taken for right ones.

use mirror_common::event::kind;
use mirror_common::reason::Reason;

use crate::bench::with_bench;
use crate::check::{Expected, Input, check};
use crate::conversation::Conversation;
use crate::hosts::{A, Family, WEB};
use crate::packet::transport_offset;

#[test]
fn partly_computed_checksums_are_noticed() {
    with_bench(|bench| {
        for family in Family::ALL {
            bench.reset();
            let talk = Conversation::new(WEB, family);
            let ifindex = bench.network.vni_interface() as u16;
            let syn = with_partial_checksum(&talk, talk.inbound().tcp(&talk.syn()));
            let noticed = Expected::cloned(&talk.syn_copies())
                .and(Reason::PartialChecksum)
                .event(kind::PARTIAL_CHECKSUM, 0, 0xffff, ifindex);
            check(bench, &Input::from_client(syn), &noticed);
            let syn_ack = talk.of_instance(0).tcp(&talk.syn_ack(0));
            let syn_ack = with_partial_checksum(&talk, syn_ack);
            let noticed = Expected::drop(Reason::SynAckHeld)
                .and(Reason::PartialChecksum)
                .event(kind::PARTIAL_CHECKSUM, 0, A, 0)
                .heard(A);
            check(bench, &Input::from_instance(A, syn_ack), &noticed);
        }
    });
}

/// One right checksum in 65,536 is what a partly computed one would be too.
#[test]
fn a_right_checksum_is_not_partial_by_chance() {
    with_bench(|bench| {
        for family in Family::ALL {
            bench.reset();
            let talk = Conversation::new(WEB, family);
            let with_window = |window| {
                let mut syn_ack = talk.syn_ack(0);
                syn_ack.window = window;
                talk.of_instance(0).tcp(&syn_ack)
            };
            let by_chance = (0..=u16::MAX)
                .map(with_window)
                .find(|frame| with_partial_checksum(&talk, frame.clone()) == *frame)
                .unwrap();
            let syn = Input::from_client(talk.inbound().tcp(&talk.syn()));
            check(bench, &syn, &Expected::cloned(&talk.syn_copies()));
            let held = Expected::drop(Reason::SynAckHeld).heard(A);
            check(bench, &Input::from_instance(A, by_chance), &held);
        }
    });
}

/// Puts into the checksum's place what a stack leaves there for the device to complete: the sum of
/// the pseudo-header.
fn with_partial_checksum(talk: &Conversation, mut frame: Vec<u8>) -> Vec<u8> {
    let offset = transport_offset(&frame);
    let octets = |address: std::net::IpAddr| match address {
        std::net::IpAddr::V4(address) => address.octets().to_vec(),
        std::net::IpAddr::V6(address) => address.octets().to_vec(),
    };
    let addresses = [octets(talk.client.ip()), octets(talk.server.ip())].concat();
    let length = (frame.len() - offset) as u64;
    let words = addresses
        .chunks(2)
        .map(|pair| u64::from(pair[0]) << 8 | u64::from(pair[1]));
    let mut sum = words.sum::<u64>() + length + 6;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame[offset + 16..offset + 18].copy_from_slice(&(sum as u16).to_be_bytes());
    frame
}
