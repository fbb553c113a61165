//! Network namespaces as hosts: named as `ip netns` names them, entered by a
//! thread or a child process. Only the network is separate: files, process ids
//! and the BPF file system are the machine's.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::resume_unwind;
use std::path::Path;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use crate::cleanup::{self, Leftover};

/// Where `ip netns` looks for names.
pub const NETNS_DIR: &str = "/run/netns";
const OWN_NAMESPACE: &str = "/proc/thread-self/ns/net";

/// Whatever else the machine is doing, such as the next test's compilation,
/// must not be measured as if it were the network.
const NICENESS: libc::c_int = -10;

/// A network namespace that exists for as long as this value.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    file: File,
}

impl Namespace {
    /// Makes a namespace and gives it a name.
    pub fn create(name: &str) -> Result<Self> {
        cleanup::install()?;
        cleanup::register(Leftover::Namespace(name.into()));
        bind_new(name).inspect_err(|_| cleanup::remove(&Leftover::Namespace(name.into())))
    }

    /// The name in `/run/netns`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs a closure in a thread that is inside the namespace. Sockets that it
    /// opens belong to the namespace wherever they are used later.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.file, CloneFlags::CLONE_NEWNET)?;
                Ok(work())
            });
            inside.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
        .map_err(|errno: nix::Error| anyhow::anyhow!("cannot enter {}: {errno}", self.name))
    }

    /// A command that will run inside the namespace and die with the thread that spawns it.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Result<Command> {
        let mut command = Command::new(program);
        enter_on_spawn(
            &mut command,
            self.file.try_clone().context("namespace handle")?,
        );
        Ok(command)
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        cleanup::remove(&Leftover::Namespace(self.name.clone()));
    }
}

fn bind_new(name: &str) -> Result<Namespace> {
    let path = Path::new(NETNS_DIR).join(name);
    fs::create_dir_all(NETNS_DIR).with_context(|| format!("cannot create {NETNS_DIR}"))?;
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)
        .with_context(|| format!("cannot create {}", path.display()))?;
    // A thread of its own, since the caller must stay where it is.
    let target = path.clone();
    thread::spawn(move || -> nix::Result<()> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        let none = None::<&str>;
        mount(Some(OWN_NAMESPACE), &target, none, MsFlags::MS_BIND, none)
    })
    .join()
    .unwrap_or_else(|panic| resume_unwind(panic))
    .with_context(|| format!("cannot make network namespace {name}"))?;
    let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
    Ok(Namespace {
        name: name.into(),
        file,
    })
}

fn enter_on_spawn(command: &mut Command, namespace: File) {
    use std::os::unix::process::CommandExt;
    let parent = nix::unistd::getpid();
    let hook = move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET)?;
        set_pdeathsig(Signal::SIGKILL)?;
        // SAFETY: a system call without pointers.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
        if nix::unistd::getppid() != parent {
            // The parent went before the line above could see it.
            return Err(io::Error::other("parent is gone"));
        }
        Ok(())
    };
    // SAFETY: between fork and exec the hook only makes system calls; it
    // neither allocates on the success path nor takes a lock.
    unsafe { command.pre_exec(hook) };
}
