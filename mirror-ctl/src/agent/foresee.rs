//! What is done about failures that are expected: new flows follow the scores, established ones leave who is about to
//! fail, within budgets, and come back when the risk has gone. An operator's orders and hard failures outrank it, and
//! what is not known changes nothing. Pure.

use std::{collections::HashMap, fmt::Write as _};

use super::{
    decide::Action,
    state::{Instance, Order, State},
};
use crate::{
    config::Apply,
    health::{
        Cause,
        board::{Judged, Judgement},
        learning::fate::{self, Seen},
        predict::policy::{Decision, Healths, Known, Policy},
    },
    mirroring::{Budget, may_evacuate},
    routing::State as Service,
};

/// New flows follow a score that has moved by more than this.
const SCORE_STEP: f64 = 0.02;
/// A score below this is told of,
const SCORE_LOW: f64 = 0.8;
/// and its recovery when it is above this, so that one that swings is not news every second.
const SCORE_WELL: f64 = 0.9;
/// So many reasons are told with an event.
const REASONS_TOLD: usize = 3;

/// What is expected of an instance, and done about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Foreseen {
    /// Its score by the policy, of its VNIs the lowest; 1 until anything is known.
    pub score: f64,
    /// The score that new flows follow.
    followed: f64,
    /// Whether its established flows are to go, by the policy.
    pub wanted: bool,
    /// Whether they do.
    pub evacuate: bool,
    /// Whether an operator said that it is to serve all the same; until the risk has gone.
    pub overruled: bool,
    /// Whether its source does not answer.
    pub missing: bool,
    /// Whether its score was told to be low.
    doubtful: bool,
    /// Whether its flows stay for want of others that could bear them.
    withheld: bool,
    /// What was said of it last, and in which VNI.
    pub judgement: Option<(String, Judgement)>,
}

impl Default for Foreseen {
    fn default() -> Self {
        Self {
            score: 1.0,
            followed: 1.0,
            wanted: false,
            evacuate: false,
            overruled: false,
            missing: false,
            doubtful: false,
            withheld: false,
            judgement: None,
        }
    }
}

impl Foreseen {
    /// The score that new flows follow.
    pub(super) fn followed(&self) -> f64 {
        self.followed
    }

    /// What an agent before has evacuated.
    pub(super) fn recalled() -> Self {
        Self {
            score: 0.0,
            followed: 0.0,
            wanted: true,
            evacuate: true,
            doubtful: true,
            ..Self::default()
        }
    }
}

/// What became of an instance's prospects, as the event log tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// Its score fell: it gets fewer new flows.
    Doubtful,
    /// Its score is back.
    Well,
    /// Its established flows leave.
    Evacuated,
    /// They would, but the others could not bear them.
    Withheld,
    /// It serves again.
    Returned,
    /// Its source does not answer: it is left as it is.
    Unknown,
    /// Its source answers again.
    Known,
}

impl Told {
    /// The word in events.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Doubtful => "doubtful",
            Self::Well => "well",
            Self::Evacuated => "evacuated",
            Self::Withheld => "withheld",
            Self::Returned => "returned",
            Self::Unknown => "unknown",
            Self::Known => "known",
        }
    }
}

/// What the VNIs of an instance say together.
struct Verdict {
    decision: Decision,
    vni: String,
    judgement: Judgement,
}

