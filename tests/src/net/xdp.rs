//! Somebody else's XDP program on an interface.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result};
use nix::net::if_::if_nametoindex;

const PROG_LOAD: libc::c_long = 5;
const OBJ_GET: libc::c_long = 7;
const MAP_FREEZE: libc::c_long = 22;
const LINK_CREATE: libc::c_long = 28;
const LINK_UPDATE: libc::c_long = 29;
const PROG_TYPE_XDP: u32 = 6;
const ATTACH_XDP: u32 = 37;
/// `r0 = XDP_PASS; exit`
const PASS: [u64; 2] = [XDP_PASS, EXIT];
/// `r0 = XDP_PASS`
const XDP_PASS: u64 = 0x0000_0002_0000_00b7;
/// `r0 = XDP_DROP`
const XDP_DROP: u64 = 0x0000_0001_0000_00b7;
const EXIT: u64 = 0x0000_0000_0000_0095;

/// The start of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
struct Load {
    program_type: u32,
    instructions: u32,
    code: u64,
    license: u64,
}

/// The start of `union bpf_attr` for `BPF_LINK_CREATE`.
#[repr(C)]
struct Create {
    program: u32,
    ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// The start of `union bpf_attr` for `BPF_LINK_UPDATE`.
#[repr(C)]
struct Update {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

/// Attaches a program that passes everything to an interface of the calling thread's namespace,
/// in whichever mode there is. It is there for as long as the returned handle.
pub fn occupy(device: &str) -> Result<OwnedFd> {
    attach(device, &PASS)
}

/// Loses so many of 100 packets, at random, that arrive on an interface of the calling thread's namespace, for
/// as long as the returned handle is there. Not netem, which many small kernels are built without, and which
/// would have to be on the VNI host's own interfaces, where redirected frames pass it by.
pub fn lose(device: &str, percent: u8) -> Result<OwnedFd> {
    attach(device, &losing(u32::from(percent) * 10))
}

/// Loss on an interface that can change while packets arrive: the program is exchanged, the link stays.
#[derive(Debug)]
pub struct Loss(OwnedFd);

impl Loss {
    /// Begins with none. In the interface's namespace.
    pub fn begin(device: &str) -> Result<Self> {
        attach(device, &losing(0)).map(Self)
    }

    /// So many of 1,000 packets are lost from now on.
    pub fn set(&self, of_1000: u32) -> Result<()> {
        let program = load(&losing(of_1000))?;
        let update = Update {
            link: self.0.as_raw_fd().cast_unsigned(),
            program: program.as_raw_fd().cast_unsigned(),
            flags: 0,
            old_program: 0,
        };
        // SAFETY: `Update` is what the command reads, without padding, and holds no address.
        let result = unsafe { raw(LINK_UPDATE, &update) };
        result.map(drop).context("exchange a program")
    }
}

fn losing(of_1000: u32) -> [u64; 7] {
    [
        // r0 = bpf_get_prandom_u32(); r0 %= 1000
        0x0000_0007_0000_0085,
        0x0000_03e8_0000_0097,
        // if r0 < of_1000, skip two
        0x0000_0000_0002_00a5 | u64::from(of_1000) << 32,
        XDP_PASS,
        EXIT,
        XDP_DROP,
        EXIT,
    ]
}

fn attach(device: &str, code: &[u64]) -> Result<OwnedFd> {
    let ifindex = if_nametoindex(device).with_context(|| format!("no interface {device}"))?;
    let program = load(code)?;
    let create = Create {
        program: program.as_raw_fd().cast_unsigned(),
        ifindex,
        attach_type: ATTACH_XDP,
        flags: 0,
    };
    // SAFETY: `Create` is what the command reads, without padding, and holds no address.
    unsafe { bpf(LINK_CREATE, &create) }.with_context(|| format!("attach a program to {device}"))
}

fn load(code: &[u64]) -> Result<OwnedFd> {
    let load = Load {
        program_type: PROG_TYPE_XDP,
        instructions: code.len() as u32,
        code: code.as_ptr() as u64,
        license: c"MIT".as_ptr() as u64,
    };
    // SAFETY: `Load` is what the command reads, without padding; both addresses in it outlive
    // the call: of as many instructions as it says, and of a C string.
    unsafe { bpf(PROG_LOAD, &load) }.context("load a program")
}

/// Makes every later write of user space to a pinned map fail; programs go on writing.
pub fn freeze(pin: &Path) -> Result<()> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    // `pathname` of BPF_OBJ_GET.
    let name = path.as_ptr() as u64;
    // SAFETY: the command reads one address, of a C string that outlives the call; the rest of
    // its attributes are taken as zero.
    let map = unsafe { bpf(OBJ_GET, &name) }.with_context(|| format!("open {}", pin.display()))?;
    let fd = map.as_raw_fd().cast_unsigned();
    // SAFETY: the command reads one descriptor.
    let result = unsafe { raw(MAP_FREEZE, &fd) };
    result
        .map(drop)
        .with_context(|| format!("freeze {}", pin.display()))
}

/// Runs one command that makes a descriptor.
///
/// # Safety
/// `T` must be the command's part of `union bpf_attr`, `repr(C)` and without padding, with every
/// address in it valid for the call.
unsafe fn bpf<T>(command: libc::c_long, attr: &T) -> io::Result<OwnedFd> {
    // SAFETY: the caller's obligation.
    let result = unsafe { raw(command, attr) }?;
    // SAFETY: the kernel just made this descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(result) })
}

/// Runs one command.
///
/// # Safety
/// As of [`bpf`].
unsafe fn raw<T>(command: libc::c_long, attr: &T) -> io::Result<i32> {
    // SAFETY: the kernel reads `size_of::<T>()` bytes; the rest is the caller's obligation.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attr),
            size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result as i32)
}
