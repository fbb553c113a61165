//! Ways from a client to the benches' service: through VNIs of every kind on one network, and through what one would use
//! instead on another, where no program of ours runs.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use mirror_common::limits::REPLICAS;
use tempfile::TempDir;
use testbed::net::{End, MacAddr, configure, ethtool};
use testbed::netns::Namespace;
use testbed::process::Process;
use testbed::topology::config::{Config, VniConfig};
use testbed::topology::{CLIENT_LINK, Family, HOST_LINK, Topology};

use crate::PEERS;
use crate::echo;

const FORWARDED_PORT: u16 = 7100;
const PROXIED_PORT: u16 = 7200;
const DIRECT_NAME: &str = "d0";
const DIRECT_CLIENT: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 1);
const DIRECT_SERVER: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 2);
const DIRECT_MTU: u32 = 1500;

/// One way.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    pub(crate) name: &'static str,
    pub(crate) server: SocketAddr,
    /// Whether it is on our network.
    pub(crate) ours: bool,
    pub(crate) mirrors: usize,
}

/// A kind of VNI: its name, mirrors, how acknowledgements are told, and whose answers are.
const VNIS: [(&str, u8, &str, &str); 6] = [
    ("VNI, unmirrored", 0, "semi-sync", "active"),
    ("VNI, 1 mirror, async", 1, "async", "active"),
    ("VNI, 1 mirror, semi-sync", 1, "semi-sync", "active"),
    ("VNI, 2 mirrors, semi-sync", 2, "semi-sync", "active"),
    ("VNI, 3 mirrors, semi-sync", 3, "semi-sync", "active"),
    ("VNI, 1 mirror, first", 1, "semi-sync", "first"),
];

/// The address of a kind of VNI.
fn address(kind: usize) -> IpAddr {
    Ipv4Addr::new(10, 77, 0, 110 + kind as u8).into()
}

/// Our network, its servers, and the configuration of an agent for it.
pub(crate) struct Ours {
    pub(crate) topology: Topology,
    pub(crate) config: Config,
    pub(crate) ways: Vec<Way>,
    servers: Vec<Process>,
}

impl Ours {
    pub(crate) fn set_up() -> Result<Self> {
        let topology = Topology::create(REPLICAS)?;
        let mut config = topology.config();
        let mut ways = Vec::new();
        config.vni.clear();
        for (kind, (name, mirrors, ack, delivery)) in VNIS.into_iter().enumerate() {
            let address = address(kind);
            for instance in &topology.instances {
                configure(&instance.namespace, async |net| {
                    net.address("lo", address, 32).await
                })?;
            }
            configure(&topology.client, async |net| {
                net.neighbour(HOST_LINK, address, MacAddr::local(0, 1))
                    .await
            })?;
            config.vni.push(VniConfig {
                name: format!("vni{kind}"),
                addresses: vec![address.to_string()],
                interfaces: vec![CLIENT_LINK.into()],
                instances: Vec::new(),
                mode: None,
                canaries: Vec::new(),
                mirrors,
                mirrored_per_s: None,
                ack: Some(ack.into()),
                delivery: Some(delivery.into()),
                close: None,
                on_loss: None,
                handshake_ms: None,
                lag_ms_max: None,
                idle_s: None,
                quic_ports: Vec::new(),
            });
            ways.push(Way {
                name,
                server: SocketAddr::new(address, echo::PORT),
                ours: true,
                mirrors: mirrors.into(),
            });
        }
        let instances = topology.instances.iter();
        let servers = instances.map(|instance| echo::start(&instance.namespace, echo::PORT));
        Ok(Self {
            servers: servers.collect::<Result<_>>()?,
            topology,
            config,
            ways,
        })
    }

    /// The servers' processes.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.servers.iter().map(Process::pid).collect()
    }
}

/// The peers' network.
pub(crate) struct Theirs {
    pub(crate) topology: Topology,
    pub(crate) ways: Vec<Way>,
    /// Peers that are not among the ways, with why.
    pub(crate) missing: Vec<String>,
    running: Vec<Process>,
    _files: TempDir,
}

