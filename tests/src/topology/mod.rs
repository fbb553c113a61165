//! The standard network: a client host, a VNI host and instances, each a
//! namespace of its own.
//!
//! ```text
//!  client            VNI host                    instances
//!  e0 10.77.0.2 ──── c0 10.77.0.1   ia 10.66.1.1 ──── e0 10.66.1.2   a
//!                                   ib 10.66.2.1 ──── e0 10.66.2.2   b
//!                                   ic 10.66.3.1 ──── e0 10.66.3.2   c
//! ```
//!
//! The VNI's addresses, 10.77.0.100 and fd77::100, are on `lo` of every
//! instance. Neighbours are permanent and the client's for the VNI is the VNI
//! host, so the testbed does without ARP, neighbour discovery and their timing.

pub mod config;
mod more;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::cgroup::MemoryGroup;
use crate::cleanup::{self, Leftover};
use crate::net::delay::Delay;
use crate::net::ethtool::{self, Offload};
use crate::net::{End, MacAddr, Net, configure, sysctl};
use crate::netns::Namespace;
use crate::run::Run;
use config::Config;

/// The most instances a topology can have: one letter each.
pub const INSTANCES_MAX: usize = 26;
/// The VNI host's interface where client traffic arrives.
pub const CLIENT_LINK: &str = "c0";
/// The only interface of the client and of each instance.
pub const HOST_LINK: &str = "e0";
/// What an instance sends through when that is to take longer.
const DELAY_LINK: &str = "late";
const MTU: u32 = 1500;
/// The VNI host's interface where the traffic of clients elsewhere arrives.
pub const ELSEWHERE_LINK: &str = "c1";
const CLIENT_MAC: MacAddr = MacAddr::local(0, 2);
const CLIENT_LINK_MAC: MacAddr = MacAddr::local(0, 1);

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The VNI's address.
    #[must_use]
    pub fn vni(self) -> IpAddr {
        self.client_net(0x100, 100)
    }

    /// The client's address.
    #[must_use]
    pub fn client(self) -> IpAddr {
        self.client_net(2, 2)
    }

    /// The address of the VNI host on the client's link.
    #[must_use]
    pub fn client_gateway(self) -> IpAddr {
        self.client_net(1, 1)
    }

    fn client_net(self, v6: u16, v4: u8) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(10, 77, 0, v4).into(),
            Self::V6 => Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, v6).into(),
        }
    }

    /// The network of clients elsewhere, and its prefix length.
    #[must_use]
    pub fn elsewhere(self) -> (IpAddr, u8) {
        (self.elsewhere_net(0), self.link_prefix())
    }

    /// The network of the clients, and its prefix length.
    #[must_use]
    pub fn clients(self) -> (IpAddr, u8) {
        (self.client_net(0, 0), self.link_prefix())
    }

    fn elsewhere_net(self, host: u8) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(10, 78, 0, host).into(),
            Self::V6 => Ipv6Addr::new(0xfd78, 0, 0, 0, 0, 0, 0, host.into()).into(),
        }
    }

    fn beyond_net(self, host: u8) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(10, 79, 0, host).into(),
            Self::V6 => Ipv6Addr::new(0xfd79, 0, 0, 0, 0, 0, 0, host.into()).into(),
        }
    }

    fn instance_net(self, number: u8, host: u8) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(10, 66, number, host).into(),
            Self::V6 => Ipv6Addr::new(0xfd66, number.into(), 0, 0, 0, 0, 0, host.into()).into(),
        }
    }

    fn link_prefix(self) -> u8 {
        match self {
            Self::V4 => 24,
            Self::V6 => 64,
        }
    }

    fn host_prefix(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

/// An instance: a host that has the VNI's addresses.
#[derive(Debug)]
pub struct Instance {
    /// `a`, `b`, ...
    pub name: String,
    /// Where it runs.
    pub namespace: Namespace,
    /// The VNI host's interface that leads to it: `ia`, `ib`, ...
    pub link: String,
    /// Its Ethernet address.
    pub mac: MacAddr,
    number: u8,
}

impl Instance {
    /// Its own address on its link, which is not the VNI's.
    #[must_use]
    pub fn address(&self, family: Family) -> IpAddr {
        family.instance_net(self.number, 2)
    }

    /// The address of the VNI host's end of its link.
    #[must_use]
    pub fn gateway(&self, family: Family) -> IpAddr {
        family.instance_net(self.number, 1)
    }

    /// Has its link take no more than this, at both ends or, where it is not to know itself, at the VNI host's.
    pub fn set_mtu(&self, host: &Namespace, mtu: u32, both: bool) -> Result<()> {
        configure(host, async |net| net.mtu(&self.link, mtu).await)?;
        if both {
            configure(&self.namespace, async |net| net.mtu(HOST_LINK, mtu).await)?;
        }
        Ok(())
    }

    /// Takes its link down at its own end.
    pub fn link_down(&self) -> Result<()> {
        configure(&self.namespace, async |net| net.down(HOST_LINK).await)
    }

    /// Keeps everything that it sends from leaving it; see [`Net::silence`].
    pub fn silence(&self) -> Result<()> {
        configure(&self.namespace, async |net| net.silence(HOST_LINK).await)
    }

    /// Ends [`Instance::silence`].
    pub fn unsilence(&self) -> Result<()> {
        configure(&self.namespace, async |net| net.unsilence(HOST_LINK).await)
    }

    /// Has what it sends to the standard client take so much longer.
    pub fn delay(&self, delay: Duration) -> Result<Delay> {
        let addresses = (self.mac, MacAddr::local(self.number, 1));
        let line = self
            .namespace
            .run(|| Delay::start(DELAY_LINK, HOST_LINK, addresses, delay))??;
        configure(&self.namespace, async |net| {
            net.up(DELAY_LINK).await?;
            for family in Family::ALL {
                let client = (family.client(), family.host_prefix());
                net.route(client, None, DELAY_LINK).await?;
            }
            Ok(())
        })?;
        Ok(line)
    }

    /// Marks everything that its kernel sends: with a time to live of its own,
    /// a packet tells at the client whose it is.
    pub fn set_hop_limit(&self, hops: u8) -> Result<()> {
        let hops = hops.to_string();
        let settings = [
            ("net.ipv4.ip_default_ttl", hops.as_str()),
            ("net.ipv6.conf.all.hop_limit", &hops),
            ("net.ipv6.conf.e0.hop_limit", &hops),
        ];
        sysctl::set(&self.namespace, &settings)
    }

    fn create(run: Run, host: &Namespace, number: u8) -> Result<Self> {
        let name = char::from(b'a' + number - 1).to_string();
        let instance = Self {
            namespace: Namespace::create(&run.namespace(&name))?,
            link: format!("i{name}"),
            mac: MacAddr::local(number, 2),
            name,
            number,
        };
        instance.connect(host)?;
        Ok(instance)
    }

    fn connect(&self, host: &Namespace) -> Result<()> {
        let near_mac = MacAddr::local(self.number, 1);
        let near = End {
            namespace: host,
            name: &self.link,
            mac: near_mac,
        };
        let far = End {
            namespace: &self.namespace,
            name: HOST_LINK,
            mac: self.mac,
        };
        link(near, far, |family| {
            (self.gateway(family), self.address(family))
        })?;
        configure(&self.namespace, async |net| {
            for family in Family::ALL {
                net.address("lo", family.vni(), family.host_prefix())
                    .await?;
                let clients = (family.client_net(0, 0), family.link_prefix());
                net.route(clients, Some(self.gateway(family)), HOST_LINK)
                    .await?;
            }
            Ok(())
        })
    }
}

/// The hosts and links; dropped, all of it is gone.
#[derive(Debug)]
pub struct Topology {
    /// The clients' host.
    pub client: Namespace,
    /// The VNI host, where the agent runs.
    pub host: Namespace,
    /// The instances.
    pub instances: Vec<Instance>,
    run: Run,
    dir: TempDir,
}

impl Topology {
    /// Builds the network with so many instances.
    pub fn create(instances: usize) -> Result<Self> {
        ensure!(
            (1..=INSTANCES_MAX).contains(&instances),
            "1 to {INSTANCES_MAX} instances"
        );
        cleanup::install()?;
        let run = Run::begin();
        let dir = tempfile::Builder::new()
            .prefix(&run.temp_prefix())
            .tempdir()
            .context("cannot create a temporary directory")?;
        cleanup::register(Leftover::TempDir(dir.path().into()));
        cleanup::register(Leftover::PinDir(run.pin_dir()));
        let client = Namespace::create(&run.namespace("client"))?;
        let host = Namespace::create(&run.namespace("host"))?;
        connect_client(&host, &client)?;
        let instances = (1..=instances)
            .map(|number| Instance::create(run, &host, u8::try_from(number)?))
            .collect::<Result<_>>()?;
        Ok(Self {
            client,
            host,
            instances,
            run,
            dir,
        })
    }

    /// A directory for this run's files.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where the agent is to pin.
    #[must_use]
    pub fn pin_dir(&self) -> PathBuf {
        self.run.pin_dir()
    }

    /// A control group for each instance's programs, with so much memory.
    pub fn memory_groups(&self, bytes: u64) -> Result<Vec<MemoryGroup>> {
        let groups = self.instances.iter();
        groups
            .map(|instance| MemoryGroup::create(&self.run.cgroup(&instance.name), bytes))
            .collect()
    }

    /// A name for a control group of this run's.
    #[must_use]
    pub fn group_name(&self, role: &str) -> String {
        self.run.cgroup(role)
    }

    /// The instance of a name.
    pub fn instance(&self, name: &str) -> Result<&Instance> {
        let found = self.instances.iter().find(|instance| instance.name == name);
        found.with_context(|| format!("no instance {name}"))
    }

    /// The agent's configuration for this network, to be adjusted before it is used.
    #[must_use]
    pub fn config(&self) -> Config {
        Config::of(self)
    }

    /// Has the VNI host's kernel forward to one instance, with no program of ours.
    pub fn route_plainly(&self, instance: &Instance) -> Result<()> {
        self.forward()?;
        configure(&self.host, async |net| {
            for family in Family::ALL {
                let vni = (family.vni(), family.host_prefix());
                net.route(vni, Some(instance.address(family)), &instance.link)
                    .await?;
            }
            Ok(())
        })
    }

    /// Makes the VNI host a router, as many real ones are: a packet of a mirror
    /// that the dataplane passes to the kernel then reaches the client.
    pub fn forward(&self) -> Result<()> {
        sysctl::set(
            &self.host,
            &[
                ("net.ipv4.ip_forward", "1"),
                ("net.ipv6.conf.all.forwarding", "1"),
            ],
        )
    }
}

impl Drop for Topology {
    fn drop(&mut self) {
        cleanup::remove(&Leftover::PinDir(self.run.pin_dir()));
        cleanup::remove(&Leftover::TempDir(self.dir.path().into()));
    }
}

fn connect_client(host: &Namespace, client: &Namespace) -> Result<()> {
    prepare(client)?;
    prepare(host)?;
    let near = End {
        namespace: host,
        name: CLIENT_LINK,
        mac: CLIENT_LINK_MAC,
    };
    let far = End {
        namespace: client,
        name: HOST_LINK,
        mac: CLIENT_MAC,
    };
    link_prepared(near, far, |family| {
        (family.client_gateway(), family.client())
    })?;
    configure(client, async |net| {
        for family in Family::ALL {
            net.neighbour(HOST_LINK, family.vni(), CLIENT_LINK_MAC)
                .await?;
        }
        Ok(())
    })
}

fn link(
    near: End<'_>,
    far: End<'_>,
    addresses: impl Fn(Family) -> (IpAddr, IpAddr) + Sync,
) -> Result<()> {
    prepare(far.namespace)?;
    link_prepared(near, far, addresses)
}

/// Joins two namespaces by a veth pair that XDP can redirect into.
fn link_prepared(
    near: End<'_>,
    far: End<'_>,
    addresses: impl Fn(Family) -> (IpAddr, IpAddr) + Sync,
) -> Result<()> {
    configure(near.namespace, async |net| net.veth(near, far, MTU).await)?;
    for end in [near, far] {
        configure(end.namespace, async |net| net.up(end.name).await)?;
    }
    // Only now: an end whose GRO comes on while it is down, after the other end is up, never
    // makes the other end a redirect target (6.18, veth_set_xdp_features).
    for end in [near, far] {
        end.namespace.run(|| {
            ethtool::set(end.name, Offload::TransmitChecksum, false)?;
            ethtool::set(end.name, Offload::GenericReceive, true)
        })??;
    }
    for (end, other) in [(near, far), (far, near)] {
        // Asking also makes the kernel act on the change at once; it may
        // otherwise take a second, and drop what is sent until then (6.18,
        // net/core/link_watch.c).
        let carrier = end.namespace.run(|| ethtool::has_carrier(end.name))??;
        ensure!(
            carrier,
            "{} in {} has no carrier",
            end.name,
            end.namespace.name()
        );
        configure(end.namespace, async |net: Net| {
            for family in Family::ALL {
                let (near_address, far_address) = addresses(family);
                let (own, others) = match end.name == near.name {
                    true => (near_address, far_address),
                    false => (far_address, near_address),
                };
                net.address(end.name, own, family.link_prefix()).await?;
                net.neighbour(end.name, others, other.mac).await?;
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn prepare(namespace: &Namespace) -> Result<()> {
    // Linux's own default, whatever this machine's is: when TCP sends depends on it. A namespace may only have what the machine
    // allows to all, which is reno if nothing else.
    let control = |name| sysctl::set(namespace, &[("net.ipv4.tcp_congestion_control", name)]);
    control("cubic").or_else(|_| control("reno"))?;
    sysctl::set(
        namespace,
        &[
            ("net.ipv4.conf.all.rp_filter", "0"),
            ("net.ipv4.conf.default.rp_filter", "0"),
            ("net.ipv6.conf.all.accept_dad", "0"),
            ("net.ipv6.conf.default.accept_dad", "0"),
            ("net.ipv6.conf.default.accept_ra", "0"),
        ],
    )?;
    configure(namespace, async |net| net.up("lo").await)
}
