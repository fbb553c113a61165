//! The system calls that aya has no safe wrapper for: links that are real `bpf_link`s or an
//! error (aya falls back to netlink silently), and batches of map entries.
//!
//! Every `bpf(2)` call goes through [`bpf`], which states what its callers uphold.
#![expect(unsafe_code, reason = "bpf(2) and ioctl(2) take untyped memory")]

use std::{
    ffi::CString,
    io,
    mem::size_of,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use aya::Pod;
use aya_obj::generated::{bpf_attach_type, bpf_cmd};

/// Runs one command.
///
/// # Safety
/// `T` must be the command's part of `union bpf_attr`, `repr(C)` and without padding, and every
/// address in it must be valid, for as long as the call lasts, for what the command does there.
unsafe fn bpf<T>(command: bpf_cmd, attr: &mut T) -> io::Result<i32> {
    // SAFETY: the kernel copies `size` bytes from `attr` (and back for batches), which are
    // all of `T`; the addresses in it are the caller's obligation.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command as libc::c_long,
            std::ptr::from_mut(attr),
            size_of::<T>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result as i32)
}

fn owned(fd: i32) -> OwnedFd {
    // SAFETY: the caller just got this descriptor from the kernel and nobody else has it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from)
}

#[repr(C)]
#[derive(Default)]
struct ObjAttr {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
}

/// Pins an object.
pub(super) fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let mut attr = ObjAttr {
        pathname: path.as_ptr() as u64,
        bpf_fd: fd.as_raw_fd() as u32,
        file_flags: 0,
    };
    // SAFETY: ObjAttr is this command's part of bpf_attr; `path` is a C string that outlives it.
    unsafe { bpf(bpf_cmd::BPF_OBJ_PIN, &mut attr) }.map(drop)
}

/// Opens a pinned object.
pub(super) fn open_pin(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let mut attr = ObjAttr {
        pathname: path.as_ptr() as u64,
        ..ObjAttr::default()
    };
    // SAFETY: as in `pin`.
    unsafe { bpf(bpf_cmd::BPF_OBJ_GET, &mut attr) }.map(owned)
}

#[repr(C)]
#[derive(Default)]
struct LinkCreateAttr {
    prog_fd: u32,
    target_ifindex: u32,
    attach_type: u32,
    flags: u32,
}

/// Attaches an XDP program to an interface by a `bpf_link` (Linux 5.9).
pub(super) fn xdp_link_create(
    program: BorrowedFd<'_>,
    ifindex: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    let mut attr = LinkCreateAttr {
        prog_fd: program.as_raw_fd() as u32,
        target_ifindex: ifindex,
        attach_type: bpf_attach_type::BPF_XDP as u32,
        flags,
    };
    // SAFETY: LinkCreateAttr is the start of this command's part of bpf_attr; the kernel takes
    // the rest as zero; it holds no address.
    unsafe { bpf(bpf_cmd::BPF_LINK_CREATE, &mut attr) }.map(owned)
}

#[repr(C)]
#[derive(Default)]
struct LinkUpdateAttr {
    link_fd: u32,
    new_prog_fd: u32,
    flags: u32,
    old_prog_fd: u32,
}

/// Replaces a link's program atomically.
pub(super) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = LinkUpdateAttr {
        link_fd: link.as_raw_fd() as u32,
        new_prog_fd: program.as_raw_fd() as u32,
        ..LinkUpdateAttr::default()
    };
    // SAFETY: LinkUpdateAttr is this command's part of bpf_attr; it holds no address.
    unsafe { bpf(bpf_cmd::BPF_LINK_UPDATE, &mut attr) }.map(drop)
}

#[repr(C)]
#[derive(Default)]
struct InfoAttr {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

/// What the kernel says of an XDP link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkInfo {
    pub(super) program: u32,
    /// 0 when the interface is gone.
    pub(super) ifindex: u32,
}

/// Asks for a link's program and interface.
pub(super) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    // struct bpf_link_info: type, id, prog_id, a hole, then the union with xdp.ifindex.
    let info = info(link)?;
    Ok(LinkInfo {
        program: info[2],
        ifindex: info[4],
    })
}

/// The kernel's number of a program.
pub(super) fn program_id(program: BorrowedFd<'_>) -> io::Result<u32> {
    // struct bpf_prog_info: type, id.
    Ok(info(program)?[1])
}

