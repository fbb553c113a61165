//! Suspect instances, and the segments that are parked for a takeover.

use mirror_common::event::cause;
use mirror_common::flow::state;
use mirror_common::instance;
use mirror_common::parked::FRAME_MAX;
use mirror_common::reason::Reason;
use mirror_common::tcp::segment::bit;

use crate::bench::{Verdict, with_bench};
use crate::check::{Expected, check};
use crate::conversation::{Conversation, canonical_seq};
use crate::health::{delivered, everywhere, from, from_client, set_state};
use crate::hosts::{A, B, FOUR, PLAIN, WEB};
use crate::tables::Table;

#[test]
fn a_suspect_is_left_but_gets_its_copies_and_is_a_warm_mirror_again() {
    with_bench(|bench| {
        for talk in everywhere() {
            bench.reset();
            let talk = talk.established(bench);
            set_state(bench, A, instance::state::SUSPECT);
            let data = talk.client(0, 0).with_payload(b"data");
            let moved = Expected::cloned(&talk.copies(0))
                .takeover(cause::SUSPECTED, A, B)
                .flow(talk.key(), Table::Mirrored, state::ESTABLISHED);
            check(bench, &from_client(&talk, &data), &moved);
            // Nobody waits for it.
            let told = delivered(&talk, &talk.canonical(0, 4)).heard(B);
            check(bench, &from(&talk, 1, &talk.replica(1, 0, 4)), &told);
            let late = Expected::drop(Reason::MirrorSuppressed).heard(A);
            check(bench, &from(&talk, 0, &talk.replica(0, 0, 4)), &late);
            set_state(bench, A, instance::state::UP);
            set_state(bench, B, instance::state::DEAD);
            let back = Expected::cloned(&talk.copies(0)[..1]).takeover(cause::DEAD, B, A);
            check(bench, &from_client(&talk, &talk.client(4, 0)), &back);
        }
    });
}

#[test]
fn a_suspect_alone_goes_on_serving() {
    with_bench(|bench| {
        let talk = Conversation::with(PLAIN).established(bench);
        set_state(bench, talk.instances()[0], instance::state::SUSPECT);
        talk.client_sends(bench, &talk.client(0, 0), Verdict::Redirect);
    });
}

#[test]
fn what_a_mirror_says_first_is_parked_as_it_came() {
    with_bench(|bench| {
        for talk in everywhere() {
            bench.reset();
            let talk = talk.established(bench);
            let ahead = talk.replica(1, 0, 0).with(bit::PSH).with_payload(b"first");
            let suppressed = Expected::drop(Reason::MirrorSuppressed).heard(B);
            check(bench, &from(&talk, 1, &ahead), &suppressed);
            let frame = talk.of_instance(1).tcp(&ahead);
            let parked = bench.tables.parked(&talk.key(), 1);
            assert_eq!(parked, Some((canonical_seq(1, 5), frame.clone())));

            // What the agent does with it: the dead one's flow moves, and the client has it.
            set_state(bench, A, instance::state::DEAD);
            let seen = talk.canonical(0, 0).with(bit::PSH).with_payload(b"first");
            let replayed = delivered(&talk, &seen).heard(B).takeover(cause::DEAD, A, B);
            check(bench, &from(&talk, 1, &ahead), &replayed);
        }
    });
}

/// A later segment takes the place of the one before; other slots have places of their own.
#[test]
fn the_newest_of_each_slot_is_kept() {
    with_bench(|bench| {
        let talk = Conversation::with(FOUR).established(bench);
        for slot in 1..4 {
            for (at, flags, said) in [(0, bit::PSH, "one"), (3, 0, "two")] {
                let said = talk
                    .replica(slot, at, 0)
                    .with(flags)
                    .with_payload(said.as_bytes());
                talk.replica_sends(bench, slot, &said, Verdict::Drop);
            }
        }
        for slot in 1..4 {
            let (end, frame) = bench.tables.parked(&talk.key(), slot as u8).unwrap();
            assert_eq!(end, canonical_seq(slot, 6));
            assert!(frame.ends_with(b"two"));
        }
    });
}

#[test]
fn the_longest_frame_fits_and_a_longer_one_is_not_parked() {
    with_bench(|bench| {
        let talk = Conversation::with(WEB).established(bench);
        let headers = talk.of_instance(1).tcp(&talk.replica(1, 0, 0)).len();
        for (length, fits) in [(FRAME_MAX, true), (FRAME_MAX + 1, false)] {
            bench.reset();
            let talk = Conversation::with(WEB).established(bench);
            let payload = vec![7; length - headers];
            let ahead = talk.replica(1, 0, 0).with(bit::PSH).with_payload(&payload);
            talk.replica_sends(bench, 1, &ahead, Verdict::Drop);
            let parked = bench.tables.parked(&talk.key(), 1);
            assert_eq!(parked.is_some_and(|(_, frame)| frame.len() == length), fits);
        }
    });
}
