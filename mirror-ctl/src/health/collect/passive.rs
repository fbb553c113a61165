//! What the dataplane notices of an instance without asking it: looks at its counters and histograms, and what happened
//! between two of them is a reading. The same for mirrors as for active replicas, since they get the same packets. Pure.

use std::collections::VecDeque;

use mirror_common::{histogram::Histogram, instance::Measures};

use super::times::{grown, percentile};
use crate::health::{
    board::Noticed,
    predict::signal::{Reading, Signal},
};

/// A share of fewer segments is chance.
const SEGMENTS_MIN: u64 = 20;
/// Times and SYNs are those of the last tick, and of so many as it takes to have
const ENOUGH: u64 = 20;
/// of these, at most,
const LOOKS_MAX: usize = 5;
/// but the median of fewer is chance; for the 99th percentile it takes [`ENOUGH`].
const MEDIAN_MIN: u64 = 5;

/// The last looks at an instance, the latest last.
#[derive(Clone, Debug, Default)]
pub struct Passive {
    looks: VecDeque<Look>,
}

#[derive(Clone, Debug)]
struct Look {
    noticed: Noticed,
    /// None: they could not be read.
    measures: Option<Measures>,
}

impl Passive {
    /// Takes another look; what happened since the one before. None: there was none, or of another instance.
    pub fn look(&mut self, noticed: Noticed, measures: Option<Measures>) -> Option<Reading> {
        let before = self.looks.back().map(|look| look.noticed);
        let before = before.filter(|before| before.number == noticed.number);
        if before.is_none() {
            self.looks.clear();
        }
        let reading = before.map(|before| {
            let mut reading = since(&before, &noticed);
            if let Some(measures) = &measures {
                self.measured(&noticed, measures, &mut reading);
            }
            reading
        });
        self.looks.push_back(Look { noticed, measures });
        if self.looks.len() > LOOKS_MAX {
            self.looks.pop_front();
        }
        reading
    }

    /// What the dataplane measured.
    fn measured(&self, noticed: &Noticed, now: &Measures, reading: &mut Reading) {
        let times = |of: fn(&Measures) -> &Histogram| {
            self.widened(|before| {
                let times = grown(of(before), of(now))?;
                Some((times.number(), times))
            })
        };
        for (of, p50, p99) in [
            (
                times(|measures| &measures.handshake),
                Signal::SynAckP50,
                Signal::SynAckP99,
            ),
            (
                times(|measures| &measures.ack),
                Signal::AckP50,
                Signal::AckP99,
            ),
            (
                times(|measures| &measures.answer),
                Signal::AnswerP50,
                Signal::AnswerP99,
            ),
        ] {
            let Some((number, times)) = of else { continue };
            for (signal, share, least) in [(p50, 0.5, MEDIAN_MIN), (p99, 0.99, ENOUGH)] {
                if number >= least
                    && let Some(time_ms) = percentile(&times, share)
                {
                    reading.set(signal, time_ms as f32);
                }
            }
        }
        let syns = self.widened(|before| {
            let unanswered = now.unanswered.checked_sub(before.unanswered)?;
            let answered = grown(&before.handshake, &now.handshake)?;
            Some((answered.number() + unanswered, unanswered))
        });
        if let Some((all, unanswered)) = syns.filter(|(all, _)| *all >= MEDIAN_MIN) {
            reading.set(Signal::SynTimeouts, unanswered as f32 / all as f32);
        }
        let last = self.looks.back().and_then(|look| {
            let requests = now.requests.checked_sub(look.measures.as_ref()?.requests)?;
            let span_ns = noticed.at_ns.checked_sub(look.noticed.at_ns)?;
            (span_ns > 0).then(|| requests as f64 / span_ns as f64 * 1e9)
        });
        if let Some(rate) = last {
            reading.set(Signal::RequestRate, rate as f32);
        }
    }

    /// What happened since an earlier look, the latest that saw [`ENOUGH`] of it, or else the first of them; and how much
    /// that was.
    fn widened<T>(&self, since: impl Fn(&Measures) -> Option<(u64, T)>) -> Option<(u64, T)> {
        let mut found = None;
        for look in self.looks.iter().rev() {
            // Looks that could not be read are passed over; a counter that went back ends it.
            let Some(before) = &look.measures else {
                continue;
            };
            let Some((number, happened)) = since(before) else {
                break;
            };
            found = Some((number, happened));
            if number >= ENOUGH {
                break;
            }
        }
        found
    }
}

