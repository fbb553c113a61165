//! The agent's configuration: what a file says, validated as a whole, so that the rest of the
//! agent never meets a name that does not exist or a number out of range.

mod diff;
mod error;
mod mirrors;
mod parse;
mod reader;
#[cfg(test)]
mod tests;
mod write;
#[cfg(test)]
mod zone_tests;
mod zones;

use std::{
    fmt, fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::Serialize;
use utoipa::ToSchema;

pub use error::{ConfigError, Finding};
pub(crate) use zones::mapped;
pub use zones::{PREFIXES_MAX, Steering, Zone};

use crate::health::collect::source::Place;

/// Longest name of an instance, a VNI or a failure domain: names are map keys too.
pub const NAME_BYTES_MAX: usize = 48;

/// A valid configuration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct Config {
    /// The agent itself.
    pub agent: Agent,
    /// Detection of failures.
    pub detect: Detect,
    /// Prediction of failures.
    pub health: Health,
    /// How new flows are spread.
    pub steering: Steering,
    /// XDP modes by interface.
    pub interfaces: Vec<Interface>,
    /// Where clients and instances are.
    pub zones: Vec<Zone>,
    /// The compute instances.
    pub instances: Vec<Instance>,
    /// The virtual network interfaces.
    pub vnis: Vec<Vni>,
}

impl Config {
    /// Reads and validates a file.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(file).map_err(|source| ConfigError::Read {
            file: file.to_owned(),
            source,
        })?;
        Self::parse(file, &text)
    }

    /// Validates the text of `file`; reports everything that is wrong with it.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        parse::config(text).map_err(|findings| ConfigError::Invalid {
            file: file.to_owned(),
            findings,
        })
    }

    /// Whether failures are predicted: something is to be asked of instances, or there is a model.
    pub fn predicts(&self) -> bool {
        self.health.model.is_some() || self.instances.iter().any(|i| i.metrics.is_some())
    }

    /// Whether the engine has anything to do: to predict, or to record what the dataplane notices.
    pub fn watches(&self) -> bool {
        self.predicts() || self.health.record.is_some()
    }

    /// The mode that was asked for on an interface.
    pub fn mode(&self, interface: &str) -> Mode {
        self.interfaces
            .iter()
            .find(|entry| entry.name == interface)
            .map_or(Mode::Auto, |entry| entry.mode)
    }

    /// Every interface that carries a program, with its role; VNI interfaces last, because that
    /// is the order in which they are attached.
    pub fn ports(&self) -> Vec<(String, Role)> {
        let links = self
            .instances
            .iter()
            .map(|instance| (instance.link.clone(), Role::InstanceLink));
        let mut ports: Vec<_> = links.collect();
        for interface in self.vnis.iter().flat_map(|vni| &vni.interfaces) {
            if !ports.iter().any(|(name, _)| name == interface) {
                ports.push((interface.clone(), Role::VniInterface));
            }
        }
        ports
    }
}

/// `[health]`: prediction of failures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
#[schema(as = config::Health)]
pub struct Health {
    /// The model; none: layer A alone.
    #[schema(value_type = Option<String>)]
    pub model: Option<PathBuf>,
    /// Another model, which is only compared with it until it is clearly better.
    #[schema(value_type = Option<String>)]
    pub challenger: Option<PathBuf>,
    /// The folder in which what was judged is recorded; none: it is not.
    #[schema(value_type = Option<String>)]
    pub record: Option<PathBuf>,
    /// How much of it is kept.
    pub record_mib: u32,
    /// How often instances are judged.
    pub interval_ms: u32,
    /// What predictions may do.
    pub apply: Apply,
    /// A risk above this moves an instance's established flows.
    pub evacuate_risk: f64,
    /// Most of a VNI's capacity that may be out when an instance is evacuated.
    pub shed_max: f64,
}

