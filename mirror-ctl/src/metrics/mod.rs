//! Every metric, declared here and nowhere else: the field, its labels, its name and what it means. The
//! comment of a field is the help text that is scraped, and `docs/operations.md` must name each.

#[cfg(test)]
mod contrib_tests;
mod count;
mod fill;
mod text;
mod times;

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

pub use fill::Facts;
pub use text::CONTENT_TYPE;
pub use times::Times;

/// What every name begins with.
const PREFIX: &str = "mirror";
/// Upper ends of the loop's buckets, seconds: from a look at the evidence to a whole new steering table.
const LOOP_BUCKETS_S: [f64; 9] = [
    0.000_01, 0.000_05, 0.000_2, 0.001, 0.005, 0.02, 0.1, 0.5, 2.0,
];

/// A number that is taken over as it is, such as the dataplane's own counts.
type Level = Gauge<f64, AtomicU64>;
type LoopTimes = Family<ByEvent, Histogram, fn() -> Histogram>;

/// Declares the metrics: a field, its type, its name, and its help text as the comment.
macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $field:ident: $kind:ty = $name:literal $(, $initial:expr)?;)+) => {
        /// All metrics.
        #[derive(Debug)]
        pub struct Metrics {
            $($(#[doc = $help])+ pub(crate) $field: $kind,)+
            registry: Registry,
            /// Held while what is read at a scrape is filled in and encoded: one scrape at a time.
            scrape: Mutex<()>,
        }

        impl Metrics {
            /// Name (without prefix and suffixes) and help text of each.
            pub const DECLARED: &'static [(&'static str, &'static str)] =
                &[$(($name, concat!($($help),+)),)+];

            /// Of what type each is.
            #[cfg(test)]
            const KINDS: &'static [&'static str] = &[$(stringify!($kind),)+];

            /// All at nothing.
            pub fn new() -> Self {
                let mut registry = Registry::with_prefix(PREFIX);
                $(
                    let $field: $kind = initial!($($initial)?);
                    // The registry adds the full stop.
                    let help = concat!($($help),+).trim().trim_end_matches('.');
                    registry.register($name, help, $field.clone());
                )+
                Self { $($field,)+ registry, scrape: Mutex::new(()) }
            }
        }
    };
}

macro_rules! initial {
    () => {
        Default::default()
    };
    ($initial:expr) => {
        $initial
    };
}

