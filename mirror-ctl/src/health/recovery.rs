//! When an instance that failed may serve again. Pure.
//!
//! A probe that succeeds is proof. Without one the instance is tried out: it gets a small part
//! of the new flows, and serves fully when it was heard for a while without refusing. Each
//! failure soon after the last one doubles the wait before the next trial.

use super::Cause;

const SECOND_NS: u64 = 1_000_000_000;
/// Before the first trial.
const HOLD_NS: u64 = SECOND_NS;
/// Before the first trial of one that fell silent and has not been heard since.
const HOLD_UNHEARD_NS: u64 = 5 * SECOND_NS;
/// The wait is doubled this many times at most.
const DOUBLINGS_MAX: u32 = 6;
/// How long it must be heard on trial.
const TRIAL_NS: u64 = SECOND_NS;
/// After so long without a failure, the next one is the first again.
const FORGET_NS: u64 = 60 * SECOND_NS;
/// The part of its score that an instance on trial has.
pub const TRIAL_SCORE: f64 = 0.05;

/// A failure that is not over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Why it is taken to be dead.
    pub cause: Cause,
    /// Since when.
    pub since_ns: u64,
    /// How many failures came soon after each other before this one.
    pub repeats: u32,
}

impl Failure {
    /// A failure after `last` (its beginning and repeats), if there was one.
    pub fn after(last: Option<Self>, cause: Cause, now_ns: u64) -> Self {
        let repeats = match last {
            Some(last) if now_ns.saturating_sub(last.since_ns) < FORGET_NS => {
                (last.repeats + 1).min(DOUBLINGS_MAX)
            }
            _ => 0,
        };
        Self {
            cause,
            since_ns: now_ns,
            repeats,
        }
    }
}

/// What is known of the instance now.
#[derive(Clone, Copy, Debug)]
pub struct Signs {
    /// Since when its link is up; none: it is down.
    pub link_up_ns: Option<u64>,
    /// Whether its hardware address is known.
    pub resolved: bool,
    /// What its probe says, if it has one that was tried since the failure.
    pub probe: Option<bool>,
    /// Whether it has a probe.
    pub probed: bool,
    /// When it was heard last.
    pub heard_ns: u64,
    /// When it refused or reset a connection last.
    pub refused_ns: u64,
}

/// What becomes of a failed instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It stays out.
    Wait,
    /// It is tried out.
    Try,
    /// It serves.
    Serve,
}

/// What becomes of an instance that is out because of `failure`.
pub fn next(failure: &Failure, signs: &Signs, now_ns: u64) -> Next {
    let Some(link_up_ns) = signs.link_up_ns.filter(|_| signs.resolved) else {
        return Next::Wait;
    };
    if signs.probed {
        // Back to full service at once: the probe has seen it succeed several times.
        return match signs.probe {
            Some(true) => Next::Serve,
            _ => Next::Wait,
        };
    }
    let heard = signs.heard_ns > failure.since_ns;
    let hold = match failure.cause {
        Cause::Silent if !heard => HOLD_UNHEARD_NS,
        // Nothing was wrong with it.
        Cause::Unresolved => 0,
        _ => HOLD_NS,
    };
    let hold = hold << failure.repeats.min(DOUBLINGS_MAX);
    let calm_since = failure.since_ns.max(link_up_ns);
    if now_ns.saturating_sub(calm_since) < hold {
        return Next::Wait;
    }
    match failure.cause {
        Cause::Unresolved => Next::Serve,
        _ => Next::Try,
    }
}

/// Whether an instance on trial since `trial_ns` has stood it.
pub fn is_passed(trial_ns: u64, signs: &Signs, now_ns: u64) -> bool {
    let heard = signs.heard_ns > trial_ns;
    let refused = signs.refused_ns > trial_ns;
    heard && !refused && now_ns.saturating_sub(trial_ns) >= TRIAL_NS
}

/// Whether an instance on trial since `trial_ns` has failed it.
pub fn is_refused(trial_ns: u64, signs: &Signs) -> bool {
    signs.refused_ns > trial_ns
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = SECOND_NS;

    fn signs() -> Signs {
        Signs {
            link_up_ns: Some(0),
            resolved: true,
            probe: None,
            probed: false,
            heard_ns: 0,
            refused_ns: 0,
        }
    }

    #[track_caller]
    fn check(cause: Cause, change: impl Fn(&mut Signs), after_ns: u64, expected: Next) {
        let failure = Failure::after(None, cause, 100 * S);
        let mut signs = signs();
        change(&mut signs);
        assert_eq!(next(&failure, &signs, 100 * S + after_ns), expected);
    }

    #[test]
    fn a_link_that_is_down_is_waited_for() {
        check(
            Cause::LinkDown,
            |s| s.link_up_ns = None,
            900 * S,
            Next::Wait,
        );
        check(
            Cause::LinkDown,
            |s| s.link_up_ns = Some(109 * S),
            9 * S + S / 2,
            Next::Wait,
        );
        check(
            Cause::LinkDown,
            |s| s.link_up_ns = Some(109 * S),
            10 * S,
            Next::Try,
        );
    }

    #[test]
    fn silence_takes_longer_unless_it_was_heard() {
        check(Cause::Silent, |_| {}, 4 * S, Next::Wait);
        check(Cause::Silent, |_| {}, 5 * S, Next::Try);
        check(Cause::Silent, |s| s.heard_ns = 101 * S, 2 * S, Next::Try);
    }

    #[test]
    fn a_probe_decides_alone() {
        let probed = |probe| move |s: &mut Signs| (s.probed, s.probe) = (true, probe);
        check(Cause::Silent, probed(Some(true)), 0, Next::Serve);
        check(Cause::Silent, probed(Some(false)), 900 * S, Next::Wait);
        check(Cause::Silent, probed(None), 900 * S, Next::Wait);
    }

    #[test]
    fn repeated_failures_wait_longer() {
        let mut failure = Failure::after(None, Cause::Resets, 100 * S);
        for n in 1..10u32 {
            failure = Failure::after(Some(failure), Cause::Resets, failure.since_ns + 2 * S);
            let hold = S << n.min(DOUBLINGS_MAX);
            assert_eq!(
                next(&failure, &signs(), failure.since_ns + hold - 1),
                Next::Wait
            );
            assert_eq!(next(&failure, &signs(), failure.since_ns + hold), Next::Try);
        }
        let later = Failure::after(Some(failure), Cause::Silent, failure.since_ns + 61 * S);
        assert_eq!(later.repeats, 0);
    }

    #[test]
    fn a_trial_needs_to_be_heard_and_not_refused() {
        let heard = Signs {
            heard_ns: 101 * S,
            ..signs()
        };
        assert!(!is_passed(100 * S, &signs(), 200 * S));
        assert!(!is_passed(100 * S, &heard, 100 * S + S / 2));
        assert!(is_passed(100 * S, &heard, 101 * S));
        let refused = Signs {
            refused_ns: 101 * S,
            ..heard
        };
        assert!(!is_passed(100 * S, &refused, 200 * S));
        assert!(is_refused(100 * S, &refused) && !is_refused(100 * S, &heard));
    }
}
