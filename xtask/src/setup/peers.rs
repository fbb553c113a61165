//! Programs of the distribution that tests, benches and soak runs need: a browser, readers of captures, what one would use
//! instead of this project, to be measured beside it, and servers to be mirrored.
//!
//! The distribution's packages with what they depend on and the system does not have, unpacked into one
//! folder of the cache.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::Cache;
use super::apt::{self, Apt};
use crate::progress::Progress;
use crate::toolchain::Toolchain;

/// Packages, and where what the system does not have of them is kept.
pub(crate) struct Peers {
    /// Names the folder, as a root of a file system: `usr/sbin`, `usr/lib`.
    pub(crate) variable: &'static str,
    name: &'static str,
    /// A package and the program that it is wanted for.
    packages: &'static [(&'static str, &'static str)],
}

/// (Of iptables not the link by that name, which only an installed package has.)
pub(crate) const BENCH: Peers = Peers {
    variable: "MIRROR_PEERS",
    name: "peers",
    packages: &[
        ("nftables", "nft"),
        ("iptables", "xtables-nft-multi"),
        ("haproxy", "haproxy"),
        ("iproute2", "tc"),
    ],
};

/// Servers of different character, whose replicas answer with the same bytes when they are told to.
pub(crate) const SOAK: Peers = Peers {
    variable: "MIRROR_SERVERS",
    name: "servers",
    packages: &[
        ("lighttpd", "lighttpd"),
        ("redis-server", "redis-server"),
        // What the package's only program is a link to is in another.
        ("redis-tools", "redis-check-rdb"),
        ("vsftpd", "vsftpd"),
    ],
};

/// What looks at the agent's page.
pub(crate) const BROWSER: Peers = Peers {
    variable: "MIRROR_BROWSER",
    name: "browser",
    packages: &[("chromium-headless-shell", "chromium-headless-shell")],
};

/// What reads captures of the traffic, and what the manual has its reader type.
pub(crate) const TOOLS: Peers = Peers {
    variable: "MIRROR_TEST_TOOLS",
    name: "test-tools",
    packages: &[
        ("tshark", "tshark"),
        ("tcpdump", "tcpdump"),
        ("ethtool", "ethtool"),
    ],
};

/// The folder with those peers that the system does not have: the user's, the cache's, or made.
pub(crate) fn ensure(peers: &Peers) -> Result<PathBuf> {
    let (name, variable) = (peers.name, peers.variable);
    if let Some(dir) = env::var_os(variable).filter(|dir| !dir.is_empty()) {
        return Ok(dir.into());
    }
    let cache = Cache::new(&Toolchain::detect()?)?;
    let place = cache.path(name);
    if peers.missing(&place).is_empty() {
        return Ok(place);
    }
    let _lock = cache.lock()?;
    // Another run may have made it while we waited.
    let wanted = peers.missing(&place);
    if wanted.is_empty() {
        return Ok(place);
    }
    let mut progress = Progress::new(1);
    progress.begin(name);
    let made = make(&cache, name, &wanted, &mut progress);
    progress.clear();
    made.with_context(|| {
        format!(
            "{} could not be got (install them, or set {variable}=DIR with usr/sbin)",
            wanted.join(", ")
        )
    })
}

impl Peers {
    /// The packages whose programs are neither the system's nor in the folder.
    fn missing(&self, place: &Path) -> Vec<&'static str> {
        let path = env::var_os("PATH").unwrap_or_default();
        let mut dirs: Vec<PathBuf> = env::split_paths(&path).collect();
        dirs.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
        dirs.extend(["usr/sbin", "sbin", "usr/bin"].map(|dir| place.join(dir)));
        let is_there = |program: &str| dirs.iter().any(|dir| dir.join(program).is_file());
        let absent = self
            .packages
            .iter()
            .filter(|(_, program)| !is_there(program));
        absent.map(|(package, _)| *package).collect()
    }
}

fn make(cache: &Cache, name: &str, wanted: &[&str], progress: &mut Progress) -> Result<PathBuf> {
    let staging = cache.staging(name)?;
    progress.update("reading the package lists");
    let apt = Apt::of_distribution(&staging.join("apt"))?;
    let debs = apt.download_with_dependencies(wanted, |state| {
        progress.update(&format!("{} {state}", wanted.join(", ")));
    })?;
    progress.update("unpacking");
    let unpacked = staging.join("unpacked");
    for deb in &debs {
        apt::unpack(deb, &unpacked, &[])?;
    }
    let place = cache.publish(&unpacked, name)?;
    fs::remove_dir_all(&staging).with_context(|| format!("remove {}", staging.display()))?;
    progress.done(&place.display().to_string());
    Ok(place)
}
