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
use utoipa::ToSchema;

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

    /// The VNI's end of a flow: its address, or that one's number, and the port.
    pub fn address(&self, key: &FlowKey) -> String {
        let address = self.addresses.get(&(key.vni, key.address)).copied();
        address.map_or_else(
            || format!("#{}:{}", key.address, key.vni_port),
            |address| SocketAddr::new(address, key.vni_port).to_string(),
        )
    }

    pub(super) fn is_dead(&self, number: u16) -> bool {
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
    pub takeovers: u16,
    /// Why it has no mirrors, where its VNI has some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
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
    /// If that is `diverged`: within how many bytes from the beginning of the server's stream it has said something else than the active
    /// replica, modulo 2^32.
    pub diverged_within: Option<u32>,
    /// How far it is behind.
    pub lag_bytes: u32,
}

/// Makes the row of an entry.
pub fn row(entry: &Entry<'_>, names: &Names, now_s: u32) -> FlowRow {
    let (key, flow) = (entry.key, entry.flow);
    let replicas = usize::from(flow.replicas).min(flow.instances.len());
    let active = usize::from(flow.active).min(replicas.saturating_sub(1));
    FlowRow {
        client: SocketAddr::new(address_from(&key.client), key.client_port).to_string(),
        vni: names.vni(key.vni),
        address: names.address(key),
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
        reason: alone(flow).map(|cold| cold.name().to_owned()),
    }
}

/// Why a flow has no mirrors, if that is known of it.
pub(super) fn alone(flow: &Flow) -> Option<Cold> {
    Cold::from_number(flow.cold).filter(|cold| *cold != Cold::Warm && flow.replicas < 2)
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
    let said_otherwise = reason == Some(Cold::Diverged.name());
    let diverged = |sync: &TcpSync| sync.replicas[number].diverged_within();
    ReplicaRow {
        instance: names.instance(instance),
        slot: number as u8,
        role: if is_active { "active" } else { "mirror" }.to_owned(),
        state: state.to_owned(),
        reason: reason.map(str::to_owned),
        diverged_within: entry.sync.filter(|_| said_otherwise).map(diverged),
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
pub(super) fn lag_bytes(sync: &TcpSync, number: usize, active: usize) -> u32 {
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

/// A protocol's name, or its number.
pub fn protocol_name(number: u8) -> String {
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
pub(super) mod tests {
    use mirror_common::{
        flow::{PlainFlow, ipv4},
        tcp::Replica,
    };

    use super::*;

    pub(crate) fn names() -> Names {
        let instance = |name: &str, dead| (name.to_owned(), dead);
        Names {
            instances: [(3, instance("a", false)), (4, instance("b", false))].into(),
            vnis: [(1, "web".to_owned())].into(),
            addresses: [((1, 0), "10.77.0.100".parse().unwrap())].into(),
        }
    }

    pub(crate) fn key() -> FlowKey {
        FlowKey {
            client: ipv4(u32::from_ne_bytes([10, 0, 0, 2])),
            vni: 1,
            address: 0,
            protocol: protocol::TCP,
            client_port: 40_000,
            vni_port: 7_000,
        }
    }

    pub(crate) fn flow() -> Flow {
        Flow {
            plain: PlainFlow {
                packets: 9,
                opened_s: 90,
                seen_s: 99,
                state: state::ESTABLISHED,
                ..PlainFlow::default()
            },
            instances: [3, 4, 0, 0],
            replicas: 2,
            ..Flow::default()
        }
    }

    pub(crate) fn sync() -> TcpSync {
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
        assert_eq!(mirror.diverged_within, None);
        // 101 bytes were sent across the wrap, it produced 81; it received 10 less.
        assert_eq!(mirror.lag_bytes, 20);
        assert_eq!(row.replicas[0].lag_bytes, 0);
    }

    #[test]
    fn a_mirror_that_has_diverged_says_how_far_it_was_compared() {
        let mut sync = sync();
        let replica = &mut sync.replicas[1];
        (replica.state, replica.cold) = (slot::COLD, Cold::Diverged as u8);
        let row = row_of(&flow(), &sync, &names());
        let mirror = &row.replicas[1];
        assert_eq!(mirror.reason.as_deref(), Some("diverged"));
        // What it has produced.
        assert_eq!(mirror.diverged_within, Some(80));
    }

    #[test]
    fn a_flow_without_mirrors_says_why() {
        let reason = |cold: Cold, replicas| {
            let mut flow = Flow { replicas, ..flow() };
            flow.cold = cold as u8;
            row_of(&flow, &sync(), &names()).reason
        };
        assert_eq!(
            reason(Cold::MirrorLimit, 1).as_deref(),
            Some("mirror_limit")
        );
        assert_eq!(reason(Cold::Warm, 1), None);
        assert_eq!(reason(Cold::MirrorLimit, 2), None);
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
}
