//! Nothing stays behind. Owners clean up when they are dropped, which covers
//! success, errors and panics; what is registered here is also removed when a
//! signal ends the process; and a start sweeps what a killed run left.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread;

use anyhow::{Context, Result};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::netns::NETNS_DIR;
use crate::run::{BPF_FS, namespace_owner, path_owner};

/// Something that outlives the process unless it is removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leftover {
    /// A child that has not been waited for.
    Process(u32),
    /// A named network namespace.
    Namespace(String),
    /// A directory of pinned BPF objects; removing a pin lets its object go.
    PinDir(PathBuf),
    /// A temporary directory.
    TempDir(PathBuf),
    /// A control group; whoever is in it is killed.
    Cgroup(PathBuf),
}

impl Leftover {
    fn remove(&self) {
        match self {
            Self::Process(pid) => {
                let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
            }
            Self::Namespace(name) => remove_namespace(name),
            Self::PinDir(path) | Self::TempDir(path) => {
                let _ = fs::remove_dir_all(path);
            }
            Self::Cgroup(path) => crate::cgroup::remove(path),
        }
    }
}

/// In order of registration; removed in the reverse order.
static REGISTERED: Mutex<Vec<Leftover>> = Mutex::new(Vec::new());

fn registered() -> MutexGuard<'static, Vec<Leftover>> {
    REGISTERED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Registers a thing that is about to exist.
pub fn register(leftover: Leftover) {
    registered().push(leftover);
}

/// Removes a thing and forgets it.
pub fn remove(leftover: &Leftover) {
    leftover.remove();
    forget(leftover);
}

/// Forgets a thing that is gone, such as a child that was waited for.
pub fn forget(leftover: &Leftover) {
    registered().retain(|other| other != leftover);
}

/// Sweeps dead runs and arranges for the end by a signal; once per process.
/// Needs root and says so.
pub fn install() -> Result<()> {
    static ONCE: Once = Once::new();
    require_root()?;
    let mut result = Ok(());
    ONCE.call_once(|| {
        sweep();
        result = handle_signals();
    });
    result
}

/// Fails with what to type when not run by root.
pub fn require_root() -> Result<()> {
    anyhow::ensure!(
        nix::unistd::geteuid().is_root(),
        "network namespaces and XDP need root: run the same command again with sudo"
    );
    Ok(())
}

fn handle_signals() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot handle signals")?;
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            if let Some(signal) = signals.forever().next() {
                // Kept locked to the end: nobody adds anything from here on.
                let all = registered();
                all.iter().rev().for_each(Leftover::remove);
                std::process::exit(128 + signal);
            }
        })
        .context("cannot start the signal thread")?;
    Ok(())
}

/// Removes what runs whose process is gone have left.
pub fn sweep() {
    for name in names(Path::new(NETNS_DIR)) {
        if namespace_owner(&name).is_some_and(is_gone) {
            remove_namespace(&name);
        }
    }
    for dir in [Path::new(BPF_FS), &std::env::temp_dir()] {
        for name in names(dir) {
            if path_owner(&name).is_some_and(is_gone) {
                let _ = fs::remove_dir_all(dir.join(&name));
            }
        }
    }
    sweep_cgroups();
}

/// Removes control groups of runs that are gone.
fn sweep_cgroups() {
    for root in crate::cgroup::roots() {
        for name in names(&root) {
            if path_owner(&name).is_some_and(is_gone) {
                for inner in names(&root.join(&name)) {
                    let inner = root.join(&name).join(inner);
                    if inner.is_dir() {
                        crate::cgroup::remove(&inner);
                    }
                }
                crate::cgroup::remove(&root.join(&name));
            }
        }
    }
}

fn names(dir: &Path) -> Vec<String> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect()
}

fn is_gone(pid: u32) -> bool {
    !Path::new("/proc").join(pid.to_string()).exists()
}

fn remove_namespace(name: &str) {
    let path = Path::new(NETNS_DIR).join(name);
    let _ = umount2(&path, MntFlags::MNT_DETACH);
    let _ = fs::remove_file(&path);
}
