//! What the agent shows: rows made once after each change, so that whoever asks never waits for
//! the agent's loop, nor the loop for them.

use std::{collections::HashMap, sync::Arc};

use mirror_common::LAYOUT_VERSION;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{foresee::Foreseen, models::ModelsRow};
use crate::{
    config::{Config, MirrorMode},
    connections::{Census, Names},
    routing::Choice,
};

/// Everything but flows, counters and events.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Whether the dataplane was there before the agent.
    pub adopted: bool,
    /// Where programs are attached.
    pub interfaces: Vec<InterfaceRow>,
    /// The instances.
    pub instances: Vec<InstanceRow>,
    /// The VNIs.
    pub vnis: Vec<VniRow>,
    /// What each VNI's new flows are spread by.
    pub choices: HashMap<String, Arc<Choice>>,
    /// The replica sets.
    pub mirrors: Vec<MirrorRow>,
    /// Flows by table.
    pub flows: HashMap<String, u64>,
    /// The names behind the dataplane's numbers.
    pub names: Names,
    /// The flows by several counts.
    pub census: Census,
    /// What is expected of the instances; empty where nothing is predicted.
    pub health: Vec<HealthRow>,
    /// Who judges, and how well; what is recorded of it.
    pub models: ModelsRow,
    /// Flows that are to end by themselves.
    pub draining: Option<DrainingRow>,
    /// What the agent runs by.
    pub config: Config,
}

/// `status`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct StatusRow {
    /// Version of the program.
    pub version: String,
    /// Version of the maps.
    pub layout: u32,
    /// The agent's process; none when no agent runs.
    pub pid: Option<u32>,
    /// The file of the agent's program, as it was started.
    #[serde(default)]
    pub program: Option<String>,
    /// How long the agent runs.
    pub uptime_s: u64,
    /// When the agent started, seconds since 1970.
    #[serde(default)]
    pub started_s: f64,
    /// Whether it found the dataplane running.
    pub adopted: bool,
    /// Where programs are attached.
    pub interfaces: Vec<InterfaceRow>,
    /// The dataplane's counters by reason.
    pub counters: std::collections::BTreeMap<String, u64>,
    /// Flows by table.
    pub flows: HashMap<String, u64>,
    /// The version before, while its flows are to end; of a keeper, itself.
    #[serde(default)]
    pub draining: Option<DrainingRow>,
}

/// A version that was replaced by one with other maps, and lets its flows end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DrainingRow {
    /// The version.
    #[serde(default)]
    pub version: String,
    /// The process that looks after its flows; none: it is not there, and is started again.
    #[serde(default)]
    pub pid: Option<u32>,
    /// That process' socket, which every verb can be sent to.
    #[serde(default)]
    pub socket: String,
    /// TCP flows that are left; none: not known.
    #[serde(default)]
    pub flows: Option<u64>,
    /// When what is left then is cut.
    #[serde(default)]
    pub left_s: u64,
}

impl StatusRow {
    /// A status without an agent.
    pub fn unattended() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            layout: LAYOUT_VERSION,
            pid: None,
            program: None,
            uptime_s: 0,
            started_s: 0.0,
            adopted: false,
            interfaces: Vec::new(),
            counters: Default::default(),
            flows: HashMap::new(),
            draining: None,
        }
    }
}

/// An interface with a program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct InterfaceRow {
    /// Its name.
    pub name: String,
    /// `vni` or `link`.
    pub role: String,
    /// `native` or `generic`; `none` while nothing is attached.
    pub mode: String,
    /// Whether frames can be redirected to it natively.
    #[serde(default)]
    pub redirect: bool,
}

