//! A flow as a person sees it. Pure: numbers of the dataplane in, names out.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use mirror_common::{
    flow::{Flow, FlowKey, protocol, state},
    reason::Cold,
    tcp::{TcpSync, slot},
    time,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::dataplane::{Entry, FlowTable, address_from};

/// The names behind the dataplane's numbers.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Instances, and whether each is dead.
    pub instances: HashMap<u16, (String, bool)>,
    /// VNIs.
    pub vnis: HashMap<u16, String>,
    /// A VNI's addresses by their place.
    pub addresses: HashMap<(u16, u8), IpAddr>,
}

impl Names {
    /// An instance's name, or its number when it is not configured any more.
    pub fn instance(&self, number: u16) -> String {
        let known = self.instances.get(&number);
        known.map_or_else(|| format!("#{number}"), |(name, _)| name.clone())
    }

    /// A VNI's name, or its number.
    pub fn vni(&self, number: u16) -> String {
        let known = self.vnis.get(&number);
        known.cloned().unwrap_or_else(|| format!("#{number}"))
    }

    fn is_dead(&self, number: u16) -> bool {
        self.instances.get(&number).is_none_or(|(_, dead)| *dead)
    }
}

/// One flow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FlowRow {
    /// The client's address and port.
    pub client: String,
    /// The VNI's name.
    pub vni: String,
    /// The VNI's address and port.
    pub address: String,
    /// `tcp`, `udp` or `icmp`.
    pub protocol: String,
    /// Where it is in its life.
    pub state: String,
    /// The instance that the client hears.
    pub active: String,
    /// All that get the client's packets, by slot.
    pub replicas: Vec<ReplicaRow>,
    /// Since it was opened.
    pub age_s: u32,
    /// Since its last packet.
    pub idle_s: u32,
    /// In both directions as the client counts them.
    pub packets: u64,
    /// How often another replica became active.
    pub takeovers: u8,
}

/// One replica of a flow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ReplicaRow {
    /// Its instance.
    pub instance: String,
    /// Its place in the replica set.
    pub slot: u8,
    /// `active` or `mirror`.
    pub role: String,
    /// `pending`, `warm` or `cold`.
    pub state: String,
    /// Why it is cold.
    pub reason: Option<String>,
    /// How far it is behind.
    pub lag_bytes: u32,
}

/// Which flows are wanted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct FlowFilter {
    /// The client's address, with or without a port.
    pub client: Option<String>,
    /// An instance in any role.
    pub instance: Option<String>,
    /// The VNI.
    pub vni: Option<String>,
    /// Only flows with a replica that is not warm, or without a mirror.
    #[serde(default)]
    pub cold: bool,
    /// How many at most.
    pub limit: Option<usize>,
}

/// A client as it is filtered for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientFilter {
    /// Any port.
    Address(IpAddr),
    /// One port.
    Socket(SocketAddr),
}

impl ClientFilter {
    /// Reads `A`, `A:P` or `[A]:P`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bare = text.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(Self::Address(address.to_canonical()));
        }
        text.parse::<SocketAddr>()
            .map(Self::Socket)
            .map_err(|_| format!("{text:?} is not an address, nor one with a port"))
    }

    fn admits(self, client: SocketAddr) -> bool {
        match self {
            Self::Address(address) => client.ip() == address,
            Self::Socket(socket) => client == socket,
        }
    }
}

impl FlowFilter {
    /// Whether the flow can be wanted, before its row is made.
    pub fn admits(&self, client: Option<ClientFilter>, key: &FlowKey) -> bool {
        let socket = SocketAddr::new(address_from(&key.client), key.client_port);
        client.is_none_or(|client| client.admits(socket))
    }

    /// Whether the row is wanted.
    pub fn wants(&self, row: &FlowRow) -> bool {
        let vni = self.vni.as_ref().is_none_or(|vni| *vni == row.vni);
        let instance = self
            .instance
            .as_ref()
            .is_none_or(|name| row.replicas.iter().any(|replica| replica.instance == *name));
        let warm_mirror =
            |replica: &ReplicaRow| replica.role == "mirror" && replica.state == "warm";
        let cold = !self.cold || !row.replicas.iter().any(warm_mirror);
        vni && instance && cold
    }
}

