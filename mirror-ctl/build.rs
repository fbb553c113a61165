//! Puts the eBPF objects where `dataplane::object` embeds them: the normal programs' and, beside it, their traced variant's. They
//! are built for another target with its own flags, which is `cargo xtask build`'s job.
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

const OBJECT: &str = "MIRROR_EBPF_OBJECT";

fn main() -> ExitCode {
    println!("cargo::rerun-if-env-changed={OBJECT}");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let Some(object) = object() else {
        println!(
            "cargo::error=the eBPF programs are not built: run `cargo xtask build`, or name their object in {OBJECT}"
        );
        return ExitCode::FAILURE;
    };
    for (object, name) in [
        (object.with_extension("traced"), "mirror-ebpf.traced"),
        (object, "mirror-ebpf"),
    ] {
        println!("cargo::rerun-if-changed={}", object.display());
        if let Err(error) = fs::copy(&object, out.join(name)) {
            println!("cargo::error={}: {error}", object.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// The object of the variable, else the one that `cargo xtask build` leaves.
fn object() -> Option<PathBuf> {
    if let Some(path) = env::var_os(OBJECT) {
        return Some(path.into());
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent()?;
    let path = workspace.join("target/bpf/mirror-ebpf");
    // Also when it does not exist: it may come.
    println!("cargo::rerun-if-changed={}", path.display());
    path.exists().then_some(path)
}