/// `instances`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct InstanceRow {
    /// Its name.
    pub name: String,
    /// Its number in the dataplane.
    pub id: u32,
    /// `up`, `draining`, `evacuating` or `dead`.
    pub state: String,
    /// Why.
    pub cause: String,
    /// Since when, `CLOCK_MONOTONIC`.
    pub changed_ns: u64,
    /// Its configured share of new flows.
    pub weight: u32,
    /// Its share of new flows as it is in force, of all VNIs the greatest; of sources without a table of their own.
    pub share: f64,
    /// Its health score, as new flows follow it.
    pub score: f64,
    /// The score that is predicted; none while nothing is known or predicted.
    #[serde(default)]
    pub predicted_score: Option<f64>,
    /// The probability of failing within 5 s, by a model.
    #[serde(default)]
    pub p5: Option<f64>,
    /// Within 15 s.
    #[serde(default)]
    pub p15: Option<f64>,
    /// Within 30 s.
    #[serde(default)]
    pub p30: Option<f64>,
    /// Within 60 s.
    #[serde(default)]
    pub p60: Option<f64>,
    /// The interface that leads to it.
    pub link: String,
    /// Its hardware address.
    pub mac: Option<String>,
    /// Its failure domain.
    pub domain: Option<String>,
    /// How the program on its link is attached.
    pub xdp_mode: String,
    /// Flows that it is active for.
    pub flows: u64,
    /// Flows that it could take over at once.
    pub warm: u64,
    /// Packets to it.
    pub sent: u64,
    /// Packets of VNIs from it.
    pub received: u64,
    /// Segments it sent again.
    pub retransmissions: u64,
    /// Resets that no other replica sent.
    pub resets: u64,
    /// Requests that it has not answered, as the active replica or as a mirror; none: not known yet.
    #[serde(default)]
    pub in_flight: Option<u64>,
    /// Requests that begin, a second.
    #[serde(default)]
    pub requests_per_s: Option<f64>,
    /// Bytes by which it trails in flows that it could take over; none: there are none.
    #[serde(default)]
    pub mirror_lag_bytes: Option<u64>,
    /// Median time from SYN to SYN-ACK in the last seconds; none: too few to tell.
    #[serde(default)]
    pub syn_ack_p50_ms: Option<f64>,
    /// 99th percentile of the same.
    #[serde(default)]
    pub syn_ack_p99_ms: Option<f64>,
    /// Share of SYNs that nobody answered in time.
    #[serde(default)]
    pub syn_timeouts_share: Option<f64>,
    /// Median time from data to its acknowledgement in the last seconds.
    #[serde(default)]
    pub ack_p50_ms: Option<f64>,
    /// 99th percentile of the same.
    #[serde(default)]
    pub ack_p99_ms: Option<f64>,
    /// Median time from a request to the first byte of its answer in the last seconds.
    #[serde(default)]
    pub answer_p50_ms: Option<f64>,
    /// 99th percentile of the same.
    #[serde(default)]
    pub answer_p99_ms: Option<f64>,
}

/// `vni`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct VniRow {
    /// Its name.
    pub name: String,
    /// Its number in the dataplane.
    pub id: u16,
    /// Its flows.
    pub flows: u64,
    /// Those of them that no mirror could take over at once.
    pub unprotected: u64,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Where client traffic arrives.
    pub interfaces: Vec<String>,
    /// Mirrors of each flow.
    pub mirrors: usize,
    /// What mirrors are for: `takeover`, or `shadow`.
    #[serde(default)]
    pub mode: String,
    /// Instances that serve no flow and mirror all of them.
    #[serde(default)]
    pub canaries: Vec<String>,
    /// What the client is told to be received.
    pub ack: String,
    /// Whose answer the client gets: `active` or `first`.
    pub delivery: String,
    /// Whose close counts.
    pub close: String,
    /// What becomes of a flow without a live replica.
    pub on_loss: String,
    /// By which rule new flows are spread.
    pub rule: String,
    /// Its instances with their share of new flows, of sources without a table of their own.
    pub instances: Vec<ShareRow>,
}

impl VniRow {
    /// Mirrors of each flow as tables show them: shadows are said to be.
    pub fn mirrors_text(&self) -> String {
        match self.mode == MirrorMode::Shadow.name() {
            true => format!("{} shadow", self.mirrors),
            false => self.mirrors.to_string(),
        }
    }
}