impl State {
    /// The engine has judged.
    pub fn foresee(&mut self, judged: &Judged, now_ns: u64) -> Vec<Action> {
        let health = &self.config.health;
        let policy = Policy {
            evacuate_risk: health.evacuate_risk as f32,
            shed_max: health.shed_max as f32,
            ..Policy::default()
        }
        .paced(judged.tick_s);
        let mut foresight = std::mem::take(&mut self.foresight);
        let mut verdicts: HashMap<usize, Verdict> = HashMap::new();
        for (vni, judgements) in &judged.vnis {
            let Some(number) = self.config.vnis.iter().position(|v| v.name == *vni) else {
                continue;
            };
            let healths = foresight
                .entry(vni.clone())
                .or_insert_with(|| self.recall(number));
            for (place, verdict) in self.judge(number, judgements, &policy, healths) {
                let worse = match verdicts.get(&place) {
                    Some(other) => {
                        let rank = |d: &Decision| (!d.evacuate, d.score);
                        rank(&verdict.decision) < rank(&other.decision)
                    }
                    None => true,
                };
                if worse {
                    verdicts.insert(place, verdict);
                }
            }
        }
        self.foresight = foresight;
        let mut actions = Vec::new();
        for place in 0..self.instances.len() {
            if let Some(verdict) = verdicts.remove(&place) {
                actions.extend(self.follow(place, verdict, now_ns));
            }
        }
        actions
    }

    /// Takes back everything that predictions did: there are none any more.
    pub(super) fn forget_foresight(&mut self) {
        self.foresight.clear();
        for instance in &mut self.instances {
            instance.foreseen = Foreseen::default();
        }
    }

    /// A VNI's healths as an agent before left them.
    fn recall(&self, vni: usize) -> Healths {
        let mut healths = Healths::default();
        for &place in &self.members[vni] {
            let instance = &self.instances[place];
            if instance.foreseen.evacuate {
                healths.recall(&instance.config.name);
            }
        }
        healths
    }

    fn judge(
        &self,
        vni: usize,
        judgements: &[Judgement],
        policy: &Policy,
        healths: &mut Healths,
    ) -> Vec<(usize, Verdict)> {
        let of = |name: &str| judgements.iter().find(|j| j.instance == name);
        let members = self.members[vni].iter();
        // Who came with a configuration that the engine has not judged by yet is not known, but is there.
        let known = |&place: &usize| {
            let instance = &self.instances[place];
            let name = instance.config.name.as_str();
            let lives = instance.service().is_relied_on();
            Known {
                name,
                capacity: instance.config.weight as f32,
                outlook: of(name).and_then(|j| j.outlook).filter(|_| lives),
                out: !instance.is_for_foresight(),
            }
        };
        let known: Vec<Known<'_>> = members.clone().map(known).collect();
        let decisions = healths.update(policy, &known);
        let verdict = |(&place, decision): (&usize, Decision)| {
            let judgement = of(&decision.name)?.clone();
            let vni = self.config.vnis[vni].name.clone();
            let verdict = Verdict {
                decision,
                vni,
                judgement,
            };
            Some((place, verdict))
        };
        members.zip(decisions).filter_map(verdict).collect()
    }