/// What happened between two looks, `before` and `now`.
#[must_use]
fn since(before: &Noticed, now: &Noticed) -> Reading {
    let mut reading = Reading::default();
    if now.at_ns <= before.at_ns {
        return reading;
    }
    // A counter that went back is that of an instance that was removed and came again.
    let grown = |of: fn(&Noticed) -> u64| of(now).checked_sub(of(before));
    let received = grown(|n| n.vitals.received);
    let share = |part: Option<u64>, all: Option<u64>| Some(part? as f32 / all? as f32);
    let segments = received.filter(|received| *received >= SEGMENTS_MIN);
    if let Some(share) = share(grown(|n| n.vitals.retransmissions), segments) {
        reading.set(Signal::Retransmissions, share.min(1.0));
    }
    let flows = Some(now.flows).filter(|flows| *flows > 0);
    let resets = grown(|n| n.vitals.resets);
    let reset_or_open = resets.zip(flows).map(|(resets, flows)| resets + flows);
    if let Some(share) = share(resets, reset_or_open) {
        reading.set(Signal::Resets, share);
    }
    if let Some(share) = share(Some(now.diverged), flows) {
        reading.set(Signal::Divergence, share.min(1.0));
    }
    if let Some(requests) = now.in_flight {
        reading.set(Signal::InFlight, requests as f32);
    }
    if let Some(bytes) = now.lag_bytes {
        reading.set(Signal::MirrorLag, bytes as f32);
    }
    if now.vitals.sent > 0 {
        let owes = Some(now.vitals.owes_since_ns).filter(|since| *since > now.vitals.heard_ns);
        let silence_ns = owes.map_or(0, |since| now.at_ns.saturating_sub(since));
        reading.set(Signal::Silence, silence_ns as f32 / 1e6);
    }
    reading
}

#[cfg(test)]
mod tests {
    use mirror_common::instance::Vitals;

    use super::*;
    use crate::health::learning::fate::Seen;

    const BEFORE: Noticed = Noticed {
        number: 7,
        at_ns: 1_000_000_000,
        vitals: Vitals {
            heard_ns: 990_000_000,
            owes_since_ns: 0,
            sent: 1_000,
            received: 900,
            resets: 1,
            early_closes: 0,
            retransmissions: 10,
            syn_since_ns: 0,
        },
        flows: 50,
        diverged: 0,
        in_flight: None,
        lag_bytes: None,
        seen: Seen::WELL,
    };

    #[track_caller]
    fn check(change: impl FnOnce(&mut Noticed), signal: Signal, expected: Option<f32>) {
        let mut now = BEFORE;
        now.at_ns += 1_000_000_000;
        now.vitals.received += 100;
        change(&mut now);
        let found = since(&BEFORE, &now).get(signal);
        assert_eq!(found, expected, "{}", signal.name());
    }

    #[test]
    fn differences_worked_by_hand() {
        check(
            |n| n.vitals.retransmissions += 5,
            Signal::Retransmissions,
            Some(0.05),
        );
        check(|n| n.vitals.received -= 81, Signal::Retransmissions, None);
        check(
            |n| n.vitals.retransmissions -= 1,
            Signal::Retransmissions,
            None,
        );
        check(|n| n.vitals.resets += 50, Signal::Resets, Some(0.5));
        check(|n| n.flows = 0, Signal::Resets, None);
        check(|n| n.diverged = 5, Signal::Divergence, Some(0.1));
        check(|_| {}, Signal::Silence, Some(0.0));
        check(
            |n| n.vitals.owes_since_ns = 1_900_000_000,
            Signal::Silence,
            Some(100.0),
        );
        // It has answered since.
        check(
            |n| (n.vitals.owes_since_ns, n.vitals.heard_ns) = (1_900_000_000, 1_950_000_000),
            Signal::Silence,
            Some(0.0),
        );
        check(|n| n.vitals.sent = 0, Signal::Silence, None);
        check(|n| n.at_ns = BEFORE.at_ns, Signal::Divergence, None);
        check(|_| {}, Signal::InFlight, None);
        check(|n| n.in_flight = Some(0), Signal::InFlight, Some(0.0));
        check(|n| n.in_flight = Some(9), Signal::InFlight, Some(9.0));
        check(|n| n.lag_bytes = Some(800), Signal::MirrorLag, Some(800.0));
    }

    /// What one tick of a second adds: so many handshakes, acknowledgements and answers of so many steps, requests, unanswered SYNs.
    #[derive(Clone, Copy, Default)]
    struct Second {
        handshakes: (u32, u32),
        acks: (u32, u32),
        answers: (u32, u32),
        requests: u64,
        unanswered: u64,
    }

