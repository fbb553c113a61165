//! `updateInstanceHealth`: from what is expected of instances to what is done with them. Pure.
//!
//! Falls fast, recovers slowly: shedding late costs requests, coming back late only time. Never beyond what the others
//! can bear: a budget on the capacity that is shed at once, and when most look ill it is the view that is doubted.
//! What is not known changes nothing.

use std::collections::HashMap;

use super::engine::Outlook;

/// Bounds of the policy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Policy {
    /// A risk above this moves an instance's established flows.
    pub evacuate_risk: f32,
    /// For so many ticks in a row: one tick may be noise.
    pub evacuate_ticks: u32,
    /// A risk below this, for long enough, lets an instance return.
    pub return_risk: f32,
    /// Ticks of low risk before it may return; doubled by each relapse.
    pub return_ticks: u32,
    /// How far a score may rise in a tick.
    pub rise: f32,
    /// Share of the capacity that may be shed at once.
    pub shed_max: f32,
    /// When more than this share of the instances look ill, scores are left as they are.
    pub panic_share: f32,
    /// What even the worst keeps of new flows: without any there would be no evidence that it is well again.
    pub explore: f32,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            evacuate_risk: 0.5,
            evacuate_ticks: 2,
            return_risk: 0.2,
            return_ticks: 30,
            rise: 0.02,
            shed_max: 0.5,
            panic_share: 0.5,
            explore: 0.02,
        }
    }
}

impl Policy {
    /// For ticks that are so many seconds apart: what takes time takes the same.
    #[must_use]
    pub fn paced(self, tick_s: f32) -> Self {
        let ticks = |of_a_second: u32| (of_a_second as f32 / tick_s).ceil() as u32;
        Self {
            return_ticks: ticks(self.return_ticks),
            rise: self.rise * tick_s,
            ..self
        }
    }
}

/// A relapse counts double so many times at most.
const RELAPSES_MAX: u32 = 5;
/// So many ticks without evacuation and the last relapse is forgiven.
const FORGIVE_TICKS: u32 = 1_800;

/// What is known of an instance this tick.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its capacity, in proportion to the others'.
    pub capacity: f32,
    /// What is expected of it; none: its signals are missing or stale.
    pub outlook: Option<Outlook>,
    /// Whether it is out for another reason, dead or by an operator's order: its capacity is not there for others.
    pub out: bool,
}

/// What is to be done with an instance.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Its name.
    pub name: String,
    /// Its score for new flows.
    pub score: f32,
    /// Whether its established flows are to move to their warm mirrors.
    pub evacuate: bool,
    /// Whether they stay only because the others could not bear them.
    pub withheld: bool,
}

/// What the policy remembers of an instance.
#[derive(Clone, Copy, Debug)]
struct Memory {
    score: f32,
    evacuated: bool,
    risky: u32,
    calm: u32,
    relapses: u32,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            score: 1.0,
            evacuated: false,
            risky: 0,
            calm: 0,
            relapses: 0,
        }
    }
}

/// The health of all instances of a VNI.
#[derive(Clone, Debug, Default)]
pub struct Healths(HashMap<String, Memory>);

impl Healths {
    /// An instance that was found evacuated, by an agent that ran before.
    pub fn recall(&mut self, name: &str) {
        let memory = Memory {
            score: 0.0,
            evacuated: true,
            ..Memory::default()
        };
        self.0.insert(name.to_owned(), memory);
    }

    /// One tick. Decisions are in the order of `known`.
    pub fn update(&mut self, policy: &Policy, known: &[Known<'_>]) -> Vec<Decision> {
        self.0
            .retain(|name, _| known.iter().any(|k| k.name == name));
        let ill = known
            .iter()
            .filter(|k| risk(k).is_some_and(|r| r > policy.evacuate_risk));
        let panic = known.len() > 1 && ill.count() as f32 > known.len() as f32 * policy.panic_share;
        if !panic {
            for k in known {
                if let Some(risk) = risk(k) {
                    self.0
                        .entry(k.name.to_owned())
                        .or_default()
                        .take(risk, policy);
                }
            }
            self.evacuate_within_budget(policy, known);
        }
        let of = |k: &Known<'_>| self.0.get(k.name).copied().unwrap_or_default();
        let decide = |k: &Known<'_>| Decision {
            name: k.name.to_owned(),
            score: of(k).score.max(policy.explore),
            evacuate: of(k).evacuated,
            withheld: !of(k).evacuated && of(k).risky >= policy.evacuate_ticks,
        };
        known.iter().map(decide).collect()
    }

