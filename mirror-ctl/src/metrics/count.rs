//! Counts what happens, as it is logged: the log forgets its oldest entries, the counts do not.

use super::{
    ByInstanceChange, ByInstancePrediction, ByVni, ByVniInstance, ByVniInstanceCause,
    ByVniInstanceReason, Metrics,
};
use crate::agent::log::LogEntry;

impl Metrics {
    /// Counts one entry of the log.
    pub fn happened(&self, entry: &LogEntry) {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let vni = || text(&entry.vni);
        let at = |instance: &Option<String>| ByVniInstance {
            vni: vni(),
            compute_instance: text(instance),
        };
        match entry.kind.as_str() {
            "flow-opened" => self.flows_opened.get_or_create(&at(&entry.to)).inc(),
            "flow-closed" => self.flows_closed.get_or_create(&ByVni { vni: vni() }).inc(),
            "flow-warm" => self.mirrors_warm.get_or_create(&at(&entry.to)).inc(),
            "flow-cold" => {
                let labels = ByVniInstanceReason {
                    vni: vni(),
                    compute_instance: text(&entry.from),
                    reason: text(&entry.cause),
                };
                self.mirrors_cold.get_or_create(&labels).inc()
            }
            // By the instance that was left alone: pairs would be as many as instances squared.
            "takeover" => {
                let labels = ByVniInstanceCause {
                    vni: vni(),
                    compute_instance: text(&entry.from),
                    cause: text(&entry.cause),
                };
                self.takeovers.get_or_create(&labels).inc()
            }
            "instance-state" => {
                let labels = ByInstanceChange {
                    compute_instance: text(&entry.instance),
                    state: text(&entry.to),
                    cause: text(&entry.cause),
                };
                self.instance_changes.get_or_create(&labels).inc()
            }
            "prediction" => {
                let labels = ByInstancePrediction {
                    compute_instance: text(&entry.instance),
                    told: text(&entry.to),
                };
                self.predictions.get_or_create(&labels).inc()
            }
            "configuration" => self.configurations.inc(),
            _ => 0,
        };
    }
}
