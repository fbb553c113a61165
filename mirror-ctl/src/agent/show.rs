//! Makes what the agent shows, and words for what the dataplane reports.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use mirror_common::{
    event::{Event as Report, cause, kind},
    reason::Cold,
};
use tracing::warn;

use super::{
    Agent,
    log::LogEntry,
    view::{InstanceRow, InterfaceRow, MirrorRow, ShareRow, View, VniRow},
};
use crate::{
    config::{self, Ack, Close, MirrorMode, OnLoss},
    connections::{Names, row::protocol_name},
    dataplane::address_from,
    health::predict::signal::Signal,
    routing::{Choice, Rule, State as Service},
};

/// The `from` of a partial checksum that a client sent.
const CLIENT: u16 = 0xffff;

impl Agent {
    /// Shows everything as it is now.
    pub(super) fn show(&self) {
        let view = View {
            adopted: self.dataplane.adopted(),
            interfaces: self.interface_rows(),
            instances: self.instance_rows(),
            vnis: self.vni_rows(),
            choices: self.choices(),
            mirrors: self.mirror_rows(),
            flows: self
                .sweep
                .census
                .tables
                .iter()
                .map(|(table, flows)| ((*table).to_owned(), *flows))
                .collect(),
            names: self.names(),
            census: self.sweep.census.clone(),
            health: self.health_rows(),
            models: self.models_row(),
            draining: self.keeping_row().or_else(|| self.draining.clone()),
            config: self.state.config.clone(),
        };
        self.views.send_replace(Arc::new(view));
    }

    fn choices(&self) -> HashMap<String, Arc<Choice>> {
        let choice = |(name, published): (&String, &super::publish::Published)| {
            (name.clone(), Arc::clone(&published.choice))
        };
        self.published.iter().map(choice).collect()
    }

    fn names(&self) -> Names {
        let mut names = Names::default();
        for instance in &self.state.instances {
            let dead = instance.service() == Service::Dead;
            let entry = (instance.config.name.clone(), dead);
            names.instances.insert(instance.number as u16, entry);
        }
        for (name, published) in &self.published {
            names.vnis.insert(published.number, name.clone());
            for (address, place) in &published.addresses {
                names.addresses.insert((published.number, *place), *address);
            }
        }
        names
    }

    fn interface_rows(&self) -> Vec<InterfaceRow> {
        let ports = self.state.config.ports().into_iter();
        ports
            .map(|(name, role)| {
                let link = self.state.link(&name);
                let mode = link.and_then(|link| self.dataplane.mode(link.ifindex));
                let closed = &self.state.closed;
                InterfaceRow {
                    redirect: link.is_some_and(|link| !closed.contains(&link.ifindex)),
                    name,
                    role: role.name().to_owned(),
                    mode: mode.map_or("none", |mode| mode.name()).to_owned(),
                }
            })
            .collect()
    }

