//! Kernels of Debian, and an emulator to boot them in. Needed by `cargo xtask kernels` only.
//!
//! Packages are unpacked, not installed. Of a kernel its image and the veth module are kept.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::Cache;
use super::apt::{self, Apt};
use super::sources;
use crate::progress::Progress;
use crate::toolchain::Toolchain;

const EMULATOR: &str = "emulator";
const KERNELS: &str = "kernels";
/// The series that are tried by default: one that is refused, the release's, and the long-term one after it. The
/// newest of all comes with them.
const SERIES: [&str; 3] = ["6.1", "6.12", "6.18"];
const PREFIX: &str = "linux-image-";
/// For virtual machines: the smallest.
const FLAVOUR: &str = "-cloud-amd64";

/// qemu with what it reads, and a static busybox, below a root of their own.
pub(crate) struct Emulator {
    root: PathBuf,
}

impl Emulator {
    pub(crate) fn busybox(&self) -> PathBuf {
        self.root.join("bin/busybox")
    }

    /// The system's, or the unpacked one with its surroundings: program and environment.
    pub(crate) fn qemu(&self) -> Result<(PathBuf, Vec<(&'static str, OsString)>)> {
        let unpacked = self.root.join("usr/bin").join(QEMU);
        if !unpacked.is_file() {
            return Ok((QEMU.into(), Vec::new()));
        }
        let libraries = self.root.join("usr/lib/x86_64-linux-gnu");
        let modules = libraries.join("qemu").into_os_string();
        // Some packages still name the folder that has become a link; some keep libraries for themselves.
        let more = self.root.join("lib/x86_64-linux-gnu");
        let own = libraries.join("pulseaudio");
        let libraries = env::join_paths([libraries, more, own])?;
        let variables = vec![("LD_LIBRARY_PATH", libraries), ("QEMU_MODULE_DIR", modules)];
        Ok((unpacked, variables))
    }

    /// Where firmware is, if not the system's.
    pub(crate) fn firmware(&self) -> Vec<PathBuf> {
        let dirs = ["usr/share/qemu", "usr/share/seabios"].map(|dir| self.root.join(dir));
        dirs.into_iter().filter(|dir| dir.is_dir()).collect()
    }
}

const QEMU: &str = "qemu-system-x86_64";

/// A kernel to boot.
pub(crate) struct Kernel {
    /// As in the package's name.
    pub(crate) version: String,
    pub(crate) image: PathBuf,
    /// Perhaps compressed.
    pub(crate) veth: PathBuf,
}

/// The emulator, fetched if it is not there.
pub(crate) fn emulator() -> Result<Emulator> {
    let cache = Cache::new(&Toolchain::detect()?)?;
    let emulator = Emulator {
        root: cache.path(EMULATOR),
    };
    let path = env::var_os("PATH").unwrap_or_default();
    let is_complete = || {
        let has_qemu = emulator.root.join("usr/bin").join(QEMU).is_file()
            || env::split_paths(&path).any(|dir| dir.join(QEMU).is_file());
        has_qemu && emulator.busybox().is_file()
    };
    if is_complete() {
        return Ok(emulator);
    }
    let _lock = cache.lock()?;
    // Another run may have made it while we waited.
    if is_complete() {
        return Ok(emulator);
    }
    let mut progress = Progress::new(1);
    progress.begin(EMULATOR);
    let made = make_emulator(&cache, &mut progress);
    progress.clear();
    made.context("qemu-system-x86 and busybox-static could not be got")?;
    Ok(emulator)
}

fn make_emulator(cache: &Cache, progress: &mut Progress) -> Result<()> {
    let staging = cache.staging(EMULATOR)?;
    progress.update("reading the package lists");
    let apt = Apt::of_distribution(&staging.join("apt"))?;
    let mut debs = apt.download_with_dependencies(&["qemu-system-x86"], |state| {
        progress.update(&format!("qemu-system-x86 {state}"));
    })?;
    // Also where it is installed: it may be the one that needs libraries.
    debs.push(apt.download("busybox-static", None, |_| ())?);
    progress.update("unpacking");
    let unpacked = staging.join("unpacked");
    for deb in &debs {
        apt::unpack(deb, &unpacked, &[])?;
    }
    // Where / is merged into /usr.
    let merged = unpacked.join("usr/bin/busybox");
    if merged.is_file() {
        fs::create_dir_all(unpacked.join("bin"))?;
        fs::copy(&merged, unpacked.join("bin/busybox"))?;
    }
    let place = cache.publish(&unpacked, EMULATOR)?;
    fs::remove_dir_all(&staging).with_context(|| format!("remove {}", staging.display()))?;
    progress.done(&place.display().to_string());
    Ok(())
}

/// The kernels of these versions or series, the newest of each; by default a choice.
pub(crate) fn fetch(wanted: &[String]) -> Result<Vec<Kernel>> {
    let cache = Cache::new(&Toolchain::detect()?)?;
    let _lock = cache.lock()?;
    let staging = cache.staging(KERNELS)?;
    let mut progress = Progress::new(1);
    progress.begin("kernels");
    let fetched = fetch_into(&cache, &staging, wanted, &mut progress);
    progress.clear();
    let removed = fs::remove_dir_all(&staging);
    let kernels = fetched?;
    removed.with_context(|| format!("remove {}", staging.display()))?;
    Ok(kernels)
}

fn fetch_into(
    cache: &Cache,
    staging: &Path,
    wanted: &[String],
    progress: &mut Progress,
) -> Result<Vec<Kernel>> {
    let apt = Apt::new(&staging.join("apt"))?;
    progress.update("reading the package lists");
    let stage = sources::kernel_stage(&sources::parse_configured(&apt.configured()?));
    let keyring = stage
        .keyring()
        .context("Debian's keyring is missing: install debian-archive-keyring")?;
    apt.update(&stage.render(&keyring))?;
    let names = apt.names("linux-")?;
    let mut kernels = Vec::new();
    for version in choose(&names, wanted)? {
        let place = cache.path(KERNELS).join(&version);
        if files(&place).is_err() {
            let unpacked = staging.join(&version);
            // Newer packages are in three parts.
            for part in [PREFIX, "linux-binary-", "linux-modules-"] {
                let name = format!("{part}{version}{FLAVOUR}");
                if names.contains(&name) {
                    let deb = apt.download(&name, None, |state| {
                        progress.update(&format!("{version} {state}"));
                    })?;
                    apt::unpack(&deb, &unpacked, &[])?;
                }
            }
            keep(&unpacked, &place).with_context(|| format!("the packages of {version}"))?;
            fs::remove_dir_all(&unpacked)?;
        }
        let (image, veth) = files(&place)?;
        kernels.push(Kernel {
            version,
            image,
            veth,
        });
    }
    Ok(kernels)
}

/// Versions out of packages' names, as wanted.
fn choose(names: &[String], wanted: &[String]) -> Result<Vec<String>> {
    let mut versions: Vec<&str> = names
        .iter()
        .filter_map(|name| name.strip_prefix(PREFIX)?.strip_suffix(FLAVOUR))
        .filter(|version| version.starts_with(|c: char| c.is_ascii_digit()))
        .collect();
    versions.sort_by_key(|version| numbers(version));
    let newest_of = |series: &str| {
        let is_of = |version: &&&str| {
            version
                .strip_prefix(series)
                .is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
        };
        versions.iter().rfind(is_of).copied()
    };
    if wanted.is_empty() {
        let mut chosen: Vec<_> = SERIES
            .iter()
            .filter_map(|series| newest_of(series))
            .collect();
        chosen.extend(versions.last().filter(|last| !chosen.contains(last)));
        return Ok(chosen.into_iter().map(str::to_owned).collect());
    }
    wanted
        .iter()
        .map(|series| match newest_of(series) {
            Some(version) => Ok(version.to_owned()),
            None => bail!(
                "no kernel {series} is offered; there are {}",
                versions.join(" ")
            ),
        })
        .collect()
}

/// Numbers of a version, to compare by.
fn numbers(version: &str) -> Vec<u64> {
    version
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect()
}

/// Image and module of a kernel that was fetched.
fn files(place: &Path) -> Result<(PathBuf, PathBuf)> {
    let find = |start: &str| {
        let entries = fs::read_dir(place)?.flatten().map(|entry| entry.path());
        let mut found = entries.filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with(start)
        });
        found
            .next()
            .with_context(|| format!("no {start} in {}", place.display()))
    };
    Ok((find("vmlinuz")?, find("veth.ko")?))
}

