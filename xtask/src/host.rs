//! `cargo xtask load`, `unload` and `status`: the programs on this machine's own interfaces.

use std::path::PathBuf;

use anyhow::Result;

use crate::{build, command, project, root};

/// Put the programs on this machine's interfaces, as a configuration file says
///
/// They stay after this command ends: programs, maps and links are pinned, and traffic of the configured VNIs
/// is steered. `mirror-ctl agent --config FILE` adopts them; `cargo xtask unload` takes them off.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask load --config mirror.toml
  cargo xtask load --sudo --config mirror.toml     build as you, only the loading as root")]
pub(crate) struct LoadArgs {
    /// The configuration: VNIs, instances and their interfaces
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    root: root::Args,
    /// Passed on to `mirror-ctl load`
    #[arg(last = true, value_name = "OPTION")]
    rest: Vec<String>,
}

/// Take the programs off this machine's interfaces again and remove what is pinned
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask unload
  cargo xtask unload --config mirror.toml     when that file names another pin directory")]
pub(crate) struct UnloadArgs {
    /// The configuration they were loaded with
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    root: root::Args,
    /// Passed on to `mirror-ctl unload`
    #[arg(last = true, value_name = "OPTION")]
    rest: Vec<String>,
}

/// Say what runs on this machine: interfaces, modes, flows, counters
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask status
  cargo xtask status -- --json")]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    root: root::Args,
    /// Passed on to `mirror-ctl status`
    #[arg(last = true, value_name = "OPTION")]
    rest: Vec<String>,
}

pub(crate) fn load(args: &LoadArgs) -> Result<()> {
    args.root
        .check("loads programs into the kernel and attaches them to interfaces")?;
    build::all()?;
    mirror_ctl(&args.root, "load", Some(&args.config), &args.rest)
}

pub(crate) fn unload(args: &UnloadArgs) -> Result<()> {
    args.root.check("detaches programs from interfaces")?;
    build_if_absent()?;
    mirror_ctl(&args.root, "unload", args.config.as_ref(), &args.rest)
}

pub(crate) fn status(args: &StatusArgs) -> Result<()> {
    args.root.check("asks the agent, which only root may")?;
    build_if_absent()?;
    mirror_ctl(&args.root, "status", None, &args.rest)
}

/// Taking programs off must not depend on sources that compile, and the program they were loaded with
/// knows best what it pinned.
fn build_if_absent() -> Result<()> {
    if project::binary("mirror-ctl").is_file() {
        return Ok(());
    }
    build::all()
}

fn mirror_ctl(
    root: &root::Args,
    verb: &str,
    config: Option<&PathBuf>,
    rest: &[String],
) -> Result<()> {
    let mut program = root.command(project::binary("mirror-ctl").into(), &[]);
    program.arg(verb);
    if let Some(file) = config {
        program.arg("--config").arg(file);
    }
    command::replace(program.args(rest))
}
