//! What one would use instead: programs of other projects, from the system or from the folder that the set-up made.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use testbed::netns::Namespace;

/// Names the folder, a root of a file system.
const VARIABLE: &str = "MIRROR_PEERS";
const SYSTEM: &str = "/";
const PROGRAM_DIRS: [&str; 4] = ["usr/sbin", "sbin", "usr/bin", "bin"];
const LIBRARIES: &str = "usr/lib";

/// A program, and where its libraries are.
pub(crate) struct Peer {
    program: PathBuf,
    root: PathBuf,
}

impl Peer {
    /// Finds the first of some programs that is there.
    pub(crate) fn find(names: &[&str]) -> Result<Self> {
        let named = std::env::var_os(VARIABLE).map(PathBuf::from);
        for root in [Some(SYSTEM.into()), named].into_iter().flatten() {
            for name in names {
                for dir in PROGRAM_DIRS {
                    let program = root.join(dir).join(name);
                    if program.exists() {
                        return Ok(Self { program, root });
                    }
                }
            }
        }
        bail!(
            "{} is neither on this system nor in {VARIABLE}; `cargo xtask bench` gets it",
            names.join(" or ")
        )
    }

    /// The program, to be run in a namespace.
    pub(crate) fn command(&self, namespace: &Namespace, arguments: &[&str]) -> Result<Command> {
        let mut command = namespace.command(&self.program)?;
        command.args(arguments);
        if self.root.as_os_str() != SYSTEM {
            let architecture = format!("{}-linux-gnu", std::env::consts::ARCH);
            let libraries = self.root.join(LIBRARIES).join(architecture);
            command.env("XTABLES_LIBDIR", libraries.join("xtables"));
            command.env("LD_LIBRARY_PATH", libraries);
        }
        Ok(command)
    }

    /// Runs it to its end.
    pub(crate) fn run(&self, namespace: &Namespace, arguments: &[&str]) -> Result<()> {
        let output = self
            .command(namespace, arguments)?
            .output()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!(
                "{} {}: {}",
                self.program.display(),
                arguments.join(" "),
                said.trim()
            );
        }
        Ok(())
    }
}
