//! Replicas that say something else than the active one do not stay warm.

use super::hosts::{A, B, C, D, everywhere};
use super::say::{Say, Seen, ack, data, delivered};
use crate::{
    reason::{Cold, Reason},
    tcp::{Part, Waypoint, replica},
};

const SUPPRESSED: Seen = Seen::Dropped(Reason::MirrorSuppressed);
/// In place of a replica: the client says something.
const CLIENT: u8 = u8::MAX;

/// Says segments, the client having the last word, and sees who is warm then.
#[track_caller]
fn check(replicas: u8, said: &[(u8, Say)], warm: &[u8]) {
    everywhere(|net| {
        net.establish(replicas);
        for (slot, say) in said.iter().chain(&[(CLIENT, ack(0))]) {
            if *slot == CLIENT {
                let _ = net.client_says(*say);
            } else {
                let _ = net.replica_says(*slot, *say);
            }
        }
        net.check_warm(warm);
    });
}

/// One slot's stream, cut there.
fn cut(slot: u8, ends: &[i32]) -> Vec<(u8, Say)> {
    let starts = [0].into_iter().chain(ends.iter().copied());
    let parts = starts.zip(ends);
    parts
        .map(|(from, to)| (slot, data(from, (to - from) as u32)))
        .collect()
}

#[test]
fn the_first_differing_answer_shows_it() {
    for order in [[A, B], [B, A]] {
        everywhere(|net| {
            net.establish(2);
            for slot in order {
                let say = data(0, 100);
                let say = if slot == B { say.astray() } else { say };
                let _ = net.replica_says(slot, say);
            }
            net.check_warm(&[A, B]);
            net.check_client(data(0, 10).acks(100), &[(A, 100)]);
            net.check_went_cold(B, Cold::Diverged);
            net.check(B, data(100, 10), Seen::Refused(0));
        });
    }
}

#[test]
fn a_mirror_that_has_diverged_does_not_take_over() {
    everywhere(|net| {
        net.establish(3);
        net.check(A, data(0, 100), delivered(0, 0));
        net.check(B, data(0, 100).astray(), SUPPRESSED);
        net.check(C, data(0, 60), SUPPRESSED);
        net.die(A);
        net.check_client(ack(100), &[(C, 60)]);
        net.check_went_cold(B, Cold::Diverged);
        assert_eq!(net.flow.flow.active, C);
    });
}

#[test]
fn equal_streams_stay_warm_however_they_are_cut() {
    let one = cut(A, &[100, 101, 350, 400, 777]);
    let other = cut(B, &[3, 350, 351, 777]);
    check(2, &[one.clone(), other.clone()].concat(), &[A, B]);
    check(2, &[other.clone(), one.clone()].concat(), &[A, B]);
    let mixed = [&one[..3], &other[..2], &one[3..], &other[2..]].concat();
    check(2, &mixed, &[A, B]);
    // A difference anywhere shows as soon as they are level.
    for place in 0..other.len() {
        let mut astray = other.clone();
        astray[place].1 = astray[place].1.astray();
        check(2, &[&one[..], &astray[..place]].concat(), &[A, B]);
        check(2, &[one.clone(), astray].concat(), &[A]);
    }
}

/// Replicas whose answers differ in length are never level when the client speaks.
#[test]
fn answers_of_other_lengths_are_found_out_with_the_second() {
    for (of_active, of_mirror) in [(100, 105), (105, 100), (999, 998), (7, 8)] {
        let answer = |slot: u8, turn: i32| match (slot, turn) {
            (A, _) => vec![data(turn * of_active, of_active as u32)],
            (_, 0) if of_mirror > of_active => {
                let rest = (of_mirror - of_active) as u32;
                vec![data(0, of_active as u32), data(of_active, rest).astray()]
            }
            (_, 0) => vec![data(0, of_mirror as u32)],
            _ => vec![data(turn * of_mirror, of_mirror as u32).astray()],
        };
        for order in [[A, B], [B, A]] {
            let said =
                |turn| order.map(|slot| answer(slot, turn).into_iter().map(move |say| (slot, say)));
            let first: Vec<_> = said(0).into_iter().flatten().collect();
            check(2, &first, &[A, B]);
            let client = (CLIENT, ack(of_active));
            let second = said(1).into_iter().flatten();
            let both: Vec<_> = first
                .iter()
                .copied()
                .chain([client])
                .chain(second)
                .collect();
            check(2, &both, &[A]);
        }
    }
}

