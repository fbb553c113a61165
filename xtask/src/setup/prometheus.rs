//! Prometheus' own programs, which check what the agent tells Prometheus. Needed by one test only: without them
//! everything else still runs.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::Cache;
use super::apt::{self, Apt};
use super::sources::{self, Distribution};
use crate::progress::Progress;
use crate::toolchain::Toolchain;

/// Names the folder with the programs, for the tests and for users who have their own.
pub(crate) const VARIABLE: &str = "MIRROR_PROMETHEUS";
const PACKAGE: &str = "prometheus";
const PROGRAMS: [&str; 2] = ["prometheus", "promtool"];

/// The folder with `prometheus` and `promtool`: the user's, the system's, the cache's, or made.
pub(crate) fn ensure() -> Result<PathBuf> {
    if let Some(dir) = env::var_os(VARIABLE).filter(|dir| !dir.is_empty()) {
        return Ok(dir.into());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let cache = Cache::new(&Toolchain::detect()?)?;
    let mut places = env::split_paths(&path).chain([cache.path(PACKAGE)]);
    if let Some(place) = places.find(|place| is_complete(place)) {
        return Ok(place);
    }
    let _lock = cache.lock()?;
    let place = cache.path(PACKAGE);
    // Another run may have made it while we waited.
    if is_complete(&place) {
        return Ok(place);
    }
    let mut progress = Progress::new(1);
    progress.begin(PACKAGE);
    let made = make(&cache, &mut progress);
    progress.clear();
    made.with_context(|| {
        format!(
            "{PACKAGE} could not be got (install it, or set {VARIABLE}=DIR with {})",
            PROGRAMS.join(" and ")
        )
    })
}

fn is_complete(dir: &Path) -> bool {
    PROGRAMS.iter().all(|name| dir.join(name).is_file())
}

fn make(cache: &Cache, progress: &mut Progress) -> Result<PathBuf> {
    let staging = cache.staging(PACKAGE)?;
    let apt = Apt::new(&staging.join("apt"))?;
    progress.update("reading the package lists");
    let configured = sources::parse_configured(&apt.configured()?);
    let stage = sources::own_stage(Distribution::detect()?, &configured)
        .context("apt has no sources here")?;
    let keyring = stage
        .keyring()
        .context("the archive's keyring is missing")?;
    apt.update(&stage.render(&keyring))?;
    let deb = apt.download(PACKAGE, None, |state| {
        progress.update(&format!("{PACKAGE} {state}"));
    })?;
    progress.update("unpacking");
    let unpacked = staging.join("unpacked");
    apt::unpack(
        &deb,
        &unpacked,
        &PROGRAMS.map(|name| format!("./usr/bin/{name}")),
    )?;
    let place = cache.publish(&unpacked.join("usr/bin"), PACKAGE)?;
    fs::remove_dir_all(&staging).with_context(|| format!("remove {}", staging.display()))?;
    progress.done(&place.display().to_string());
    Ok(place)
}
