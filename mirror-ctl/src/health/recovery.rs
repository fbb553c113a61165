//! When an instance that failed may serve again, and when one that is suspect is dead. Pure.
//!
//! A suspect that is heard again serves at once: its replicas missed nothing, so a false alarm
//! cost its flows a change of roles. One that stays silent is dead.
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
/// A suspect that is not heard for so long is dead.
const CONFIRM_NS: u64 = SECOND_NS;
/// A suspect must answer for so long before it serves again, and answers within that time.
const CALM_NS: u64 = 200_000_000;
/// The score that an instance on trial has at first.
const TRIAL_SCORE: f64 = 0.05;
/// When nobody has asked it anything for so long, it is doubled: of few flows, a small part may be none.
const UNASKED_NS: u64 = 2 * SECOND_NS;

/// A failure that is not over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Why it is taken to be dead.
    pub cause: Cause,
    /// Since when.
    pub since_ns: u64,
    /// How many failures came soon after each other before this one.
    pub repeats: u32,
    /// Whether it is only suspect: silence may be somebody else's, or end.
    pub is_suspicion: bool,
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
            is_suspicion: false,
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
    /// Whether the interface that leads to it takes redirected frames.
    pub redirects: bool,
    /// What its probe says, if it has one that was tried since the failure.
    pub probe: Option<bool>,
    /// Whether it has a probe.
    pub probed: bool,
    /// When it was heard last.
    pub heard_ns: u64,
    /// Since when it owes an answer; 0: it owes none.
    pub owes_since_ns: u64,
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
    /// It was suspect and is dead.
    Confirm,
}

/// What becomes of an instance that is out because of `failure`.
pub fn next(failure: &Failure, signs: &Signs, now_ns: u64) -> Next {
    if failure.is_suspicion {
        return next_of_suspect(failure, signs, now_ns);
    }
    let Some(link_up_ns) = signs
        .link_up_ns
        .filter(|_| signs.resolved && signs.redirects)
    else {
        return Next::Wait;
    };
    // Nothing was wrong with it but the way to it.
    let was_away = matches!(failure.cause, Cause::Unresolved | Cause::NoRedirect);
    if signs.probed && !was_away {
        // Back to full service at once: the probe has seen it succeed several times.
        return match signs.probe {
            Some(true) => Next::Serve,
            _ => Next::Wait,
        };
    }
    let heard = signs.heard_ns > failure.since_ns;
    let hold = match failure.cause {
        Cause::Silent if !heard => HOLD_UNHEARD_NS,
        _ if was_away => 0,
        _ => HOLD_NS,
    };
    let hold = hold << failure.repeats.min(DOUBLINGS_MAX);
    let calm_since = failure.since_ns.max(link_up_ns);
    if now_ns.saturating_sub(calm_since) < hold {
        return Next::Wait;
    }
    match was_away {
        true => Next::Serve,
        false => Next::Try,
    }
}

/// What becomes of a suspect.
fn next_of_suspect(failure: &Failure, signs: &Signs, now_ns: u64) -> Next {
    let owes = signs.owes_since_ns != 0 && signs.owes_since_ns >= signs.heard_ns;
    let silent_since = failure.since_ns.max(signs.heard_ns);
    let silent = owes && now_ns.saturating_sub(silent_since) >= CONFIRM_NS;
    if silent || signs.probe == Some(false) {
        return Next::Confirm;
    }
    let calm = CALM_NS << failure.repeats.min(DOUBLINGS_MAX);
    let heard = signs.heard_ns > failure.since_ns;
    let in_time = !owes || now_ns.saturating_sub(signs.owes_since_ns) < CALM_NS;
    if heard && in_time && now_ns.saturating_sub(failure.since_ns) >= calm {
        return Next::Serve;
    }
    Next::Wait
}

/// An instance is tried out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trial {
    since_ns: u64,
    /// The score that it has at most.
    pub score: f64,
    /// When that was set.
    scored_ns: u64,
}

impl Trial {
    /// One that begins.
    pub fn new(now_ns: u64) -> Self {
        Self {
            since_ns: now_ns,
            score: TRIAL_SCORE,
            scored_ns: now_ns,
        }
    }

    /// Whether the instance has stood it.
    pub fn is_passed(&self, signs: &Signs, now_ns: u64) -> bool {
        let heard = signs.heard_ns > self.since_ns;
        heard && !self.is_refused(signs) && now_ns.saturating_sub(self.since_ns) >= TRIAL_NS
    }

    /// Whether it has failed it.
    pub fn is_refused(&self, signs: &Signs) -> bool {
        signs.refused_ns > self.since_ns
    }

