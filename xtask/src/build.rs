//! `cargo xtask build`: the eBPF objects, then the user-space programs that embed them.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::setup::{self, RustSrc, Tools};
use crate::{command, project};

/// BPF instruction set: v3 has 32-bit registers and jumps, and atomic operations (Linux 5.12).
const BPF_CPU: &str = "v3";

/// Chooses the variant of the programs that tells of each packet of a flow.
pub(crate) const TRACED_FEATURE: [&str; 2] = ["--features", "traced"];

/// Chooses the variant that measures nothing of instances.
const UNMEASURED_FEATURE: [&str; 2] = ["--features", "unmeasured"];

/// The packages that make up user space; both embed or use the object.
const PACKAGES: [&str; 4] = ["--package", "mirror-ctl", "--package", "mirror-tests"];

/// Tells build scripts where the object is.
pub(crate) const OBJECT_VARIABLE: &str = "MIRROR_EBPF_OBJECT";

/// Build the eBPF programs and the user-space programs around them
///
/// The eBPF object is left in <target>/bpf/mirror-ebpf, the programs in <target>/release.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask build
  cargo xtask build --ebpf-only     only the object; then plain cargo works for the rest")]
pub(crate) struct Args {
    /// Only the eBPF object
    #[arg(long)]
    ebpf_only: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let tools = setup::ensure()?;
    ebpf(&tools)?;
    if args.ebpf_only {
        println!("{}", project::ebpf_object().display());
        return Ok(());
    }
    user_space()
}

/// Set-up and everything that is built.
pub(crate) fn all() -> Result<()> {
    ebpf(&setup::ensure()?)?;
    user_space()
}

/// The eBPF object and the one of the traced variant, in their places.
pub(crate) fn ebpf(tools: &Tools) -> Result<()> {
    variant(tools, &[], &project::ebpf_object())?;
    variant(
        tools,
        &TRACED_FEATURE,
        &project::traced(&project::ebpf_object()),
    )
}

/// The object of the variant that measures nothing, which only the bench compares with.
pub(crate) fn unmeasured() -> Result<()> {
    let place = project::unmeasured(&project::ebpf_object());
    variant(&setup::ensure()?, &UNMEASURED_FEATURE, &place)
}

fn variant(tools: &Tools, features: &[&str], place: &Path) -> Result<()> {
    command::foreground(ebpf_cargo(tools, "build").arg("--release").args(features))
        .context("building the eBPF programs")?;
    let built = project::ebpf_target_dir()
        .join(project::BPF_TARGET)
        .join("release/mirror-ebpf");
    let object = fs::read(&built).with_context(|| format!("read {}", built.display()))?;
    // Left alone when it is the same: a new time stamp would rebuild what embeds it.
    if fs::read(place).is_ok_and(|present| present == object) {
        return Ok(());
    }
    let dir = place.parent().context("the object has a folder")?;
    fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
    // Aside and renamed, because another build may be reading it.
    let part = place.with_extension("part");
    fs::write(&part, object).with_context(|| format!("write {}", part.display()))?;
    fs::rename(&part, place).with_context(|| format!("write {}", place.display()))
}

/// cargo for the eBPF crate: `core` from source with the stable compiler, which accepts unstable
/// options when told so; linked by bpf-linker.
pub(crate) fn ebpf_cargo(tools: &Tools, verb: &str) -> Command {
    let linker = format!(
        "CARGO_TARGET_{}_LINKER",
        project::BPF_TARGET.to_ascii_uppercase().replace('-', "_")
    );
    let mut cargo = command::cargo();
    cargo
        .args([
            verb,
            "-Z",
            "build-std=core",
            "--target",
            project::BPF_TARGET,
        ])
        .current_dir(project::ebpf_dir())
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_DIR", project::ebpf_target_dir())
        .env("CARGO_ENCODED_RUSTFLAGS", ebpf_rustflags())
        .env(linker, &tools.bpf_linker)
        // Incremental compilation divides the crate into many units, and what is optimised apart is
        // more than the verifier walks.
        .env("CARGO_INCREMENTAL", "0")
        .env_remove("CARGO_BUILD_TARGET");
    if let RustSrc::At(library) = &tools.rust_src {
        // How cargo's own tests say where the library is. The alternative, a toolchain folder of links with
        // the sources in the right place, would have rustup's and the distribution's to tell apart.
        cargo.env("__CARGO_TESTS_ONLY_SRC_ROOT", library);
    }
    cargo
}

/// Separated by 0x1f, as cargo wants them in `CARGO_ENCODED_RUSTFLAGS`, which also comes before any
/// flags the user has set for other programs.
fn ebpf_rustflags() -> String {
    [
        // For BTF and for readable verifier logs. Here and not in the profile: with debug information
        // in some crates only, function information does not match the code.
        "-Cdebuginfo=2",
        "-Clink-arg=--btf",
        &format!("-Ctarget-cpu={BPF_CPU}"),
        "--cfg",
        &format!("bpf_target_arch=\"{}\"", std::env::consts::ARCH),
    ]
    .join("\x1f")
}

fn user_space() -> Result<()> {
    let mut cargo = user_space_cargo("build");
    cargo.arg("--release").args(PACKAGES);
    command::foreground(&mut cargo).context("building user space")
}

/// cargo for the workspace, with the object to embed. The manifest is named, not entered, so that paths the
/// user types stay relative to where they are.
pub(crate) fn user_space_cargo(verb: &str) -> Command {
    let mut cargo = command::cargo();
    cargo
        .arg(verb)
        .arg("--manifest-path")
        .arg(project::root_dir().join("Cargo.toml"))
        .env(OBJECT_VARIABLE, project::ebpf_object());
    cargo
}

/// Where the demo and the tests find the other programs.
pub(crate) fn program_variables() -> [(&'static str, OsString); 2] {
    [("MIRROR_CTL", "mirror-ctl"), ("MIRROR_TRAFFIC", "traffic")]
        .map(|(variable, name)| (variable, project::binary(name).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_one_word_each() {
        let flags = ebpf_rustflags();
        let words = flags.split('\x1f').collect::<Vec<_>>();
        assert!(words.contains(&"-Ctarget-cpu=v3"), "{words:?}");
        assert!(words.contains(&"--cfg"), "{words:?}");
        let arch = format!("bpf_target_arch=\"{}\"", std::env::consts::ARCH);
        assert!(words.contains(&arch.as_str()), "{words:?}");
    }
}
