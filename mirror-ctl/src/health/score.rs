//! Where an instance's health score comes from: the place at which the prediction engine plugs in.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// A source of scores.
pub trait Score: Send {
    /// The instance's score, 0 (about to fail) to 1 (well); not a number: unknown, which changes
    /// nothing.
    fn score(&self, instance: &str) -> f64;

    /// Another number whenever scores may have changed.
    fn revision(&self) -> u64 {
        0
    }
}

/// The scores of the configuration.
#[derive(Clone, Debug, Default)]
pub struct Configured(Vec<(String, f64)>);

impl Configured {
    /// Takes the scores of a configuration.
    pub fn of(instances: &[crate::config::Instance]) -> Self {
        let entries = instances.iter().map(|i| (i.name.clone(), i.score));
        Self(entries.collect())
    }
}

impl Score for Configured {
    fn score(&self, instance: &str) -> f64 {
        let found = self.0.iter().find(|(name, _)| name == instance);
        found.map_or(f64::NAN, |(_, score)| *score)
    }
}

/// A score older than this is not known any more.
const FRESH_NS: u64 = 5_000_000_000;

/// Where the engine, at its own pace, leaves scores for whoever decides: each with when it was made.
#[derive(Clone, Debug, Default)]
pub struct Board(Arc<Mutex<HashMap<String, (f64, u64)>>>);

impl Board {
    /// Leaves a score, and when it was made.
    pub fn post(&self, instance: &str, score: f64, now_ns: u64) {
        // A thread that panicked while it held the lock left scores that are as good as any.
        let mut scores = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        scores.insert(instance.to_owned(), (score, now_ns));
    }

    /// The score left for an instance; not a number when it is stale, none if there never was one.
    fn read(&self, instance: &str, now_ns: u64) -> Option<f64> {
        let scores = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (score, made_ns) = *scores.get(instance)?;
        let fresh = now_ns.saturating_sub(made_ns) <= FRESH_NS;
        Some(if fresh { score } else { f64::NAN })
    }

    /// When the newest score was made.
    fn newest_ns(&self) -> u64 {
        let scores = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        scores
            .values()
            .map(|(_, made_ns)| *made_ns)
            .max()
            .unwrap_or(0)
    }
}

/// The engine's scores, limited by the configured ones. An old one is unknown; where the engine never had one, the
/// configured one counts.
pub struct Predicted {
    configured: Configured,
    board: Board,
    now_ns: fn() -> u64,
}

impl Predicted {
    /// From a board. `now_ns`: the clock that its scores are dated by.
    #[must_use]
    pub fn new(configured: Configured, board: Board, now_ns: fn() -> u64) -> Self {
        Self {
            configured,
            board,
            now_ns,
        }
    }
}

impl Score for Predicted {
    fn score(&self, instance: &str) -> f64 {
        let configured = self.configured.score(instance);
        match self.board.read(instance, (self.now_ns)()) {
            // f64::min would take the other one for what is not a number.
            Some(score) if score > configured => configured,
            Some(score) => score,
            None => configured,
        }
    }

    fn revision(&self) -> u64 {
        self.board.newest_ns()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stale_or_missing_is_unknown() {
        let board = Board::default();
        board.post("a", 0.4, 1_000_000_000);
        board.post("b", 0.9, 1_000_000_000);
        let configured = Configured(vec![("a".to_owned(), 1.0), ("b".to_owned(), 0.5)]);
        let at = |now_ns: fn() -> u64| Predicted::new(configured.clone(), board.clone(), now_ns);
        let fresh = at(|| 2_000_000_000);
        assert_eq!((fresh.score("a"), fresh.score("b")), (0.4, 0.5));
        assert!(fresh.score("c").is_nan(), "nobody knows it");
        assert_ne!(fresh.revision(), 0);
        assert!(at(|| 9_000_000_000).score("a").is_nan());
        let never = Predicted::new(configured, Board::default(), || 0);
        assert_eq!(never.score("b"), 0.5);
    }
}
