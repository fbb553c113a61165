//! bpf(2) for programs that the bench assembles itself, and runs of programs with a time.
//!
//! Not by aya, which loads programs from ELF objects only: these are a few instructions each, and
//! differ by numbers of maps and flows.

use std::ffi::c_long;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result, ensure};

/// Commands of bpf(2) (include/uapi/linux/bpf.h).
mod command {
    pub(super) const MAP_CREATE: c_long = 0;
    pub(super) const MAP_LOOKUP: c_long = 1;
    pub(super) const MAP_UPDATE: c_long = 2;
    pub(super) const PROG_LOAD: c_long = 5;
    pub(super) const PROG_TEST_RUN: c_long = 10;
    pub(super) const MAP_UPDATE_BATCH: c_long = 26;
    pub(super) const LINK_CREATE: c_long = 28;
    use std::ffi::c_long;
}

pub(crate) const MAP_ARRAY: u32 = 2;
pub(crate) const MAP_PROG_ARRAY: u32 = 3;
pub(crate) const MAP_DEVMAP: u32 = 14;
const PROG_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;
const TEST_LIVE_FRAMES: u32 = 1 << 1;
/// Frames of one batch of live frames: they fit a veth's ring of 256 together with their copies'.
const LIVE_BATCH: u32 = 64;
const LOG_BYTES: usize = 1 << 16;

/// `union bpf_attr`, written field by field.
struct Attr([u8; 144]);

impl Attr {
    fn new() -> Self {
        Self([0; 144])
    }

