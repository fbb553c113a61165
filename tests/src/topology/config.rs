//! The agent's configuration file, as a test wants it written. The types here
//! are the testbed's own, so that a change of the file's format that would
//! break users' files breaks a test.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Serialize;

use super::{CLIENT_LINK, Family, Topology};

/// The whole file.
#[derive(Clone, Debug, Serialize)]
pub struct Config {
    /// `[agent]`
    pub agent: AgentConfig,
    /// `[detect]`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detect: Option<DetectConfig>,
    /// `[health]`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthConfig>,
    /// `[steering]`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steering: Option<SteeringConfig>,
    /// `[[interface]]`
    pub interface: Vec<InterfaceConfig>,
    /// `[[zone]]`
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub zone: Vec<ZoneConfig>,
    /// `[[instance]]`
    pub instance: Vec<InstanceConfig>,
    /// `[[vni]]`
    pub vni: Vec<VniConfig>,
}

/// Where the agent listens and pins.
#[derive(Clone, Debug, Serialize)]
pub struct AgentConfig {
    /// Its API.
    pub socket: PathBuf,
    /// Who else may use the API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Its pinned objects.
    pub pin_dir: PathBuf,
    /// Where metrics are served over TCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<String>,
    /// Where the page is served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page: Option<String>,
    /// Where the API is served to other hosts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listen: Option<ListenConfig>,
}

/// `[agent.listen]`
#[derive(Clone, Debug, Serialize)]
pub struct ListenConfig {
    /// The address.
    pub address: String,
    /// PEM.
    pub certificate: PathBuf,
    /// PEM.
    pub key: PathBuf,
    /// What callers show.
    pub token: PathBuf,
}

/// How death is told.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct DetectConfig {
    /// How often evidence is read.
    pub poll_ms: u64,
    /// How long an owed answer may be missing.
    pub silent_ms: u64,
}

/// How failures are predicted.
#[derive(Clone, Debug, Default, Serialize)]
pub struct HealthConfig {
    /// The model's file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The challenger's file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub challenger: Option<String>,
    /// How often instances are judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval_ms: Option<u64>,
    /// `nothing`, `new-flows` or `all-flows`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apply: Option<String>,
    /// Where what is judged is recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record: Option<PathBuf>,
}

/// How new flows are spread.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SteeringConfig {
    /// Whether distances are learned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learn: Option<bool>,
    /// So much further away is half of the flows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub halving_ms: Option<f64>,
    /// So many times its part is too much.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hot_ratio: Option<f64>,
}

/// A place.
#[derive(Clone, Debug, Serialize)]
pub struct ZoneConfig {
    /// Its name.
    pub name: String,
    /// The clients that are there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<String>,
    /// What it costs to be served from others.
    pub costs: BTreeMap<String, f64>,
}

/// The XDP mode of an interface.
#[derive(Clone, Debug, Serialize)]
pub struct InterfaceConfig {
    /// The interface.
    pub name: String,
    /// `auto`, `native` or `generic`.
    pub mode: String,
}

/// An instance.
#[derive(Clone, Debug, Serialize)]
pub struct InstanceConfig {
    /// Its name.
    pub name: String,
    /// The interface that leads to it.
    pub link: String,
    /// Its Ethernet address.
    pub mac: String,
    /// Its share of new flows.
    pub weight: u32,
    /// Its health score.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// Where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// Its failure domain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// Where its own signals are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metrics: Option<String>,
    /// What it must answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub probe: Option<ProbeConfig>,
}

/// `[instance.probe]`
#[derive(Clone, Debug, Serialize)]
pub struct ProbeConfig {
    /// A TCP connection that must succeed.
    pub tcp: String,
}

/// A VNI.
#[derive(Clone, Debug, Serialize)]
pub struct VniConfig {
    /// Its name.
    pub name: String,
    /// The addresses clients use.
    pub addresses: Vec<String>,
    /// Where clients come in.
    pub interfaces: Vec<String>,
    /// Who serves; all, if it is empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub instances: Vec<String>,
    /// `takeover` or `shadow`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Instances that only mirror.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub canaries: Vec<String>,
    /// Mirrors per flow.
    pub mirrors: u8,
    /// New flows that get them in a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mirrored_per_s: Option<u32>,
    /// `semi-sync` or `async`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ack: Option<String>,
    /// `active` or `first`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery: Option<String>,
    /// `vote` or `trust`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub close: Option<String>,
    /// `reset` or `leave`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_loss: Option<String>,
    /// How long a SYN-ACK waits for mirrors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handshake_ms: Option<u32>,
    /// How long a mirror may be behind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag_ms_max: Option<u32>,
    /// After how long a silent flow is forgotten.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_s: Option<u32>,
    /// Where QUIC is spoken.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub quic_ports: Vec<u16>,
}