metrics! {
    // The agent.

    /// The running program: always 1.
    build: Family<Build, Level> = "build_info";
    /// When the agent started, seconds since 1970.
    start_time: Level = "agent_start_time_seconds";
    /// How long the agent's loop took for one event, by the kind of event.
    loop_time: LoopTimes = "agent_loop_seconds", Family::new_with_constructor(loop_times);
    /// Readers of the event stream that were cut off because they were too slow.
    readers_cut: Counter = "event_readers_cut";

    /// Flows that the version before still has, which was replaced and lets them end.
    predecessor_flows: Level = "predecessor_flows";
    /// Flows of versions before that were left when their time was up.
    predecessor_cut: Counter = "predecessor_flows_cut";

    // The dataplane.

    /// What became of packets, by VNI and reason; those of no VNI, and of VNIs that are gone, have an empty one.
    packets: Family<ByVniReason, Counter> = "packets";
    /// Entries in a map of the dataplane.
    map_entries: Family<ByMap, Level> = "map_entries";
    /// How many entries a map of the dataplane can hold.
    map_capacity: Family<ByMap, Level> = "map_capacity";
    /// How the program on an interface is attached: 1 for the mode in use.
    interface_mode: Family<ByInterface, Level> = "interface_mode";
    /// 1 when drivers can redirect frames to the interface, 0 when copies for it would vanish.
    interface_redirect: Family<ByName, Level> = "interface_redirect";

    // The instances.

    /// 1 for the state that the instance is in.
    instance_state: Family<ByState, Level> = "instance_state";
    /// Health score, 0 to 1.
    instance_score: Family<ByInstance, Level> = "instance_score";
    /// Score that is predicted, 0 to 1; absent while nothing is known.
    instance_predicted: Family<ByInstance, Level> = "instance_predicted_score";
    /// Probability of failing within so many seconds, by the model.
    instance_chance: Family<ByInstanceHorizon, Level> = "instance_failure_probability";
    /// Configured weight.
    instance_weight: Family<ByInstance, Level> = "instance_weight";
    /// Flows that the instance answers.
    instance_active: Family<ByInstance, Level> = "instance_active_flows";
    /// Flows that the instance could take over at once.
    instance_warm: Family<ByInstance, Level> = "instance_warm_flows";
    /// Flows that the instance mirrors and could not take over, by reason.
    instance_cold: Family<ByInstanceReason, Level> = "instance_cold_flows";
    /// Packets to the instance.
    instance_sent: Family<ByInstance, Counter> = "instance_sent_packets";
    /// Packets of VNIs from the instance.
    instance_received: Family<ByInstance, Counter> = "instance_received_packets";
    /// Segments that the instance sent again.
    instance_retransmissions: Family<ByInstance, Counter> = "instance_retransmissions";
    /// Resets of established flows that no other replica sent.
    instance_resets: Family<ByInstance, Counter> = "instance_resets";
    /// FINs that no other replica had sent.
    instance_early_closes: Family<ByInstance, Counter> = "instance_early_closes";
    /// From a client's first SYN to the instance's first SYN-ACK.
    instance_handshake: Family<ByInstance, Times> = "instance_handshake_seconds";
    /// From a client's segment to the instance's acknowledgement, of a sample.
    instance_ack: Family<ByInstance, Times> = "instance_ack_seconds";
    /// From a client's segment to the first byte that the instance said after it, of a sample.
    instance_answer: Family<ByInstance, Times> = "instance_answer_seconds";
    /// From the takeover of a flow whose client waited for something to the first segment that the instance, active since then,
    /// sent to it.
    instance_stall: Family<ByInstance, Times> = "instance_takeover_stall_seconds";
    /// Requests that began, as the active replica and as a mirror.
    instance_requests: Family<ByInstance, Counter> = "instance_requests";
    /// SYNs that clients sent again because the instance had not answered.
    instance_unanswered: Family<ByInstance, Counter> = "instance_unanswered_syns";
    /// Requests that the instance has not answered; absent until the flows were walked.
    instance_in_flight: Family<ByInstance, Level> = "instance_in_flight_requests";
    /// Bytes by which the instance trails in flows that it could take over.
    instance_lag: Family<ByInstance, Level> = "instance_mirror_lag_bytes";

    // The models that predict.

    /// Mean log-loss of the probability of failing within 30 s, by the model's role, over the last seven days.
    model_log_loss: Family<ByRole, Level> = "model_log_loss";
    /// Mean Brier score of the same, by the model's role.
    model_brier: Family<ByRole, Level> = "model_brier_score";
    /// Alarms of the last seven days that nothing came of, by the model's role.
    model_false_alarms: Family<ByRole, Level> = "model_false_alarms";
    /// Failures of the last seven days that models were judged by.
    model_failures: Level = "model_judged_failures";
    /// Population stability index of the champion's features, weighed by their use; absent while not known.
    model_drift: Family<ByRole, Level> = "model_drift_psi";
    /// Moments of what was judged that were recorded.
    recorded: Counter = "recorded_moments";
    /// Moments that could not be recorded.
    recorded_lost: Counter = "recorded_moments_lost";

    // The VNIs.

    /// Flows of the VNI.
    vni_flows: Family<ByVni, Level> = "vni_flows";
    /// Flows of the VNI that no mirror could take over at once, by the reason of the best mirror.
    vni_unprotected: Family<ByVniReason, Level> = "vni_unprotected_flows";
    /// The instance's part of the VNI's new flows, 0 to 1.
    vni_share: Family<ByVniInstance, Level> = "vni_share";
    /// The instance's part of the new flows of a zone that has a steering table of its own, 0 to 1.
    zone_share: Family<ByVniZoneInstance, Level> = "zone_share";
    /// Zones of the VNI whose clients would have a steering table if there were more.
    zones_without: Family<ByVni, Level> = "zones_without_table";

    // What happened, since the agent started; what the dataplane could not report is in
    // `packets` with the reason `event_lost`.

    /// Flows opened, by the instance that was chosen.
    flows_opened: Family<ByVniInstance, Counter> = "flows_opened";
    /// Flows closed by both sides.
    flows_closed: Family<ByVni, Counter> = "flows_closed";
    /// Mirrors that became able to take over a flow.
    mirrors_warm: Family<ByVniInstance, Counter> = "mirrors_warmed";
    /// Mirrors that became unable to take over a flow, by reason.
    mirrors_cold: Family<ByVniInstanceReason, Counter> = "mirrors_went_cold";
    /// Flows that moved away from an instance, by cause.
    takeovers: Family<ByVniInstanceCause, Counter> = "takeovers";
    /// Changes of an instance's state, by the new state and the cause.
    instance_changes: Family<ByInstanceChange, Counter> = "instance_changes";
    /// What predictions led to, by instance and what was told.
    predictions: Family<ByInstancePrediction, Counter> = "predictions";
    /// Configurations put in force.
    configurations: Counter = "configurations";
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Everything as text in the format that Prometheus reads, with what `facts` say filled in.
    pub fn scrape(&self, facts: &Facts<'_>) -> String {
        let _one = self.scrape.lock().unwrap_or_else(PoisonError::into_inner);
        self.fill(facts);
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text::plain(&text)
    }

    /// Counts flows of a version before that were cut.
    pub fn cut(&self, flows: u64) {
        self.predecessor_cut.inc_by(flows);
    }

    /// Takes the time that the loop spent on an event.
    pub fn looped(&self, event: &'static str, seconds: f64) {
        let label = ByEvent { event };
        self.loop_time.get_or_create(&label).observe(seconds);
    }
}

