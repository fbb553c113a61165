//! `cargo xtask lint`: formatting and clippy, for user space and for the eBPF programs.

use anyhow::{Context as _, Result};

use crate::{build, command, project, setup};

/// Check formatting and run clippy, with warnings denied
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask lint
  cargo xtask lint --fix-format     format in place, then run clippy")]
pub(crate) struct Args {
    /// Format the files instead of only checking
    #[arg(long)]
    fix_format: bool,
}

const DENY_WARNINGS: [&str; 3] = ["--", "--deny", "warnings"];

pub(crate) fn run(args: &Args) -> Result<()> {
    for dir in [project::root_dir(), &project::ebpf_dir()] {
        let mut fmt = command::cargo();
        fmt.args(["fmt", "--all"]).current_dir(dir);
        if !args.fix_format {
            fmt.arg("--check");
        }
        command::foreground(&mut fmt).context(
            "formatting (`cargo xtask lint --fix-format` formats; rustup component rustfmt)",
        )?;
    }
    let tools = setup::ensure()?;
    // Before user space, which embeds it: clippy runs build scripts too.
    build::ebpf(&tools)?;
    command::foreground(
        build::ebpf_cargo(&tools, "clippy")
            .arg("--release")
            .args(DENY_WARNINGS),
    )
    .context("clippy on the eBPF programs (rustup component clippy)")?;
    command::foreground(
        build::user_space_cargo("clippy")
            // Release, as everything else: build scripts and macros are compiled once for all.
            .args(["--workspace", "--all-targets", "--release"])
            .args(DENY_WARNINGS),
    )
    .context("clippy on user space")?;
    println!("lint: nothing to complain about");
    Ok(())
}
