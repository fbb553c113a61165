//! cargo-deb, which makes the Debian package. Needed by `cargo xtask dist` only.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::Cache;
use crate::command;
use crate::progress::Progress;
use crate::toolchain::Toolchain;

const VERSION: &str = "3.8.0";

/// The program: the cache's, or made.
pub(crate) fn ensure() -> Result<PathBuf> {
    let cache = Cache::new(&Toolchain::detect()?)?;
    let path = binary(&cache.path(&name()));
    if path.is_file() {
        return Ok(path);
    }
    let _lock = cache.lock()?;
    // Another run may have made it while we waited.
    if path.is_file() {
        return Ok(path);
    }
    let mut progress = Progress::new(1);
    progress.begin(name());
    let made = make(&cache);
    progress.clear();
    made.context("building cargo-deb (the crates registry is needed)")
}

fn make(cache: &Cache) -> Result<PathBuf> {
    let staging = cache.staging(&name())?;
    let root = staging.join("root");
    let mut install = command::cargo();
    install
        .args(["install", "cargo-deb", "--version", VERSION, "--locked"])
        // Without liblzma, which is C: packages are compressed by gzip.
        .args(["--no-default-features", "--features", "gzip", "--root"])
        .arg(&root)
        .current_dir(&staging)
        .env("CARGO_TARGET_DIR", staging.join("target"))
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env_remove("CARGO_BUILD_TARGET");
    command::quiet(&mut install, None, |_| {})?;
    command::output(Command::new(binary(&root)).arg("--version"))?;
    let place = cache.publish(&root, &name())?;
    fs::remove_dir_all(&staging).with_context(|| format!("remove {}", staging.display()))?;
    Ok(binary(&place))
}

fn name() -> String {
    format!("cargo-deb-{VERSION}")
}

fn binary(root: &Path) -> PathBuf {
    root.join("bin/cargo-deb")
}
