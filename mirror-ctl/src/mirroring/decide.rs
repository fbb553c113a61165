//! The whole decision for one VNI: weights, table and replica sets from what is known of its
//! instances and from what is in force.

use super::{
    buckets::assign,
    sets::{self, Options, Plan},
};
use crate::routing::{
    Bands, Candidate, Leaning, NONE, Weights,
    apportion::apportion,
    lean,
    maglev::{self, positions, rebuild, translate},
    weights,
};
use mirror_common::limits::STEERING_BUCKETS;

/// What is asked of a decision.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Policy {
    /// When a score is taken up.
    pub bands: Bands,
    /// Replica sets.
    pub sets: Options,
}

/// What is in force: the decision before, or what an agent found published when it started.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Previous {
    /// The instances, as `table` and `sets` number them.
    pub names: Vec<String>,
    /// Scores in force, if known.
    pub weights: Option<Weights>,
    /// For each bucket the position of its primary. Empty: there is no table yet.
    pub table: Vec<u32>,
    /// The sets, by positions, the primary first.
    pub sets: Vec<Vec<u32>>,
}

/// What is to be in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Effective weights, and by which rule; in the order of the candidates.
    pub weights: Weights,
    /// What the table is made of: those, or what distance and load made of them.
    pub leaned: Vec<u32>,
    /// For each bucket the position of its primary among the candidates, or [`NONE`].
    pub table: Vec<u32>,
    /// The replica sets, by positions among the candidates.
    pub plan: Plan,
}

impl Decision {
    /// This as what is in force for the next one.
    #[must_use]
    pub fn into_previous(self) -> Previous {
        Previous {
            names: self
                .weights
                .entries
                .iter()
                .map(|entry| entry.name.clone())
                .collect(),
            weights: Some(self.weights),
            table: self.table,
            sets: self.plan.sets,
        }
    }

    /// The steering table as the dataplane reads it, see [`assign`]. `published` is the one in
    /// force; one of another length counts as none.
    #[must_use]
    pub fn steering(&self, numbers: &[u32], published: &[u32]) -> Vec<u32> {
        self.numbered(&self.table, numbers, published)
    }

    /// The same of another table with the same plan.
    #[must_use]
    pub fn numbered(&self, table: &[u32], numbers: &[u32], published: &[u32]) -> Vec<u32> {
        if published.len() == table.len() {
            assign(table, &self.plan, numbers, published)
        } else {
            assign(table, &self.plan, numbers, &vec![NONE; table.len()])
        }
    }

    /// The table, by positions, for sources from which the instances weigh otherwise; none: it would be the common one, to the
    /// bucket. It follows `previous`, by positions among `before`, or if that is empty the common one.
    #[must_use]
    pub fn table_for(
        &self,
        leaning: &Leaning,
        before: &[String],
        previous: &[u32],
    ) -> Option<Vec<u32>> {
        let leaned = lean(&self.weights, leaning);
        let buckets =
            |weights: &[u32]| apportion(weights, STEERING_BUCKETS, &vec![0; weights.len()]);
        if buckets(&leaned) == buckets(&self.leaned) {
            return None;
        }
        let names = self.weights.entries.iter();
        let names: Vec<&str> = names.map(|entry| entry.name.as_str()).collect();
        let before: Vec<&str> = before.iter().map(String::as_str).collect();
        let in_force = match previous.is_empty() {
            true => self.table.clone(),
            false => translate(previous, &before, &names),
        };
        Some(rebuild(&members(&names, &leaned), &in_force))
    }
}

/// Decides for a VNI with these `candidates`. Moves as little as possible of what is in force;
/// the same candidates again decide the same again.
///
/// `leaning`: what distance and load do to the table. Who mirrors whom does not depend on it: mirrors are to be able to carry what
/// they take over, wherever it came from.
#[must_use]
pub fn decide(
    candidates: &[Candidate<'_>],
    policy: &Policy,
    previous: &Previous,
    leaning: Option<&Leaning>,
) -> Decision {
    let weights = weights(candidates, previous.weights.as_ref(), policy.bands);
    let values = weights.values();
    let leaned = leaning.map_or_else(|| values.clone(), |leaning| lean(&weights, leaning));
    let before: Vec<&str> = previous.names.iter().map(String::as_str).collect();
    let now: Vec<&str> = candidates.iter().map(|candidate| candidate.name).collect();

    let mut in_force = translate(&previous.table, &before, &now);
    if in_force.is_empty() {
        in_force = vec![NONE; STEERING_BUCKETS as usize];
    }
    let table = rebuild(&members(&now, &leaned), &in_force);

    let moved = positions(&before, &now);
    let translated: Vec<Vec<u32>> = previous
        .sets
        .iter()
        .map(|set| {
            set.iter()
                .map(|&p| moved.get(p as usize).copied().unwrap_or(NONE))
                .collect()
        })
        .collect();
    let members: Vec<sets::Member<'_>> = candidates
        .iter()
        .zip(&values)
        .map(|(candidate, &weight)| sets::Member {
            name: candidate.name,
            weight,
            domain: candidate.domain,
        })
        .collect();
    let plan = sets::plan(&members, &policy.sets, &translated);
    Decision {
        weights,
        leaned,
        table,
        plan,
    }
}

fn members<'a>(names: &[&'a str], weights: &[u32]) -> Vec<maglev::Member<'a>> {
    names
        .iter()
        .zip(weights)
        .map(|(&name, &weight)| maglev::Member { name, weight })
        .collect()
}
