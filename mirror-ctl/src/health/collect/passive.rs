//! What the dataplane notices of an instance without asking it: two looks at its counters are a reading. The same for
//! mirrors as for active replicas, since they get the same packets. Pure.

use crate::health::{
    board::Noticed,
    predict::signal::{Reading, Signal},
};

/// A share of fewer segments is chance.
const SEGMENTS_MIN: u64 = 20;

/// What happened between two looks, `before` and `now`.
#[must_use]
pub fn since(before: &Noticed, now: &Noticed) -> Reading {
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

    const BEFORE: Noticed = Noticed {
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
    }
}