/// The first words of what the kernel says of an object.
fn info(object: BorrowedFd<'_>) -> io::Result<[u32; 32]> {
    // Pairs of words, aligned for any member. A program's is longer, and cut off.
    let mut info = [0u64; 16];
    let mut attr = InfoAttr {
        bpf_fd: object.as_raw_fd() as u32,
        info_len: size_of_val(&info) as u32,
        info: info.as_mut_ptr() as u64,
    };
    // SAFETY: InfoAttr is this command's part of bpf_attr; `info` has `info_len` bytes,
    // aligned for any member, and outlives the call. It is zeros: nothing in it asks for more to be written elsewhere.
    unsafe { bpf(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &mut attr) }?;
    let mut words = [0; 32];
    for (word, bytes) in words.iter_mut().zip(info.iter().flat_map(|pair| {
        let [a, b, c, d, e, f, g, h] = pair.to_ne_bytes();
        [[a, b, c, d], [e, f, g, h]]
    })) {
        *word = u32::from_ne_bytes(bytes);
    }
    Ok(words)
}

#[repr(C)]
#[derive(Default)]
struct BatchAttr {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map_fd: u32,
    elem_flags: u64,
    flags: u64,
}

/// Writes many entries by one call (Linux 5.6).
pub(super) fn update_batch<K: Pod, V: Pod>(
    map: impl AsFd,
    keys: &[K],
    values: &[V],
) -> io::Result<()> {
    assert_eq!(keys.len(), values.len());
    if keys.is_empty() {
        return Ok(());
    }
    let mut attr = BatchAttr {
        keys: keys.as_ptr() as u64,
        values: values.as_ptr() as u64,
        count: keys.len() as u32,
        map_fd: map.as_fd().as_raw_fd() as u32,
        ..BatchAttr::default()
    };
    // SAFETY: BatchAttr is this command's part of bpf_attr; `keys` and `values` hold `count`
    // entries of the map's key and value size (the caller opened the map with these types,
    // which aya checked).
    unsafe { bpf(bpf_cmd::BPF_MAP_UPDATE_BATCH, &mut attr) }.map(drop)
}

#[repr(C)]
#[derive(Default)]
struct ElementAttr {
    map_fd: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Deletes an entry of an array of maps.
pub(super) fn delete(map: impl AsFd, key: u32) -> io::Result<()> {
    let mut attr = ElementAttr {
        map_fd: map.as_fd().as_raw_fd() as u32,
        key: std::ptr::from_ref(&key) as u64,
        ..ElementAttr::default()
    };
    // SAFETY: ElementAttr is this command's part of bpf_attr; the key has four bytes, as every array's, and outlives the
    // call.
    unsafe { bpf(bpf_cmd::BPF_MAP_DELETE_ELEM, &mut attr) }.map(drop)
}

/// A walk over a hash map or an array, many entries a call (Linux 5.6).
///
/// Each bucket is read under its lock, so an entry that stays in the map is met exactly once.
pub(super) struct Walk<K, V> {
    /// Where the walk is: the kernel's bucket number.
    position: Option<u32>,
    keys: Vec<K>,
    values: Vec<V>,
    done: bool,
}

fn zero<T: Pod>() -> T {
    // SAFETY: a `Pod` is made of bytes of any value.
    unsafe { std::mem::zeroed() }
}

impl<K: Pod, V: Pod> Walk<K, V> {
    /// `batch`: entries a call; more when a bucket holds more.
    pub(super) fn new(batch: usize) -> Self {
        Self {
            position: None,
            keys: vec![zero(); batch],
            values: vec![zero(); batch],
            done: false,
        }
    }

    /// The next entries; `None` after the last.
    pub(super) fn next(&mut self, map: impl AsFd) -> io::Result<Option<(&[K], &[V])>> {
        let count = loop {
            if self.done {
                return Ok(None);
            }
            match self.read(map.as_fd()) {
                Ok(count) => break count,
                Err(error) if error.raw_os_error() == Some(libc::ENOSPC) => {
                    // One bucket holds more than the buffers.
                    let size = self.keys.len() * 2;
                    self.keys.resize(size, self.keys[0]);
                    self.values.resize(size, self.values[0]);
                }
                Err(error) => return Err(error),
            }
        };
        Ok(Some((&self.keys[..count], &self.values[..count])))
    }