/// Whoever is behind when the client speaks is compared where the other was.
#[test]
fn a_longer_answer_is_compared_as_far_as_the_shorter_one() {
    for (first, second) in [(A, B), (B, A)] {
        let answers = |astray: bool| {
            let say = |slot: u8, length: u32| {
                let say = data(0, length);
                (
                    slot,
                    if slot == B && astray {
                        say.astray()
                    } else {
                        say
                    },
                )
            };
            [say(first, 100), (CLIENT, ack(0)), say(second, 101)]
        };
        check(2, &answers(false), &[A, B]);
        check(2, &answers(true), &[A]);
    }
}

#[test]
fn each_mirror_that_is_ahead_has_its_turn() {
    // A is always the last, and what C and D say is another's from the second round on.
    for astray in [B, C, D] {
        let mut said = Vec::new();
        for round in 0..9 {
            for slot in [B, C, D, A] {
                let ahead = if slot == A { 0 } else { 10 * i32::from(slot) };
                let from = if round == 0 { 0 } else { round * 100 + ahead };
                let end = (round + 1) * 100 + ahead;
                let say = data(from, (end - from) as u32);
                let goes_astray = slot == astray && round == 1;
                said.push((slot, if goes_astray { say.astray() } else { say }));
            }
            said.push((CLIENT, ack((round + 1) * 100)));
        }
        let warm: Vec<u8> = [A, B, C, D].into_iter().filter(|s| *s != astray).collect();
        check(4, &said, &warm);
    }
}

/// Who was to pass a waypoint and went cold, or was to be passed by and is not active any more, keeps nobody from being compared.
#[test]
fn a_waypoint_that_nobody_will_pass_is_given_up() {
    everywhere(|net| {
        net.establish(3);
        net.check(A, data(0, 100), delivered(0, 0));
        let _ = net.client_says(ack(100));
        net.check(B, data(0, 101), SUPPRESSED);
        // C never says anything.
        net.die(C);
        let _ = net.client_says(data(0, 10).acks(100));
        net.check_went_cold(C, Cold::InstanceDead);
        net.check(A, data(100, 100), delivered(100, 0));
        let _ = net.client_says(ack(200));
        net.check(B, data(101, 100).astray(), Seen::Refused(0));
        net.check_went_cold(B, Cold::Diverged);
    });
    everywhere(|net| {
        net.establish(3);
        net.check(B, data(0, 50), SUPPRESSED);
        let _ = net.client_says(ack(0));
        net.die(A);
        let _ = net.client_says(data(0, 10).acks(0));
        assert_eq!(net.flow.flow.active, C);
        let _ = net.client_says(ack(0));
        net.check(C, data(0, 51).astray(), delivered(0, 0));
        net.check_went_cold(B, Cold::Diverged);
    });
}

/// The segment is summed up before the flow is locked.
#[test]
fn a_part_that_ends_elsewhere_shows_nothing() {
    everywhere(|net| {
        net.establish(2);
        net.check(A, data(0, 100), delivered(0, 0));
        let _ = net.client_says(ack(100));
        let segment = net.replica_segment_of(B, data(0, 150));
        net.conditions.part = Part {
            length: 60,
            sum: 0x1234,
        };
        let _ = replica::receive(&mut net.flow, B, &segment, &net.conditions, &mut net.notes);
        net.check_warm(&[A, B]);
    });
}

