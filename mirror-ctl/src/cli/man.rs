//! Manual pages, out of the same words as `--help`.

use std::{
    fs,
    io::{self, Write as _},
};

use anyhow::{Context, Result};
use clap::CommandFactory;
use clap_mangen::Man;

use super::args::{Args, ManPages};

/// The manual's section: what an administrator runs.
const SECTION: &str = "8";

/// Writes a page for the program and one for each verb, or prints the program's.
pub(super) fn run(pages: &ManPages) -> Result<()> {
    let mut command = Args::command();
    command.build();
    let Some(dir) = &pages.dir else {
        return Ok(io::stdout().write_all(&render(command)?)?);
    };
    fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
    let mut all = Vec::new();
    collect(&command, &mut all);
    for command in all {
        // Building has given each verb the name that its page has: mirror-ctl-config-check.
        let name = command.get_display_name().unwrap_or(command.get_name());
        let file = dir.join(format!("{name}.{SECTION}"));
        fs::write(&file, render(command)?).with_context(|| format!("write {}", file.display()))?;
    }
    Ok(())
}

fn collect(command: &clap::Command, all: &mut Vec<clap::Command>) {
    let verbs = command.get_subcommands();
    for verb in verbs.filter(|verb| verb.get_name() != "help" && !verb.is_hide_set()) {
        collect(verb, all);
    }
    all.push(command.clone());
}

fn render(command: clap::Command) -> Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(command).section(SECTION).render(&mut page)?;
    Ok(page)
}