impl Theirs {
    pub(crate) fn set_up() -> Result<Self> {
        let topology = Topology::create(1)?;
        let instance = &topology.instances[0];
        let mut running = vec![echo::start(&instance.namespace, echo::PORT)?];
        connect_directly(&topology.client, &instance.namespace)?;
        topology.route_plainly(instance)?;
        let at = |name, address: IpAddr, port| Way {
            name,
            server: SocketAddr::new(address, port),
            ours: false,
            mirrors: 0,
        };
        let host = Family::V4.client_gateway();
        let mut ways = vec![
            at("direct veth", DIRECT_SERVER.into(), echo::PORT),
            at("plain routing", Family::V4.vni(), echo::PORT),
        ];
        let mut missing = Vec::new();
        match translate(&topology) {
            Ok(()) => ways.push(at("nftables DNAT", host, FORWARDED_PORT)),
            Err(error) => missing.push(format!("nftables DNAT: {error:#}")),
        }
        let files = tempfile::tempdir().context("temporary directory")?;
        match proxy(&topology, &files) {
            Ok(process) => {
                running.push(process);
                ways.push(at("HAProxy, TCP", host, PROXIED_PORT));
            }
            Err(error) => missing.push(format!("HAProxy: {error:#}")),
        }
        Ok(Self {
            topology,
            ways,
            missing,
            running,
            _files: files,
        })
    }

    /// Processes of the server and of the proxy.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.running.iter().map(Process::pid).collect()
    }
}

/// A link of its own, with nothing between.
fn connect_directly(client: &Namespace, server: &Namespace) -> Result<()> {
    let end = |namespace, host| End {
        namespace,
        name: DIRECT_NAME,
        mac: MacAddr::local(99, host),
    };
    let (near, far) = (end(client, 1), end(server, 2));
    configure(client, async |net| net.veth(near, far, DIRECT_MTU).await)?;
    for (own, address, other, other_address) in [
        (near, DIRECT_CLIENT, far, DIRECT_SERVER),
        (far, DIRECT_SERVER, near, DIRECT_CLIENT),
    ] {
        configure(own.namespace, async |net| {
            net.up(DIRECT_NAME).await?;
            net.address(DIRECT_NAME, address.into(), 24).await?;
            net.neighbour(DIRECT_NAME, other_address.into(), other.mac)
                .await
        })?;
        // As all links of the networks are.
        own.namespace.run(|| {
            ethtool::set(DIRECT_NAME, ethtool::Offload::TransmitChecksum, false)?;
            ethtool::set(DIRECT_NAME, ethtool::Offload::GenericReceive, true)
        })??;
    }
    Ok(())
}

fn translate(topology: &Topology) -> Result<()> {
    let nft = PEERS.find(&["nft"])?;
    let server = topology.instances[0].address(Family::V4);
    let host = Family::V4.client_gateway();
    let port = echo::PORT;
    for line in [
        "add table ip bench".to_owned(),
        "add chain ip bench in { type nat hook prerouting priority -100 ; }".into(),
        format!(
            "add rule ip bench in ip daddr {host} tcp dport {FORWARDED_PORT} dnat to {server}:{port}"
        ),
    ] {
        let words: Vec<&str> = line.split_whitespace().collect();
        nft.run(&topology.host, &words)?;
    }
    Ok(())
}

fn proxy(topology: &Topology, files: &TempDir) -> Result<Process> {
    let haproxy = PEERS.find(&["haproxy"])?;
    let server = topology.instances[0].address(Family::V4);
    let host = Family::V4.client_gateway();
    let port = echo::PORT;
    let text = format!(
        "global\n  maxconn 4096\n  nbthread 1\n\
         defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
         frontend in\n  bind {host}:{PROXIED_PORT}\n  default_backend out\n\
         backend out\n  server a {server}:{port}\n"
    );
    let path = files.path().join("haproxy.cfg");
    std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    let path = path.to_string_lossy();
    haproxy.run(&topology.host, &["-c", "-f", &path])?;
    let command = haproxy.command(&topology.host, &["-db", "-f", &path])?;
    Process::start("HAProxy", command)
}