/// Neither of the two is the active replica any more, and so neither is right.
#[test]
fn a_waypoint_counts_while_the_same_replica_is_active() {
    everywhere(|net| {
        net.establish(3);
        net.check(B, data(0, 50).astray(), SUPPRESSED);
        let _ = net.client_says(ack(0));
        net.evacuate(A);
        let _ = net.client_says(ack(0));
        assert_eq!(net.flow.flow.active, C);
        let _ = net.replica_says(A, data(0, 51));
        net.check_warm(&[A, B, C]);
    });
}

/// Numbers that are not known yet say nothing about who is ahead.
#[test]
fn no_waypoint_is_set_in_the_handshake() {
    everywhere(|net| {
        net.open(2);
        let _ = net.syn_ack(B);
        let syn = net.syn();
        let _ = net.client_segment(&syn);
        assert_eq!(net.flow.sync.waypoint, Waypoint::default());
    });
}

#[test]
fn what_is_sent_again_is_not_counted_twice() {
    let said = [
        (A, data(0, 100)),
        (A, data(0, 100)),
        (B, data(0, 50)),
        (B, data(0, 50)),
        (B, data(50, 50)),
        (A, data(100, 7)),
        (B, data(100, 7)),
    ];
    check(2, &said, &[A, B]);
}

/// Lost in front of us, cut anew, or in a header whose sum is not taken.
#[test]
fn a_replica_that_was_not_heard_out_is_compared_once_it_has_been_level() {
    for unheard in [data(100, 50), data(40, 60), data(50, 50).sack()] {
        let end = unheard.seq.unwrap() + unheard.payload as i32;
        for (first, second) in [(A, B), (B, A)] {
            let again = |say: Say| {
                [
                    (first, data(0, end as u32)),
                    (second, data(0, 50)),
                    (second, unheard.astray()),
                    (CLIENT, ack(0)),
                    (A, data(end, 10)),
                    (B, say),
                ]
            };
            check(2, &again(data(end, 10)), &[A, B]);
            check(2, &again(data(end, 10).astray()), &[A]);
        }
    }
}

#[test]
fn a_new_count_is_everybodys() {
    // A has lost its sum. B is there when the new count begins, C comes later with an old one.
    let again = |b: Say, c: Say| {
        [
            (A, data(10, 90)),
            (B, data(0, 100)),
            (C, data(0, 90)),
            (CLIENT, ack(0)),
            (A, data(100, 20)),
            (B, data(100, 20)),
            (C, data(90, 30)),
            (CLIENT, ack(0)),
            (A, data(120, 30)),
            (B, b),
            (C, c),
        ]
    };
    let same = data(120, 30);
    check(3, &again(same, same), &[A, B, C]);
    check(3, &again(same.astray(), same), &[A, C]);
    check(3, &again(same, same.astray()), &[A, B]);
}

/// Its own is of the stream from the beginning, and nobody else's is.
#[test]
fn who_joins_after_a_new_count_has_no_sum() {
    everywhere(|net| {
        net.open(2);
        net.wait(5);
        let _ = net.syn_ack(A);
        net.complete();
        net.check(A, data(10, 90), delivered(10, 0));
        net.check(A, data(0, 10), delivered(0, 0));
        net.check_client(ack(100), &[(A, 100)]);
        net.wait(20);
        let _ = net.syn_ack(B);
        net.check(B, data(0, 100), Seen::Turned(100));
        net.check_client(ack(100), &[(A, 100), (B, 100)]);
        net.check_warm(&[A, B]);
        // From here on they are compared.
        net.check(A, data(100, 10), delivered(100, 0));
        net.check(B, data(100, 10).astray(), SUPPRESSED);
        let _ = net.client_says(ack(110));
        net.check_went_cold(B, Cold::Diverged);
    });
}

#[test]
fn nothing_has_two_sums() {
    everywhere(|net| {
        net.establish(2);
        for (slot, sum) in [(A, 0), (B, 0xffff)] {
            let mut zeros = net.replica_segment_of(slot, data(0, 100));
            (zeros.sum, zeros.has_sum) = (sum, true);
            let _ = net.replica_segment(slot, &zeros);
        }
        let _ = net.client_says(ack(100));
        net.check_warm(&[A, B]);
    });
}
