//! What is read when it is asked for: the dataplane's counters and maps, and what the agent shows.

use mirror_common::{
    LAYOUT_VERSION,
    counts::Counts,
    instance::{Measures, Vitals},
    limits,
};

use super::{
    Build, ByInstance, ByInstanceHorizon, ByInstanceReason, ByInterface, ByMap, ByName, ByRole,
    ByState, ByVni, ByVniInstance, ByVniReason, ByVniZoneInstance, Metrics, set,
};
use crate::{
    agent::{
        models::ModelsRow,
        view::{InstanceRow, View},
    },
    connections::Census,
    dataplane::FlowTable,
    routing::{Choice, State as Service},
};

/// What a scrape tells.
pub struct Facts<'a> {
    /// What the agent shows.
    pub view: &'a View,
    /// The dataplane's counters by the VNI's name.
    pub counters: &'a [(String, Counts)],
    /// What the dataplane noticed of each instance, in the view's order.
    pub vitals: &'a [Vitals],
    /// What it has measured of each, likewise.
    pub measures: &'a [Measures],
    /// Entries that each flow table has room for: those of an adopted dataplane are its own.
    pub capacities: [u32; FlowTable::ALL.len()],
    /// VNIs that there is room for.
    pub vnis_max: u32,
    /// When the agent started, seconds since 1970.
    pub started_s: f64,
}

impl Metrics {
    pub(super) fn fill(&self, facts: &Facts<'_>) {
        let build = Build {
            version: env!("CARGO_PKG_VERSION"),
            layout: LAYOUT_VERSION,
        };
        self.build.get_or_create(&build).set(1.0);
        self.start_time.set(facts.started_s);
        let draining = facts.view.draining.as_ref();
        let left = draining.and_then(|row| row.flows).unwrap_or(0);
        self.predecessor_flows.set(left as f64);
        self.fill_packets(facts.counters);
        self.fill_maps(facts);
        self.fill_instances(facts);
        self.fill_vnis(facts.view);
        self.fill_models(&facts.view.models);
    }

    fn fill_packets(&self, counters: &[(String, Counts)]) {
        self.packets.clear();
        for (vni, counts) in counters {
            for (reason, count) in counts.iter() {
                let labels = ByVniReason {
                    vni: vni.clone(),
                    reason: reason.name(),
                };
                set(&self.packets.get_or_create(&labels), count);
            }
        }
    }

    fn fill_maps(&self, facts: &Facts<'_>) {
        let view = facts.view;
        let [half_open, mirrored, unmirrored, datagram] = facts.capacities;
        let tables = &view.census.tables;
        let table = |name: &str| tables.get(name).copied().unwrap_or(0);
        let maps = [
            ("half_open", table("half_open"), half_open),
            ("flows", table("unmirrored"), unmirrored),
            ("mirrored_flows", table("mirrored"), mirrored),
            ("datagram_flows", table("datagram"), datagram),
            ("sets", view.mirrors.len() as u64, limits::REPLICA_SETS),
            ("instances", view.instances.len() as u64, limits::INSTANCES),
            ("steering", view.vnis.len() as u64, facts.vnis_max),
            (
                "vnis",
                view.names.addresses.len() as u64,
                limits::VNI_ADDRESSES,
            ),
            ("ports", view.interfaces.len() as u64, limits::PORTS),
        ];
        for (map, entries, capacity) in maps {
            let map = ByMap { map };
            self.map_entries.get_or_create(&map).set(entries as f64);
            self.map_capacity.get_or_create(&map).set(capacity.into());
        }
        self.interface_mode.clear();
        self.interface_redirect.clear();
        for row in &view.interfaces {
            let labels = ByInterface {
                interface: row.name.clone(),
                role: row.role.clone(),
                mode: row.mode.clone(),
            };
            self.interface_mode.get_or_create(&labels).set(1.0);
            let label = ByName {
                interface: row.name.clone(),
            };
            let redirect = f64::from(u8::from(row.redirect));
            self.interface_redirect.get_or_create(&label).set(redirect);
        }
    }

