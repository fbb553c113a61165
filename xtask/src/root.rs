//! Steps that need root: programs in the kernel, namespaces, interfaces.

use std::env;
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
        let path = env::var("PATH").unwrap_or_default();
        let has_sudo = env::split_paths(&path).any(|dir| dir.join("sudo").is_file());
        let line = if has_sudo {
            sudo_line(args)
        } else {
            su_line(&args, &path)
        };
        Err(Precondition(format!(
            "this needs root: it {why}. Nothing was done. Type\n\n    {line}\n"
        ))
        .into())
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

/// Builds as the user, so that no file of root's is left in the target directory.
fn sudo_line(mut args: Vec<String>) -> String {
    // Right after the verb: what follows may be meant for another program.
    args.insert(args.len().min(1), "--sudo".into());
    format!("cargo xtask {}", args.join(" "))
}

/// The user's own cargo and rustup, which are found by PATH and HOME.
fn su_line(args: &[String], path: &str) -> String {
    let inner = format!(
        "env {} cargo xtask {}",
        command::quote(&format!("PATH={path}")),
        args.join(" ")
    );
    format!(
        "su --preserve-environment --command {}",
        command::quote(&inner)
    )
}

/// Has cargo run test programs as root: them, and nothing else. `--preserve-env` and not `env NAME=VALUE`: cargo tells test
/// programs more than we know of here.
pub(crate) fn runner() -> String {
    r#"target.'cfg(all())'.runner = ["sudo", "--preserve-env"]"#.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_type() {
        let args = ["test", "--", "takeover"].map(str::to_owned);
        assert_eq!(
            sudo_line(args.to_vec()),
            "cargo xtask test --sudo -- takeover"
        );
        assert_eq!(
            su_line(&args, "/home/u/.cargo/bin:/bin"),
            "su --preserve-environment --command \
             'env PATH=/home/u/.cargo/bin:/bin cargo xtask test -- takeover'"
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
