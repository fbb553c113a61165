//! One run's identity. Everything a run leaves outside its own process (names
//! of namespaces, pin directories, temporary directories) carries it, so that a
//! later run can tell leftovers of a dead run from a live neighbour's property.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Where BPF objects are pinned.
pub const BPF_FS: &str = "/sys/fs/bpf";
const NAMESPACE_PREFIX: &str = "mir";
const PATH_PREFIX: &str = "mirror-";

/// Owner's process id and a number that is unique within the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pid: u32,
    number: u32,
}

impl Run {
    /// A new run of this process.
    #[must_use]
    pub fn begin() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Self {
            pid: std::process::id(),
            number: NEXT.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// The name of this run's namespace for a role.
    #[must_use]
    pub fn namespace(&self, role: &str) -> String {
        format!("{NAMESPACE_PREFIX}{self}-{role}")
    }

    /// Where this run's agent pins its maps, programs and links.
    #[must_use]
    pub fn pin_dir(&self) -> PathBuf {
        Path::new(BPF_FS).join(format!("{PATH_PREFIX}{self}"))
    }

    /// The name of this run's control group for a role.
    #[must_use]
    pub fn cgroup(&self, role: &str) -> String {
        format!("{PATH_PREFIX}{self}-{role}")
    }

    /// The start of the name of this run's temporary directory.
    #[must_use]
    pub fn temp_prefix(&self) -> String {
        format!("{PATH_PREFIX}{self}-")
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.pid, self.number)
    }
}

/// The process that owns a name given by [`Run::namespace`].
#[must_use]
pub fn namespace_owner(name: &str) -> Option<u32> {
    owner(name, NAMESPACE_PREFIX)
}

/// The process that owns a directory named by [`Run::pin_dir`] or [`Run::temp_prefix`].
#[must_use]
pub fn path_owner(name: &str) -> Option<u32> {
    owner(name, PATH_PREFIX)
}

fn owner(name: &str, prefix: &str) -> Option<u32> {
    let (pid, rest) = name.strip_prefix(prefix)?.split_once('-')?;
    let number = rest.split('-').next()?;
    number.parse::<u32>().ok()?;
    pid.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_owner() {
        let run = Run { pid: 41, number: 7 };
        assert_eq!(namespace_owner(&run.namespace("client")), Some(41));
        let pins = run.pin_dir();
        assert_eq!(
            path_owner(pins.file_name().unwrap().to_str().unwrap()),
            Some(41)
        );
        assert_eq!(path_owner(&format!("{}XyZ", run.temp_prefix())), Some(41));
    }

    #[test]
    fn other_names_have_no_owner() {
        for name in [
            "mirror",
            "mir-",
            "mirage-1-x",
            "mir41",
            "mir41-x-client",
            "client",
            "mir4x-1-a",
        ] {
            assert_eq!(namespace_owner(name), None, "{name}");
        }
    }
}
