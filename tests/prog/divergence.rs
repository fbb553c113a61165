//! Replicas that are not level are compared within a segment: the programs sum up what is in front of the place.

use mirror_common::reason::{Cold, Reason};

use crate::bench::{Bench, Program, Verdict};
use crate::check::{Expected, Input, check};
use crate::conversation::Conversation;
use crate::delivery::on_each;
use crate::hosts::{B, WEB};

/// Bytes in front of the place: each length of a last word, and around the blocks that are summed up at once.
const LENGTHS: [usize; 12] = [1, 2, 3, 4, 5, 511, 512, 513, 1_023, 1_024, 1_025, 1_399];
/// What the longer answer goes on with.
const MORE: &[u8] = b"!?";

fn answer(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 % 251) as u8).collect()
}

/// The active replica says so much, and the client acknowledges it.
fn say_the_answer(bench: &mut Bench, talk: &Conversation, length: usize) {
    let said = talk.replica(0, 0, 0).with_payload(&answer(length));
    talk.replica_sends(bench, 0, &said, Verdict::Redirect);
    talk.client_sends(bench, &talk.client(0, length as u32), Verdict::Redirect);
}

/// What the mirror says after that.
fn of_mirror(talk: &Conversation, said: &[u8]) -> Vec<u8> {
    let segment = talk.replica(1, 0, 0).with_payload(said);
    talk.of_instance(1).tcp(&segment)
}

/// Both of them, and what becomes of it.
fn after_the_answer(
    bench: &mut Bench,
    talk: &Conversation,
    length: usize,
    mirror: &[u8],
    expected: &Expected,
) {
    say_the_answer(bench, talk, length);
    let frame = of_mirror(talk, mirror);
    check(bench, &Input::from_instance(B, frame), expected);
}

#[test]
fn a_mirror_is_compared_as_far_as_the_active_replica_got() {
    for length in LENGTHS {
        on_each(WEB, move |bench, talk| {
            let longer = [answer(length).as_slice(), MORE].concat();
            // The client has the first bytes already.
            let same = Expected::drop(Reason::MirrorSuppressed).heard(B);
            after_the_answer(bench, talk, length, &longer, &same);
        });
        on_each(WEB, move |bench, talk| {
            let mut other = [answer(length).as_slice(), MORE].concat();
            other[length - 1] ^= 0x10;
            let cold = Expected::turned(Reason::ColdReset, talk.cold_reset(1, 0))
                .heard(B)
                .cold(B, Cold::Diverged);
            after_the_answer(bench, talk, length, &other, &cold);
        });
    }
}

/// Its checksum says what it was to say, and nothing is held against it.
#[test]
fn a_damaged_segment_shows_nothing() {
    const LENGTH: usize = 700;
    on_each(WEB, |bench, talk| {
        say_the_answer(bench, talk, LENGTH);
        let longer = [answer(LENGTH).as_slice(), MORE].concat();
        let mut frame = of_mirror(talk, &longer);
        let place = frame.len() - MORE.len() - 10;
        frame[place] ^= 0x40;
        let link = bench.network.link(B);
        let outcome = bench.run(Program::InstanceReturn, link, &frame);
        assert_eq!(outcome.verdict, Verdict::Drop);
        assert!(bench.tables.events().is_empty());
    });
}
