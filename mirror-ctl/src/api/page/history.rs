//! What the page shows of the past: a figure a second for each instance, and the last moves and events. Bounded
//! whatever the number of instances. Pure.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;

use super::tick::{Moved, Tick, Told};

/// Ticks that are kept: ten minutes.
const TICKS_MAX: usize = 600;
/// Figures of instances that are kept; with more instances, fewer ticks.
const FIGURES_MAX: usize = 200_000;
/// Moves that are kept.
const MOVES_MAX: usize = 100;
/// Events that are kept.
const EVENTS_MAX: usize = 50;

/// What a reader is told first. All rows of figures are as long as `times`; the last tick is at the end.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(super) struct History {
    /// When, seconds since 1970.
    times: VecDeque<f64>,
    /// By instance.
    instances: BTreeMap<String, Series>,
    moves: VecDeque<Moved>,
    events: VecDeque<Told>,
}

/// An instance's figures; none where it was not there.
#[derive(Debug, Default, PartialEq, Serialize)]
struct Series {
    risk: VecDeque<Option<f64>>,
    flows: VecDeque<Option<u64>>,
}

impl Series {
    fn push(&mut self, figures: Option<(f64, u64)>) {
        self.risk.push_back(figures.map(|(risk, _)| risk));
        self.flows.push_back(figures.map(|(_, flows)| flows));
    }
}

impl History {
    /// Adds what was seen, and forgets what is too long ago.
    pub(super) fn push(&mut self, tick: &Tick) {
        let before = self.times.len();
        self.times.push_back(tick.time_s);
        for row in &tick.instances {
            let series = self.instances.entry(row.name.clone()).or_default();
            // A new one was not there before.
            series.risk.resize(before, None);
            series.flows.resize(before, None);
            series.push(Some((row.risk, row.flows)));
        }
        for series in self.instances.values_mut() {
            if series.risk.len() == before {
                series.push(None);
            }
        }
        let ticks_max = TICKS_MAX
            .min(FIGURES_MAX / self.instances.len().max(1))
            .max(1);
        while self.times.len() > ticks_max {
            self.times.pop_front();
            for series in self.instances.values_mut() {
                series.risk.pop_front();
                series.flows.pop_front();
            }
        }
        let known = |series: &Series| series.flows.iter().any(Option::is_some);
        self.instances.retain(|_, series| known(series));
        keep(&mut self.moves, &tick.moves, MOVES_MAX);
        keep(&mut self.events, &tick.events, EVENTS_MAX);
    }
}

/// Adds the new and forgets the oldest.
fn keep<T: Clone>(all: &mut VecDeque<T>, new: &[T], max: usize) {
    all.extend(new.iter().cloned());
    all.drain(..all.len().saturating_sub(max));
}

#[cfg(test)]
mod tests {
    use super::super::tick::InstanceNow;
    use super::*;

    fn tick(time_s: f64, instances: &[(&str, f64)]) -> Tick {
        let row = |(name, risk): &(&str, f64)| InstanceNow {
            name: (*name).to_owned(),
            risk: *risk,
            flows: 7,
            ..InstanceNow::default()
        };
        Tick {
            time_s,
            instances: instances.iter().map(row).collect(),
            ..Tick::default()
        }
    }

    fn risks(history: &History, name: &str) -> Vec<Option<f64>> {
        history.instances[name].risk.iter().copied().collect()
    }

    #[test]
    fn rows_are_as_long_as_the_times_whoever_comes_and_goes() {
        let mut history = History::default();
        history.push(&tick(1.0, &[("a", 0.1)]));
        history.push(&tick(2.0, &[("a", 0.2), ("b", 0.5)]));
        history.push(&tick(3.0, &[("b", 0.6)]));
        assert_eq!(risks(&history, "a"), [Some(0.1), Some(0.2), None]);
        assert_eq!(risks(&history, "b"), [None, Some(0.5), Some(0.6)]);
        assert_eq!(history.times.len(), 3);
    }

    #[test]
    fn what_is_old_is_forgotten_and_who_is_gone_with_it() {
        let mut history = History::default();
        history.push(&tick(0.0, &[("a", 0.1), ("b", 0.1)]));
        for second in 1..=TICKS_MAX {
            history.push(&tick(second as f64, &[("b", 0.2)]));
        }
        assert_eq!(history.times.len(), TICKS_MAX);
        assert_eq!(history.times[0], 1.0);
        assert_eq!(history.instances.keys().collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn many_instances_are_remembered_for_a_shorter_time() {
        let names: Vec<String> = (0..2_000).map(|n| n.to_string()).collect();
        let rows: Vec<_> = names.iter().map(|name| (name.as_str(), 0.0)).collect();
        let mut history = History::default();
        for second in 0..150 {
            history.push(&tick(f64::from(second), &rows));
        }
        assert_eq!(history.times.len(), FIGURES_MAX / 2_000);
        assert_eq!(history.times[0], 50.0);
    }

    #[test]
    fn the_last_moves_and_events_are_kept() {
        let mut history = History::default();
        for second in 0..MOVES_MAX + 5 {
            let moved = Moved {
                time_s: second as f64,
                ..Moved::default()
            };
            history.push(&Tick {
                moves: vec![moved],
                ..Tick::default()
            });
        }
        assert_eq!(history.moves.len(), MOVES_MAX);
        assert_eq!(history.moves[0].time_s, 5.0);
    }
}
