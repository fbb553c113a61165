//! Steps that need root: programs in the kernel, namespaces, interfaces.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use anyhow::Result;

use crate::{Precondition, command};

/// How a verb that needs root gets it.
#[derive(clap::Args)]
#[group(id = "root")]
pub(crate) struct Args {
    /// Set up and build as the present user, and use sudo only for the step that needs root
    #[arg(long)]
    pub(crate) sudo: bool,
}

/// Whether this process may do what root may: its effective user id is 0.
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

impl Args {
    /// Fails with what to type, before anything is built. `why` completes "it ... ".
    pub(crate) fn check(&self, why: &str) -> Result<()> {
        if is_root() || self.sudo {
            return Ok(());
        }
        let args = std::env::args()
            .skip(1)
            .map(|arg| command::quote(&arg))
            .collect::<Vec<_>>();
        Err(Precondition(refusal(&args, why)).into())
    }

    /// Whether sudo is to be put in front.
    pub(crate) fn uses_sudo(&self) -> bool {
        self.sudo && !is_root()
    }

    /// The command as it is to be started. sudo drops the environment, so what the program needs
    /// is named; the rest of the user's environment does not matter to it.
    pub(crate) fn command(&self, program: OsString, vars: &[(&str, OsString)]) -> Command {
        if !self.uses_sudo() {
            let mut command = Command::new(program);
            command.envs(vars.iter().map(|(name, value)| (name, value)));
            return command;
        }
        let mut command = Command::new("sudo");
        command.arg("env");
        for (name, value) in vars {
            let mut word = OsString::from(format!("{name}="));
            word.push(value);
            command.arg(word);
        }
        command.arg(program);
        command
    }
}

fn refusal(args: &[String], why: &str) -> String {
    let mut with_sudo = args.to_vec();
    // Right after the verb: what follows may be meant for another program.
    with_sudo.insert(args.len().min(1), "--sudo".into());
    format!(
        "this needs root: it {why}. Nothing was done. Type\n\n    cargo xtask {}\n\n\
         which builds as you and uses sudo for that step alone, or, where there is no sudo, as root\n\n    \
         cargo xtask {}",
        with_sudo.join(" "),
        args.join(" "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_can_be_typed() {
        let args = ["test", "--", "takeover"].map(str::to_owned);
        let text = refusal(&args, "makes network namespaces");
        assert!(
            text.contains("\n    cargo xtask test --sudo -- takeover\n"),
            "{text}"
        );
        assert!(
            text.ends_with("\n    cargo xtask test -- takeover"),
            "{text}"
        );
    }

    #[test]
    fn what_the_program_needs_is_passed_through_sudo() {
        let vars = [("MIRROR_CTL", OsString::from("/t/mirror-ctl"))];
        let command = Args { sudo: true }.command("/t/demo".into(), &vars);
        if is_root() {
            assert_eq!(command::line(&command), "`/t/demo`");
        } else {
            assert_eq!(
                command::line(&command),
                "`sudo env MIRROR_CTL=/t/mirror-ctl /t/demo`"
            );
        }
    }
}
