//! What one would use instead of this project, to be measured beside it. Needed by the benches only.
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

/// Names the folder with the peers, as a root of a file system: `usr/sbin`, `usr/lib`.
pub(crate) const VARIABLE: &str = "MIRROR_PEERS";
const NAME: &str = "peers";
/// A package and the program that it is wanted for. (Of iptables not the link by that name, which only an
/// installed package has.)
const PEERS: [(&str, &str); 4] = [
    ("nftables", "nft"),
    ("iptables", "xtables-nft-multi"),
    ("haproxy", "haproxy"),
    ("iproute2", "tc"),
];

/// The folder with those peers that the system does not have: the user's, the cache's, or made.
pub(crate) fn ensure() -> Result<PathBuf> {
    if let Some(dir) = env::var_os(VARIABLE).filter(|dir| !dir.is_empty()) {
        return Ok(dir.into());
    }
    let cache = Cache::new(&Toolchain::detect()?)?;
    let place = cache.path(NAME);
    if missing(&place).is_empty() {
        return Ok(place);
    }
    let _lock = cache.lock()?;
    // Another run may have made it while we waited.
    let wanted = missing(&place);
    if wanted.is_empty() {
        return Ok(place);
    }
    let mut progress = Progress::new(1);
    progress.begin(NAME);
    let made = make(&cache, &wanted, &mut progress);
    progress.clear();
    made.with_context(|| {
        format!(
            "{} could not be got (install them, or set {VARIABLE}=DIR with usr/sbin)",
            wanted.join(", ")
        )
    })
}

/// The packages whose programs are neither the system's nor in the folder.
fn missing(place: &Path) -> Vec<&'static str> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = env::split_paths(&path).collect();
    dirs.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    dirs.extend(["usr/sbin", "sbin"].map(|dir| place.join(dir)));
    let is_there = |program: &str| dirs.iter().any(|dir| dir.join(program).is_file());
    let absent = PEERS.iter().filter(|(_, program)| !is_there(program));
    absent.map(|(package, _)| *package).collect()
}

fn make(cache: &Cache, wanted: &[&str], progress: &mut Progress) -> Result<PathBuf> {
    let staging = cache.staging(NAME)?;
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
    let place = cache.publish(&unpacked, NAME)?;
    fs::remove_dir_all(&staging).with_context(|| format!("remove {}", staging.display()))?;
    progress.done(&place.display().to_string());
    Ok(place)
}