/// An instance's part of a VNI.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ShareRow {
    /// The instance.
    pub instance: String,
    /// Its part of the new flows, 0 to 1.
    pub share: f64,
}

/// `mirrors`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MirrorRow {
    /// The VNI; none for a set that only older flows use.
    pub vni: Option<String>,
    /// The set's number.
    pub set: u32,
    /// Its primary.
    pub primary: String,
    /// Its mirrors, in the order in which they take over.
    pub mirrors: Vec<String>,
    /// `serving` new flows, or `retired`.
    pub state: String,
    /// Its part of the VNI's new flows, 0 to 1.
    pub share: f64,
}

/// `health explain`: what is expected of an instance, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HealthRow {
    /// The instance.
    pub instance: String,
    /// The VNI among whose instances it looks worst.
    pub vni: Option<String>,
    /// Its score, as new flows follow it.
    pub score: f64,
    /// The score that is predicted; none while nothing is known.
    pub predicted_score: Option<f64>,
    /// The probabilities of failing within 5, 15, 30 and 60 s, by a model.
    pub chances: Option<[f64; 4]>,
    /// The risk by layer A.
    pub layer_a_risk: Option<f64>,
    /// `answers`, `missing`, or `none` where only the dataplane tells of it.
    pub source: String,
    /// Whether its established flows leave because of it.
    pub evacuated: bool,
    /// Whether an operator said that it is to serve all the same.
    pub overruled: bool,
    /// In how many seconds its memory is used up.
    pub memory_used_up_s: Option<f64>,
    /// Which signals raise its risk, the greatest first.
    pub reasons: Vec<ReasonRow>,
    /// Its signals that are there.
    pub signals: Vec<SignalRow>,
}

/// A signal's part in a risk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ReasonRow {
    /// The signal.
    pub signal: String,
    /// How much lower the risk would be were it as usual.
    pub risk: f64,
}

/// A signal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SignalRow {
    /// The signal, with its unit.
    pub signal: String,
    /// Its value, smoothed.
    pub value: f64,
    /// How far it is from its own usual level, in deviations.
    pub level: f64,
    /// How far it is from the peers, in deviations.
    pub peers: f64,
}

impl HealthRow {
    /// Of what is foreseen of an instance.
    pub fn of(instance: &str, score: f64, has_source: bool, foreseen: &Foreseen) -> Self {
        let judgement = foreseen.judgement.as_ref();
        let outlook = judgement.and_then(|(_, judgement)| judgement.outlook);
        let source = match (has_source, foreseen.missing) {
            (false, _) => "none",
            (true, false) => "answers",
            (true, true) => "missing",
        };
        let mut row = Self {
            instance: instance.to_owned(),
            vni: judgement.map(|(vni, _)| vni.clone()),
            score,
            predicted_score: outlook.map(|outlook| outlook.score.into()),
            chances: outlook.and_then(|o| Some(o.chances?.map(f64::from))),
            layer_a_risk: outlook.map(|outlook| outlook.baseline.into()),
            source: source.to_owned(),
            evacuated: foreseen.evacuate,
            overruled: foreseen.overruled,
            memory_used_up_s: None,
            reasons: Vec::new(),
            signals: Vec::new(),
        };
        if let Some((_, judgement)) = judgement {
            row.memory_used_up_s = judgement.depletion_s.map(f64::from);
            let reasons = judgement.reasons.iter();
            row.reasons = reasons
                .map(|reason| ReasonRow {
                    signal: reason.signal.to_owned(),
                    risk: reason.risk.into(),
                })
                .collect();
            let standings = judgement.standings.iter();
            row.signals = standings
                .map(|standing| SignalRow {
                    signal: standing.signal.name().to_owned(),
                    value: standing.value.into(),
                    level: standing.level.into(),
                    peers: standing.peers.into(),
                })
                .collect();
        }
        row
    }
}
