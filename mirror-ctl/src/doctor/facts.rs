//! What is known of a machine: plain values, so that judging them needs no machine.

use std::{net::IpAddr, path::PathBuf};

use crate::{
    config::{Mac, Mode, Role},
    dataplane::{XdpMode, survey::Pinned},
    netlink::XdpFeatures,
};

/// Everything that was looked at.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    /// What the agent asks of a machine, by name, with why it is not so.
    pub requirements: Vec<(&'static str, Option<String>)>,
    /// The kernel's release.
    pub release: String,
    /// Where the dataplane is pinned, or would be.
    pub pin_dir: PathBuf,
    /// Whether that is on a bpffs.
    pub on_bpffs: bool,
    /// What is pinned there.
    pub pinned: Pinned,
    /// Whether an agent answers on the socket.
    pub agent: bool,
    /// The kernel's lockdown, when it has one.
    pub lockdown: Option<String>,
    /// `kernel.unprivileged_bpf_disabled`.
    pub unprivileged_bpf_disabled: Option<u32>,
    /// `net.core.bpf_jit_enable`.
    pub jit: Option<u32>,
    /// The clock source in use.
    pub clock: Option<String>,
    /// How many files a process may have open at most.
    pub files_max: u64,
    /// `net.ipv4.ip_forward`.
    pub ip_forward: Option<u32>,
    /// `net.ipv4.conf.all.arp_ignore` and `rp_filter`.
    pub all: Sysctls,
    /// Whether there is a configuration to look by.
    pub configured: bool,
    /// Each interface that carries a program.
    pub ports: Vec<Port>,
    /// Each instance whose hardware address is found out by the kernel.
    pub instances: Vec<Instance>,
}

/// Settings of an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sysctls {
    /// `net.ipv4.conf.*.arp_ignore`
    pub arp_ignore: u32,
    /// `net.ipv4.conf.*.rp_filter`
    pub rp_filter: u32,
}

/// An interface that is to carry a program.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    /// Its name.
    pub name: String,
    /// Which program.
    pub role: Role,
    /// How it is to be attached.
    pub mode: Mode,
    /// Whether frames of it are cloned.
    pub mirrored: bool,
    /// Whether the VNI's addresses are put on it.
    pub announces: bool,
    /// None: there is no such interface.
    pub link: Option<Link>,
}

/// An interface that is there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Link {
    /// Set up, and its other end too.
    pub up: bool,
    /// Its largest packet.
    pub mtu: u32,
    /// Its driver.
    pub driver: Option<String>,
    /// The program on it.
    pub program: Option<Program>,
    /// What XDP can do there; none: the kernel does not tell.
    pub features: Option<XdpFeatures>,
    /// The other end of a veth, when it is in this network namespace.
    pub far: Option<FarEnd>,
    /// Its settings.
    pub sysctls: Sysctls,
}

impl Link {
    /// Whether it is one end of a veth.
    pub fn is_veth(&self) -> bool {
        self.driver.as_deref() == Some("veth")
    }
}

/// An XDP program on an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its id.
    pub id: u32,
    /// Its name.
    pub name: Option<String>,
    /// How it is attached.
    pub mode: XdpMode,
}

/// The other end of a veth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FarEnd {
    /// Its name.
    pub name: String,
    /// Whether checksums of what it sends are left to be computed later.
    pub tx_checksum: bool,
    /// Whether GRO is on.
    pub gro: bool,
}

/// An instance that is known by an address on its link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its name.
    pub name: String,
    /// The interface that leads to it.
    pub link: String,
    /// That interface's number, if it is there.
    pub ifindex: Option<u32>,
    /// Its address on the link.
    pub address: IpAddr,
    /// The hardware address that the configuration gives it.
    pub mac: Option<Mac>,
    /// The one that the kernel has found out.
    pub neighbour: Option<Mac>,
}
