//! What the agent shows: rows made once after each change, so that whoever asks never waits for
//! the agent's loop, nor the loop for them.

use std::collections::HashMap;

use mirror_common::LAYOUT_VERSION;
use serde::{Deserialize, Serialize};

use crate::{
    config::Config,
    connections::{Census, Names},
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
    /// The replica sets.
    pub mirrors: Vec<MirrorRow>,
    /// Flows by table.
    pub flows: HashMap<String, u64>,
    /// The names behind the dataplane's numbers.
    pub names: Names,
    /// The flows by several counts.
    pub census: Census,
    /// What the agent runs by.
    pub config: Config,
}

/// `status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StatusRow {
    /// Version of the program.
    pub version: String,
    /// Version of the maps.
    pub layout: u32,
    /// The agent's process; none when no agent runs.
    pub pid: Option<u32>,
    /// How long the agent runs.
    pub uptime_s: u64,
    /// Whether it found the dataplane running.
    pub adopted: bool,
    /// Where programs are attached.
    pub interfaces: Vec<InterfaceRow>,
    /// The dataplane's counters by reason.
    pub counters: std::collections::BTreeMap<String, u64>,
    /// Flows by table.
    pub flows: HashMap<String, u64>,
}

impl StatusRow {
    /// A status without an agent.
    pub fn unattended() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            layout: LAYOUT_VERSION,
            pid: None,
            uptime_s: 0,
            adopted: false,
            interfaces: Vec::new(),
            counters: Default::default(),
            flows: HashMap::new(),
        }
    }
}

/// An interface with a program.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
    /// Its share of new flows as it is in force, of all VNIs the greatest.
    pub share: f64,
    /// Its health score.
    pub score: f64,
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
}

/// `vni`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
    /// What the client is told to be received.
    pub ack: String,
    /// Whose close counts.
    pub close: String,
    /// What becomes of a flow without a live replica.
    pub on_loss: String,
    /// By which rule new flows are spread.
    pub rule: String,
    /// Its instances with their share of new flows.
    pub instances: Vec<ShareRow>,
}

/// An instance's part of a VNI.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShareRow {
    /// The instance.
    pub instance: String,
    /// Its part of the new flows, 0 to 1.
    pub share: f64,
}

/// `mirrors`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
