//! What may be taken out of service: never the last healthy instance, never too much at once.

use crate::routing::{Candidate, State};
use thiserror::Error;

/// How much may be out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Most of the configured capacity that may be out of service at once, in percent. Dead,
    /// draining and evacuating instances are out.
    pub out_max_percent: u32,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            out_max_percent: 50,
        }
    }
}

/// Why an instance may not be taken out.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// There is no such instance.
    #[error("there is no instance `{name}`")]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// It is out already, or on its way.
    #[error("instance `{name}` is {} already", state.name())]
    AlreadyOut {
        /// The instance.
        name: String,
        /// Its state.
        state: State,
    },
    /// Nobody would be left who can be counted on.
    #[error(
        "instance `{name}` is the last healthy one: of {others} other(s), none is up with a \
         weight and a score that can be relied on"
    )]
    LastHealthy {
        /// The instance.
        name: String,
        /// How many other instances there are.
        others: usize,
    },
    /// The others would have to carry too much.
    #[error(
        "without instance `{name}`, {out_percent} % of the capacity would be out of service; \
         at most {max_percent} % may be (already out: {already_out})"
    )]
    Capacity {
        /// The instance.
        name: String,
        /// What would be out, in percent, rounded up.
        out_percent: u64,
        /// The budget.
        max_percent: u32,
        /// Who is out already, or `none`.
        already_out: String,
    },
}

/// Whether the instance called `name` may be evacuated or drained.
///
/// `candidates` are all instances of a VNI; an instance that serves several VNIs is to be asked
/// for in each.
///
/// # Errors
/// [`Refusal`], with the reason to show to whoever asked.
pub fn may_evacuate(
    candidates: &[Candidate<'_>],
    name: &str,
    budget: Budget,
) -> Result<(), Refusal> {
    let asked = candidates
        .iter()
        .find(|candidate| candidate.name == name)
        .ok_or_else(|| Refusal::Unknown {
            name: name.to_owned(),
        })?;
    if asked.state != State::Up {
        return Err(Refusal::AlreadyOut {
            name: name.to_owned(),
            state: asked.state,
        });
    }
    let others = || candidates.iter().filter(|candidate| candidate.name != name);
    if !others().any(Candidate::is_healthy) {
        return Err(Refusal::LastHealthy {
            name: name.to_owned(),
            others: others().count(),
        });
    }
    let capacity = |candidate: &Candidate<'_>| u64::from(candidate.weight);
    let total: u64 = candidates.iter().map(capacity).sum();
    let gone = others().filter(|candidate| candidate.state != State::Up);
    let out = capacity(asked) + gone.clone().map(capacity).sum::<u64>();
    // A stand-by without weight takes no capacity with it.
    if asked.weight > 0 && out * 100 > total * u64::from(budget.out_max_percent) {
        let names: Vec<&str> = gone.map(|candidate| candidate.name).collect();
        return Err(Refusal::Capacity {
            name: name.to_owned(),
            out_percent: (out * 100).div_ceil(total),
            max_percent: budget.out_max_percent,
            already_out: if names.is_empty() {
                "none".to_owned()
            } else {
                names.join(", ")
            },
        });
    }
    Ok(())
}
