//! Where the engine, at its own pace, leaves what it expects for whoever decides, and finds what the dataplane noticed.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use mirror_common::instance::Vitals;

use super::predict::{
    engine::{Outlook, Standing},
    explain::Reason,
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
}

/// What the dataplane noticed of an instance.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Noticed {
    /// When it was read, `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// Its counters.
    pub vitals: Vitals,
    /// Flows that it has a part in.
    pub flows: u64,
    /// Of those, the ones whose output left the active replica's.
    pub diverged: u64,
}

/// Both, shared with the engine's task.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<Mutex<Sheets>>);

#[derive(Debug, Default)]
struct Sheets {
    judged: Arc<Judged>,
    noticed: HashMap<String, Noticed>,
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

    /// Leaves what the dataplane noticed.
    pub fn notice(&self, noticed: HashMap<String, Noticed>) {
        self.with(|sheets| sheets.noticed = noticed);
    }

    /// What the dataplane noticed of all instances.
    pub fn noticed(&self) -> HashMap<String, Noticed> {
        self.with(|sheets| sheets.noticed.clone())
    }

    fn with<T>(&self, work: impl FnOnce(&mut Sheets) -> T) -> T {
        // A thread that panicked while it held the lock left sheets that are as good as any.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