/// What predictions may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Apply {
    /// They are shown.
    Nothing,
    /// And new flows follow the scores.
    NewFlows,
    /// And established flows leave who is about to fail.
    #[default]
    AllFlows,
}

/// Which program an interface carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Client traffic of a VNI arrives there.
    VniInterface,
    /// It leads to an instance.
    InstanceLink,
}

impl Role {
    /// The role's name in tables and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::VniInterface => "vni",
            Self::InstanceLink => "link",
        }
    }
}

/// `[agent]`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
#[schema(as = config::Agent)]
pub struct Agent {
    /// The API's Unix socket.
    #[schema(value_type = String)]
    pub socket: PathBuf,
    /// Where maps, programs and links are pinned.
    #[schema(value_type = String)]
    pub pin_dir: PathBuf,
    /// Where metrics are served over TCP, if anywhere.
    #[schema(value_type = Option<String>)]
    pub metrics: Option<SocketAddr>,
    /// Where a page for browsers is served, if anywhere.
    #[schema(value_type = Option<String>)]
    pub page: Option<SocketAddr>,
    /// Whose members may use the socket, besides its owner.
    pub group: Option<String>,
    /// Where the API is served to other hosts, if anywhere.
    pub listen: Option<Listen>,
}

/// `[agent.listen]`: the API over TCP, always with TLS and a token.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = config::Listen)]
pub struct Listen {
    /// The address and port.
    #[schema(value_type = String)]
    pub address: SocketAddr,
    /// The certificate and those that vouch for it, PEM.
    #[schema(value_type = String)]
    pub certificate: PathBuf,
    /// The certificate's key, PEM.
    #[schema(value_type = String)]
    pub key: PathBuf,
    /// The file that holds the token which callers must show.
    #[schema(value_type = String)]
    pub token: PathBuf,
}

/// `[detect]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, ToSchema)]
#[schema(as = config::Detect)]
pub struct Detect {
    /// How often the dataplane's evidence is read.
    pub poll_ms: u32,
    /// An instance that owes an answer for so long, while others answer, is taken to be dead.
    pub silent_ms: u32,
}

/// `[[interface]]`.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = config::Interface)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// How programs are attached to it.
    pub mode: Mode,
}

/// How XDP programs are attached to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = config::Mode)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Natively if the driver can, else generically.
    Auto,
    /// By the driver or not at all.
    Native,
    /// By the network stack.
    Generic,
}

/// `[[instance]]`.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = config::Instance)]
pub struct Instance {
    /// Its name.
    pub name: String,
    /// The interface that leads to it.
    pub link: String,
    /// Its hardware address; resolved from `address` when absent.
    #[schema(value_type = Option<String>)]
    pub mac: Option<Mac>,
    /// Its address on the link.
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
    /// Its share of new flows.
    pub weight: u32,
    /// Its health score; one that is predicted counts where it is lower.
    pub score: f64,
    /// Where its own signals are: a node exporter or a cgroup.
    #[schema(value_type = Option<String>)]
    pub metrics: Option<Place>,
    /// What it shares its fate with.
    pub domain: Option<String>,
    /// Where it is.
    pub zone: Option<String>,
    /// A probe of its service.
    pub probe: Option<Probe>,
}

/// `[instance.probe]`.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = config::Probe)]
pub struct Probe {
    /// Where a TCP connection must succeed.
    #[schema(value_type = String)]
    pub tcp: SocketAddr,
    /// How often it is tried.
    pub interval_ms: u32,
    /// How long one try may take.
    pub timeout_ms: u32,
    /// Failures in a row that make the instance dead.
    pub fall: u32,
    /// Successes in a row that make it alive again.
    pub rise: u32,
}

