//! Holds what was judged against what came, second by second, for champion and challenger, and notices when the food of the
//! champion is another one. Pure.

use std::sync::Arc;

use super::{
    contest::{Contest, Forecast, Window},
    drift::{self, Drift},
    onsets::Second,
    promotion::{self, Next, Why},
    seats::Stage,
};
use crate::health::predict::{engine::Fleet, model::Model};

/// Who is judged by what, for one term: from one change of either to the next.
#[derive(Clone, Debug, Default)]
pub struct Seated {
    /// Greater with each.
    pub term: u64,
    /// In force.
    pub champion: Option<Arc<Model>>,
    /// In shadow.
    pub challenger: Option<Arc<Model>>,
    /// What is between them.
    pub stage: Stage,
    /// What they scored before.
    pub window: Window,
}

/// What the referee says.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// Of which term.
    pub term: u64,
    /// What both scored.
    pub window: Window,
    /// What follows from it.
    pub next: Next,
    /// How far the features are from what the champion was trained on; none while that is not known.
    pub drift: Option<Drift>,
    /// Whether that is too far.
    pub drifted: bool,
}

/// The referee.
#[derive(Debug, Default)]
pub struct Referee {
    seated: Arc<Seated>,
    contest: Contest,
    drift: Option<drift::Watch>,
    drifted: bool,
}

impl Referee {
    /// Another term begins.
    pub fn seat(&mut self, seated: Arc<Seated>) {
        self.contest.restart(seated.window.clone());
        let champion = seated.champion.as_deref();
        self.drift = champion.and_then(|model| {
            let reference = model.reference.clone()?;
            Some(drift::Watch::new(reference, model.usage()))
        });
        self.drifted = false;
        self.seated = seated;
    }

    /// The term that is judged.
    #[must_use]
    pub fn term(&self) -> u64 {
        self.seated.term
    }

    /// One second of a VNI: what is known of its members and what was seen of them. Of those that are not known nothing was
    /// foreseen.
    pub fn look<'a>(
        &mut self,
        (vni, fleet, hour): (&str, &Fleet, u64),
        members: impl Iterator<Item = (&'a str, bool, Second)>,
    ) {
        for (instance, is_known, second) in members {
            let row = is_known.then(|| fleet.row(instance)).flatten();
            let forecast = self.seated.champion.as_ref().zip(row.as_ref());
            let forecast = forecast.map(|(champion, (row, _))| {
                let challenger = self.seated.challenger.as_ref();
                Forecast::of(champion.predict(row), challenger.map(|c| c.predict(row)))
            });
            if let (Some(drift), Some((row, _))) = (&mut self.drift, &row) {
                drift.push(row);
            }
            self.contest
                .second((vni, instance), hour, forecast, &second);
        }
    }

    /// What is to be said now.
    pub fn standing(&mut self) -> Standing {
        let drift = self.drift.as_ref().and_then(drift::Watch::drift);
        self.drifted = drift::has_drifted(self.drifted, drift.as_ref());
        let window = self.contest.window().clone();
        let score = window.total();
        Standing {
            term: self.seated.term,
            next: match (&self.seated.challenger, self.seated.stage) {
                (None, _) => Next::Wait(Why::Alone),
                (Some(_), Stage::Shadow) => promotion::of_challenger(&score),
                (Some(_), Stage::Probation) => promotion::of_promoted(&score),
            },
            window,
            drift,
            drifted: self.drifted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{
        Cause,
        learning::fate::{Fate, Seen},
        predict::{
            calibrate::Calibration,
            features,
            forest::{Forest, Node},
            model::{Card, Hazard},
            signal::{Reading, Signal},
        },
    };

    /// Foresees a failure within 30 s where memory is far from usual, or never.
    fn model(foresees: bool) -> Arc<Model> {
        let names = features::names();
        let feature = names
            .iter()
            .position(|n| n == "memory_share.level")
            .unwrap();
        let mut forest = Forest::default();
        let root = Node {
            value: 10.0,
            feature: feature as u32,
            left: 1,
            right: 2,
        };
        let ill = if foresees { 3.0 } else { -5.0 };
        forest.add(&[root, Node::leaf(-5.0), Node::leaf(ill)]);
        let hazard = Hazard {
            forest,
            bias: 0.0,
            calibration: Calibration::Platt {
                slope: 1.0,
                intercept: 0.0,
            },
        };
        Arc::new(Model {
            hazards: std::array::from_fn(|_| hazard.clone()),
            card: Card::default(),
            reference: None,
        })
    }

    /// Six failures, each announced by memory for 25 s, at four instances of an hour in all.
    fn standing(champion: bool, challenger: bool, stage: Stage) -> Standing {
        let mut referee = Referee::default();
        referee.seat(Arc::new(Seated {
            term: 3,
            champion: Some(model(champion)),
            challenger: Some(model(challenger)),
            stage,
            window: Window::default(),
        }));
        let mut fleet = Fleet::new(None);
        let names = ["a", "b", "c", "d"];
        for at in 0..1_300usize {
            let seconds = names.map(|name| {
                let to = at % 200;
                let ill = name == "a" && at >= 200 && (75..100).contains(&to);
                let mut reading = Reading::default();
                reading.set(Signal::Memory, if ill { 0.9 } else { 0.2 });
                let failed = name == "a" && at >= 200 && (100..104).contains(&to);
                let fate = if failed { Fate::Failed } else { Fate::Serving };
                let seen = Seen {
                    fate,
                    cause: Cause::Silent,
                };
                (name, Second { reading, seen })
            });
            fleet.tick(
                seconds
                    .iter()
                    .map(|(name, second)| (*name, &second.reading)),
            );
            let members = seconds
                .into_iter()
                .map(|(name, second)| (name, fleet.is_settled(name), second));
            referee.look(("web", &fleet, 1), members);
        }
        referee.standing()
    }

    #[test]
    fn one_that_foresees_takes_the_place_of_one_that_does_not() {
        let better = standing(false, true, Stage::Shadow);
        let score = better.window.total();
        assert_eq!((score.failures, score.wins), (5, 5));
        assert_eq!((score.sides[0].caught, score.sides[1].caught), (0, 5));
        assert_eq!((better.term, better.next), (3, Next::Promote));
        let worse = standing(true, false, Stage::Shadow);
        assert_eq!(worse.next, Next::Wait(Why::LogLoss));
        assert_eq!(standing(false, true, Stage::Probation).next, Next::RollBack);
        assert_eq!(standing(true, false, Stage::Probation).next, Next::Confirm);
    }
}
