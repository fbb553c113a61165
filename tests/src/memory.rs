//! What a process needs of memory at its highest, as the kernel counts it.

use std::fs;

use anyhow::{Context, Result};

/// Bytes.
pub const MIB: f64 = 1024.0 * 1024.0;

/// Has the kernel begin anew to watch a process for its highest use, and returns what it uses now, in bytes.
pub fn begin(pid: u32) -> Result<u64> {
    // proc_pid_clear_refs(5): 5 resets the peak.
    let path = format!("/proc/{pid}/clear_refs");
    fs::write(&path, "5").with_context(|| format!("write {path}"))?;
    field(pid, "VmRSS:")
}

/// The highest use since [`begin`], in bytes.
pub fn peak(pid: u32) -> Result<u64> {
    field(pid, "VmHWM:")
}

fn field(pid: u32, name: &str) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    let kib = value.and_then(|value| value.trim().strip_suffix(" kB"));
    let kib: u64 = kib
        .with_context(|| format!("no {name} in {path}"))?
        .parse()?;
    Ok(kib * 1024)
}