/// Keeps of an unpacked package what is needed; the module last, which says that it is whole.
fn keep(unpacked: &Path, place: &Path) -> Result<()> {
    fs::create_dir_all(place).with_context(|| format!("make {}", place.display()))?;
    for start in ["vmlinuz", "veth.ko"] {
        let found = search(unpacked, start)?.with_context(|| format!("they have no {start}"))?;
        let name = found.file_name().context("a file has a name")?;
        let part = place.join("part");
        fs::copy(&found, &part).with_context(|| format!("copy {}", found.display()))?;
        fs::rename(&part, place.join(name))?;
    }
    Ok(())
}

/// The first file below a folder whose name starts so.
fn search(dir: &Path, start: &str) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            if let Some(found) = search(&entry.path(), start)? {
                return Ok(Some(found));
            }
        } else if kind.is_file() && entry.file_name().to_string_lossy().starts_with(start) {
            return Ok(Some(entry.path()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_each_series() {
        let names = [
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-50-cloud-amd64",
            "linux-image-6.1.0-50-cloud-amd64-unsigned",
            "linux-image-6.12.95+deb12-cloud-amd64",
            "linux-image-6.12.117+deb13-cloud-amd64",
            "linux-image-6.12.117+deb13-amd64",
            "linux-image-7.3.4+deb13-cloud-amd64",
            "linux-image-cloud-amd64",
            "linux-binary-7.3.4+deb13-cloud-amd64",
        ]
        .map(str::to_owned);
        let check = |wanted: &[&str], expected: &[&str]| {
            let wanted: Vec<_> = wanted.iter().map(|w| (*w).to_owned()).collect();
            assert_eq!(choose(&names, &wanted).unwrap(), expected);
        };
        check(&[], &["6.1.0-50", "6.12.117+deb13", "7.3.4+deb13"]);
        check(&["6.12.95", "7"], &["6.12.95+deb12", "7.3.4+deb13"]);
        check(&["6.1"], &["6.1.0-50"]);
        assert!(choose(&names, &["6.2".to_owned()]).is_err());
    }
}