    /// The riskiest first, as long as those that stay can bear it.
    fn evacuate_within_budget(&mut self, policy: &Policy, known: &[Known<'_>]) {
        let capacity: f32 = known.iter().map(|k| k.capacity).sum();
        let is_out = |memory: Option<&Memory>| memory.is_some_and(|m| m.evacuated);
        let out = known.iter().filter(|k| k.out || is_out(self.0.get(k.name)));
        let mut shed: f32 = out.map(|k| k.capacity).sum();
        let mut wanting: Vec<&Known<'_>> = known
            .iter()
            .filter(|k| {
                let memory = self.0.get(k.name);
                let wants = |m: &Memory| !m.evacuated && m.risky >= policy.evacuate_ticks;
                !k.out && memory.is_some_and(wants)
            })
            .collect();
        let by_risk = |k: &&Known<'_>| risk(k).unwrap_or(0.0);
        wanting.sort_by(|a, b| by_risk(b).total_cmp(&by_risk(a)));
        for k in wanting {
            if shed + k.capacity > capacity * policy.shed_max {
                continue;
            }
            if let Some(memory) = self.0.get_mut(k.name) {
                shed += k.capacity;
                memory.evacuated = true;
                memory.calm = 0;
            }
        }
    }
}

fn risk(known: &Known<'_>) -> Option<f32> {
    let risk = known.outlook?.risk();
    risk.is_finite().then_some(risk)
}

impl Memory {
    fn take(&mut self, risk: f32, policy: &Policy) {
        self.risky = match risk > policy.evacuate_risk {
            true => self.risky.saturating_add(1),
            false => 0,
        };
        self.calm = match risk < policy.return_risk {
            true => self.calm.saturating_add(1),
            false => 0,
        };
        let patience = policy.return_ticks << self.relapses.min(RELAPSES_MAX);
        if self.evacuated && self.calm >= patience {
            self.evacuated = false;
            self.relapses += 1;
            self.calm = 0;
        }
        if !self.evacuated && self.calm >= FORGIVE_TICKS {
            self.relapses = self.relapses.saturating_sub(1);
            self.calm = 0;
        }
        let aim = if self.evacuated { 0.0 } else { 1.0 - risk };
        self.score = aim.min(self.score + policy.rise);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        evacuate_risk: 0.5,
        evacuate_ticks: 2,
        return_risk: 0.2,
        return_ticks: 3,
        rise: 0.1,
        shed_max: 0.5,
        panic_share: 0.5,
        explore: 0.02,
    };

    /// So many ticks with these risks of up to four instances; `None`: nothing known.
    #[track_caller]
    fn play(healths: &mut Healths, ticks: usize, risks: &[Option<f32>]) -> Vec<Decision> {
        let mut decisions = Vec::new();
        for _ in 0..ticks {
            let names = ["a", "b", "c", "d"];
            let known: Vec<_> = names
                .iter()
                .zip(risks)
                .map(|(name, risk)| Known {
                    name,
                    capacity: 1.0,
                    outlook: risk.map(|risk| Outlook::of(risk, None)),
                    out: false,
                })
                .collect();
            decisions = healths.update(&POLICY, &known);
        }
        decisions
    }

    const WELL: Option<f32> = Some(0.0);
    const ILL: [Option<f32>; 3] = [Some(0.9), WELL, WELL];

    #[test]
    fn falls_fast_and_recovers_slowly() {
        let mut healths = Healths::default();
        let fallen = play(&mut healths, 1, &[Some(0.4), WELL, WELL]);
        assert!((fallen[0].score - 0.6).abs() < 1e-6);
        let rising = play(&mut healths, 2, &[WELL; 3]);
        assert!((rising[0].score - 0.8).abs() < 1e-6);
    }

