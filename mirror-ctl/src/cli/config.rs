//! `config`: looks at configuration files without touching anything that runs.

use std::{
    fs::OpenOptions,
    io::{self, ErrorKind, Write as _},
    path::Path,
};

use anyhow::{Context, Result};

use super::{
    apply,
    args::ConfigVerb,
    ask::{Asker, Done, print, print_json},
};
use crate::config::Config;

/// A file to begin with.
const SAMPLE: &str = include_str!("sample.toml");

pub(super) fn run(asker: &Asker<'_>, verb: &ConfigVerb) -> Result<()> {
    match verb {
        ConfigVerb::Check { file } => check(asker, file),
        ConfigVerb::Show { file } => show(asker, file.as_deref()),
        ConfigVerb::Init { file } => init(asker, file.as_deref()),
    }
}

fn check(asker: &Asker<'_>, file: &Path) -> Result<()> {
    let config = Config::load(file)?;
    asker.print(&config, |config, _| {
        format!(
            "{}: {} VNI(s), {} instance(s), no errors\n",
            file.display(),
            config.vnis.len(),
            config.instances.len()
        )
    })
}

/// What a file means with every default written out, or what the agent runs by.
fn show(asker: &Asker<'_>, file: Option<&Path>) -> Result<()> {
    let config = match file {
        Some(file) => Config::load(file)?,
        None => apply::running(asker)?,
    };
    match asker.json {
        true => print_json(&config),
        false => print(&config.to_toml()),
    }
}

fn init(asker: &Asker<'_>, file: Option<&Path>) -> Result<()> {
    let Some(file) = file else {
        return Ok(io::stdout().write_all(SAMPLE.as_bytes())?);
    };
    let opened = OpenOptions::new().write(true).create_new(true).open(file);
    let mut opened = match opened {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            anyhow::bail!("{}: there is a file already", file.display())
        }
        opened => opened.with_context(|| format!("write {}", file.display()))?,
    };
    opened.write_all(SAMPLE.as_bytes())?;
    asker.print(&Done::of("written"), |_, _| {
        format!(
            "{}: written; edit it, then `mirror-ctl config check {}`\n",
            file.display(),
            file.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sample_is_valid() {
        let config = Config::parse(Path::new("sample.toml"), SAMPLE).unwrap();
        assert_eq!((config.vnis.len(), config.instances.len()), (1, 2));
    }

    #[test]
    fn the_sample_names_every_default_rightly() {
        let config = Config::parse(Path::new("sample.toml"), SAMPLE).unwrap();
        // What is a comment in it is a default: with the comments taken off it means the same.
        let uncommented: String = SAMPLE
            .lines()
            .map(|line| match line.strip_prefix("#: ") {
                Some(default) => format!("{default}\n"),
                None => format!("{line}\n"),
            })
            .collect();
        let explicit = Config::parse(Path::new("sample.toml"), &uncommented).unwrap();
        assert_eq!(explicit, config);
    }
}