impl Config {
    /// One VNI on all instances with one mirror, everything else by default.
    pub(super) fn of(topology: &Topology) -> Self {
        let instance = topology.instances.iter().map(|instance| InstanceConfig {
            name: instance.name.clone(),
            link: instance.link.clone(),
            mac: instance.mac.to_string(),
            weight: 100,
            score: None,
            zone: None,
            domain: None,
            metrics: None,
            probe: None,
        });
        Self {
            agent: AgentConfig {
                socket: topology.dir().join("agent.sock"),
                group: None,
                pin_dir: topology.pin_dir(),
                metrics: None,
                page: None,
                listen: None,
            },
            detect: None,
            health: None,
            steering: None,
            interface: Vec::new(),
            zone: Vec::new(),
            instance: instance.collect(),
            vni: vec![VniConfig {
                name: "web".into(),
                addresses: Family::ALL.map(|family| family.vni().to_string()).into(),
                interfaces: vec![CLIENT_LINK.into()],
                instances: Vec::new(),
                mode: None,
                canaries: Vec::new(),
                mirrors: 1,
                mirrored_per_s: None,
                ack: None,
                delivery: None,
                close: None,
                on_loss: None,
                handshake_ms: None,
                lag_ms_max: None,
                idle_s: None,
                quic_ports: Vec::new(),
            }],
        }
    }

    /// Takes nobody for silent, late or behind who only waits for a busy machine: for tests that are not about when
    /// somebody is.
    #[must_use]
    pub fn patient(mut self) -> Self {
        self.detect = Some(DetectConfig {
            poll_ms: 5,
            silent_ms: 1_000,
        });
        for vni in &mut self.vni {
            vni.handshake_ms = Some(200);
            vni.lag_ms_max = Some(30_000);
        }
        self
    }

    /// Asks for one XDP mode on every interface.
    #[must_use]
    pub fn with_mode(mut self, mode: &str) -> Self {
        let links = self.instance.iter().map(|instance| instance.link.clone());
        self.interface = links
            .chain([CLIENT_LINK.into()])
            .map(|name| InterfaceConfig {
                name,
                mode: mode.into(),
            })
            .collect();
        self
    }

    /// Sets the number of mirrors of every flow.
    #[must_use]
    pub fn with_mirrors(mut self, mirrors: u8) -> Self {
        self.vni.iter_mut().for_each(|vni| vni.mirrors = mirrors);
        self
    }

    /// Has flows forgotten that were silent for longer than this.
    #[must_use]
    pub fn with_idle(mut self, idle_s: u32) -> Self {
        self.vni
            .iter_mut()
            .for_each(|vni| vni.idle_s = Some(idle_s));
        self
    }

    /// Has each client answered by whoever answers first.
    #[must_use]
    pub fn with_first_delivery(mut self) -> Self {
        let first = || Some("first".into());
        self.vni.iter_mut().for_each(|vni| vni.delivery = first());
        self
    }

    /// Has these instances mirror everybody, as a shadow.
    #[must_use]
    pub fn with_canaries<const N: usize>(mut self, canaries: [&str; N]) -> Self {
        for vni in &mut self.vni {
            vni.mode = Some("shadow".into());
            vni.canaries = canaries.map(str::to_owned).into();
            vni.mirrors = N as u8;
        }
        self
    }

    /// Has failures predicted at this pace.
    #[must_use]
    pub fn with_health(mut self, interval_ms: u64) -> Self {
        self.health = Some(HealthConfig {
            interval_ms: Some(interval_ms),
            ..HealthConfig::default()
        });
        self
    }

    /// Names each instance's own signals, in their order.
    #[must_use]
    pub fn with_metrics(mut self, places: impl IntoIterator<Item = String>) -> Self {
        for (instance, place) in self.instance.iter_mut().zip(places) {
            instance.metrics = Some(place);
        }
        self
    }

    /// Writes the file.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = toml::to_string(self).context("configuration")?;
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}