    /// The same with a greater score, if it is time for one: nobody has asked the instance anything.
    pub fn grown(&self, signs: &Signs, now_ns: u64) -> Option<Self> {
        let asked = signs.heard_ns > self.since_ns || signs.owes_since_ns > self.since_ns;
        let due = now_ns.saturating_sub(self.scored_ns) >= UNASKED_NS;
        (due && !asked && self.score < 1.0).then(|| Self {
            score: (2.0 * self.score).min(1.0),
            scored_ns: now_ns,
            ..*self
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = SECOND_NS;

    fn signs() -> Signs {
        Signs {
            link_up_ns: Some(0),
            resolved: true,
            redirects: true,
            probe: None,
            probed: false,
            heard_ns: 0,
            owes_since_ns: 0,
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
    fn a_way_that_is_closed_is_waited_for_whatever_failed() {
        for cause in [Cause::NoRedirect, Cause::Unresolved, Cause::Silent] {
            check(cause, |s| s.redirects = false, 900 * S, Next::Wait);
        }
        check(Cause::NoRedirect, |_| {}, 0, Next::Serve);
        check(Cause::PartialChecksum, |_| {}, S - 1, Next::Wait);
        check(Cause::PartialChecksum, |_| {}, S, Next::Try);
    }

    #[test]
    fn silence_takes_longer_unless_it_was_heard() {
        check(Cause::Silent, |_| {}, 4 * S, Next::Wait);
        check(Cause::Silent, |_| {}, 5 * S, Next::Try);
        check(Cause::Silent, |s| s.heard_ns = 101 * S, 2 * S, Next::Try);
    }

    #[track_caller]
    fn check_suspect(repeats: u32, heard_ms: u64, owes_ms: u64, after_ms: u64, expected: Next) {
        const MS: u64 = S / 1000;
        let failure = Failure {
            repeats,
            is_suspicion: true,
            ..Failure::after(None, Cause::Silent, 100 * S)
        };
        let signs = Signs {
            heard_ns: heard_ms * MS,
            owes_since_ns: owes_ms * MS,
            ..signs()
        };
        assert_eq!(next(&failure, &signs, 100 * S + after_ms * MS), expected);
    }

    #[test]
    fn a_suspect_that_answers_serves_and_one_that_does_not_is_dead() {
        // Suspect since 100,000 ms.
        check_suspect(0, 99_950, 99_960, 999, Next::Wait);
        check_suspect(0, 99_950, 99_960, 1_000, Next::Confirm);
        check_suspect(0, 100_050, 0, 199, Next::Wait);
        check_suspect(0, 100_050, 0, 200, Next::Serve);
        // Asked a moment ago.
        check_suspect(0, 100_190, 100_195, 200, Next::Serve);
        // Heard once, and silent again.
        check_suspect(0, 100_050, 100_060, 300, Next::Wait);
        check_suspect(0, 100_050, 100_060, 1_050, Next::Confirm);
        // It flaps: each time it takes twice as long.
        check_suspect(2, 100_700, 0, 799, Next::Wait);
        check_suspect(2, 100_700, 0, 800, Next::Serve);
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
        let trial = Trial::new(100 * S);
        let heard = Signs {
            heard_ns: 101 * S,
            ..signs()
        };
        assert!(!trial.is_passed(&signs(), 200 * S));
        assert!(!trial.is_passed(&heard, 100 * S + S / 2));
        assert!(trial.is_passed(&heard, 101 * S));
        let refused = Signs {
            refused_ns: 101 * S,
            ..heard
        };
        assert!(!trial.is_passed(&refused, 200 * S));
        assert!(trial.is_refused(&refused) && !trial.is_refused(&heard));
    }

    #[test]
    fn whom_nobody_asks_is_tried_with_more() {
        let mut trial = Trial::new(100 * S);
        assert_eq!(trial.grown(&signs(), 102 * S - 1), None);
        let mut scores = Vec::new();
        for second in 101..120 {
            if let Some(grown) = trial.grown(&signs(), second * S) {
                trial = grown;
                scores.push(trial.score);
            }
        }
        assert_eq!(scores, [0.1, 0.2, 0.4, 0.8, 1.0]);
        let asked = Signs {
            owes_since_ns: 101 * S,
            ..signs()
        };
        assert_eq!(Trial::new(100 * S).grown(&asked, 200 * S), None);
        let heard = Signs {
            heard_ns: 101 * S,
            ..signs()
        };
        assert_eq!(Trial::new(100 * S).grown(&heard, 200 * S), None);
    }
}
