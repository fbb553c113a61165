//! The sources of `core`, which is compiled for the BPF target: exactly of rustc's own version.
//!
//! In order: `MIRROR_RUST_SRC`, those beside rustc, those in the cache; then, made: by rustup where the
//! toolchain is rustup's, else out of the distribution's package.

use std::env;
use std::fmt;
use std::fs;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};

use super::Cache;
use super::apt::{self, Apt};
use super::sources::{self, Distribution, Stage};
use crate::progress::Progress;
use crate::toolchain::Toolchain;
use crate::{Precondition, command};

const OVERRIDE: &str = "MIRROR_RUST_SRC";
const CACHE_NAME: &str = "rust-src";
/// 3 MB; more than this and the network is not one that lets rustup do it.
const RUSTUP_TIME_MAX: Duration = Duration::from_secs(120);
/// A network that silently drops packets would otherwise cost the time above.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(4);

/// Where rust-src may be got from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Origin {
    /// rustup where it can, else the distribution's package
    Auto,
    /// `rustup component add rust-src`
    Rustup,
    /// The package of Debian or Ubuntu, unpacked into the cache
    Package,
}

/// Sources that are there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RustSrc {
    /// Where cargo looks by itself.
    InPlace(PathBuf),
    /// Anywhere else: cargo has to be told.
    At(PathBuf),
}

impl fmt::Display for RustSrc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::InPlace(path) | Self::At(path)) = self;
        path.display().fmt(f)
    }
}

pub(super) fn find(toolchain: &Toolchain, cache: &Cache) -> Result<Option<RustSrc>> {
    if let Some(path) = env::var_os(OVERRIDE).filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        if !is_library(&path) {
            return Err(Precondition(format!(
                "{OVERRIDE}={}: not rust's `library` directory (it has no core/src/lib.rs)",
                path.display()
            ))
            .into());
        }
        return Ok(Some(RustSrc::At(path)));
    }
    let in_place = toolchain.rust_src_in_place();
    if is_library(&in_place) {
        return Ok(Some(RustSrc::InPlace(in_place)));
    }
    let cached = cache.path(CACHE_NAME);
    Ok(is_library(&cached).then_some(RustSrc::At(cached)))
}

pub(super) fn make(
    toolchain: &Toolchain,
    cache: &Cache,
    origin: Origin,
    progress: &mut Progress,
) -> Result<RustSrc> {
    progress.begin(format!("rust-src {}", toolchain.version.release));
    let mut reasons = Vec::new();
    if origin != Origin::Package {
        match from_rustup(toolchain, progress) {
            Ok(path) => {
                progress.done(&format!("{} (rustup)", path.display()));
                return Ok(RustSrc::InPlace(path));
            }
            Err(error) => reasons.push(format!("rustup: {error:#}")),
        }
    }
    if origin != Origin::Rustup {
        match from_package(toolchain, cache, progress) {
            Ok((path, package)) => {
                progress.done(&format!("{} ({package})", path.display()));
                return Ok(RustSrc::At(path));
            }
            Err(error) => reasons.push(format!("distribution: {error:#}")),
        }
    }
    let release = &toolchain.version.release;
    let reasons = reasons.join("\n").replace('\n', "\n    ");
    Err(anyhow!(
        "rust-src {release} could not be got:\n    {reasons}\n  \
         What helps: a network that reaches static.rust-lang.org or deb.debian.org, then the same command \
         again;\n  a newer rustc; or {OVERRIDE}=DIR with the `library` directory of rust {release}'s sources"
    ))
}

fn from_rustup(toolchain: &Toolchain, progress: &mut Progress) -> Result<PathBuf> {
    if !toolchain.is_from_rustup() {
        bail!(
            "this rustc ({}) is not rustup's",
            toolchain.sysroot.display()
        );
    }
    reachable()?;
    let name = toolchain
        .sysroot
        .file_name()
        .context("the toolchain's folder has a name")?;
    let mut rustup = Command::new("rustup");
    rustup
        .args(["component", "add", "rust-src", "--toolchain"])
        .arg(name)
        // Set for us by cargo's proxy; the toolchain is named.
        .env_remove("RUSTUP_TOOLCHAIN")
        .env("RUSTUP_MAX_RETRIES", "1");
    progress.update("rustup component add rust-src");
    command::quiet(&mut rustup, Some(RUSTUP_TIME_MAX), |_| progress.update(""))?;
    let path = toolchain.rust_src_in_place();
    if !is_library(&path) {
        bail!(
            "rustup says it is done, but {} is not there",
            path.display()
        );
    }
    Ok(path)
}