    /// The reading after these seconds, of which `unread` could not be read.
    fn reading_after(seconds: &[Second], unread: Option<usize>) -> Reading {
        let (mut passive, mut measures, mut noticed) =
            (Passive::default(), Measures::default(), BEFORE);
        assert_eq!(passive.look(noticed, Some(measures)), None);
        let mut reading = Reading::default();
        for (place, second) in seconds.iter().enumerate() {
            for (histogram, (number, steps)) in [
                (&mut measures.handshake, second.handshakes),
                (&mut measures.ack, second.acks),
                (&mut measures.answer, second.answers),
            ] {
                (0..number).for_each(|_| histogram.count(steps));
            }
            measures.requests += second.requests;
            measures.unanswered += second.unanswered;
            noticed.at_ns += 1_000_000_000;
            let read = (Some(place) != unread).then_some(measures);
            reading = passive.look(noticed, read).unwrap();
        }
        reading
    }

    #[track_caller]
    fn check_after(seconds: &[Second], expected: &[(Signal, Option<f32>)]) {
        let reading = reading_after(seconds, None);
        for (signal, expected) in expected {
            let found = reading.get(*signal);
            match (found, expected) {
                (Some(found), Some(expected)) => {
                    assert!(
                        (found - expected).abs() < 1e-3,
                        "{}: {found}",
                        signal.name()
                    );
                }
                (found, expected) => assert_eq!(found, *expected, "{}", signal.name()),
            }
        }
    }

    #[test]
    fn times_are_those_of_the_last_tick() {
        // 64 to 79 steps of 16.384 µs are one bucket: its middle is 72, 1.180 ms, and .99 of it 79.84, 1.308 ms.
        let early = Second {
            handshakes: (100, 5_000),
            acks: (100, 5_000),
            answers: (100, 5_000),
            requests: 400,
            unanswered: 50,
        };
        let late = Second {
            handshakes: (50, 70),
            acks: (100, 18),
            answers: (100, 60),
            requests: 250,
            unanswered: 0,
        };
        check_after(
            &[early, late],
            &[
                (Signal::SynAckP50, Some(1.1796)),
                (Signal::SynAckP99, Some(1.3081)),
                // 16 to 19 steps: 18 in the middle, 19.96 at .99.
                (Signal::AckP50, Some(0.2949)),
                (Signal::AckP99, Some(0.3270)),
                // 56 to 63.
                (Signal::AnswerP50, Some(0.9830)),
                (Signal::RequestRate, Some(250.0)),
                (Signal::SynTimeouts, Some(0.0)),
            ],
        );
        check_after(&[late, early], &[(Signal::SynTimeouts, Some(1.0 / 3.0))]);
    }

    #[test]
    fn few_times_are_added_to_those_of_ticks_before() {
        let one = Second {
            handshakes: (1, 70),
            unanswered: 1,
            ..Second::default()
        };
        // Four SYNs, two answered: chance.
        check_after(
            &[one, one],
            &[
                (Signal::SynAckP50, None),
                (Signal::SynTimeouts, None),
                (Signal::AckP50, None),
                (Signal::RequestRate, Some(0.0)),
            ],
        );
        let five = [one; 5];
        check_after(
            &five,
            &[
                (Signal::SynAckP50, Some(1.1796)),
                (Signal::SynAckP99, None),
                (Signal::SynTimeouts, Some(0.5)),
            ],
        );
        // Those of the sixth second before are over.
        let many = Second {
            handshakes: (19, 5_000),
            ..Second::default()
        };
        let mut seconds = vec![many];
        seconds.extend([one; 5]);
        check_after(&seconds, &[(Signal::SynAckP50, Some(1.1796))]);
        // Nineteen and one of these are enough; 4,096 to 5,119 steps are one bucket, half of twenty its 10th of 19.
        let ten = Second {
            handshakes: (1, 5_000),
            ..Second::default()
        };
        check_after(&[many, ten], &[(Signal::SynAckP50, Some(75.4974))]);
    }

    #[test]
    fn what_could_not_be_read_is_missing_and_then_made_up_for() {
        let second = Second {
            handshakes: (50, 70),
            requests: 10,
            ..Second::default()
        };
        let missing = reading_after(&[second, second], Some(1));
        for signal in [Signal::SynAckP50, Signal::SynTimeouts, Signal::RequestRate] {
            assert_eq!(missing.get(signal), None, "{}", signal.name());
        }
        assert_eq!(missing.get(Signal::Silence), Some(0.0));
        let after = reading_after(&[second, second, second], Some(1));
        assert!(after.get(Signal::SynAckP50).is_some());
        assert_eq!(
            after.get(Signal::RequestRate),
            None,
            "since a look that is missing"
        );
    }

    #[test]
    fn another_instance_of_the_same_name_begins_anew() {
        let mut passive = Passive::default();
        passive.look(BEFORE, Some(Measures::default()));
        let mut other = BEFORE;
        (other.number, other.at_ns) = (8, other.at_ns + 1_000_000_000);
        assert_eq!(passive.look(other, Some(Measures::default())), None);
        other.at_ns += 1_000_000_000;
        assert!(passive.look(other, Some(Measures::default())).is_some());
    }
}
