//! Cargo's own further commands that single verbs need: cargo-deb, cargo-deny.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::Cache;
use crate::command;
use crate::progress::Progress;
use crate::toolchain::Toolchain;

/// A command that is made from its sources in the crates registry.
pub(crate) struct CargoTool {
    name: &'static str,
    version: &'static str,
    /// Of its features, those that are needed. Without the others, which bring C libraries or an HTTP stack.
    features: &'static str,
}

/// Makes the Debian package. Packages are compressed by gzip: liblzma is C.
pub(crate) const DEB: CargoTool = CargoTool {
    name: "cargo-deb",
    version: "3.8.0",
    features: "gzip",
};

/// Says what dependencies there are under which licences, and where they come from.
pub(crate) const DENY: CargoTool = CargoTool {
    name: "cargo-deny",
    version: "0.20.2",
    features: "",
};

impl CargoTool {
    /// The program: the cache's, or made.
    pub(crate) fn ensure(&self) -> Result<PathBuf> {
        let cache = Cache::new(&Toolchain::detect()?)?;
        let path = self.binary(&cache.path(&self.folder()));
        if path.is_file() {
            return Ok(path);
        }
        let _lock = cache.lock()?;
        // Another run may have made it while we waited.
        if path.is_file() {
            return Ok(path);
        }
        let mut progress = Progress::new(1);
        progress.begin(self.folder());
        let made = self.make(&cache);
        progress.clear();
        made.with_context(|| format!("building {} (the crates registry is needed)", self.name))
    }

    fn make(&self, cache: &Cache) -> Result<PathBuf> {
        let staging = cache.staging(&self.folder())?;
        let root = staging.join("root");
        let mut install = command::cargo();
        install
            .args(["install", self.name, "--version", self.version, "--locked"])
            .args(["--no-default-features", "--features", self.features])
            .arg("--root")
            .arg(&root)
            .current_dir(&staging)
            .env("CARGO_TARGET_DIR", staging.join("target"))
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env_remove("CARGO_BUILD_TARGET");
        command::quiet(&mut install, None, |_| {})?;
        command::output(Command::new(self.binary(&root)).arg("--version"))?;
        let place = cache.publish(&root, &self.folder())?;
        fs::remove_dir_all(&staging).with_context(|| format!("remove {}", staging.display()))?;
        Ok(self.binary(&place))
    }

    fn folder(&self) -> String {
        format!("{}-{}", self.name, self.version)
    }

    fn binary(&self, root: &Path) -> PathBuf {
        root.join("bin").join(self.name)
    }
}