    fn fill_instances(&self, facts: &Facts<'_>) {
        // Removed ones must not go on being reported.
        self.instance_state.clear();
        self.instance_cold.clear();
        self.instance_chance.clear();
        for family in [
            &self.instance_score,
            &self.instance_predicted,
            &self.instance_weight,
            &self.instance_active,
            &self.instance_warm,
            &self.instance_in_flight,
            &self.instance_lag,
        ] {
            family.clear();
        }
        for family in [
            &self.instance_sent,
            &self.instance_received,
            &self.instance_retransmissions,
            &self.instance_resets,
            &self.instance_early_closes,
            &self.instance_requests,
            &self.instance_unanswered,
        ] {
            family.clear();
        }
        self.instance_handshake.clear();
        self.instance_ack.clear();
        self.instance_answer.clear();
        self.instance_stall.clear();
        for (place, row) in facts.view.instances.iter().enumerate() {
            let vitals = facts.vitals.get(place).copied().unwrap_or_default();
            self.fill_instance(row, &vitals, &facts.view.census);
            if let Some(measures) = facts.measures.get(place) {
                self.fill_measures(row, measures);
            }
        }
    }

    fn fill_measures(&self, row: &InstanceRow, measures: &Measures) {
        let labels = ByInstance {
            compute_instance: row.name.clone(),
        };
        for (family, times) in [
            (&self.instance_handshake, &measures.handshake),
            (&self.instance_ack, &measures.ack),
            (&self.instance_answer, &measures.answer),
            (&self.instance_stall, &measures.stall),
        ] {
            family.get_or_create(&labels).set(times);
        }
        for (family, value) in [
            (&self.instance_requests, measures.requests),
            (&self.instance_unanswered, measures.unanswered),
        ] {
            set(&family.get_or_create(&labels), value);
        }
        for (family, value) in [
            (&self.instance_in_flight, row.in_flight),
            (&self.instance_lag, row.mirror_lag_bytes),
        ] {
            if let Some(value) = value {
                family.get_or_create(&labels).set(value as f64);
            }
        }
    }

    fn fill_instance(&self, row: &InstanceRow, vitals: &Vitals, census: &Census) {
        for state in Service::ALL {
            let labels = ByState {
                compute_instance: row.name.clone(),
                state: state.name(),
            };
            let is = f64::from(u8::from(state.name() == row.state));
            self.instance_state.get_or_create(&labels).set(is);
        }
        let labels = ByInstance {
            compute_instance: row.name.clone(),
        };
        for (family, value) in [
            (&self.instance_score, row.score),
            (&self.instance_weight, row.weight.into()),
            (&self.instance_active, row.flows as f64),
            (&self.instance_warm, row.warm as f64),
        ] {
            family.get_or_create(&labels).set(value);
        }
        if let Some(score) = row.predicted_score {
            self.instance_predicted.get_or_create(&labels).set(score);
        }
        let chances = [
            ("5", row.p5),
            ("15", row.p15),
            ("30", row.p30),
            ("60", row.p60),
        ];
        for (horizon_s, chance) in chances {
            let Some(chance) = chance else { continue };
            let compute_instance = row.name.clone();
            let labels = ByInstanceHorizon {
                compute_instance,
                horizon_s,
            };
            self.instance_chance.get_or_create(&labels).set(chance);
        }
        for (family, value) in [
            (&self.instance_sent, vitals.sent),
            (&self.instance_received, vitals.received),
            (&self.instance_retransmissions, vitals.retransmissions),
            (&self.instance_resets, vitals.resets),
            (&self.instance_early_closes, vitals.early_closes),
        ] {
            set(&family.get_or_create(&labels), value);
        }
        for ((instance, reason), flows) in &census.cold {
            if u32::from(*instance) == row.id {
                let labels = ByInstanceReason {
                    compute_instance: row.name.clone(),
                    reason,
                };
                self.instance_cold.get_or_create(&labels).set(*flows as f64);
            }
        }
    }

    fn fill_zones(&self, vni: &ByVni, choice: &Choice) {
        let without = choice.refused.len() as f64;
        self.zones_without.get_or_create(vni).set(without);
        for (place, table) in &choice.by_zone {
            let zone = choice.zones.get(*place);
            for (known, share) in choice.candidates.iter().zip(&table.shares) {
                let labels = ByVniZoneInstance {
                    vni: vni.vni.clone(),
                    zone: zone.cloned().unwrap_or_default(),
                    compute_instance: known.name.clone(),
                };
                self.zone_share.get_or_create(&labels).set(*share);
            }
        }
    }