    fn u32(mut self, at: usize, value: u32) -> Self {
        self.0[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn u64(mut self, at: usize, value: u64) -> Self {
        self.0[at..at + 8].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn fd(self, at: usize, fd: BorrowedFd<'_>) -> Self {
        self.u32(at, fd.as_raw_fd().cast_unsigned())
    }

    fn bytes(self, at: usize, bytes: &[u8]) -> Self {
        self.u64(at, bytes.as_ptr() as u64)
    }

    fn read_u32(&self, at: usize) -> u32 {
        u32::from_ne_bytes(std::array::from_fn(|byte| self.0[at + byte]))
    }

    /// The buffers whose addresses are in the fields must live and be as long as the fields beside say; the
    /// kernel writes into those only that the caller holds mutably.
    fn call(&mut self, command: c_long) -> io::Result<c_long> {
        // SAFETY: the attribute is as long as said, and all callers are in this file and keep
        // what is written above.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, command, self.0.as_mut_ptr(), self.0.len()) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(result)
    }

    fn create(&mut self, command: c_long) -> io::Result<OwnedFd> {
        let fd = self.call(command)?;
        // SAFETY: these commands return a new descriptor, which nobody else owns.
        Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
    }
}

/// Makes a map with keys of four bytes.
pub(crate) fn map(map_type: u32, value_bytes: u32, entries: u32) -> Result<OwnedFd> {
    Attr::new()
        .u32(0, map_type)
        .u32(4, 4)
        .u32(8, value_bytes)
        .u32(12, entries)
        .create(command::MAP_CREATE)
        .context("create a map")
}

/// Writes an entry. `value` must be as long as the map's values.
pub(crate) fn update(map: BorrowedFd<'_>, key: u32, value: &[u8]) -> Result<()> {
    let key = key.to_ne_bytes();
    Attr::new()
        .fd(0, map)
        .bytes(8, &key)
        .bytes(16, value)
        .call(command::MAP_UPDATE)
        .map(drop)
        .context("write a map")
}

/// Writes entries of an array of numbers, in one call (Linux 5.6).
pub(crate) fn update_batch(map: BorrowedFd<'_>, keys: &[u32], values: &[u32]) -> Result<()> {
    ensure!(keys.len() == values.len(), "as many values as keys");
    Attr::new()
        .u64(16, keys.as_ptr() as u64)
        .u64(24, values.as_ptr() as u64)
        .u32(32, u32::try_from(keys.len())?)
        .fd(36, map)
        .call(command::MAP_UPDATE_BATCH)
        .map(drop)
        .context("write a map")
}

/// Reads an entry of an array. `value` must be as long as the map's values.
pub(crate) fn lookup(map: BorrowedFd<'_>, key: u32, value: &mut [u8]) -> Result<()> {
    let key = key.to_ne_bytes();
    Attr::new()
        .fd(0, map)
        .bytes(8, &key)
        .u64(16, value.as_mut_ptr() as u64)
        .call(command::MAP_LOOKUP)
        .map(drop)
        .context("read a map")
}

/// Loads an XDP program.
pub(crate) fn load(instructions: &[u64]) -> Result<OwnedFd> {
    let mut log = vec![0u8; LOG_BYTES];
    let loaded = Attr::new()
        .u32(0, PROG_XDP)
        .u32(4, instructions.len() as u32)
        .u64(8, instructions.as_ptr() as u64)
        .bytes(16, b"GPL\0")
        .u32(24, 1)
        .u32(28, LOG_BYTES as u32)
        .u64(32, log.as_mut_ptr() as u64)
        .u32(68, ATTACH_XDP)
        .create(command::PROG_LOAD);
    loaded.with_context(|| {
        let end = log.iter().position(|byte| *byte == 0).unwrap_or(0);
        let text = String::from_utf8_lossy(&log[..end]);
        format!("the kernel refuses a program of the bench:\n{text}")
    })
}

/// Attaches a program to an interface, natively, for as long as the result lives. The interface's namespace must
/// be the calling thread's.
pub(crate) fn attach(program: BorrowedFd<'_>, ifindex: u32) -> Result<OwnedFd> {
    Attr::new()
        .fd(0, program)
        .u32(4, ifindex)
        .u32(8, ATTACH_XDP)
        .u32(12, XDP_FLAGS_DRV_MODE)
        .create(command::LINK_CREATE)
        .with_context(|| format!("attach to interface {ifindex}"))
}

/// Runs a program again and again on a frame that came in by an interface. Returns what one
/// repetition took on average, ns.
pub(crate) fn run(program: BorrowedFd<'_>, ingress: u32, frame: &[u8], repeat: u32) -> Result<u32> {
    let context = context(ingress, frame);
    let mut attr = test_run(program, &context, frame, repeat);
    attr.call(command::PROG_TEST_RUN).context("run a program")?;
    ensure!(attr.read_u32(4) != 0, "a program aborted");
    Ok(attr.read_u32(36))
}

/// Bytes that a map takes, by the kernel's account.
pub(crate) fn map_bytes(map: BorrowedFd<'_>) -> Result<u64> {
    let path = format!("/proc/self/fdinfo/{}", map.as_raw_fd());
    let text = std::fs::read_to_string(&path).with_context(|| path.clone())?;
    let line = text.lines().find_map(|line| line.strip_prefix("memlock:"));
    let bytes = line.and_then(|bytes| bytes.trim().parse().ok());
    bytes.with_context(|| format!("no memlock in {path}"))
}

/// Runs a program on so many live frames, whose verdicts are carried out.
pub(crate) fn run_live(
    program: BorrowedFd<'_>,
    ingress: u32,
    frame: &[u8],
    frames: u32,
) -> Result<()> {
    let context = context(ingress, frame);
    test_run(program, &context, frame, frames)
        .u32(64, TEST_LIVE_FRAMES)
        .u32(72, LIVE_BATCH)
        .call(command::PROG_TEST_RUN)
        .map(drop)
        .context("run a program on live frames")
}

fn test_run(program: BorrowedFd<'_>, context: &[u8; 24], frame: &[u8], repeat: u32) -> Attr {
    Attr::new()
        .fd(0, program)
        .u32(8, frame.len() as u32)
        .bytes(16, frame)
        .u32(32, repeat)
        .u32(40, context.len() as u32)
        .bytes(48, context)
}

/// `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
fn context(ingress: u32, frame: &[u8]) -> [u8; 24] {
    let mut context = [0; 24];
    context[4..8].copy_from_slice(&(frame.len() as u32).to_ne_bytes());
    context[12..16].copy_from_slice(&ingress.to_ne_bytes());
    context
}
