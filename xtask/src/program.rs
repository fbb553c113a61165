//! Programs of the testbed that run as root: demo, soak, faults.

use std::ffi::OsString;
use std::process::Command;

use anyhow::Result;

use crate::{build, command, project, root};

/// What every verb takes that is such a program.
#[derive(clap::Args)]
#[group(id = "program")]
pub(crate) struct Args {
    #[command(flatten)]
    root: root::Args,
    /// Passed on to the program
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "OPTION"
    )]
    rest: Vec<String>,
}

impl Args {
    /// Checks that it may run, and builds everything. `why` completes "it ... ".
    pub(crate) fn build(&self, why: &str) -> Result<()> {
        self.root.check(why)?;
        build::all()
    }

    /// The program's command, with what it needs to know of the build and `more`.
    pub(crate) fn command(&self, name: &str, more: &[(&'static str, OsString)]) -> Command {
        let variables = [&build::program_variables()[..], more].concat();
        self.root.command(project::binary(name).into(), &variables)
    }

    /// Becomes the program; returns only why it could not.
    pub(crate) fn become_it(&self, mut command: Command) -> Result<()> {
        command::replace(command.args(&self.rest))
    }
}

/// Passes on the options that were given.
pub(crate) fn pass<const N: usize>(command: &mut Command, options: [(&str, Option<OsString>); N]) {
    for (option, value) in options {
        if let Some(value) = value {
            command.arg(option).arg(value);
        }
    }
}

/// The text of a number that was given.
pub(crate) fn number(number: Option<impl ToString>) -> Option<OsString> {
    number.map(|number| number.to_string().into())
}
