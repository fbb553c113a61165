//! What the agent saw become of an instance: what a model is taught to foresee, and what it is judged by. Pure.

use std::fmt;

use crate::health::Cause;

/// How an instance fares, from well to worst. The numbers are part of the recording's format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Fate {
    /// It serves.
    #[default]
    Serving = 0,
    /// Nobody can say how it would have fared: it was ordered out, its flows left, or it was set up wrongly.
    Uncertain = 1,
    /// It fell silent while others answered.
    Suspect = 2,
    /// It failed.
    Failed = 3,
}

/// A fate, and how the agent knew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// How it fares.
    pub fate: Fate,
    /// How that is known.
    pub cause: Cause,
}

impl Seen {
    /// Nothing is wrong.
    pub const WELL: Self = Self {
        fate: Fate::Serving,
        cause: Cause::None,
    };

    /// Of the two the worse.
    #[must_use]
    pub fn worst(self, other: Self) -> Self {
        match self.fate >= other.fate {
            true => self,
            false => other,
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = match self.fate {
            Fate::Serving => "seen to serve",
            Fate::Uncertain => "out, and not because it failed",
            Fate::Suspect => "seen to be suspect",
            Fate::Failed => "seen to fail",
        };
        match self.cause {
            Cause::None => f.write_str(words),
            cause => write!(f, "{words} ({cause})"),
        }
    }
}

impl Default for Seen {
    fn default() -> Self {
        Self::WELL
    }
}

/// What the agent knows of an instance.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known {
    /// Whether an operator's order stands.
    pub ordered: bool,
    /// Why it is out, if it has failed, and whether that is a suspicion.
    pub failure: Option<(Cause, bool)>,
    /// Since when its established flows leave because it is expected to fail, if they do.
    pub evacuated_ns: Option<u64>,
    /// When it refused or reset a connection last, in any role; 0: never.
    pub refused_ns: u64,
}

/// One that was left is no longer convicted by the flows that it loses: that it refuses is what shows its end. Three
/// seconds make a failure ([`super::onsets`]).
const REFUSES_NS: u64 = 4_000_000_000;

/// How an instance fares at `now_ns`.
#[must_use]
pub fn fate(known: &Known, now_ns: u64) -> Seen {
    let seen = |fate, cause| Seen { fate, cause };
    match (known.failure, known.evacuated_ns) {
        _ if known.ordered => seen(Fate::Uncertain, Cause::Operator),
        // The way to it, or how it is set up: no sign of its own foretells that.
        (
            Some((cause @ (Cause::Unresolved | Cause::NoRedirect | Cause::PartialChecksum), _)),
            _,
        ) => seen(Fate::Uncertain, cause),
        (Some((cause, true)), _) => seen(Fate::Suspect, cause),
        (Some((cause, false)), _) => seen(Fate::Failed, cause),
        (None, Some(since_ns)) => {
            let refuses =
                known.refused_ns > since_ns && now_ns.saturating_sub(known.refused_ns) < REFUSES_NS;
            match refuses {
                true => seen(Fate::Failed, Cause::Resets),
                false => seen(Fate::Uncertain, Cause::Predicted),
            }
        }
        (None, None) => Seen::WELL,
    }
}

impl Fate {
    /// The fate of a number in a recording.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        let all = [Self::Serving, Self::Uncertain, Self::Suspect, Self::Failed];
        all.into_iter().find(|fate| *fate as u8 == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(known: Known, expected: (Fate, Cause)) {
        let seen = fate(&known, 100_000_000_000);
        assert_eq!((seen.fate, seen.cause), expected, "{known:?}");
    }

    #[test]
    fn what_the_agent_knows_is_what_was_seen() {
        let known = Known::default();
        check(known, (Fate::Serving, Cause::None));
        let failed = |cause, is_suspicion| Known {
            failure: Some((cause, is_suspicion)),
            ..known
        };
        check(failed(Cause::Silent, true), (Fate::Suspect, Cause::Silent));
        for cause in [Cause::Silent, Cause::LinkDown, Cause::Resets, Cause::Probe] {
            check(failed(cause, false), (Fate::Failed, cause));
        }
        for cause in [Cause::Unresolved, Cause::NoRedirect, Cause::PartialChecksum] {
            check(failed(cause, false), (Fate::Uncertain, cause));
        }
        let ordered = Known {
            ordered: true,
            ..failed(Cause::Silent, false)
        };
        check(ordered, (Fate::Uncertain, Cause::Operator));
    }

    #[test]
    fn one_that_was_left_fails_when_it_refuses() {
        let left = |refused_ns| Known {
            evacuated_ns: Some(90_000_000_000),
            refused_ns,
            ..Known::default()
        };
        check(left(0), (Fate::Uncertain, Cause::Predicted));
        check(left(89_000_000_000), (Fate::Uncertain, Cause::Predicted));
        check(left(97_000_000_000), (Fate::Failed, Cause::Resets));
        check(left(95_000_000_000), (Fate::Uncertain, Cause::Predicted));
    }

    #[test]
    fn the_worse_counts_and_numbers_come_back() {
        let seen = |fate| Seen { fate, ..Seen::WELL };
        let worst = seen(Fate::Suspect).worst(seen(Fate::Uncertain));
        assert_eq!(worst.fate, Fate::Suspect);
        assert_eq!(seen(Fate::Serving).worst(worst), worst);
        assert_eq!(Fate::from_number(3), Some(Fate::Failed));
        assert_eq!(Fate::from_number(4), None);
    }
}
