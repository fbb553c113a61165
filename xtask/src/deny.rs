//! `cargo xtask deny`: what the dependencies are, under which licences, and from where (`deny.toml`).

use std::process::Command;

use anyhow::{Context as _, Result};

use crate::{command, project, setup::cargo_tool};

/// Check the dependencies' licences and where they come from
///
/// With cargo-deny, which is made once and kept (some minutes). Known vulnerabilities are looked at with --advisories, where their
/// database can be fetched.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask deny
  cargo xtask deny --advisories     known vulnerabilities too: needs github.com")]
pub(crate) struct Args {
    /// Look at known vulnerabilities too
    #[arg(long)]
    advisories: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut deny = Command::new(cargo_tool::DENY.ensure()?);
    deny.current_dir(project::root_dir());
    // Not --offline: cargo looks at the packages for every system, and has fetched those for this one alone.
    deny.args(["--locked", "check"]);
    if args.advisories {
        deny.arg("all");
    } else {
        deny.args(["licenses", "bans", "sources"]);
    }
    command::foreground(&mut deny).context("cargo-deny")
}
