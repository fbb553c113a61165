//! Two places with clients, who is near to them, and where their new flows go.

use std::collections::BTreeMap;
use std::path::Path;

use aya::maps::{Array, ArrayOfMaps, Map, MapData};
use mirror_common::limits;
use serde::Deserialize;
use testbed::agent::{Agent, Flow};
use testbed::clock::wait_until;
use testbed::netns::Namespace;
use testbed::topology::config::{Config, ZoneConfig};
use testbed::topology::{ELSEWHERE_LINK, Family};
use testbed::traffic::program::{Client, PORT, service};

use crate::support::{Calm, LIMIT, Site, check_whole};

/// Connections of one look: with 96 in 100 to the near one, fewer than 48 of 60 come once in 10^7 looks.
pub(super) const CONNECTIONS: usize = 60;
pub(super) const MOST: usize = 48;
/// The steering tables of the dataplane, and from which on they are zones'.
pub(super) const TABLES: u32 = ZONE_TABLES_FROM + limits::ZONE_TABLES;
pub(super) const ZONE_TABLES_FROM: u32 = limits::VNIS;

/// `select --json`
#[derive(Debug, Deserialize)]
pub(super) struct Select {
    pub(super) zone: Option<String>,
    pub(super) table: String,
    pub(super) table_cause: Option<String>,
    pub(super) instance: Option<String>,
    pub(super) flow: Option<Hit>,
    pub(super) candidates: Vec<Candidate>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Hit {
    pub(super) instance: String,
    pub(super) mirrors: Vec<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Candidate {
    pub(super) instance: String,
    pub(super) share: f64,
    pub(super) cost_ms: Option<f64>,
    pub(super) learned_ms: Option<f64>,
    pub(super) in_flight: u64,
    pub(super) load: f64,
    pub(super) hot: bool,
}

/// Two places with clients and an instance each; a third instance is nowhere.
pub(super) struct Places {
    pub(super) site: Site,
    pub(super) elsewhere: Namespace,
}

pub(super) fn zone(
    name: &str,
    networks: [(std::net::IpAddr, u8); 2],
    costs: &[(&str, f64)],
) -> ZoneConfig {
    ZoneConfig {
        name: name.to_owned(),
        prefixes: networks.map(|(net, bits)| format!("{net}/{bits}")).to_vec(),
        costs: costs
            .iter()
            .map(|(to, ms)| ((*to).to_owned(), *ms))
            .collect(),
    }
}

impl Places {
    pub(super) fn new() -> Self {
        Self::of(Site::new(2))
    }

    /// For a test in which nobody is to notice anything.
    pub(super) fn alone() -> Self {
        Self::of(Site::alone(2))
    }

    fn of(site: Site) -> Self {
        let elsewhere = site.topology.connect_elsewhere().unwrap();
        Self { site, elsewhere }
    }

    /// From now on clients of both places are to notice nothing.
    #[track_caller]
    pub(super) fn calm(&self) -> Calm<'_> {
        let instances = self.site.topology.instances.iter();
        let hosts = instances.map(|instance| &instance.namespace);
        let clients = [&self.site.topology.client, &self.elsewhere];
        Calm::begin(hosts.chain(clients).collect())
    }

    /// Without zones.
    pub(super) fn plain(&self) -> Config {
        let mut config = self.site.config();
        config.vni[0].interfaces.push(ELSEWHERE_LINK.into());
        config
    }

    /// East are the standard clients and a, west are the others and b.
    pub(super) fn config(&self) -> Config {
        let mut config = self.plain();
        config.zone = vec![
            zone("east", Family::ALL.map(Family::clients), &[("west", 10.0)]),
            zone("west", Family::ALL.map(Family::elsewhere), &[]),
        ];
        config.instance[0].zone = Some("east".into());
        config.instance[1].zone = Some("west".into());
        config
    }

    #[track_caller]
    pub(super) fn client(&self, is_east: bool, family: Family) -> Client {
        let host = match is_east {
            true => &self.site.topology.client,
            false => &self.elsewhere,
        };
        let connections = CONNECTIONS.to_string();
        let arguments = ["--connections", connections.as_str()];
        let client = Client::start(host, service(family), &arguments).unwrap();
        assert_eq!(client.running.failed, 0, "{:?}", client.running);
        client
    }

    /// How many new flows of a place each instance gets; each of them is where `select` says.
    #[track_caller]
    pub(super) fn flows(
        &self,
        agent: &Agent<'_>,
        is_east: bool,
        family: Family,
    ) -> BTreeMap<String, usize> {
        self.flows_that(agent, is_east, family, |flows| {
            for flow in &flows[..4] {
                check_selected(agent, flow);
            }
        })
    }

    /// How many new flows of a place each instance gets; `check` looks at them while they are there.
    #[track_caller]
    pub(super) fn flows_that(
        &self,
        agent: &Agent<'_>,
        is_east: bool,
        family: Family,
        check: impl Fn(&[Flow]),
    ) -> BTreeMap<String, usize> {
        let before: Vec<String> = agent
            .flows()
            .unwrap()
            .into_iter()
            .map(|f| f.client)
            .collect();
        let client = self.client(is_east, family);
        let new: Vec<Flow> = wait_until("new flows", LIMIT, || {
            let mut flows = agent.flows()?;
            flows.retain(|flow| !before.contains(&flow.client) && flow.state == "established");
            Ok((flows.len() == CONNECTIONS).then_some(flows))
        })
        .unwrap();
        let mut counts = BTreeMap::new();
        for flow in &new {
            *counts.entry(flow.active.clone()).or_default() += 1;
        }
        check(&new);
        check_whole(&client.finish().unwrap(), CONNECTIONS);
        counts
    }
}

pub(super) fn select(agent: &Agent<'_>, client: &str, more: &[&str]) -> Select {
    agent
        .json(&[&["select", "web", "--source", client][..], more].concat())
        .unwrap()
}

#[track_caller]
pub(super) fn check_selected(agent: &Agent<'_>, flow: &Flow) {
    let client: std::net::SocketAddr = flow.client.parse().unwrap();
    let (source_port, port) = (client.port().to_string(), PORT.to_string());
    let ports = ["--source-port", source_port.as_str(), "--port", &port];
    let selected = select(agent, &client.ip().to_string(), &ports);
    assert_eq!(selected.instance.as_deref(), Some(flow.active.as_str()));
    let hit = selected.flow.unwrap();
    assert_eq!(hit.instance, flow.active);
    let mirrors = flow
        .replicas
        .iter()
        .filter(|replica| replica.role == "mirror");
    let mirrors: Vec<_> = mirrors.map(|replica| replica.instance.clone()).collect();
    assert_eq!(hit.mirrors, mirrors);
}

/// Most new flows go to one instance, and some to the other all the same if it is there.
#[track_caller]
pub(super) fn check_most(counts: &BTreeMap<String, usize>, instance: &str) {
    assert!(
        counts.get(instance).is_some_and(|count| *count >= MOST),
        "{counts:?}"
    );
}

pub(super) fn steering(pin_dir: &Path) -> ArrayOfMaps<MapData, Array<MapData, u32>> {
    let data = MapData::from_pin(pin_dir.join("maps/STEERING")).unwrap();
    Map::from_map_data(data).unwrap().try_into().unwrap()
}

/// The numbers of the zones' tables that there are, with their buckets.
pub(super) fn zone_tables(pin_dir: &Path) -> BTreeMap<u32, Vec<u32>> {
    let tables = steering(pin_dir);
    (ZONE_TABLES_FROM..TABLES)
        .filter_map(|number| {
            let table = tables.get(&number, 0).ok()?;
            let buckets = (0..table.len()).map(|bucket| table.get(&bucket, 0).unwrap());
            Some((number, buckets.collect()))
        })
        .collect()
}

/// How many there are.
pub(super) fn count_zone_tables(pin_dir: &Path) -> usize {
    let tables = steering(pin_dir);
    (ZONE_TABLES_FROM..TABLES)
        .filter(|number| tables.get(number, 0).is_ok())
        .count()
}
