//! Brings the engine and the agent together: what the dataplane noticed goes to the one, what is expected to the other.

use std::collections::HashMap;

use mirror_common::reason::Cold;
use tracing::warn;

use super::{Agent, decide::Action, log::LogEntry, view::HealthRow};
use crate::{clock, config::Config, health::board::Noticed};

impl Agent {
    /// Has the engine follow a configuration. A model that is not taken changes nothing but the event log.
    pub(super) fn watch_health(&mut self, config: &Config) {
        for refused in self.watch.follow(config) {
            let (what, reason) = (refused.told(), refused.to_string());
            warn!("{what}: {reason}");
            self.log.add([LogEntry {
                time_ns: clock::now_ns(),
                kind: "prediction".to_owned(),
                to: Some(what.to_owned()),
                cause: Some(reason),
                ..LogEntry::default()
            }]);
        }
    }

    /// Tells the engine what was noticed; what is to be done if it has judged anew.
    pub(super) fn foresee(&mut self, now_ns: u64) -> Vec<Action> {
        if !self.state.config.watches() {
            return Vec::new();
        }
        self.watch.board.notice(self.noticed(now_ns));
        if !self.state.config.predicts() {
            return Vec::new();
        }
        let judged = self.watch.board.judged();
        if judged.number == self.judged {
            return Vec::new();
        }
        self.judged = judged.number;
        if let Some(standing) = &judged.standing {
            self.learn(standing);
        }
        let actions = self.state.foresee(&judged, now_ns);
        if actions.is_empty() {
            // The figures are new, though nothing follows from them.
            self.show();
        }
        actions
    }

    fn noticed(&self, now_ns: u64) -> HashMap<String, Noticed> {
        let census = &self.sweep.census;
        let noticed = |instance: &super::state::Instance| {
            let number = instance.number as u16;
            let of = |counts: &HashMap<u16, u64>| counts.get(&number).copied().unwrap_or(0);
            let cold = census.cold.iter().filter(|((of, _), _)| *of == number);
            let cold_flows: u64 = cold.clone().map(|(_, flows)| flows).sum();
            let diverged = cold.filter(|((_, reason), _)| *reason == Cold::Diverged.name());
            let warm = of(&census.warm);
            let walked = self.sweep.began_ns != 0;
            let noticed = Noticed {
                number: instance.number,
                at_ns: now_ns,
                vitals: instance.vitals,
                flows: of(&census.active) + warm + cold_flows,
                diverged: diverged.map(|(_, flows)| flows).sum(),
                in_flight: walked.then(|| of(&census.in_flight)),
                lag_bytes: (walked && warm > 0).then(|| of(&census.lag_bytes)),
                seen: self.state.seen(instance, now_ns),
            };
            (instance.config.name.clone(), noticed)
        };
        self.state.instances.iter().map(noticed).collect()
    }

    /// What is expected of each instance, with the reasons.
    pub(super) fn health_rows(&self) -> Vec<HealthRow> {
        if !self.state.config.predicts() {
            return Vec::new();
        }
        let row = |instance: &super::state::Instance| {
            HealthRow::of(
                &instance.config.name,
                instance.candidate().score,
                instance.config.metrics.is_some(),
                &instance.foreseen,
            )
        };
        self.state.instances.iter().map(row).collect()
    }
}
