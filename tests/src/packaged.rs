//! Programs of other projects, from the system or from the folder that the set-up made of the distribution's packages.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use crate::netns::Namespace;
use anyhow::{Context, Result, bail};

const SYSTEM: &str = "/";
const PROGRAM_DIRS: [&str; 4] = ["usr/sbin", "sbin", "usr/bin", "bin"];
const LIBRARIES: &str = "usr/lib";

/// Where the programs for one purpose are when the system does not have them.
#[derive(Clone, Copy, Debug)]
pub struct Packages {
    /// The variable that names the folder, a root of a file system.
    pub variable: &'static str,
    /// The verb of `cargo xtask` that makes it.
    pub verb: &'static str,
}

/// A program, and where its libraries are.
#[derive(Clone, Debug)]
pub struct Packaged {
    program: PathBuf,
    root: PathBuf,
}

impl Packages {
    /// Finds the first of some programs that is there.
    pub fn find(self, names: &[&str]) -> Result<Packaged> {
        let named = env::var_os(self.variable).map(PathBuf::from);
        for root in [Some(SYSTEM.into()), named].into_iter().flatten() {
            for name in names {
                for dir in PROGRAM_DIRS {
                    let program = root.join(dir).join(name);
                    if program.exists() {
                        return Ok(Packaged { program, root });
                    }
                }
            }
        }
        bail!(
            "{} is neither on this system nor in {}; `cargo xtask {}` gets it",
            names.join(" or "),
            self.variable,
            self.verb
        )
    }
}

impl Packaged {
    /// A path of the package, such as a folder of plug-ins.
    #[must_use]
    pub fn path(&self, inside: &str) -> PathBuf {
        self.root.join(inside)
    }

    /// The program, to be run in a namespace.
    pub fn command(&self, namespace: &Namespace, arguments: &[&str]) -> Result<Command> {
        self.with_libraries(namespace.command(&self.program)?, arguments)
    }

    /// The same where we are.
    pub fn here(&self, arguments: &[&str]) -> Result<Command> {
        self.with_libraries(Command::new(&self.program), arguments)
    }

    /// The first line that it prints, run where we are: its version.
    pub fn first_line(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.here(arguments)?;
        let output = command
            .output()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        Ok(text.lines().next().unwrap_or_default().trim().to_owned())
    }

    fn with_libraries(&self, mut command: Command, arguments: &[&str]) -> Result<Command> {
        command.args(arguments);
        if self.root.as_os_str() != SYSTEM {
            let architecture = format!("{}-linux-gnu", env::consts::ARCH);
            let libraries = self.root.join(LIBRARIES).join(&architecture);
            command.env("XTABLES_LIBDIR", libraries.join("xtables"));
            let more = self.root.join("lib").join(&architecture);
            // Where a package keeps libraries for itself, its own programs know it by an absolute path.
            let own = libraries.join("pulseaudio");
            command.env("LD_LIBRARY_PATH", env::join_paths([libraries, more, own])?);
        }
        Ok(command)
    }

    /// Runs it to its end.
    pub fn run(&self, namespace: &Namespace, arguments: &[&str]) -> Result<()> {
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