/// Whether rustup's server answers at all. Behind a proxy only rustup can tell.
fn reachable() -> Result<()> {
    const PROXIES: [&str; 6] = [
        "https_proxy",
        "HTTPS_PROXY",
        "http_proxy",
        "HTTP_PROXY",
        "all_proxy",
        "ALL_PROXY",
    ];
    if PROXIES
        .iter()
        .chain(&["RUSTUP_DIST_SERVER"])
        .any(|name| env::var_os(name).is_some())
    {
        return Ok(());
    }
    const SERVER: &str = "static.rust-lang.org";
    let address = (SERVER, 443)
        .to_socket_addrs()
        .ok()
        .and_then(|mut found| found.next());
    let address = address.with_context(|| format!("{SERVER} has no address here"))?;
    TcpStream::connect_timeout(&address, CONNECT_TIME_MAX)
        .with_context(|| format!("{SERVER} does not answer"))?;
    Ok(())
}

/// The package's `library` directory in the cache, and the package's name and version.
fn from_package(
    toolchain: &Toolchain,
    cache: &Cache,
    progress: &mut Progress,
) -> Result<(PathBuf, String)> {
    let staging = cache.staging(CACHE_NAME)?;
    let apt = Apt::new(&staging.join("apt"))?;
    let (deb, package) = download(&apt, &toolchain.version.release, progress)?;
    progress.update("unpacking");
    let unpacked = staging.join("unpacked");
    apt::unpack(&deb, &unpacked, &["./usr/src/*/library".to_owned()])?;
    let library = fs::read_dir(unpacked.join("usr/src"))
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("library"))
        .find(|path| is_library(path))
        .with_context(|| format!("{package} has no usr/src/*/library/core"))?;
    let place = cache.publish(&library, CACHE_NAME)?;
    fs::remove_dir_all(&staging).with_context(|| format!("remove {}", staging.display()))?;
    Ok((place, package))
}

/// Looks through one set of suites after the other.
fn download(apt: &Apt, release: &str, progress: &mut Progress) -> Result<(PathBuf, String)> {
    let distribution = Distribution::detect()?;
    let configured = sources::parse_configured(&apt.configured()?);
    let names = sources::package_names(release);
    let mut tried = Vec::new();
    for stage in sources::stages(distribution, &configured) {
        progress.update(&format!("looking in {}", stage.what));
        match look(apt, &stage, &names, release) {
            Ok((name, version)) => {
                let deb = apt.download(&name, Some(&version), |state| {
                    progress.update(&format!("{name} {version} {state}"));
                })?;
                return Ok((deb, format!("{name} {version}")));
            }
            Err(error) => tried.push(format!("{}: {error:#}", stage.what)),
        }
    }
    bail!("no package of version {release}\n{}", tried.join("\n"))
}

/// The package's name and version in these suites.
fn look(apt: &Apt, stage: &Stage, names: &[String], release: &str) -> Result<(String, String)> {
    let keyring = match stage.keyring() {
        Some(keyring) => keyring,
        None => debian_keyring(apt)?,
    };
    apt.update(&stage.render(&keyring))?;
    let offered = apt.madison(names)?;
    sources::pick(&offered, release).with_context(|| {
        let versions = offered
            .iter()
            .map(|row| row.version.as_str())
            .collect::<Vec<_>>();
        if versions.is_empty() {
            "has none".into()
        } else {
            format!("has {}", versions.join(", "))
        }
    })
}

/// On Ubuntu, Debian's keys come in a package that Ubuntu signs. Uses the sources of the stage before.
fn debian_keyring(apt: &Apt) -> Result<PathBuf> {
    let deb = apt
        .download("debian-archive-keyring", None, |_| ())
        .context("Debian's keys (package debian-archive-keyring) are not to be had")?;
    let dir = deb.with_extension("unpacked");
    apt::unpack(&deb, &dir, &["./usr/share/keyrings/*".to_owned()])?;
    sources::debian_keyring_in(&dir.join("usr/share/keyrings")).context("no keyring in the package")
}

fn is_library(path: &Path) -> bool {
    path.join("core/src/lib.rs").is_file() && path.join("Cargo.lock").is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incomplete_library_is_not_used() {
        let dir = env::temp_dir().join(format!("xtask-library-{}", std::process::id()));
        fs::create_dir_all(dir.join("core/src")).unwrap();
        fs::write(dir.join("core/src/lib.rs"), "").unwrap();
        assert!(!is_library(&dir));
        fs::write(dir.join("Cargo.lock"), "").unwrap();
        assert!(is_library(&dir));
        fs::remove_dir_all(dir).unwrap();
    }
}
