//! Manual pages, out of the same words as `--help`.

use std::{
    fs,
    io::{self, Write as _},
};

use anyhow::{Context, Result};
use clap::{Command, CommandFactory};
use clap_mangen::Man;

use super::{
    args::{Args, ManPages},
    health,
};

/// The manual's section: what an administrator runs.
const SECTION: &str = "8";

/// Writes a page for the program and one for each verb, or prints the program's.
pub(super) fn run(pages: &ManPages) -> Result<()> {
    let mut command = whole();
    command.build();
    let Some(dir) = &pages.dir else {
        return Ok(io::stdout().write_all(&render(command)?)?);
    };
    fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
    let mut all = Vec::new();
    collect(&command, &mut all);
    // Those that are parsed on their own know nothing of the options that all others have.
    all.retain(|page| !is_of_health(page));
    let mut own = Command::new("mirror-ctl").subcommand(health::command());
    own.build();
    collect(&own, &mut all);
    // The program has its page.
    all.pop();
    for command in all {
        // Building has given each verb the name that its page has: mirror-ctl-config-check.
        let name = command.get_display_name().unwrap_or(command.get_name());
        let file = dir.join(format!("{name}.{SECTION}"));
        fs::write(&file, render(command)?).with_context(|| format!("write {}", file.display()))?;
    }
    Ok(())
}

/// The command line with the verbs that are parsed on their own.
pub(super) fn whole() -> Command {
    Args::command().mut_subcommand("health", |_| health::command())
}

fn is_of_health(page: &Command) -> bool {
    let name = page.get_display_name().unwrap_or(page.get_name());
    name.starts_with("mirror-ctl-health")
}

fn collect(command: &Command, all: &mut Vec<Command>) {
    let verbs = command.get_subcommands();
    for verb in verbs.filter(|verb| verb.get_name() != "help" && !verb.is_hide_set()) {
        collect(verb, all);
    }
    all.push(command.clone());
}

fn render(command: Command) -> Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(command).section(SECTION).render(&mut page)?;
    Ok(page)
}
