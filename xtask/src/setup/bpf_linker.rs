//! bpf-linker, linked against the LLVM that rustc itself runs on.
//!
//! It reads the bitcode that rustc writes, so its LLVM may not be older than rustc's. The released
//! binaries and the system's LLVM are of whatever version they are; rustc's own always fits, and needs no
//! LLVM packages.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::Cache;
use crate::progress::Progress;
use crate::toolchain::Toolchain;
use crate::{Precondition, command};

const VERSION: &str = "0.13.0";
/// The LLVM versions that this version of bpf-linker has a feature for.
const LLVM_MAJORS: [u32; 3] = [21, 22, 23];

pub(super) fn find(cache: &Cache) -> Option<PathBuf> {
    Some(binary(&cache.path(&name()))).filter(|path| path.is_file())
}

pub(super) fn make(
    toolchain: &Toolchain,
    cache: &Cache,
    progress: &mut Progress,
) -> Result<PathBuf> {
    let feature = llvm_feature(toolchain.version.llvm_major()?).ok_or_else(|| {
        Precondition(format!(
            "rustc {} has LLVM {}, and bpf-linker {VERSION} can be built for LLVM {LLVM_MAJORS:?} only.\n  \
             Use a rustc with one of these (`rustup default 1.95`), or raise the version in {}",
            toolchain.version.release,
            toolchain.version.llvm,
            file!(),
        ))
    })?;
    let library = toolchain.llvm_library()?;
    progress.begin(format!(
        "bpf-linker {VERSION} for rustc's LLVM {}",
        toolchain.version.llvm
    ));
    let staging = cache.staging(&name())?;
    let prefix = llvm_prefix(&staging, &library)?;
    let root = staging.join("root");
    let library_dir = library.parent().context("the LLVM library has a folder")?;
    let mut install = command::cargo();
    install
        .args([
            "install",
            "bpf-linker",
            "--version",
            VERSION,
            "--locked",
            "--no-default-features",
        ])
        .args(["--features", &feature, "--root"])
        .arg(&root)
        // Not the project's folder: its cargo configuration is not meant for this.
        .current_dir(&staging)
        .env("LLVM_PREFIX", &prefix)
        .env("CARGO_TARGET_DIR", staging.join("target"))
        // Encoded, so that a path may have spaces in it.
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(library_dir))
        // A third of the time to compile; the work is LLVM's, which is compiled already.
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
        .env("CARGO_TERM_PROGRESS_WHEN", "always")
        .env("CARGO_TERM_PROGRESS_WIDTH", "100")
        .env("CARGO_TERM_COLOR", "never")
        .env_remove("CARGO_BUILD_TARGET");
    command::quiet(&mut install, None, |piece| {
        progress.update(compile_state(piece).unwrap_or(""))
    })
    .context("building bpf-linker (a C linker and the crates registry are needed)")?;
    // Starting it once shows that it finds its LLVM.
    command::output(Command::new(binary(&root)).arg("--version"))?;
    let place = cache.publish(&root, &name())?;
    fs::remove_dir_all(&staging).with_context(|| format!("remove {}", staging.display()))?;
    let path = binary(&place);
    progress.done(&path.display().to_string());
    Ok(path)
}

fn name() -> String {
    format!("bpf-linker-{VERSION}")
}

fn binary(root: &Path) -> PathBuf {
    root.join("bin/bpf-linker")
}

fn llvm_feature(major: u32) -> Option<String> {
    LLVM_MAJORS
        .contains(&major)
        .then(|| format!("llvm-{major}"))
}

/// A folder that looks like an LLVM installation: the linker wants the plain name.
fn llvm_prefix(staging: &Path, library: &Path) -> Result<PathBuf> {
    let prefix = staging.join("llvm");
    fs::create_dir_all(prefix.join("lib")).context("make the LLVM folder")?;
    symlink(library, prefix.join("lib/libLLVM.so")).context("link to rustc's LLVM")?;
    Ok(prefix)
}

fn rustflags(library_dir: &Path) -> String {
    format!("-Clink-arg=-Wl,-rpath,{}", library_dir.display())
}

/// `42/87: regex-syntax` out of `    Building [====>    ] 42/87: regex-syntax`.
fn compile_state(piece: &str) -> Option<&str> {
    let piece = piece.trim_start();
    if let Some(bar) = piece.strip_prefix("Building [") {
        return Some(bar.split_once("] ")?.1);
    }
    piece.starts_with("Downloading ").then_some(piece)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feature_for_llvm() {
        assert_eq!(llvm_feature(22).as_deref(), Some("llvm-22"));
        assert_eq!(llvm_feature(20), None);
    }

    #[test]
    fn state_of_the_build() {
        let bar = "    Building [==========>                ] 42/87: regex-syntax, clap";
        assert_eq!(compile_state(bar), Some("42/87: regex-syntax, clap"));
        assert_eq!(compile_state("   Compiling regex-syntax v0.8.8"), None);
        assert_eq!(compile_state(""), None);
    }
}
