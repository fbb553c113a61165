//! Gathers the facts: reads, and changes nothing.

use std::{collections::BTreeMap, fs, os::unix::net::UnixStream, path::Path};

use anyhow::{Context, Result};
use nix::sys::{
    resource::{Resource, getrlimit},
    utsname::uname,
};

use super::{
    Facts,
    facts::{FarEnd, Instance, Link, Port, Program, Sysctls},
    repair::sysctl_path,
};
use crate::{
    config::{Config, Role},
    dataplane::{ethtool, survey},
    netlink::{self, Netlink, Targets, XdpFeatures},
};

/// Looks at this machine, and by a configuration at what it names.
pub async fn look(config: Option<&Config>, socket: &Path, pin_dir: &Path) -> Result<Facts> {
    let (netlink, _changes) = Netlink::open()?;
    let links = netlink.links().await?;
    let neighbours = netlink.neighbours().await?;
    let release = uname().context("uname")?;
    let (_, files_max) = getrlimit(Resource::RLIMIT_NOFILE).context("limits")?;
    let mut facts = Facts {
        requirements: survey::requirements(),
        release: release.release().to_string_lossy().into_owned(),
        pin_dir: pin_dir.to_owned(),
        on_bpffs: survey::on_bpffs(pin_dir),
        pinned: survey::pinned(pin_dir),
        agent: UnixStream::connect(socket).is_ok(),
        lockdown: text("/sys/kernel/security/lockdown"),
        unprivileged_bpf_disabled: number("kernel.unprivileged_bpf_disabled"),
        jit: number("net.core.bpf_jit_enable"),
        clock: text("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        files_max,
        ip_forward: number("net.ipv4.ip_forward"),
        all: sysctls("all"),
        configured: config.is_some(),
        ..Facts::default()
    };
    let Some(config) = config else {
        return Ok(facts);
    };
    let features = Targets::open().and_then(|targets| targets.features().ok());
    let features = features.unwrap_or_default();
    let port = |(name, role)| port(config, &links, &features, name, role);
    facts.ports = config.ports().into_iter().map(port).collect();
    for instance in &config.instances {
        let Some(address) = instance.address else {
            continue;
        };
        let link = links.iter().find(|link| link.name == instance.link);
        let neighbour = neighbours.iter().find(|neighbour| {
            Some(neighbour.ifindex) == link.map(|link| link.ifindex) && neighbour.address == address
        });
        facts.instances.push(Instance {
            name: instance.name.clone(),
            link: instance.link.clone(),
            ifindex: link.map(|link| link.ifindex),
            address,
            mac: instance.mac,
            neighbour: neighbour.and_then(|neighbour| neighbour.mac),
        });
    }
    Ok(facts)
}

fn port(
    config: &Config,
    links: &[netlink::Link],
    features: &BTreeMap<u32, XdpFeatures>,
    name: String,
    role: Role,
) -> Port {
    let vnis = config.vnis.iter();
    let mut vnis = vnis.filter(|vni| role == Role::InstanceLink || vni.interfaces.contains(&name));
    let announces = role == Role::VniInterface && vnis.clone().any(|vni| vni.announce);
    Port {
        role,
        mode: config.mode(&name),
        mirrored: vnis.any(|vni| vni.mirrors > 0),
        announces,
        link: links
            .iter()
            .find(|link| link.name == name)
            .map(|found| link(found, links, features)),
        name,
    }
}

fn link(
    link: &netlink::Link,
    links: &[netlink::Link],
    features: &BTreeMap<u32, XdpFeatures>,
) -> Link {
    let peer = links.iter().find(|other| Some(other.ifindex) == link.peer);
    Link {
        up: link.up,
        mtu: link.mtu,
        driver: ethtool::driver(&link.name).ok(),
        program: link.xdp.map(|(mode, id)| Program {
            id,
            name: survey::program_name(id),
            mode,
        }),
        features: features.get(&link.ifindex).copied(),
        far: peer.and_then(|peer| {
            let offloads = ethtool::offloads(&peer.name).ok()?;
            Some(FarEnd {
                name: peer.name.clone(),
                tx_checksum: offloads.tx_checksum,
                gro: offloads.gro,
            })
        }),
        sysctls: sysctls(&link.name),
    }
}

fn sysctls(interface: &str) -> Sysctls {
    let read = |name| number(&format!("net.ipv4.conf.{interface}.{name}")).unwrap_or(0);
    Sysctls {
        arp_ignore: read("arp_ignore"),
        rp_filter: read("rp_filter"),
    }
}

/// A file's text, if it is there and says something.
fn text(path: impl AsRef<Path>) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

fn number(key: &str) -> Option<u32> {
    text(sysctl_path(key))?.parse().ok()
}
