//! Where the engine, at its own pace, leaves what it expects for whoever decides, and finds what the dataplane noticed.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use mirror_common::instance::Vitals;

use super::{
    learning::{
        fate::Seen,
        referee::{Seated, Standing as Contest},
    },
    predict::{
        engine::{Outlook, Standing},
        explain::Reason,
    },
};

/// What is said of one instance, as a member of one VNI.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// The instance.
    pub instance: String,
    /// What is expected of it; none: its source does not answer, or has not for long enough.
    pub outlook: Option<Outlook>,
    /// Whether it has a source and that does not answer.
    pub missing: bool,
    /// In how many seconds its memory is used up.
    pub depletion_s: Option<f32>,
    /// Which signals raise its risk, the greatest first.
    pub reasons: Vec<Reason>,
    /// Its signals.
    pub standings: Vec<Standing>,
}

/// What is said of all instances at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Judged {
    /// Greater each time.
    pub number: u64,
    /// When, `CLOCK_MONOTONIC`.
    pub made_ns: u64,
    /// Seconds from one to the next.
    pub tick_s: f32,
    /// By VNI.
    pub vnis: Vec<(String, Vec<Judgement>)>,
    /// How champion and challenger stand; none without a model.
    pub standing: Option<Contest>,
}

/// What the dataplane noticed of an instance.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Noticed {
    /// Its number in the dataplane.
    pub number: u32,
    /// When it was read, `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// Its counters.
    pub vitals: Vitals,
    /// Flows that it has a part in.
    pub flows: u64,
    /// Of those, the ones whose output left the active replica's.
    pub diverged: u64,
    /// Requests that it has not answered; none: not known yet.
    pub in_flight: Option<u64>,
    /// Bytes by which it trails as a mirror, over all its flows; none: it mirrors nothing, or it is not known yet.
    pub lag_bytes: Option<u64>,
    /// How it fares, by what the agent knows: the worst since it was read last.
    pub seen: Seen,
}

/// Both, shared with the engine's task.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<Mutex<Sheets>>);

#[derive(Debug, Default)]
struct Sheets {
    judged: Arc<Judged>,
    noticed: HashMap<String, Noticed>,
    seated: Arc<Seated>,
    /// Whether the engine has read what was noticed.
    read: bool,
}

impl Board {
    /// Leaves what is expected from now on; its number is given here.
    pub fn post(&self, judged: Judged) {
        self.with(|sheets| {
            let number = sheets.judged.number + 1;
            sheets.judged = Arc::new(Judged { number, ..judged });
        });
    }

    /// What was left last.
    pub fn judged(&self) -> Arc<Judged> {
        self.with(|sheets| Arc::clone(&sheets.judged))
    }

    /// Leaves who is judged by what from now on: at the engine's next tick, as a whole. Its term is given here.
    pub fn seat(&self, seated: Seated) -> u64 {
        self.with(|sheets| {
            let term = sheets.seated.term + 1;
            sheets.seated = Arc::new(Seated { term, ..seated });
            term
        })
    }

    /// Who is judged by what.
    pub fn seated(&self) -> Arc<Seated> {
        self.with(|sheets| Arc::clone(&sheets.seated))
    }

    /// Leaves what the dataplane noticed. A failure that is over before the engine looks is not forgotten.
    pub fn notice(&self, mut noticed: HashMap<String, Noticed>) {
        self.with(|sheets| {
            if !sheets.read {
                for (name, now) in &mut noticed {
                    let before = sheets.noticed.get(name);
                    now.seen = before.map_or(now.seen, |before| now.seen.worst(before.seen));
                }
            }
            sheets.noticed = noticed;
            sheets.read = false;
        });
    }

    /// What the dataplane noticed of all instances.
    pub fn noticed(&self) -> HashMap<String, Noticed> {
        self.with(|sheets| {
            sheets.read = true;
            sheets.noticed.clone()
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut Sheets) -> T) -> T {
        // A thread that panicked while it held the lock left sheets that are as good as any.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{Cause, learning::fate::Fate};

    #[test]
    fn a_failure_between_two_looks_is_seen_once() {
        let board = Board::default();
        let notice = |fate| {
            let seen = Seen {
                fate,
                cause: Cause::Silent,
            };
            let noticed = Noticed {
                seen,
                ..Noticed::default()
            };
            board.notice([("a".to_owned(), noticed)].into());
        };
        let looked = || board.noticed()["a"].seen.fate;
        notice(Fate::Serving);
        assert_eq!(looked(), Fate::Serving);
        notice(Fate::Failed);
        notice(Fate::Serving);
        assert_eq!(looked(), Fate::Failed);
        notice(Fate::Serving);
        assert_eq!(looked(), Fate::Serving);
    }
}
