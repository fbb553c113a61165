//! What a driver says of an interface of this network namespace, and the offloads that can be switched:
//! `ioctl(SIOCETHTOOL)`.
#![expect(unsafe_code, reason = "ioctl(2) takes untyped memory")]

use std::{io, net::UdpSocket, os::fd::AsRawFd};

/// The driver's name has so many bytes, and begins behind the command (`struct ethtool_drvinfo`, 196 bytes).
const DRIVER_BYTES: usize = 32;
const DRVINFO_WORDS: usize = 196 / size_of::<u32>();
const GDRVINFO: u32 = 0x03;

/// What `ethtool -k` says of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offloads {
    /// Checksums of packets sent are left to be computed later.
    pub tx_checksum: bool,
    /// Received packets may be merged.
    pub gro: bool,
}

/// An offload that can be switched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// `tx`
    TransmitChecksum,
    /// `gro`
    GenericReceive,
}

impl Offload {
    /// `ethtool`'s name for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TransmitChecksum => "tx",
            Self::GenericReceive => "gro",
        }
    }

    /// The commands that read and write it.
    const fn commands(self) -> (u32, u32) {
        match self {
            Self::TransmitChecksum => (0x16, 0x17),
            Self::GenericReceive => (0x2b, 0x2c),
        }
    }
}

/// Asks an interface for its offloads.
pub fn offloads(interface: &str) -> io::Result<Offloads> {
    let ask = |offload: Offload| {
        let mut value = [offload.commands().0, 0];
        ethtool(interface, &mut value)?;
        io::Result::Ok(value[1] != 0)
    };
    Ok(Offloads {
        tx_checksum: ask(Offload::TransmitChecksum)?,
        gro: ask(Offload::GenericReceive)?,
    })
}

/// Switches an offload of an interface.
pub fn set_offload(interface: &str, offload: Offload, on: bool) -> io::Result<()> {
    ethtool(interface, &mut [offload.commands().1, u32::from(on)])
}

/// The name of an interface's driver.
pub fn driver(interface: &str) -> io::Result<String> {
    let mut info = [0; DRVINFO_WORDS];
    info[0] = GDRVINFO;
    ethtool(interface, &mut info)?;
    let bytes: Vec<u8> = info[1..]
        .iter()
        .flat_map(|word| word.to_ne_bytes())
        .collect();
    let name = bytes[..DRIVER_BYTES].split(|&byte| byte == 0).next();
    Ok(String::from_utf8_lossy(name.unwrap_or_default()).into_owned())
}

/// Runs one command, whose structure is `memory`: it must be as long as the command's, which all callers are
/// of this file.
fn ethtool(interface: &str, memory: &mut [u32]) -> io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: ifreq is plain data, for which zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let name = interface.as_bytes();
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name) {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = memory.as_mut_ptr().cast();
    // SAFETY: `request` names an interface, with a terminating zero, and points to the command's structure,
    // which the kernel reads and writes; both outlive the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &mut request) };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_there_is_an_error() {
        assert!(offloads("nonesuch").is_err());
        assert!(driver("nonesuch").is_err());
        let long = offloads("a-name-longer-than-any-interface-has").unwrap_err();
        assert_eq!(long.kind(), io::ErrorKind::InvalidInput);
    }
}
