//! Control groups with a limit of memory: what a container is to the kernel. Version 2 where the memory controller is
//! there, else version 1; a process that outgrows its group is killed by the kernel, not by us.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cleanup::{self, Leftover};
use crate::clock::wait_until;

const V2: &str = "/sys/fs/cgroup";
const V1: &str = "/sys/fs/cgroup/memory";
/// How long the kernel may take to let go of a group whose processes are gone.
const REMOVE_LIMIT: Duration = Duration::from_secs(2);

/// A group that exists for as long as this value.
#[derive(Debug)]
pub struct MemoryGroup {
    path: PathBuf,
    version: Version,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl MemoryGroup {
    /// Makes a group that may have so much memory, and no swap.
    pub fn create(name: &str, bytes: u64) -> Result<Self> {
        let (root, version) = find()?;
        let path = root.join(name);
        cleanup::register(Leftover::Cgroup(path.clone()));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let group = Self { path, version };
        match version {
            Version::Two => {
                group.write("memory.max", &bytes.to_string())?;
                // Absent on a kernel that cannot swap.
                let _ = group.write("memory.swap.max", "0");
            }
            Version::One => {
                group.write("memory.limit_in_bytes", &bytes.to_string())?;
                let _ = group.write("memory.memsw.limit_in_bytes", &bytes.to_string());
            }
        }
        Ok(group)
    }

    /// Its folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts a process into it; what it has allocated already is not counted.
    pub fn take_in(&self, pid: u32) -> Result<()> {
        self.write("cgroup.procs", &pid.to_string())
    }

    /// Who is in it.
    pub fn processes(&self) -> Result<Vec<u32>> {
        let text = fs::read_to_string(self.path.join("cgroup.procs")).context("cgroup.procs")?;
        text.lines()
            .map(|line| line.parse().context("a process id"))
            .collect()
    }

    /// How many processes the kernel has killed for want of memory.
    pub fn kills(&self) -> Result<u64> {
        let file = match self.version {
            Version::Two => "memory.events",
            Version::One => "memory.oom_control",
        };
        let text = fs::read_to_string(self.path.join(file)).with_context(|| file.to_owned())?;
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.and_then(|count| count.trim().parse().ok())
            .with_context(|| format!("no count of kills in {file}"))
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.path.join(file);
        fs::write(&path, text).with_context(|| format!("cannot write {text} to {}", path.display()))
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        cleanup::remove(&Leftover::Cgroup(self.path.clone()));
    }
}

/// Every place where groups can be made.
#[must_use]
pub fn roots() -> Vec<PathBuf> {
    let controllers = names(Path::new(V2));
    controllers.chain([V2.into()]).collect()
}

fn names(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path())
}

fn find() -> Result<(PathBuf, Version)> {
    let controllers = fs::read_to_string(Path::new(V2).join("cgroup.controllers"));
    if controllers.is_ok_and(|names| names.split_whitespace().any(|name| name == "memory")) {
        let control = Path::new(V2).join("cgroup.subtree_control");
        fs::write(control, "+memory").context("cannot give the memory controller to groups")?;
        return Ok((V2.into(), Version::Two));
    }
    if Path::new(V1).join("memory.limit_in_bytes").exists() {
        return Ok((V1.into(), Version::One));
    }
    bail!("there is no memory controller of control groups, neither in {V2} nor in {V1}")
}

/// Kills who is in a group and removes it; one that is gone already is as good.
pub(crate) fn remove(path: &Path) {
    let gone = wait_until("the group's end", REMOVE_LIMIT, || {
        for pid in fs::read_to_string(path.join("cgroup.procs"))
            .unwrap_or_default()
            .lines()
            .filter_map(|pid| pid.parse().ok())
        {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let _ = fs::remove_dir(path);
        Ok((!path.exists()).then_some(()))
    });
    if let Err(error) = gone {
        eprintln!("{}: {error}", path.display());
    }
}
