//! One emulated machine: its files in memory, one kernel, a console that is read, a bound in time.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::report::Report;
use crate::command;
use crate::progress::Progress;
use crate::setup::kernels::{Emulator, Kernel};

const INIT: &str = include_str!("init.sh");
const MEMORY_MIB: &str = "2048";
const PROCESSORS: &str = "2";

/// Programs for the machines: name there, file here.
pub(super) type Programs = Vec<(&'static str, PathBuf)>;

/// Files of all machines but for the kernel's module.
pub(super) fn stage(root: &Path, emulator: &Emulator, programs: &Programs) -> Result<()> {
    if root.exists() {
        fs::remove_dir_all(root).with_context(|| format!("remove {}", root.display()))?;
    }
    for dir in ["bin", "modules"] {
        fs::create_dir_all(root.join(dir)).with_context(|| format!("make {}", root.display()))?;
    }
    copy(&emulator.busybox(), &root.join("bin/busybox"))?;
    symlink("busybox", root.join("bin/sh"))?;
    for (name, file) in programs {
        copy(file, &root.join(name))?;
    }
    let init = root.join("init");
    fs::write(&init, INIT).with_context(|| format!("write {}", init.display()))?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .with_context(|| format!("copy {} to {}", from.display(), to.display()))
        .map(drop)
}

/// Boots a kernel with these files: what was seen, and all that the console said.
pub(super) fn boot(
    kernel: &Kernel,
    emulator: &Emulator,
    root: &Path,
    time_max: Duration,
    progress: &mut Progress,
) -> Result<(Report, String)> {
    let modules = root.join("modules");
    fs::remove_dir_all(&modules)?;
    fs::create_dir(&modules)?;
    let name = kernel.veth.file_name().context("a module has a name")?;
    copy(&kernel.veth, &modules.join(name))?;
    let initrd = root.with_extension("cpio");
    pack(root, &initrd, emulator)?;

    let mut report = Report::default();
    let mut console = String::new();
    let ran = command::quiet(
        &mut qemu(emulator, kernel, &initrd)?,
        Some(time_max),
        |piece| {
            if !piece.is_empty() {
                report.hear(piece);
                console.push_str(piece);
                console.push('\n');
            }
            let step = report.steps.last().map_or("booting", |step| &step.name);
            progress.update(step);
        },
    );
    if let Err(error) = ran {
        // What was said before is worth more than that it was stopped.
        console.push_str(&format!("{error:#}\n"));
    }
    Ok((report, console))
}

/// By busybox, which is there anyway; cpio is not everywhere.
fn pack(root: &Path, initrd: &Path, emulator: &Emulator) -> Result<()> {
    let mut pack = Command::new("sh");
    pack.args([
        "-c",
        r#"cd "$1" && find . | "$2" cpio -o -H newc > "$3""#,
        "pack",
    ])
    .arg(root)
    .arg(emulator.busybox())
    .arg(initrd);
    command::output(&mut pack).map(drop)
}

/// setpriv, so that it ends with us however we end.
fn qemu(emulator: &Emulator, kernel: &Kernel, initrd: &Path) -> Result<Command> {
    let (program, variables) = emulator.qemu()?;
    let mut qemu = Command::new("setpriv");
    qemu.args(["--pdeathsig", "KILL"]).arg(program);
    qemu.envs(variables);
    for dir in emulator.firmware() {
        qemu.arg("-L").arg(dir);
    }
    // Not "max": under qemu 7.2 a kernel (6.12.95) died with it of a double fault, and not with this one.
    qemu.args(["-accel", "tcg,thread=multi", "-cpu", "Nehalem"])
        .args(["-smp", PROCESSORS, "-m", MEMORY_MIB])
        .args(["-nodefaults", "-display", "none", "-no-reboot"])
        .args(["-serial", "file:/dev/stderr"])
        .args(["-append", "console=ttyS0 panic=-1 quiet"])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initrd);
    Ok(qemu)
}
