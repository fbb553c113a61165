//! A keeper: the agent of a version that was replaced by one with other maps. It looks after the flows that are left, as any
//! agent does, until they have ended or their time is up.

use std::{path::PathBuf, time::Duration};

use tracing::info;

use super::{Agent, End, handover::Handover, view::DrainingRow};
use crate::{clock, connections::Sweep, dataplane};

/// What a keeper knows of its end.
#[derive(Clone, Debug)]
pub struct Keeping {
    draining: PathBuf,
    socket: PathBuf,
    until_ns: u64,
    /// Since when the other version serves what is new.
    replaced_ns: Option<u64>,
    /// Flows that are left, by the last walk.
    left: Option<u64>,
}

impl Keeping {
    /// Nothing is known yet of what is left.
    pub fn new(handover: &Handover) -> Self {
        Self {
            draining: handover.pin_dir.clone(),
            socket: handover.socket.clone(),
            until_ns: handover.until_ns,
            replaced_ns: None,
            left: None,
        }
    }

    /// Takes in a walk over all flows that began at `began_ns`. Some: so many flows are left at the end, which is now.
    ///
    /// `serves`: interfaces run this version's programs still. As long as they do nothing ends, whatever the time: there is
    /// nobody else to serve what is new.
    fn swept(&mut self, began_ns: u64, left: u64, serves: bool, now_ns: u64) -> Option<u64> {
        self.left = Some(left);
        if serves {
            self.replaced_ns = None;
            return None;
        }
        let replaced_ns = *self.replaced_ns.get_or_insert(now_ns);
        // A walk that began earlier may have missed a flow that was opened last.
        let ended = left == 0 && began_ns > replaced_ns;
        (ended || now_ns >= self.until_ns).then_some(left)
    }

    fn row(&self, now_ns: u64) -> DrainingRow {
        DrainingRow {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: Some(std::process::id()),
            socket: self.socket.display().to_string(),
            flows: self.left,
            left_s: Duration::from_nanos(self.until_ns.saturating_sub(now_ns)).as_secs(),
        }
    }
}

impl Agent {
    /// Whether this agent only looks after flows of a version that was replaced.
    pub(super) fn keeps(&self) -> bool {
        self.keeping.is_some()
    }

    /// What a keeper says of itself.
    pub(super) fn keeping_row(&self) -> Option<DrainingRow> {
        let keeping = self.keeping.as_ref()?;
        Some(keeping.row(clock::now_ns()))
    }

    /// Looks, after a walk over all flows, whether it is time for the keeper to end.
    pub(super) fn look_for_end(&mut self, sweep: &Sweep) {
        let Some(keeping) = &mut self.keeping else {
            return;
        };
        let serves = dataplane::serves_new_flows(&keeping.draining);
        let ended = keeping.swept(sweep.began_ns, sweep.left, serves, clock::now_ns());
        if let Some(cut) = ended {
            info!(cut, "no flow is kept any more");
            self.end = Some(End::Drained { cut: Some(cut) });
        }
    }

    /// Ends a keeper whose pins somebody has removed.
    pub(super) fn look_for_pins(&mut self) {
        let Some(keeping) = &self.keeping else {
            return;
        };
        if !dataplane::is_kept(&keeping.draining) {
            info!("what was to be kept is not pinned any more");
            self.end = Some(End::Drained { cut: None });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNTIL: u64 = 1_000;

    fn keeping() -> Keeping {
        Keeping::new(&Handover {
            until_ns: UNTIL,
            ..Handover::default()
        })
    }

    #[test]
    fn it_ends_with_the_last_flow() {
        let mut keeping = keeping();
        assert_eq!(keeping.swept(10, 2, false, 11), None);
        assert_eq!(keeping.left, Some(2));
        assert_eq!(keeping.swept(20, 1, false, 21), None);
        assert_eq!(keeping.swept(30, 0, false, 31), Some(0));
    }

    #[test]
    fn it_does_not_end_while_new_flows_are_its_own() {
        let mut keeping = keeping();
        assert_eq!(keeping.swept(10, 0, true, 11), None);
        // Even if its time is up: the other version may never come.
        assert_eq!(keeping.swept(UNTIL + 10, 0, true, UNTIL + 11), None);
        assert_eq!(keeping.swept(UNTIL + 20, 4, false, UNTIL + 21), Some(4));
    }

    #[test]
    fn a_walk_that_began_before_may_have_missed_something() {
        let mut keeping = keeping();
        assert_eq!(keeping.swept(10, 0, false, 20), None);
        assert_eq!(keeping.swept(15, 0, false, 25), None);
        assert_eq!(keeping.swept(21, 0, false, 30), Some(0));
    }

    #[test]
    fn what_is_left_when_time_is_up_is_cut() {
        let mut keeping = keeping();
        assert_eq!(keeping.swept(10, 3, false, UNTIL - 1), None);
        assert_eq!(keeping.row(UNTIL - 1).flows, Some(3));
        assert_eq!(keeping.swept(20, 3, false, UNTIL), Some(3));
    }
}