    #[test]
    fn one_tick_is_noise_two_are_not() {
        let mut healths = Healths::default();
        assert!(!play(&mut healths, 1, &ILL)[0].evacuate);
        let decisions = play(&mut healths, 1, &ILL);
        assert!(decisions[0].evacuate && !decisions[1].evacuate);
        let decisions = play(&mut healths, 1, &ILL);
        assert_eq!(decisions[0].score, POLICY.explore, "it is still looked at");
    }

    #[test]
    fn returning_takes_longer_each_time() {
        let mut healths = Healths::default();
        play(&mut healths, 3, &ILL);
        assert!(play(&mut healths, 2, &[WELL; 3])[0].evacuate);
        let back = play(&mut healths, 1, &[WELL; 3])[0].clone();
        assert!(
            !back.evacuate && back.score <= POLICY.rise + 1e-6,
            "{back:?}"
        );
        play(&mut healths, 3, &ILL);
        assert!(play(&mut healths, 5, &[WELL; 3])[0].evacuate);
        assert!(!play(&mut healths, 1, &[WELL; 3])[0].evacuate);
    }

    #[test]
    fn what_is_not_known_changes_nothing() {
        let mut healths = Healths::default();
        let before = play(&mut healths, 3, &ILL);
        let after = play(&mut healths, 100, &[None; 3]);
        assert_eq!(before, after);
        let unknown = play(&mut Healths::default(), 1, &[None; 2]);
        assert!(unknown.iter().all(|d| d.score == 1.0 && !d.evacuate));
    }

    #[test]
    fn no_more_than_the_others_can_bear() {
        let mut healths = Healths::default();
        let decisions = play(&mut healths, 2, &[Some(0.9), Some(0.95), WELL, WELL]);
        assert_eq!(decisions.iter().filter(|d| d.evacuate).count(), 2);
        // Half are out: a third one, though ill, stays, and most being ill is not believed at all.
        let decisions = play(&mut healths, 3, &[Some(0.9), Some(0.95), Some(0.9), WELL]);
        assert!(!decisions[2].evacuate && decisions[2].score == 1.0);
    }

    #[test]
    fn who_is_out_already_counts() {
        let mut healths = Healths::default();
        let known = |name, risk, out| Known {
            name,
            capacity: 1.0,
            outlook: Some(Outlook::of(risk, None)),
            out,
        };
        for others_out in [true, false] {
            let known = [
                known("a", 0.9, false),
                known("b", 0.0, others_out),
                known("c", 0.0, false),
            ];
            healths.update(&POLICY, &known);
            let decisions = healths.update(&POLICY, &known);
            // One of three may go; with another one dead the third would be left with everything.
            assert_eq!(decisions[0].evacuate, !others_out);
            assert_eq!(decisions[0].withheld, others_out);
        }
    }

    #[test]
    fn what_an_agent_before_evacuated_stays_so_until_it_is_known_to_be_well() {
        let mut healths = Healths::default();
        healths.recall("a");
        assert!(play(&mut healths, 100, &[None, WELL, WELL])[0].evacuate);
        assert!(!play(&mut healths, 3, &[WELL; 3])[0].evacuate);
    }

    #[test]
    fn at_another_pace_it_takes_the_same_time() {
        let policy = Policy::default().paced(0.25);
        assert_eq!(policy.return_ticks, 120);
        assert!((policy.rise - 0.005).abs() < 1e-6);
    }

    #[test]
    fn the_only_one_is_never_evacuated() {
        let decisions = play(&mut Healths::default(), 5, &[Some(1.0)]);
        assert!(!decisions[0].evacuate);
    }

    #[test]
    fn of_two_only_the_first_that_is_risky_goes() {
        let mut healths = Healths::default();
        let decisions = play(&mut healths, 3, &[Some(0.7), WELL]);
        assert!(decisions[0].evacuate && !decisions[1].evacuate);
        let decisions = play(&mut healths, 3, &[Some(0.7), Some(0.9)]);
        assert!(!decisions[1].evacuate);
    }
}