/// Makes the row of an entry.
pub fn row(entry: &Entry<'_>, names: &Names, now_s: u32) -> FlowRow {
    let (key, flow) = (entry.key, entry.flow);
    let replicas = usize::from(flow.replicas).min(flow.instances.len());
    let active = usize::from(flow.active).min(replicas.saturating_sub(1));
    let address = names.addresses.get(&(key.vni, key.address)).copied();
    let address = address.map_or_else(
        || format!("#{}:{}", key.address, key.vni_port),
        |address| SocketAddr::new(address, key.vni_port).to_string(),
    );
    FlowRow {
        client: SocketAddr::new(address_from(&key.client), key.client_port).to_string(),
        vni: names.vni(key.vni),
        address,
        protocol: protocol_name(key.protocol),
        state: state_name(flow.state).to_owned(),
        active: names.instance(flow.instances[active]),
        replicas: (0..replicas)
            .map(|slot| replica(entry, names, slot, active))
            .collect(),
        age_s: time::seconds_between(flow.opened_s, now_s),
        idle_s: time::seconds_between(flow.seen_s, now_s),
        packets: flow.packets,
        takeovers: flow.takeovers,
    }
}

fn replica(entry: &Entry<'_>, names: &Names, number: usize, active: usize) -> ReplicaRow {
    let instance = entry.flow.instances[number];
    let is_active = number == active;
    let (state, reason) = match standing(entry, number) {
        // It cannot take over now, whatever its numbers say.
        Standing::Warm | Standing::Pending if !is_active && names.is_dead(instance) => {
            ("cold", Some(Cold::InstanceDead.name()))
        }
        Standing::Warm => ("warm", None),
        Standing::Pending => ("pending", None),
        Standing::Cold(reason) => ("cold", Some(reason.name())),
    };
    ReplicaRow {
        instance: names.instance(instance),
        slot: number as u8,
        role: if is_active { "active" } else { "mirror" }.to_owned(),
        state: state.to_owned(),
        reason: reason.map(str::to_owned),
        lag_bytes: entry.sync.map_or(0, |sync| lag_bytes(sync, number, active)),
    }
}

/// Whether a replica could take over.
pub(super) enum Standing {
    /// Not yet.
    Pending,
    /// Yes.
    Warm,
    /// No, and why.
    Cold(Cold),
}

pub(super) fn standing(entry: &Entry<'_>, number: usize) -> Standing {
    let flow: &Flow = entry.flow;
    let of_flow = Cold::from_number(flow.cold).filter(|cold| *cold != Cold::Warm);
    let Some(sync) = entry.sync else {
        // Datagrams are independent of each other: whoever is there can answer the next one.
        return match of_flow {
            Some(cold) if number != usize::from(flow.active) => Standing::Cold(cold),
            _ => Standing::Warm,
        };
    };
    let replica = &sync.replicas[number];
    match replica.state {
        slot::WARM => Standing::Warm,
        slot::PENDING if entry.table == FlowTable::HalfOpen => Standing::Pending,
        slot::PENDING => of_flow.map_or(Standing::Pending, Standing::Cold),
        _ => {
            let own = Cold::from_number(replica.cold).filter(|cold| *cold != Cold::Warm);
            Standing::Cold(own.or(of_flow).unwrap_or(Cold::JoinedLate))
        }
    }
}

/// How far a replica is behind the active one: in what it has received, or in what it has
/// produced of what the client was sent.
fn lag_bytes(sync: &TcpSync, number: usize, active: usize) -> u32 {
    if number == active {
        return 0;
    }
    let (own, other) = (&sync.replicas[number], &sync.replicas[active]);
    if own.state == slot::PENDING {
        return 0;
    }
    let received = other.rcv_nxt.wrapping_sub(own.rcv_nxt) as i32;
    let sent = sync.sent.wrapping_sub(sync.isn);
    let produced = own.snd_nxt.wrapping_sub(own.isn);
    let behind = sent.wrapping_sub(produced) as i32;
    received.max(behind).max(0) as u32
}

fn protocol_name(number: u8) -> String {
    match number {
        protocol::TCP => "tcp".to_owned(),
        protocol::UDP => "udp".to_owned(),
        protocol::ICMP | protocol::ICMPV6 => "icmp".to_owned(),
        other => other.to_string(),
    }
}

const fn state_name(number: u8) -> &'static str {
    match number {
        state::HANDSHAKE => "handshake",
        state::ANSWERED => "answered",
        state::ESTABLISHED => "established",
        state::CLOSING => "closing",
        _ => "closed",
    }
}

#[cfg(test)]
mod tests {
    use mirror_common::{ethernet::Addresses, flow::ipv4, tcp::Replica};

    use super::*;