/// `[[vni]]`.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = config::Vni)]
pub struct Vni {
    /// Its name.
    pub name: String,
    /// The addresses that clients use.
    #[schema(value_type = Vec<String>)]
    pub addresses: Vec<IpAddr>,
    /// Where client traffic arrives.
    pub interfaces: Vec<String>,
    /// Names of the instances that serve it.
    pub instances: Vec<String>,
    /// What mirrors are for.
    pub mode: MirrorMode,
    /// Names of those instances that serve no flow and mirror all of them; the last ones of `instances`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub canaries: Vec<String>,
    /// Mirrors of each flow.
    pub mirrors: usize,
    /// New flows that get them in a second; others are served without.
    pub mirrored_per_s: PerSecond,
    /// What the client is told to be received.
    pub ack: Ack,
    /// Whose answer the client gets.
    pub delivery: Delivery,
    /// Whose close counts.
    pub close: Close,
    /// What becomes of a flow without a live replica.
    pub on_loss: OnLoss,
    /// A mirror further behind goes cold.
    pub lag_bytes_max: u32,
    /// A mirror behind for longer goes cold.
    pub lag_ms_max: u32,
    /// How long a SYN-ACK may be held for the mirrors'.
    pub handshake_ms: u32,
    /// An established flow that is idle for longer is forgotten.
    pub idle_s: u32,
    /// UDP ports on which QUIC is spoken: its connections are followed where a client's address changes.
    pub quic_ports: Vec<u16>,
    /// Whether the agent adds the addresses to the VNI interfaces.
    pub announce: bool,
}

/// How often a second something may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = config::PerSecond)]
#[serde(untagged)]
pub enum PerSecond {
    /// So often, and as often at once.
    Times(u32),
    /// As often as it comes.
    Unlimited(Unlimited),
}

impl PerSecond {
    /// Without a limit.
    pub const UNLIMITED: Self = Self::Unlimited(Unlimited::Unlimited);

    /// The limit, if there is one.
    pub const fn times(self) -> Option<u32> {
        match self {
            Self::Times(times) => Some(times),
            Self::Unlimited(_) => None,
        }
    }
}

/// The word for no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = config::Unlimited)]
#[serde(rename_all = "kebab-case")]
pub enum Unlimited {
    /// There is none.
    Unlimited,
}

/// What a VNI's mirrors are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = config::MirrorMode)]
#[serde(rename_all = "kebab-case")]
pub enum MirrorMode {
    /// They take over.
    #[default]
    Takeover,
    /// They are compared, hold nobody back, and never take over.
    Shadow,
}

impl MirrorMode {
    /// The mode's name in tables and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Takeover => "takeover",
            Self::Shadow => "shadow",
        }
    }
}

/// What the client is told to be received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = config::Ack)]
#[serde(rename_all = "kebab-case")]
pub enum Ack {
    /// What the active replica and every warm mirror have.
    SemiSync,
    /// What the active replica has.
    Async,
}

/// Whose answer the client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = config::Delivery)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    /// That of the active replica.
    Active,
    /// That of the replica that says it first, which is active then.
    First,
}

impl Delivery {
    /// Its name in tables and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::First => "first",
        }
    }
}

/// Whose FIN or RST counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = config::Close)]
#[serde(rename_all = "kebab-case")]
pub enum Close {
    /// That of the active replica when a warm mirror made it too.
    Vote,
    /// That of the active replica.
    Trust,
}

/// What becomes of a flow without a live replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = config::OnLoss)]
#[serde(rename_all = "kebab-case")]
pub enum OnLoss {
    /// Its client is answered with a reset.
    Reset,
    /// It is left alone.
    Leave,
}

/// A hardware address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Mac(pub [u8; 6]);

impl FromStr for Mac {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a hardware address such as \"02:00:00:00:01:02\"");
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2);
            *byte = part
                .and_then(|part| u8::from_str_radix(part, 16).ok())
                .ok_or_else(wrong)?;
        }
        if parts.next().is_some() {
            return Err(wrong());
        }
        if bytes[0] & 1 != 0 || bytes == [0; 6] {
            return Err(format!("{text:?} is not the address of one host"));
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Mac {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