    fn instance_rows(&self) -> Vec<InstanceRow> {
        // Of all VNIs the greatest.
        let mut shares = vec![0.0f64; self.state.instances.len()];
        for (vni, members) in self.state.config.vnis.iter().zip(&self.state.members) {
            let parts = self
                .published
                .get(&vni.name)
                .map(|published| &published.spread.shares);
            for (place, part) in members.iter().zip(parts.into_iter().flatten()) {
                shares[*place] = shares[*place].max(*part);
            }
        }
        let census = &self.sweep.census;
        let walked = self.sweep.began_ns != 0;
        let row = |(instance, share): (&super::state::Instance, f64)| {
            let name = &instance.config.name;
            let mode = self.dataplane.mode(instance.ifindex);
            let judgement = instance.foreseen.judgement.as_ref();
            let outlook = judgement.and_then(|(_, judgement)| judgement.outlook);
            let chances = outlook.and_then(|outlook| outlook.chances);
            let chance = |place: usize| chances.map(|chances| chances[place].into());
            let number = instance.number as u16;
            let reading = self.sweep.measured.get(&number);
            let measured = |signal| {
                reading
                    .and_then(|reading| reading.get(signal))
                    .map(f64::from)
            };
            InstanceRow {
                name: name.clone(),
                id: instance.number,
                state: instance.service().name().to_owned(),
                cause: instance.cause.name().to_owned(),
                changed_ns: instance.changed_ns,
                weight: instance.config.weight,
                share,
                score: instance.candidate().score,
                predicted_score: outlook.map(|outlook| outlook.score.into()),
                p5: chance(0),
                p15: chance(1),
                p30: chance(2),
                p60: chance(3),
                link: instance.config.link.clone(),
                mac: instance.mac.map(|mac| mac.to_string()),
                domain: instance.config.domain.clone(),
                xdp_mode: mode.map_or("none", |mode| mode.name()).to_owned(),
                flows: count(&census.active, number),
                warm: count(&census.warm, number),
                sent: instance.vitals.sent,
                received: instance.vitals.received,
                retransmissions: instance.vitals.retransmissions,
                resets: instance.vitals.resets,
                in_flight: walked.then(|| count(&census.in_flight, number)),
                requests_per_s: measured(Signal::RequestRate),
                mirror_lag_bytes: census.lag_bytes.get(&number).copied(),
                syn_ack_p50_ms: measured(Signal::SynAckP50),
                syn_ack_p99_ms: measured(Signal::SynAckP99),
                syn_timeouts_share: measured(Signal::SynTimeouts),
                ack_p50_ms: measured(Signal::AckP50),
                ack_p99_ms: measured(Signal::AckP99),
                answer_p50_ms: measured(Signal::AnswerP50),
                answer_p99_ms: measured(Signal::AnswerP99),
            }
        };
        self.state.instances.iter().zip(shares).map(row).collect()
    }

    fn vni_rows(&self) -> Vec<VniRow> {
        let row = |vni: &config::Vni| {
            let published = self.published.get(&vni.name);
            let number = published.map_or(0, |published| published.number);
            let census = &self.sweep.census;
            let unprotected = census.unprotected.iter();
            let parts = published.map(|published| &published.spread.shares);
            VniRow {
                name: vni.name.clone(),
                id: number,
                flows: count(&census.vnis, number),
                unprotected: match vni.mode {
                    // Warm or not, its mirrors never take over.
                    MirrorMode::Shadow => count(&census.vnis, number),
                    MirrorMode::Takeover => unprotected
                        .filter(|((vni, _), _)| *vni == number)
                        .map(|(_, flows)| flows)
                        .sum(),
                },
                addresses: vni.addresses.iter().map(ToString::to_string).collect(),
                interfaces: vni.interfaces.clone(),
                mirrors: vni.mirrors,
                mode: vni.mode.name().to_owned(),
                canaries: vni.canaries.clone(),
                ack: match vni.ack {
                    Ack::SemiSync => "semi-sync",
                    Ack::Async => "async",
                }
                .to_owned(),
                delivery: vni.delivery.name().to_owned(),
                close: match vni.close {
                    Close::Vote => "vote",
                    Close::Trust => "trust",
                }
                .to_owned(),
                on_loss: match vni.on_loss {
                    OnLoss::Reset => "reset",
                    OnLoss::Leave => "leave",
                }
                .to_owned(),
                rule: published
                    .and_then(|published| published.spread.rule)
                    .map_or("", rule_name)
                    .to_owned(),
                instances: vni
                    .instances
                    .iter()
                    .enumerate()
                    .map(|(position, name)| ShareRow {
                        instance: name.clone(),
                        share: parts
                            .and_then(|parts| parts.get(position))
                            .copied()
                            .unwrap_or(0.0),
                    })
                    .collect(),
            }
        };
        self.state.config.vnis.iter().map(row).collect()
    }

