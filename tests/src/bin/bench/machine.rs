//! The machine that the figures are of.

use std::fs;

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::utsname::uname;
use nix::unistd::Pid;
use serde::Serialize;

/// The highest priority that is not real time.
const NICENESS: i32 = -20;

/// What figures depend on.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) kernel: String,
    pub(crate) cpu: String,
    pub(crate) cpus: usize,
}

impl Machine {
    pub(crate) fn detect() -> Self {
        let kernel = uname().map(|name| name.release().to_string_lossy().into_owned());
        let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = info
            .lines()
            .find_map(|line| line.strip_prefix("model name"));
        Self {
            kernel: kernel.unwrap_or_default(),
            cpu: model
                .unwrap_or_default()
                .trim_start_matches([' ', '\t', ':'])
                .into(),
            cpus: cpus(),
        }
    }
}

/// How many processors there are.
pub(crate) fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The last minute's load average.
pub(crate) fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split(' ').next().and_then(|word| word.parse().ok());
    first.unwrap_or_default()
}

/// Keeps the calling thread, and what it starts from now on, on one processor: the last one,
/// because interrupts prefer the first. What else runs there yields to it.
pub(crate) fn pin() -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpus_configured() - 1).context("processor set")?;
    sched_setaffinity(Pid::from_raw(0), &set).context("pin to one processor")?;
    come_first()
}

/// Lets the calling thread, and what it starts from now on, run before everything that can wait.
pub(crate) fn come_first() -> Result<()> {
    // SAFETY: a system call without pointers.
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICENESS) };
    nix::errno::Errno::result(result)
        .map(drop)
        .context("raise the priority")
}

/// Keeps what the calling thread starts from now on off the processor of [`pin`], where there is another.
pub(crate) fn use_others() -> Result<()> {
    let mut set = CpuSet::new();
    for cpu in 0..(cpus_configured() - 1).max(1) {
        set.set(cpu).context("processor set")?;
    }
    sched_setaffinity(Pid::from_raw(0), &set).context("leave a processor")
}

/// Not `available_parallelism`, which is 1 on a thread that is pinned.
fn cpus_configured() -> usize {
    let online = fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    let last = online.trim().rsplit(['-', ',']).next();
    let last = last.and_then(|number| number.parse::<usize>().ok());
    last.unwrap_or(0) + 1
}
