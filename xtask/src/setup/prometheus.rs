//! Programs of Prometheus that tests need: those that check what the agent tells it, and the node exporter that tells the
//! agent of an instance. Without them everything else still runs.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::Cache;
use super::apt::{self, Apt};
use crate::progress::Progress;
use crate::toolchain::Toolchain;

/// A package of the distribution, and what is needed of it.
pub(crate) struct Tool {
    /// Names the folder with the programs, for the tests and for users who have their own.
    pub(crate) variable: &'static str,
    package: &'static str,
    programs: &'static [&'static str],
}

/// Each of them.
pub(crate) const TOOLS: [Tool; 2] = [
    Tool {
        variable: "MIRROR_PROMETHEUS",
        package: "prometheus",
        programs: &["prometheus", "promtool"],
    },
    Tool {
        variable: "MIRROR_NODE_EXPORTER",
        package: "prometheus-node-exporter",
        programs: &["prometheus-node-exporter"],
    },
];

impl Tool {
    /// The folder with the programs: the user's, the system's, the cache's, or made.
    pub(crate) fn ensure(&self) -> Result<PathBuf> {
        if let Some(dir) = env::var_os(self.variable).filter(|dir| !dir.is_empty()) {
            return Ok(dir.into());
        }
        let path = env::var_os("PATH").unwrap_or_default();
        let cache = Cache::new(&Toolchain::detect()?)?;
        let mut places = env::split_paths(&path).chain([cache.path(self.package)]);
        if let Some(place) = places.find(|place| self.is_complete(place)) {
            return Ok(place);
        }
        let _lock = cache.lock()?;
        let place = cache.path(self.package);
        // Another run may have made it while we waited.
        if self.is_complete(&place) {
            return Ok(place);
        }
        let mut progress = Progress::new(1);
        progress.begin(self.package);
        let made = self.make(&cache, &mut progress);
        progress.clear();
        made.with_context(|| {
            format!(
                "{} could not be got (install it, or set {}=DIR with {})",
                self.package,
                self.variable,
                self.programs.join(" and ")
            )
        })
    }

    fn is_complete(&self, dir: &Path) -> bool {
        self.programs.iter().all(|name| dir.join(name).is_file())
    }

    fn make(&self, cache: &Cache, progress: &mut Progress) -> Result<PathBuf> {
        let package = self.package;
        let staging = cache.staging(package)?;
        progress.update("reading the package lists");
        let apt = Apt::of_distribution(&staging.join("apt"))?;
        let deb = apt.download(package, None, |state| {
            progress.update(&format!("{package} {state}"));
        })?;
        progress.update("unpacking");
        let unpacked = staging.join("unpacked");
        apt::unpack(
            &deb,
            &unpacked,
            &self
                .programs
                .iter()
                .map(|name| format!("./usr/bin/{name}"))
                .collect::<Vec<_>>(),
        )?;
        let place = cache.publish(&unpacked.join("usr/bin"), package)?;
        fs::remove_dir_all(&staging).with_context(|| format!("remove {}", staging.display()))?;
        progress.done(&place.display().to_string());
        Ok(place)
    }
}
