//! When a challenger takes the champion's place, and when it has to give it back. Pure.

use serde::Serialize;

use super::contest::Score;

/// So many failures have to be seen by both before one is promoted,
const FAILURES_MIN: u64 = 5;
/// and so many seconds of instances: an hour of one.
const ROWS_MIN: u64 = 3_600;
/// The log-loss of one that is clearly better is at most this part of the champion's,
const BETTER: f64 = 0.95;
/// and it foresaw at least so much of the failures better, by thirds: one failure must not decide alone.
const WINS_THIRDS: u64 = 2;
/// One that was promoted has to go after fewer failures than it took: damage is being done.
const RELAPSE_FAILURES_MIN: u64 = 3;

/// What a score means for a challenger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Next {
    /// Nothing yet.
    Wait(Why),
    /// The challenger becomes the champion.
    Promote,
    /// The new champion stays for good.
    Confirm,
    /// The champion before comes back.
    RollBack,
}

/// Why nothing is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
pub enum Why {
    /// There is nobody to compare with.
    #[error("there is no challenger")]
    Alone,
    /// Too little was seen.
    #[error("{failures} of {needed} failures and {rows} of {rows_needed} seconds were seen")]
    Early {
        /// Failures seen.
        failures: u64,
        /// Needed.
        needed: u64,
        /// Seconds of instances judged.
        rows: u64,
        /// Needed.
        rows_needed: u64,
    },
    /// Its log-loss is not clearly lower.
    #[error("its log-loss is not clearly lower")]
    LogLoss,
    /// Its Brier score is higher.
    #[error("its Brier score is higher")]
    Brier,
    /// Too few failures were foreseen better.
    #[error("it foresaw too few of the failures better")]
    Wins,
    /// It raises more false alarms.
    #[error("it raises more false alarms")]
    FalseAlarms,
}

fn early(score: &Score, needed: u64, rows_needed: u64) -> Option<Next> {
    let is_early = score.failures < needed || score.rows < rows_needed;
    is_early.then_some(Next::Wait(Why::Early {
        failures: score.failures,
        needed,
        rows: score.rows,
        rows_needed,
    }))
}

/// Of a challenger in shadow.
#[must_use]
pub fn of_challenger(score: &Score) -> Next {
    if let Some(early) = early(score, FAILURES_MIN, ROWS_MIN) {
        return early;
    }
    let [champion, challenger] = &score.sides;
    let why = if challenger.log_loss > BETTER * champion.log_loss {
        Why::LogLoss
    } else if challenger.brier > champion.brier {
        Why::Brier
    } else if 3 * score.wins < WINS_THIRDS * score.failures {
        Why::Wins
    } else if challenger.false_alarms > champion.false_alarms {
        Why::FalseAlarms
    } else {
        return Next::Promote;
    };
    Next::Wait(why)
}

/// Of a champion that was promoted; the one before it is in shadow now, in the challenger's place.
#[must_use]
pub fn of_promoted(score: &Score) -> Next {
    if let Some(early) = early(score, RELAPSE_FAILURES_MIN, 0) {
        return early;
    }
    let [promoted, before] = &score.sides;
    let is_worse = before.log_loss <= BETTER * promoted.log_loss;
    if is_worse && 2 * score.wins > score.failures {
        return Next::RollBack;
    }
    early(score, FAILURES_MIN, ROWS_MIN).unwrap_or(Next::Confirm)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::learning::contest::Side;

    /// Champion: log-loss .10 a row, Brier .05, two false alarms. Challenger: .09, .04, two; better on four of five failures.
    fn score() -> Score {
        let side = |log_loss: f64, brier: f64| Side {
            log_loss: log_loss * 4_000.0,
            brier: brier * 4_000.0,
            false_alarms: 2,
            caught: 4,
        };
        Score {
            hour: 0,
            rows: 4_000,
            failures: 5,
            wins: 4,
            sides: [side(0.10, 0.05), side(0.09, 0.04)],
        }
    }

    #[track_caller]
    fn check(rule: fn(&Score) -> Next, change: impl FnOnce(&mut Score), expected: Next) {
        let mut score = score();
        change(&mut score);
        assert_eq!(rule(&score), expected, "{score:?}");
    }

    #[test]
    fn a_challenger_must_be_clearly_better_on_enough() {
        let rule = of_challenger;
        check(rule, |_| {}, Next::Promote);
        check(
            rule,
            |s| s.failures = 4,
            Next::Wait(Why::Early {
                failures: 4,
                needed: 5,
                rows: 4_000,
                rows_needed: 3_600,
            }),
        );
        let early = |next| matches!(next, Next::Wait(Why::Early { .. }));
        assert!(early(of_challenger(&Score {
            rows: 3_599,
            ..score()
        })));
        check(
            rule,
            |s| s.sides[1].log_loss = 0.096 * 4_000.0,
            Next::Wait(Why::LogLoss),
        );
        check(
            rule,
            |s| s.sides[1].log_loss = 0.0949 * 4_000.0,
            Next::Promote,
        );
        check(
            rule,
            |s| s.sides[1].brier = 0.051 * 4_000.0,
            Next::Wait(Why::Brier),
        );
        check(rule, |s| s.wins = 3, Next::Wait(Why::Wins));
        check(
            rule,
            |s| s.sides[1].false_alarms = 3,
            Next::Wait(Why::FalseAlarms),
        );
    }

    #[test]
    fn one_that_was_promoted_goes_sooner_than_it_came() {
        let rule = of_promoted;
        let three = |s: &mut Score| (s.failures, s.wins, s.rows) = (3, 2, 400);
        check(rule, three, Next::RollBack);
        check(
            rule,
            |s| s.failures = 2,
            Next::Wait(Why::Early {
                failures: 2,
                needed: 3,
                rows: 4_000,
                rows_needed: 0,
            }),
        );
        // As good as the one before: it stays once enough was seen.
        let as_good = |s: &mut Score| s.sides[1] = s.sides[0];
        check(rule, as_good, Next::Confirm);
        check(
            rule,
            |s| {
                three(s);
                as_good(s);
            },
            Next::Wait(Why::Early {
                failures: 3,
                needed: 5,
                rows: 400,
                rows_needed: 3_600,
            }),
        );
        check(rule, |s| s.wins = 2, Next::Confirm);
    }
}