    fn fill_models(&self, models: &ModelsRow) {
        for family in [
            &self.model_log_loss,
            &self.model_brier,
            &self.model_false_alarms,
            &self.model_drift,
        ] {
            family.clear();
        }
        self.model_failures.set(models.failures as f64);
        for (role, model) in [
            ("champion", &models.champion),
            ("challenger", &models.challenger),
        ] {
            let Some(model) = model else { continue };
            let label = ByRole { role };
            let false_alarms = Some(model.false_alarms as f64);
            for (family, value) in [
                (&self.model_log_loss, model.log_loss),
                (&self.model_brier, model.brier),
                (&self.model_false_alarms, false_alarms),
            ] {
                if let Some(value) = value {
                    family.get_or_create(&label).set(value);
                }
            }
        }
        if let Some(drift) = &models.drift {
            let label = ByRole { role: "champion" };
            self.model_drift.get_or_create(&label).set(drift.psi);
        }
        if let Some(recording) = &models.recording {
            set(&self.recorded, recording.written);
            set(&self.recorded_lost, recording.lost);
        }
    }

    fn fill_vnis(&self, view: &View) {
        self.vni_flows.clear();
        self.vni_unprotected.clear();
        self.vni_share.clear();
        self.zone_share.clear();
        self.zones_without.clear();
        for row in &view.vnis {
            let vni = &row.name;
            let labels = ByVni { vni: vni.clone() };
            self.vni_flows.get_or_create(&labels).set(row.flows as f64);
            for part in &row.instances {
                let labels = ByVniInstance {
                    vni: vni.clone(),
                    compute_instance: part.instance.clone(),
                };
                self.vni_share.get_or_create(&labels).set(part.share);
            }
            if let Some(choice) = view.choices.get(vni) {
                self.fill_zones(&labels, choice);
            }
            for ((number, reason), flows) in &view.census.unprotected {
                if *number == row.id {
                    let labels = ByVniReason {
                        vni: vni.clone(),
                        reason,
                    };
                    self.vni_unprotected
                        .get_or_create(&labels)
                        .set(*flows as f64);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mirror_common::reason::Reason;

    use super::*;
    use crate::{
        agent::{log::LogEntry, view::ShareRow},
        routing::select::{Known, Table},
    };

    fn facts_text(metrics: &Metrics, view: &View) -> String {
        let mut measures = Measures {
            requests: 12,
            unanswered: 2,
            ..Measures::default()
        };
        // 6,104 steps are 0.1 s, between 4,096 and 8,192: 0.067 and 0.134 s.
        measures.ack.count(6_104);
        measures.ack.count(3);
        measures.answer.count(3);
        measures.stall.count(3);
        let mut counts = Counts::default();
        (0..7).for_each(|_| counts.count(Reason::Cloned));
        let counters = view.vnis.iter().map(|vni| (vni.name.clone(), counts));
        let others = (String::new(), Counts::default());
        let counters: Vec<_> = [others].into_iter().chain(counters).collect();
        metrics.scrape(&Facts {
            view,
            counters: &counters,
            vitals: &[Vitals {
                early_closes: 3,
                ..Vitals::default()
            }],
            measures: &[measures],
            capacities: [10, 20, 30, 40],
            vnis_max: 50,
            started_s: 5.0,
        })
    }

    fn table() -> Table {
        Table {
            shares: vec![0.75],
            ..Table::default()
        }
    }

    fn view() -> View {
        let mut view = View::default();
        view.instances.push(InstanceRow {
            name: "a".to_owned(),
            id: 4,
            state: "draining".to_owned(),
            warm: 2,
            in_flight: Some(3),
            ..InstanceRow::default()
        });
        view.vnis.push(crate::agent::view::VniRow {
            name: "web".to_owned(),
            id: 1,
            flows: 9,
            instances: vec![ShareRow {
                instance: "a".to_owned(),
                share: 0.5,
            }],
            ..Default::default()
        });
        let choice = Choice {
            zones: Arc::new(vec!["east".to_owned(), "west".to_owned()]),
            candidates: vec![Known {
                name: "a".to_owned(),
                state: Service::Up,
                score: 1.0,
                weight: 100_000,
                zone: None,
                in_flight: 0,
                load: 1.0,
                hot: false,
            }],
            by_zone: [(1, table())].into(),
            refused: [0].into(),
            ..Choice::default()
        };
        view.choices.insert("web".to_owned(), choice.into());
        view.census.cold.insert((4, "lag_bytes"), 6);
        view.census.unprotected.insert((1, "unmirrored"), 8);
        view
    }

    #[track_caller]
    fn check(text: &str, line: &str) {
        assert!(
            text.lines().any(|l| l == line),
            "{line:?} is not in\n{text}"
        );
    }

    #[test]
    fn a_scrape_tells_facts_and_history() {
        let metrics = Metrics::new();
        metrics.happened(&LogEntry {
            kind: "takeover".to_owned(),
            vni: Some("web".to_owned()),
            from: Some("a".to_owned()),
            to: Some("b".to_owned()),
            cause: Some("dead".to_owned()),
            ..LogEntry::default()
        });
        metrics.looped("tick", 0.003);
        let text = facts_text(&metrics, &view());
        for line in [
            "mirror_packets_total{vni=\"web\",reason=\"cloned\"} 7",
            "mirror_packets_total{vni=\"web\",reason=\"fragment\"} 0",
            "mirror_packets_total{vni=\"\",reason=\"cloned\"} 0",
            "mirror_instance_state{compute_instance=\"a\",state=\"draining\"} 1.0",
            "mirror_instance_state{compute_instance=\"a\",state=\"up\"} 0.0",
            "mirror_instance_warm_flows{compute_instance=\"a\"} 2.0",
            "mirror_instance_early_closes_total{compute_instance=\"a\"} 3",
            "mirror_instance_cold_flows{compute_instance=\"a\",reason=\"lag_bytes\"} 6.0",
            "mirror_instance_ack_seconds_count{compute_instance=\"a\"} 2",
            "mirror_instance_ack_seconds_bucket{le=\"0.000065536\",compute_instance=\"a\"} 1",
            "mirror_instance_ack_seconds_bucket{le=\"0.067108864\",compute_instance=\"a\"} 1",
            "mirror_instance_ack_seconds_bucket{le=\"0.134217728\",compute_instance=\"a\"} 2",
            "mirror_instance_ack_seconds_bucket{le=\"+Inf\",compute_instance=\"a\"} 2",
            "mirror_instance_answer_seconds_count{compute_instance=\"a\"} 1",
            "mirror_instance_takeover_stall_seconds_count{compute_instance=\"a\"} 1",
            "mirror_instance_handshake_seconds_count{compute_instance=\"a\"} 0",
            "mirror_instance_requests_total{compute_instance=\"a\"} 12",
            "mirror_instance_unanswered_syns_total{compute_instance=\"a\"} 2",
            "mirror_instance_in_flight_requests{compute_instance=\"a\"} 3.0",
            "mirror_vni_flows{vni=\"web\"} 9.0",
            "mirror_vni_unprotected_flows{vni=\"web\",reason=\"unmirrored\"} 8.0",
            "mirror_vni_share{vni=\"web\",compute_instance=\"a\"} 0.5",
            "mirror_zone_share{vni=\"web\",zone=\"west\",compute_instance=\"a\"} 0.75",
            "mirror_zones_without_table{vni=\"web\"} 1.0",
            "mirror_takeovers_total{vni=\"web\",compute_instance=\"a\",cause=\"dead\"} 1",
            "mirror_agent_loop_seconds_bucket{le=\"0.005\",event=\"tick\"} 1",
            "mirror_map_capacity{map=\"instances\"} 1024.0",
            "mirror_map_capacity{map=\"mirrored_flows\"} 20.0",
            "mirror_map_capacity{map=\"flows\"} 30.0",
        ] {
            check(&text, line);
        }
    }

    #[test]
    fn what_was_removed_is_not_told() {
        let metrics = Metrics::new();
        facts_text(&metrics, &view());
        let text = facts_text(&metrics, &View::default());
        assert!(!text.contains("compute_instance=\"a\""), "{text}");
        assert!(!text.contains("vni=\"web\""), "{text}");
    }
}
