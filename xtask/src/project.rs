//! Where this project's files are: sources, target directories, the tools' cache.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The endianness is part of the target's name, and programs are loaded where they are built.
pub(crate) const BPF_TARGET: &str = if cfg!(target_endian = "big") {
    "bpfeb-unknown-none"
} else {
    "bpfel-unknown-none"
};

/// The workspace's root.
pub(crate) fn root_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is a folder of the workspace")
}

/// The eBPF crate, a workspace of its own because it is built for another target.
pub(crate) fn ebpf_dir() -> PathBuf {
    root_dir().join("mirror-ebpf")
}

/// cargo's target directory, as cargo itself finds it.
pub(crate) fn target_dir() -> PathBuf {
    match env::var_os("CARGO_TARGET_DIR").filter(|dir| !dir.is_empty()) {
        // Relative to where the user is, as for cargo.
        Some(dir) => std::path::absolute(&dir).unwrap_or_else(|_| dir.into()),
        None => root_dir().join("target"),
    }
}

/// The finished eBPF object, which `mirror-ctl` embeds.
pub(crate) fn ebpf_object() -> PathBuf {
    target_dir().join("bpf").join("mirror-ebpf")
}

/// The object of the traced variant, which lies beside the object.
pub(crate) fn traced(object: &Path) -> PathBuf {
    object.with_extension("traced")
}

/// The object of the variant that measures nothing, which lies beside the object.
pub(crate) fn unmeasured(object: &Path) -> PathBuf {
    object.with_extension("unmeasured")
}

/// cargo's own target directory for the eBPF crate, apart from user space's: the two differ in flags
/// and run at different times, and a shared one would be locked and rebuilt in turns.
pub(crate) fn ebpf_target_dir() -> PathBuf {
    target_dir().join("bpf-build")
}

/// A program built by `cargo xtask build`.
pub(crate) fn binary(name: &str) -> PathBuf {
    target_dir().join("release").join(name)
}

/// Where tools are kept between runs and between clones.
pub(crate) fn cache_dir() -> Result<PathBuf> {
    cache_dir_from(env::var_os("XDG_CACHE_HOME"), env::var_os("HOME"))
        .context("neither XDG_CACHE_HOME nor HOME is set: set HOME to a directory of yours")
}

fn cache_dir_from(xdg: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    // A relative XDG_CACHE_HOME is to be ignored (XDG base directory specification).
    let xdg = xdg.map(PathBuf::from).filter(|dir| dir.is_absolute());
    let home = home.map(PathBuf::from).filter(|dir| dir.is_absolute());
    let base = xdg.or_else(|| home.map(|home| home.join(".cache")))?;
    Some(base.join("predictive-mirroring"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(xdg: Option<&str>, home: Option<&str>, expected: Option<&str>) {
        let got = cache_dir_from(xdg.map(Into::into), home.map(Into::into));
        assert_eq!(got.as_deref(), expected.map(Path::new));
    }

    #[test]
    fn cache_directory() {
        check(
            None,
            Some("/home/u"),
            Some("/home/u/.cache/predictive-mirroring"),
        );
        check(Some("/x"), Some("/home/u"), Some("/x/predictive-mirroring"));
        check(
            Some("relative"),
            Some("/home/u"),
            Some("/home/u/.cache/predictive-mirroring"),
        );
        check(Some(""), None, None);
        check(None, None, None);
    }
}