    fn read(&mut self, map: BorrowedFd<'_>) -> io::Result<usize> {
        let mut next = 0u32;
        let mut attr = BatchAttr {
            in_batch: self
                .position
                .as_ref()
                .map_or(0, |position| std::ptr::from_ref(position) as u64),
            out_batch: &raw mut next as u64,
            keys: self.keys.as_mut_ptr() as u64,
            values: self.values.as_mut_ptr() as u64,
            count: self.keys.len() as u32,
            map_fd: map.as_raw_fd() as u32,
            ..BatchAttr::default()
        };
        // SAFETY: BatchAttr is this command's part of bpf_attr; a hash map's position is a u32, and
        // so is an array's, which is a key;
        // `keys` and `values` have room for `count` entries of the map's key and value size (the
        // caller opened the map with these types, which aya checked), and both are
        // `Pod`, so any bytes are valid.
        let result = unsafe { bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut attr) };
        match result {
            Ok(_) => self.position = Some(next),
            // The end, with the last entries.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => self.done = true,
            Err(error) => return Err(error),
        }
        Ok(attr.count as usize)
    }
}

/// Detaches a link at once, whoever else holds it (Linux 5.9).
pub(super) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = link.as_raw_fd() as u32;
    // SAFETY: the command's part of bpf_attr is one u32, the link's descriptor.
    unsafe { bpf(bpf_cmd::BPF_LINK_DETACH, &mut attr) }.map(drop)
}

/// Gives SIGPIPE its default action back.
pub(super) fn default_sigpipe() {
    // SAFETY: no handler is installed, and the call is made before any thread is started.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Sets the nice value of the calling thread (of Linux: POSIX has it per process).
pub(super) fn set_nice(nice: i32) -> io::Result<()> {
    // SAFETY: takes numbers only.
    match unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A packet socket that receives nothing: protocol 0 binds it to no traffic.
pub(super) fn packet_socket() -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(owned(fd))
}

/// Sends a whole frame out of an interface.
pub(super) fn send_frame(socket: &OwnedFd, ifindex: u32, frame: &[u8]) -> io::Result<()> {
    // SAFETY: an all-zero sockaddr_ll is a valid one.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = libc::AF_PACKET as u16;
    to.sll_ifindex = ifindex as i32;
    // SAFETY: the frame and the address live through the call, and their lengths are theirs.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            libc::MSG_DONTWAIT,
            std::ptr::from_ref(&to).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, time::Instant};

    use aya::maps::{HashMap, MapData};
    use aya_obj::generated::{BPF_F_NO_PREALLOC, bpf_map_type};

    use super::*;

    const ENTRIES: u64 = 200_000;

    /// A map that only this test knows; none where that takes more rights.
    fn map() -> Option<MapData> {
        let hash = bpf_map_type::BPF_MAP_TYPE_HASH as u32;
        let flags = BPF_F_NO_PREALLOC;
        let shape = aya_obj::Map::new_from_params(hash, 8, 8, ENTRIES as u32, flags);
        match MapData::create(shape, "walk_test", None) {
            Ok(map) => Some(map),
            Err(error) => {
                println!("skipped: a map cannot be made ({error}); run as root");
                None
            }
        }
    }

    #[test]
    fn a_walk_meets_every_entry_once() {
        let Some(data) = map() else { return };
        let keys: Vec<u64> = (0..ENTRIES).collect();
        let values: Vec<u64> = keys.iter().map(|key| key * 3).collect();
        update_batch(data.fd(), &keys, &values).unwrap();
        let start = Instant::now();
        // Buckets with more entries than one: the buffers have to grow.
        let mut walk = Walk::<u64, u64>::new(1);
        let mut met = HashSet::new();
        while let Some((keys, values)) = walk.next(data.fd()).unwrap() {
            for (key, value) in keys.iter().zip(values) {
                assert_eq!(*value, key * 3);
                assert!(met.insert(*key), "{key} twice");
            }
        }
        assert_eq!(met.len() as u64, ENTRIES);
        println!("{ENTRIES} entries in {:?}", start.elapsed());
    }

    #[test]
    fn an_empty_map_has_no_entries() {
        let Some(data) = map() else { return };
        let mut walk = Walk::<u64, u64>::new(16);
        while let Some((keys, _)) = walk.next(data.fd()).unwrap() {
            assert!(keys.is_empty());
        }
        let map = HashMap::<MapData, u64, u64>::try_from(aya::maps::Map::HashMap(data)).unwrap();
        assert_eq!(map.keys().count(), 0);
    }
}