    /// Does what is decided of an instance.
    fn follow(&mut self, place: usize, verdict: Verdict, now_ns: u64) -> Vec<Action> {
        let Verdict {
            decision,
            vni,
            judgement,
        } = verdict;
        let apply = self.config.health.apply;
        let score = f64::from(decision.score);
        let instance = &mut self.instances[place];
        let name = instance.config.name.clone();
        let why = why(&judgement);
        let tell = |told, why: &str| Action::Foretell {
            instance: name.clone(),
            told,
            why: why.to_owned(),
            time_ns: now_ns,
        };
        let mut actions = Vec::new();
        let foreseen = &mut instance.foreseen;
        if foreseen.missing != judgement.missing {
            foreseen.missing = judgement.missing;
            actions.push(match judgement.missing {
                true => tell(Told::Unknown, "its metrics are missing"),
                false => tell(Told::Known, "its metrics are there"),
            });
        }
        let is_doubtful = match foreseen.doubtful {
            true => score < SCORE_WELL,
            false => score < SCORE_LOW,
        };
        if is_doubtful != foreseen.doubtful && !foreseen.evacuate {
            foreseen.doubtful = is_doubtful;
            let told = match is_doubtful {
                true => Told::Doubtful,
                false => Told::Well,
            };
            actions.push(tell(told, &why));
        }
        foreseen.score = score;
        foreseen.wanted = decision.evacuate;
        // The risk has gone: the next one is not the operator's any more.
        foreseen.overruled &= decision.evacuate;
        foreseen.judgement = Some((vni, judgement));
        if apply != Apply::Nothing && (foreseen.followed - score).abs() > SCORE_STEP {
            foreseen.followed = score;
            actions.push(Action::Publish);
        }
        let wants = decision.evacuate && apply == Apply::AllFlows && !foreseen.overruled;
        let goes = wants && !foreseen.evacuate && instance.is_for_foresight();
        let refusal = match goes {
            true => self.others_can_bear(place).err(),
            false => decision
                .withheld
                .then(|| "too much of the capacity is out already".to_owned()),
        };
        let instance = &mut self.instances[place];
        let withheld = refusal.is_some();
        if withheld && !instance.foreseen.withheld && apply == Apply::AllFlows {
            let refusal = refusal.unwrap_or_default();
            actions.push(tell(Told::Withheld, &format!("{why}; {refusal}")));
        }
        instance.foreseen.withheld = withheld;
        if goes && !withheld {
            actions.push(tell(Told::Evacuated, &why));
            actions.extend(self.change(place, now_ns, Cause::Predicted, |instance| {
                instance.foreseen.evacuate = true;
                instance.be_patient(now_ns);
            }));
        } else if !wants && instance.foreseen.evacuate {
            actions.push(tell(Told::Returned, &why));
            actions.extend(self.change(place, now_ns, Cause::Recovered, |instance| {
                instance.foreseen.evacuate = false;
            }));
        }
        actions
    }

    /// Whether every VNI of an instance has another one that can be counted on.
    fn others_can_bear(&self, place: usize) -> Result<(), String> {
        let name = &self.instances[place].config.name;
        for members in self.members.iter().filter(|m| m.contains(&place)) {
            let candidates = members.iter().map(|&m| self.instances[m].candidate());
            let candidates: Vec<_> = candidates.collect();
            // How much may go at once is the policy's to say.
            let budget = Budget {
                out_max_percent: 100,
            };
            may_evacuate(&candidates, name, budget).map_err(|refusal| refusal.to_string())?;
        }
        Ok(())
    }
}

impl State {
    /// How an instance fares: what a model is to foresee.
    pub(super) fn seen(&self, instance: &Instance, now_ns: u64) -> Seen {
        let failure = instance.failure;
        let known = fate::Known {
            ordered: instance.order != Order::None,
            failure: failure.map(|failure| (failure.cause, failure.is_suspicion)),
            evacuated_ns: instance.foreseen.evacuate.then_some(instance.changed_ns),
            refused_ns: self.evidence.refused_ns(instance.number as u16),
        };
        fate::fate(&known, now_ns)
    }
}

impl Instance {
    /// Whether it is for predictions to say what becomes of it: no order stands, and it has not failed.
    fn is_for_foresight(&self) -> bool {
        let foreseen = self.foreseen.evacuate && self.service() == Service::Evacuating;
        self.order == Order::None && (foreseen || self.service() == Service::Up)
    }
}

/// The score, the probabilities and the signals that did it.
fn why(judgement: &Judgement) -> String {
    let Some(outlook) = judgement.outlook else {
        return "nothing is known of it".to_owned();
    };
    let mut text = format!("score {:.2}", outlook.score);
    // Writing to a string cannot fail.
    if let Some([p5, _, _, p60]) = outlook.chances {
        let _ = write!(text, ", P5 {p5:.2} P60 {p60:.2}");
    }
    for reason in judgement.reasons.iter().take(REASONS_TOLD) {
        let _ = write!(text, ", {} +{:.2}", reason.signal, reason.risk);
    }
    if let Some(end_s) = judgement.depletion_s.filter(|end_s| *end_s < 60.0) {
        let _ = write!(text, ", memory used up in {end_s:.0} s");
    }
    text
}

#[cfg(test)]
mod tests;