    fn mirror_rows(&self) -> Vec<MirrorRow> {
        let names = self.names();
        let mut rows = Vec::new();
        let mut serving = std::collections::HashSet::new();
        let row = |number: u32, set: &[u16]| MirrorRow {
            vni: None,
            set: number,
            primary: set.first().map_or_else(String::new, |n| names.instance(*n)),
            mirrors: set.iter().skip(1).map(|n| names.instance(*n)).collect(),
            state: "retired".to_owned(),
            share: 0.0,
        };
        for vni in &self.state.config.vnis {
            let Some(published) = self.published.get(&vni.name) else {
                continue;
            };
            for (number, share) in &published.spread.sets {
                serving.insert(*number);
                rows.extend(self.book.get(*number).map(|set| MirrorRow {
                    vni: Some(vni.name.clone()),
                    state: "serving".to_owned(),
                    share: *share,
                    ..row(*number, set)
                }));
            }
        }
        let retired = self
            .book
            .iter()
            .filter(|(number, _)| !serving.contains(number));
        rows.extend(retired.map(|(number, set)| row(number, set)));
        rows
    }

    /// Puts the dataplane's reports into the log.
    pub(super) fn log_reports(&mut self, reports: &[Report]) {
        let view = Arc::clone(&self.views.borrow());
        let entries = reports
            .iter()
            .filter_map(|report| entry(report, &view.names));
        self.log.add(entries);
        for report in reports {
            // Once each: it is seen at every packet.
            if report.kind != kind::PARTIAL_CHECKSUM || !self.checksums_told.insert(report.from) {
                continue;
            }
            let who = match report.from {
                CLIENT => "a client's".to_owned(),
                number => format!("instance {:?}'s", view.names.instance(number)),
            };
            warn!(
                "{who} packets have partly computed checksums and are dropped: turn transmit \
                 checksum offload off at that end of the link (`ethtool -K DEV tx off`)"
            );
        }
    }
}

fn count(counts: &HashMap<u16, u64>, number: u16) -> u64 {
    counts.get(&number).copied().unwrap_or(0)
}

fn entry(report: &Report, names: &Names) -> Option<LogEntry> {
    let flow = report.flow;
    let client = SocketAddr::new(address_from(&flow.client), flow.client_port);
    let from = Some(names.instance(report.from));
    let to = Some(names.instance(report.to));
    let entry = LogEntry {
        time_ns: report.time_ns,
        client: Some(client.to_string()),
        vni: Some(names.vni(flow.vni)),
        address: Some(names.address(&flow)),
        protocol: Some(protocol_name(flow.protocol)),
        ..LogEntry::default()
    };
    Some(match report.kind {
        kind::FLOW_OPENED => LogEntry {
            kind: "flow-opened".to_owned(),
            to,
            ..entry
        },
        kind::FLOW_WARM => LogEntry {
            kind: "flow-warm".to_owned(),
            to,
            ..entry
        },
        kind::FLOW_COLD => LogEntry {
            kind: "flow-cold".to_owned(),
            from,
            cause: Cold::from_number(report.cause).map(|cold| cold.name().to_owned()),
            ..entry
        },
        kind::TAKEOVER => LogEntry {
            kind: "takeover".to_owned(),
            from,
            to,
            cause: Some(cause_name(report.cause).to_owned()),
            ..entry
        },
        kind::FLOW_CLOSED => LogEntry {
            kind: "flow-closed".to_owned(),
            ..entry
        },
        kind::PARTIAL_CHECKSUM => LogEntry {
            kind: "partial-checksum".to_owned(),
            from: from.filter(|_| report.from != CLIENT),
            ..entry
        },
        _ => return None,
    })
}

const fn cause_name(number: u8) -> &'static str {
    match number {
        cause::DEAD => "dead",
        cause::EVACUATED => "evacuated",
        cause::RESET => "reset",
        cause::CLOSED_EARLY => "closed_early",
        cause::REFUSED => "refused",
        cause::UNANSWERED => "unanswered",
        cause::SUSPECTED => "suspected",
        cause::CLOSED_ALONE => "closed_alone",
        _ => "unknown",
    }
}

const fn rule_name(rule: Rule) -> &'static str {
    match rule {
        Rule::Healthy => "healthy",
        Rule::ScoresIgnored => "scores-ignored",
        Rule::WeightsIgnored => "weights-ignored",
        Rule::Leaving => "leaving",
        Rule::Suspects => "suspects",
        Rule::Dead => "dead",
        Rule::Empty => "empty",
    }
}