fn loop_times() -> Histogram {
    Histogram::new(LOOP_BUCKETS_S)
}

/// Sets a counter to what another counter says.
fn set(counter: &Counter, value: u64) {
    counter.inner().store(value, Ordering::Relaxed);
}

/// Declares sets of labels.
macro_rules! labels {
    ($($name:ident { $($label:ident: $kind:ty),+ })+) => {$(
        #[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub(crate) struct $name { $(pub(crate) $label: $kind),+ }
    )+};
}

// `compute_instance` and not `instance`: that one is Prometheus' own, for what it scrapes, and would be renamed.
labels! {
    Build { version: &'static str, layout: u32 }
    ByEvent { event: &'static str }
    ByMap { map: &'static str }
    ByInterface { interface: String, role: String, mode: String }
    ByName { interface: String }
    ByState { compute_instance: String, state: &'static str }
    ByInstance { compute_instance: String }
    ByRole { role: &'static str }
    ByInstanceReason { compute_instance: String, reason: &'static str }
    ByInstanceHorizon { compute_instance: String, horizon_s: &'static str }
    ByInstancePrediction { compute_instance: String, told: String }
    ByInstanceChange { compute_instance: String, state: String, cause: String }
    ByVni { vni: String }
    ByVniReason { vni: String, reason: &'static str }
    ByVniInstance { vni: String, compute_instance: String }
    ByVniZoneInstance { vni: String, zone: String, compute_instance: String }
    ByVniInstanceReason { vni: String, compute_instance: String, reason: String }
    ByVniInstanceCause { vni: String, compute_instance: String, cause: String }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::log::KINDS;

    const MANUAL: &str = include_str!("../../../docs/operations.md");

    #[test]
    fn the_manual_names_every_metric_and_every_event() {
        let names = Metrics::DECLARED.iter().map(|(name, _)| name);
        for name in names.chain(&KINDS) {
            assert!(
                MANUAL.contains(&format!("`{name}`")),
                "{name} is not in docs/operations.md"
            );
        }
    }

    #[test]
    fn every_metric_says_what_it_means() {
        for (name, help) in Metrics::DECLARED {
            assert!(
                help.trim().ends_with('.') && help.len() > 12,
                "{name}: {help}"
            );
        }
    }
}