    fn names() -> Names {
        let instance = |name: &str, dead| (name.to_owned(), dead);
        Names {
            instances: [(3, instance("a", false)), (4, instance("b", false))].into(),
            vnis: [(1, "web".to_owned())].into(),
            addresses: [((1, 0), "10.77.0.100".parse().unwrap())].into(),
        }
    }

    fn key() -> FlowKey {
        FlowKey {
            client: ipv4(u32::from_ne_bytes([10, 0, 0, 2])),
            vni: 1,
            address: 0,
            protocol: protocol::TCP,
            client_port: 40_000,
            vni_port: 7_000,
        }
    }

    fn flow() -> Flow {
        Flow {
            packets: 9,
            opened_s: 90,
            seen_s: 99,
            set: 0,
            ifindex: 1,
            instances: [3, 4, 0, 0],
            addresses: Addresses::default(),
            replicas: 2,
            active: 0,
            state: state::ESTABLISHED,
            takeovers: 0,
            cold: 0,
            pad: [0; 7],
        }
    }

    fn sync() -> TcpSync {
        let replica = |isn: u32, produced: u32, received: u32| Replica {
            isn,
            snd_nxt: isn.wrapping_add(produced),
            rcv_nxt: received,
            state: slot::WARM,
            ..Replica::default()
        };
        let mut sync = TcpSync {
            isn: u32::MAX - 10,
            sent: 90,
            ..TcpSync::default()
        };
        sync.replicas[0] = replica(u32::MAX - 10, 101, 5_000);
        sync.replicas[1] = replica(7, 81, 4_990);
        sync
    }

    fn row_of(flow: &Flow, sync: &TcpSync, names: &Names) -> FlowRow {
        let entry = Entry {
            table: FlowTable::Mirrored,
            key: &key(),
            flow,
            sync: Some(sync),
        };
        row(&entry, names, 100)
    }

    #[test]
    fn a_row_has_names_and_lag() {
        let row = row_of(&flow(), &sync(), &names());
        assert_eq!(row.client, "10.0.0.2:40000");
        assert_eq!(
            (row.vni.as_str(), row.address.as_str()),
            ("web", "10.77.0.100:7000")
        );
        assert_eq!((row.age_s, row.active.as_str()), (10, "a"));
        let mirror = &row.replicas[1];
        assert_eq!(
            (mirror.role.as_str(), mirror.state.as_str()),
            ("mirror", "warm")
        );
        // 101 bytes were sent across the wrap, it produced 81; it received 10 less.
        assert_eq!(mirror.lag_bytes, 20);
        assert_eq!(row.replicas[0].lag_bytes, 0);
    }

    #[test]
    fn a_mirror_ahead_has_no_lag() {
        let mut sync = sync();
        sync.replicas[1].rcv_nxt = 6_000;
        sync.replicas[1].snd_nxt = 7 + 500;
        assert_eq!(row_of(&flow(), &sync, &names()).replicas[1].lag_bytes, 0);
    }

    #[test]
    fn a_cold_mirror_says_why() {
        let mut sync = sync();
        sync.replicas[1].state = slot::COLD;
        sync.replicas[1].cold = Cold::LagBytes as u8;
        let row = row_of(&flow(), &sync, &names());
        assert_eq!(row.replicas[1].reason.as_deref(), Some("lag_bytes"));
        let mut names = names();
        names.instances.insert(4, ("b".to_owned(), true));
        let row = row_of(&flow(), &self::sync(), &names);
        assert_eq!(row.replicas[1].reason.as_deref(), Some("instance_dead"));
    }

    #[test]
    fn filters_admit_what_they_name() {
        let row = row_of(&flow(), &sync(), &names());
        let filter = |change: fn(&mut FlowFilter)| {
            let mut filter = FlowFilter::default();
            change(&mut filter);
            filter.wants(&row)
        };
        assert!(filter(|_| {}));
        assert!(filter(|f| f.instance = Some("b".to_owned())));
        assert!(!filter(|f| f.instance = Some("c".to_owned())));
        assert!(!filter(|f| f.vni = Some("x".to_owned())));
        assert!(!filter(|f| f.cold = true));
        let admits = |text: &str| {
            let client = ClientFilter::parse(text).unwrap();
            FlowFilter::default().admits(Some(client), &key())
        };
        assert!(admits("10.0.0.2") && admits("10.0.0.2:40000"));
        assert!(!admits("10.0.0.2:40001") && !admits("fd00::1"));
        assert!(ClientFilter::parse("host:1").is_err());
    }
}
