//! The machine that the figures are of.

use std::fs;

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::utsname::uname;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// The highest priority that is not real time.
const NICENESS: i32 = -20;

/// What figures depend on.
#[derive(Clone, Debug, Serialize, Deserialize)]
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
            cpus: cpus_configured(),
        }
    }
}

/// The day by UTC, as ISO 8601 writes it.
pub(crate) fn today() -> String {
    OffsetDateTime::now_utc().date().to_string()
}

/// The last minute's load average.
pub(crate) fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split(' ').next().and_then(|word| word.parse().ok());
    first.unwrap_or_default()
}

/// Has the kernel give back pages of its allocations of objects in which there are none, so that new objects need new ones.
pub(crate) fn shrink_slabs() {
    let caches = fs::read_dir("/sys/kernel/slab").into_iter().flatten();
    for cache in caches.flatten() {
        // Where it cannot be done, figures are a little too small.
        let _ = fs::write(cache.path().join("shrink"), "1");
    }
}

/// What the kernel's allocations of objects take that it cannot give back.
pub(crate) fn slab_bytes() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("SUnreclaim:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kib: u64 = kib.context("no SUnreclaim in /proc/meminfo")?.parse()?;
    Ok(kib * 1024)
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

/// How many processors there are. Not `available_parallelism`, which is 1 on a thread that is pinned.
fn cpus_configured() -> usize {
    let online = fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    let last = online.trim().rsplit(['-', ',']).next();
    let last = last.and_then(|number| number.parse::<usize>().ok());
    last.unwrap_or(0) + 1
}
