//! What `doctor --fix` can do: each changes one thing, can be undone, and equals a command that is printed.

use std::{fs, net::IpAddr, path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};
use tokio::time::timeout;

use crate::{
    dataplane::{
        ethtool::{Offload, set_offload},
        survey,
    },
    netlink::{Change, Netlink},
};

/// How long an instance may take to answer ARP or neighbour discovery: longer than the kernel asks.
const RESOLVE_MAX: Duration = Duration::from_secs(4);

/// A change that makes a finding go away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repair {
    /// Mounts a bpffs.
    MountBpffs {
        /// For this directory.
        pin_dir: PathBuf,
    },
    /// Switches an offload.
    Offload {
        /// Of this interface.
        interface: String,
        /// Which.
        offload: Offload,
        /// To what.
        on: bool,
    },
    /// Writes a sysctl.
    Sysctl {
        /// Its name, with dots.
        key: String,
        /// Its value.
        value: u32,
    },
    /// Removes a pin.
    RemovePin {
        /// Which.
        path: PathBuf,
    },
    /// Has the kernel find out a hardware address.
    Resolve {
        /// On this interface.
        ifindex: u32,
        /// The interface's name.
        interface: String,
        /// Of this address.
        address: IpAddr,
    },
}

impl Repair {
    pub(super) fn offload(interface: &str, offload: Offload, on: bool) -> Self {
        Self::Offload {
            interface: interface.to_owned(),
            offload,
            on,
        }
    }

    pub(super) fn sysctl(key: &str, value: u32) -> Self {
        Self::Sysctl {
            key: key.to_owned(),
            value,
        }
    }

    /// The command that does the same.
    pub fn command(&self) -> String {
        match self {
            Self::MountBpffs { .. } => "mount -t bpf bpf /sys/fs/bpf".to_owned(),
            Self::Offload {
                interface,
                offload,
                on,
            } => {
                let value = if *on { "on" } else { "off" };
                format!("ethtool -K {interface} {} {value}", offload.name())
            }
            Self::Sysctl { key, value } => format!("sysctl -w {key}={value}"),
            Self::RemovePin { path } => format!("rm {}", path.display()),
            Self::Resolve {
                interface, address, ..
            } => format!("ping -c 1 -I {interface} {address}"),
        }
    }

    /// Does it.
    pub async fn run(&self) -> Result<()> {
        match self {
            Self::MountBpffs { pin_dir } => Ok(survey::mount_bpffs(pin_dir)?),
            Self::Offload {
                interface,
                offload,
                on,
            } => Ok(set_offload(interface, *offload, *on)?),
            Self::Sysctl { key, value } => {
                let path = sysctl_path(key);
                fs::write(&path, value.to_string())
                    .with_context(|| format!("write {}", path.display()))
            }
            Self::RemovePin { path } => Ok(survey::remove_pin(path)?),
            Self::Resolve {
                ifindex, address, ..
            } => resolve(*ifindex, *address).await,
        }
    }
}

/// Names of interfaces may have dots, as those of VLANs do: only the first and the last three dots are the key's.
pub(super) fn sysctl_path(key: &str) -> PathBuf {
    let path = PathBuf::from("/proc/sys");
    let conf = key.strip_prefix("net.ipv4.conf.");
    match conf.and_then(|rest| rest.rsplit_once('.')) {
        Some((interface, name)) => path.join("net/ipv4/conf").join(interface).join(name),
        None => path.join(key.replace('.', "/")),
    }
}

async fn resolve(ifindex: u32, address: IpAddr) -> Result<()> {
    let (netlink, mut changes) = Netlink::open()?;
    netlink.resolve(ifindex, address).await?;
    let found = async {
        while let Some(change) = changes.recv().await {
            if let Change::Neighbour(neighbour) = change
                && (neighbour.ifindex, neighbour.address) == (ifindex, address)
                && neighbour.mac.is_some()
            {
                return true;
            }
        }
        false
    };
    match timeout(RESOLVE_MAX, found).await {
        Ok(true) => Ok(()),
        _ => bail!("{address} does not answer"),
    }
}
