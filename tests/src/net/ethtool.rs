//! Offloads and statistics of a device by `SIOCETHTOOL`, which acts in the
//! namespace where its socket was opened: call these from inside one.

use std::collections::BTreeMap;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

const SIOCETHTOOL: libc::c_ulong = 0x8946;
const ETHTOOL_GLINK: u32 = 0x0a;
const ETHTOOL_STXCSUM: u32 = 0x17;
const ETHTOOL_GSTRINGS: u32 = 0x1b;
const ETHTOOL_GSTATS: u32 = 0x1d;
const ETHTOOL_GTXCSUM: u32 = 0x16;
const ETHTOOL_GGRO: u32 = 0x2b;
const ETHTOOL_SGRO: u32 = 0x2c;
const ETHTOOL_GSSET_INFO: u32 = 0x37;
const ETH_SS_STATS: u32 = 1;
const ETH_GSTRING_LEN: usize = 32;
/// No driver here has more; a bound for what is allocated on its word.
const STATISTICS_MAX: usize = 4096;

/// An offload that can be switched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// Leaving checksums of sent packets to the device. A veth has no such
    /// device: XDP then sees packets with half a checksum.
    TransmitChecksum,
    /// Generic receive offload; on a veth it is what switches NAPI on, without
    /// which XDP cannot redirect into its peer.
    GenericReceive,
}

/// Switches an offload.
pub fn set(device: &str, offload: Offload, on: bool) -> Result<()> {
    let command = match offload {
        Offload::TransmitChecksum => ETHTOOL_STXCSUM,
        Offload::GenericReceive => ETHTOOL_SGRO,
    };
    let mut value = [command, u32::from(on)];
    ioctl(device, bytes_of(&mut value))
        .with_context(|| format!("cannot set {offload:?} {on} on {device}"))
}

/// Whether an offload is on.
pub fn get(device: &str, offload: Offload) -> Result<bool> {
    let command = match offload {
        Offload::TransmitChecksum => ETHTOOL_GTXCSUM,
        Offload::GenericReceive => ETHTOOL_GGRO,
    };
    let mut value = [command, 0];
    ioctl(device, bytes_of(&mut value))
        .with_context(|| format!("cannot read {offload:?} of {device}"))?;
    Ok(value[1] != 0)
}

/// Whether a device has a carrier: on a veth, whether its other end is up.
pub fn has_carrier(device: &str) -> Result<bool> {
    let mut value = [ETHTOOL_GLINK, 0];
    ioctl(device, bytes_of(&mut value)).with_context(|| format!("no link state of {device}"))?;
    Ok(value[1] != 0)
}

/// The driver's own counters by name, such as veth's `rx_queue_0_xdp_drops`.
pub fn statistics(device: &str) -> Result<BTreeMap<String, u64>> {
    let what = || format!("cannot read the statistics of {device}");
    // struct ethtool_sset_info { cmd, reserved, sset_mask: u64, data[1] }
    let mut info = [ETHTOOL_GSSET_INFO, 0, 1 << ETH_SS_STATS, 0, 0];
    ioctl(device, bytes_of(&mut info)).with_context(what)?;
    let count = info[4] as usize;
    ensure!(
        count <= STATISTICS_MAX,
        "{device} claims {count} statistics"
    );

    // struct ethtool_gstrings { cmd, string_set, len, data[] }
    let mut names = vec![0u32; 3 + count * ETH_GSTRING_LEN / size_of::<u32>()];
    names[..3].copy_from_slice(&[ETHTOOL_GSTRINGS, ETH_SS_STATS, info[4]]);
    ioctl(device, bytes_of(&mut names)).with_context(what)?;

    // struct ethtool_stats { cmd, n_stats, data[] of u64 }
    let mut values = vec![0u32; 2 + count * 2];
    values[..2].copy_from_slice(&[ETHTOOL_GSTATS, info[4]]);
    ioctl(device, bytes_of(&mut values)).with_context(what)?;

    let names = &bytes_of(&mut names)[3 * size_of::<u32>()..];
    let values = &bytes_of(&mut values)[2 * size_of::<u32>()..];
    Ok(names
        .chunks(ETH_GSTRING_LEN)
        .map(name)
        .zip(values.chunks(8).map(value))
        .collect())
}

fn name(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn value(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_ne_bytes)
}

fn bytes_of(words: &mut [u32]) -> &mut [u8] {
    let length = size_of_val(words);
    // SAFETY: the slice covers exactly the words, u8 has no alignment and every
    // bit pattern is valid both ways; the borrow is passed on.
    unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), length) }
}

fn ioctl(device: &str, command: &mut [u8]) -> Result<()> {
    let socket: OwnedFd = socket(
        AddressFamily::Inet,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    // SAFETY: an all-zero ifreq is a valid one.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    ensure!(
        device.len() < request.ifr_name.len(),
        "interface name {device:?} is too long"
    );
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = command.as_mut_ptr().cast();
    // SAFETY: request and the command it points to live through the call; each
    // caller sized the command for what the kernel writes back by its header.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &mut request) };
    ensure!(result == 0, io::Error::last_os_error());
    Ok(())
}
