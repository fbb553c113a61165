//! `select_instance`: the instance for one flow, by health, load and proximity.
//!
//! The dataplane steers by table, which knows weights but neither load nor source. This answers
//! for one flow by all that is known, and is what the table is to approximate.

use super::{
    candidate::Candidate,
    preference::{hash, mix},
    weights::{Bands, Rule, weights},
};

/// The least part of its weight that a loaded instance keeps: load is seen late, and an instance
/// shut out altogether would come back to a flood.
const HEADROOM_MIN: f64 = 0.05;

/// An answer of [`select_instance`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Position among the candidates.
    pub position: usize,
    /// Who was to choose from.
    pub rule: Rule,
}

/// The instance for the flow with hash `flow`, or none when there is no candidate.
///
/// The chance of an instance is in proportion to weight × score × headroom × 2^−cost. `cost`
/// says how far an instance is from the flow's source, 0 the nearest; each whole 1 halves its
/// chance, and infinity rules it out as long as there is another. Who may be chosen at all is
/// the [`Rule`] of [`weights`].
///
/// The choice is by weighted rendezvous hashing (Schindelhauer and Schomaker, *Weighted
/// distributed hash tables*, SPAA 2005): the highest of −share / ln(u), u a uniform hash of flow
/// and instance. The same flow gets the same answer, and a change of one instance's share moves
/// flows only to it or from it.
#[must_use]
pub fn select_instance(
    candidates: &[Candidate<'_>],
    flow: u64,
    cost: impl Fn(&Candidate<'_>) -> f64,
) -> Option<Selection> {
    let weights = weights(candidates, None, Bands::default());
    let eligible = || {
        candidates
            .iter()
            .zip(&weights.entries)
            .enumerate()
            .filter(|(_, (_, e))| e.weight > 0)
    };
    let draw = |name: &str, share: f64| {
        // 53 bits, in the open interval (0, 1).
        let uniform = ((mix(flow ^ hash(name)) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        -share / uniform.ln()
    };
    let best = |share: &dyn Fn(&Candidate<'_>, f64) -> f64| {
        eligible()
            .map(|(position, (candidate, entry))| {
                let share = share(candidate, f64::from(entry.weight));
                (draw(candidate.name, share), position)
            })
            .filter(|(drawn, _)| *drawn > 0.0)
            .max_by(|a, b| {
                a.0.total_cmp(&b.0)
                    .then(candidates[b.1].name.cmp(candidates[a.1].name))
            })
    };
    best(&|candidate, weight| weight * headroom(candidate.load) * nearness(cost(candidate)))
        .or_else(|| best(&|_, weight| weight))
        .map(|(_, position)| Selection {
            position,
            rule: weights.rule,
        })
}

/// Free part of the capacity; all of it where the load is unknown.
fn headroom(load: f64) -> f64 {
    if load.is_nan() {
        1.0
    } else {
        (1.0 - load).clamp(HEADROOM_MIN, 1.0)
    }
}

/// 2^−cost; unknown and negative costs are 0.
fn nearness(cost: f64) -> f64 {
    (-cost.max(0.0)).exp2()
}
