//! `cargo xtask kernels`: the programs on kernels other than this machine's, in emulated machines.

mod machine;
mod report;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::progress::Progress;
use crate::setup::{self, kernels};
use crate::toolchain::Toolchain;
use crate::{Precondition, build, command, project};

use report::Report;

/// Try the programs on other kernels: Debian's, each booted in an emulated machine
///
/// Each kernel verifies and loads every program, runs the tests of the programs, and those of mirrors with
/// real traffic, in native and in generic mode. A kernel that the agent refuses must be refused each time. Needs no
/// right and no virtualization; a kernel takes some minutes. What the consoles said is left in <target>/kernels.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask kernels                              a choice, from one that is refused to the newest
  cargo xtask kernels --kernel 6.12 --kernel 7     the newest of these
  cargo xtask kernels --kernel 6.12.43             exactly this one
  cargo xtask kernels --json kernels.json          the figures, for programs")]
pub(crate) struct Args {
    /// A version or the beginning of one (may be repeated)
    #[arg(long, value_name = "VERSION")]
    kernel: Vec<String>,
    /// Write the figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// A machine that is not done by then is stopped
    #[arg(long, value_name = "SECONDS", default_value_t = 1_800)]
    timeout: u64,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if std::env::consts::ARCH != "x86_64" {
        return Err(
            Precondition("the kernels are x86-64's, and so must be the programs".into()).into(),
        );
    }
    build::ebpf(&setup::ensure()?)?;
    let programs = programs(&Toolchain::detect()?.version.host)?;
    let emulator = kernels::emulator()?;
    let kernels = kernels::fetch(&args.kernel)?;
    let dir = project::target_dir().join("kernels");
    let root = dir.join("root");
    machine::stage(&root, &emulator, &programs)?;

    let mut progress = Progress::new(kernels.len());
    let mut reports = Vec::new();
    for kernel in &kernels {
        progress.begin(&kernel.version);
        let time_max = Duration::from_secs(args.timeout);
        let booted = machine::boot(kernel, &emulator, &root, time_max, &mut progress);
        progress.clear();
        let (mut report, console) = booted?;
        if report.release.is_empty() {
            report.release.clone_from(&kernel.version);
        }
        let log = dir.join(format!("{}.log", kernel.version));
        fs::write(&log, console).with_context(|| format!("write {}", log.display()))?;
        let complaints = report.complaints();
        progress.done(if complaints.is_empty() {
            "as it must be"
        } else {
            "not as it must be"
        });
        reports.push((report, log));
    }
    if let Some(file) = &args.json {
        let all: Value = json!(
            reports
                .iter()
                .map(|(report, _)| report.to_json())
                .collect::<Vec<_>>()
        );
        fs::write(file, format!("{all:#}\n"))
            .with_context(|| format!("write {}", file.display()))?;
    }
    for (report, _) in &reports {
        print(report);
    }
    judge(&reports)
}

fn print(report: &Report) {
    println!("\nLinux {}", report.release);
    for program in &report.programs {
        println!(
            "  {:<16} {:>7} instructions verified in {} ms",
            program.name, program.verified, program.ms
        );
    }
    for step in &report.steps {
        println!(
            "  {:<16} {} ({} s)",
            step.name,
            step.outcome(),
            step.seconds
        );
        if let Some(refusal) = step.refusal.as_ref().filter(|_| !step.is_passed()) {
            println!("      {refusal}");
        }
    }
}

fn judge(reports: &[(Report, PathBuf)]) -> Result<()> {
    let lines: Vec<String> = reports
        .iter()
        .flat_map(|(report, log)| {
            let of =
                move |complaint| format!("{}: {complaint} ({})", report.release, log.display());
            report.complaints().into_iter().map(of)
        })
        .collect();
    ensure!(lines.is_empty(), "not as it must be:\n{}", lines.join("\n"));
    Ok(())
}

/// Everything that runs in the machines, without libraries.
fn programs(host: &str) -> Result<machine::Programs> {
    let cargo = |verb: &str| {
        let mut cargo = build::user_space_cargo(verb);
        cargo
            .args(["--release", "--package", "mirror-tests", "--target", host])
            .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static");
        cargo
    };
    command::foreground(cargo("build").args(["--package", "mirror-ctl", "--bins"]))
        .context("building the programs")?;
    let tests = ["--no-run", "--test", "prog", "--test", "net"];
    let mut build = cargo("test");
    command::foreground(build.args(tests)).context("building the tests")?;
    // Once more, when there is nothing left to be done: where they are.
    let mut asked = cargo("test");
    let said = command::output(asked.args(tests).arg("--message-format=json"))?;
    let built = project::target_dir().join(host).join("release");
    let stripped = project::target_dir().join("kernels");
    fs::create_dir_all(&stripped).with_context(|| format!("make {}", stripped.display()))?;
    let mut programs: machine::Programs = vec![("mirror-ebpf", project::ebpf_object())];
    for (name, from) in [
        ("bin/mirror-ctl", built.join("mirror-ctl")),
        ("bin/traffic", built.join("traffic")),
        ("bin/prog", executable(&said, "prog")?),
        ("bin/net", executable(&said, "net")?),
    ] {
        programs.push((
            name,
            strip(
                &from,
                &stripped.join(Path::new(name).file_name().context("a name")?),
            )?,
        ));
    }
    Ok(programs)
}

/// The test program of a suite, out of cargo's messages.
fn executable(messages: &str, suite: &str) -> Result<PathBuf> {
    let artifacts = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    for artifact in artifacts {
        if artifact["target"]["name"] == suite
            && let Some(path) = artifact["executable"].as_str()
        {
            return Ok(path.into());
        }
    }
    bail!("cargo did not say where the test program {suite} is")
}

/// The machine's files are in its memory.
fn strip(from: &Path, to: &Path) -> Result<PathBuf> {
    command::output(Command::new("strip").arg("-o").arg(to).arg(from))?;
    Ok(to.to_owned())
}
