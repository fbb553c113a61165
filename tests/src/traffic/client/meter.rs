//! How long a connection's user was kept waiting.
//!
//! A wait begins when the client wants something and could have it from a
//! healthy server at once: a response when its request is written, the receipt
//! of a block when its writing begins, the next bytes of a download when the
//! reader's turn comes and its socket is empty, a server's word when it is due.
//! Pauses that the client makes of its own will are no waits.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;

use crate::clock::{monotonic_ns, ms};

const SETTLE_NS: u64 = 500_000_000;
/// A wait that begins later than this after the mark is not the fault's. It is
/// longer than any pause or silence of a profile, so each connection has waited
/// for something in this time. As much of the time before the mark is what it is compared with: in a longer one, longer waits are found.
const FAULT_NS: u64 = 700_000_000;

/// The moments that all connections of a client share; 0 until they come.
#[derive(Debug, Default)]
pub struct Moments {
    settled: Cell<u64>,
    mark: Cell<u64>,
    stop: Cell<u64>,
}

impl Moments {
    /// All connections are made; waits count from a little later on, when the
    /// work of making them has ebbed away.
    pub fn running(&self) {
        self.settled.set(monotonic_ns() + SETTLE_NS);
    }

    /// From now on (or from the given time) waits are counted apart.
    pub fn mark(&self, at_ns: u64) {
        self.mark.set(at_ns);
    }

    /// Waits are not counted any longer: all connections finish at once and
    /// wait for each other's work on the processor, which says nothing.
    pub fn stop(&self) {
        self.stop.set(monotonic_ns());
    }
}

/// One connection's longest waits.
#[derive(Debug)]
pub struct Meter {
    moments: Rc<Moments>,
    since: Option<u64>,
    baseline_ns: u64,
    /// The ends of the waits that may turn out to be among the last before the mark, and how long they were.
    last: VecDeque<(u64, u64)>,
    stall_ns: u64,
}

impl Meter {
    /// Nothing was waited for yet.
    #[must_use]
    pub fn new(moments: Rc<Moments>) -> Self {
        Self {
            moments,
            since: None,
            baseline_ns: 0,
            last: VecDeque::new(),
            stall_ns: 0,
        }
    }

    /// Counts a wait. It belongs to the time after the mark, with its whole
    /// length, when it ended after the mark and began before or soon after it.
    pub fn waited(&mut self, since_ns: u64, until_ns: u64) {
        let (mark, stop) = (self.moments.mark.get(), self.moments.stop.get());
        let settled = self.moments.settled.get();
        let until_ns = if stop == 0 {
            until_ns
        } else {
            until_ns.min(stop)
        };
        let length_ns = until_ns.saturating_sub(since_ns);
        match mark {
            1.. if since_ns > mark + FAULT_NS => {}
            1.. if until_ns >= mark => self.stall_ns = self.stall_ns.max(length_ns),
            _ if settled == 0 || since_ns < settled => {}
            _ => {
                self.baseline_ns = self.baseline_ns.max(length_ns);
                let old = |(ended_ns, _): &(u64, u64)| ended_ns + FAULT_NS < until_ns;
                while self.last.front().is_some_and(old) {
                    self.last.pop_front();
                }
                self.last.push_back((until_ns, length_ns));
            }
        }
    }

    /// A wait has begun, or will at a time to come.
    pub fn begin(&mut self, since_ns: u64) {
        self.since = Some(since_ns);
    }

    /// The wait is over, if there was one.
    pub fn end(&mut self) {
        if let Some(since) = self.since.take() {
            self.waited(since, monotonic_ns());
        }
    }

    /// The longest wait before the mark, in as much time as is the fault's, and the longest after it; without a mark, the longest of all
    /// and nothing.
    #[must_use]
    pub fn longest_ms(&self) -> (f64, f64) {
        let baseline_ns = match self.moments.mark.get() {
            0 => self.baseline_ns,
            mark => {
                let last = self.last.iter();
                let late = last.filter(|(ended_ns, _)| ended_ns + FAULT_NS >= mark);
                late.map(|(_, length_ns)| *length_ns).max().unwrap_or(0)
            }
        };
        (ms(baseline_ns), ms(self.stall_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(mark: u64, stop: u64, waits: &[(u64, u64)], expected_ns: (u64, u64)) {
        let moments = Rc::new(Moments {
            settled: Cell::new(8),
            mark: Cell::new(mark),
            stop: Cell::new(stop),
        });
        let mut meter = Meter::new(moments);
        waits
            .iter()
            .for_each(|(since, until)| meter.waited(*since, *until));
        let expected_ms = (ms(expected_ns.0), ms(expected_ns.1));
        assert_eq!(meter.longest_ms(), expected_ms);
    }

    #[test]
    fn waits_are_told_apart_by_the_mark() {
        check(0, 0, &[(10, 15), (20, 23)], (5, 0));
        check(30, 0, &[(10, 15), (20, 23)], (5, 0));
        check(30, 0, &[(10, 15), (20, 90), (95, 96)], (5, 70));
    }

    #[test]
    fn what_begins_long_after_the_mark_does_not_count() {
        check(30, 0, &[(31 + FAULT_NS, 99 + FAULT_NS)], (0, 0));
        check(30, 0, &[(29 + FAULT_NS, 99 + FAULT_NS)], (0, 70));
    }

    #[test]
    fn what_ended_long_before_the_mark_is_not_compared_with_it() {
        let mark = 20 + FAULT_NS;
        check(mark, 0, &[(10, 18), (19, 24), (25, 27)], (5, 0));
        check(
            0,
            0,
            &[(10, 18), (19, 24), (25, 27), (40 + FAULT_NS, 41 + FAULT_NS)],
            (8, 0),
        );
    }

    #[test]
    fn the_beginning_does_not_count() {
        check(0, 0, &[(1, 6), (7, 20)], (0, 0));
        check(30, 0, &[(7, 31)], (0, 24));
    }

    #[test]
    fn a_wait_ends_with_the_stop() {
        check(30, 50, &[(40, 90)], (0, 10));
        check(30, 50, &[(60, 90)], (0, 0));
    }

    #[test]
    fn what_comes_before_it_is_due_was_not_waited_for() {
        check(30, 0, &[(50, 40)], (0, 0));
    }
}
