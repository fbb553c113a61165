//! What an operator orders: carried out unless it would leave a VNI without a healthy instance. Pure.

use super::{
    decide::Action,
    state::{Order, State},
};
use crate::{
    health::Cause,
    mirroring::{Budget, Refusal::AlreadyOut, may_evacuate},
    routing::State as Service,
};

/// Why an order is not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such instance.
    #[error("there is no instance {0:?}")]
    Unknown(String),
    /// It would leave a VNI without a healthy instance.
    #[error("vni {vni:?}: {reason} (--force does it all the same)")]
    LastHealthy {
        /// The VNI.
        vni: String,
        /// Why.
        reason: String,
    },
}

impl State {
    /// An operator ordered something; `Order::None` is `restore`.
    pub fn ordered(
        &mut self,
        name: &str,
        order: Order,
        force: bool,
        now_ns: u64,
    ) -> Result<Vec<Action>, Refusal> {
        let place = self
            .find(name)
            .ok_or_else(|| Refusal::Unknown(name.to_owned()))?;
        if order != Order::None && !force {
            self.check_last(place)?;
        }
        let mut actions = self.change(place, now_ns, Cause::Operator, |instance| {
            instance.set_order(order, now_ns);
            // Nor does a prediction that has been looked at count any longer.
            if order == Order::None && instance.foreseen.wanted {
                instance.foreseen.overruled = true;
                instance.foreseen.evacuate = false;
            }
            // `restore` overrules what was concluded; a link that is down is a fact.
            if order == Order::None && instance.link_up_ns.is_some() && instance.mac.is_some() {
                instance.last_failure = None;
                instance.failure = None;
                instance.trial = None;
            }
        });
        if actions.is_empty() {
            // Ordered what is so already: the order is noted all the same.
            actions.push(Action::WriteInstance(place));
        }
        Ok(actions)
    }

    fn check_last(&self, place: usize) -> Result<(), Refusal> {
        let name = &self.instances[place].config.name;
        for (vni, members) in self.config.vnis.iter().zip(&self.members) {
            if !members.contains(&place) {
                continue;
            }
            let candidate = |&member: &usize| {
                let instance = &self.instances[member];
                instance.candidate()
            };
            let candidates: Vec<_> = members.iter().map(candidate).collect();
            // An operator may take out as much as he likes, but not the last one.
            let budget = Budget {
                out_max_percent: 100,
            };
            match may_evacuate(&candidates, name, budget) {
                Ok(()) => {}
                // Already on its way out: it may go further unless all flows hang on it.
                Err(AlreadyOut { .. }) if !self.is_last(place) => {}
                Err(AlreadyOut { .. }) if self.instances[place].service() == Service::Dead => {}
                Err(refusal) => {
                    return Err(Refusal::LastHealthy {
                        vni: vni.name.clone(),
                        reason: refusal.to_string(),
                    });
                }
            }
        }
        Ok(())
    }
}
