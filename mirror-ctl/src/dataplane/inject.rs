//! Sends single frames out of an interface, past the XDP programs.

use std::{io, os::fd::OwnedFd};

use super::sys;

/// A packet socket that only sends.
pub struct Injector(OwnedFd);

impl Injector {
    /// Opens the socket, in this network namespace. Needs `CAP_NET_RAW`.
    pub fn open() -> io::Result<Self> {
        sys::packet_socket().map(Self)
    }

    /// Sends a frame that begins with its Ethernet header.
    pub fn send(&self, ifindex: u32, frame: &[u8]) -> io::Result<()> {
        sys::send_frame(&self.0, ifindex, frame)
    }
}
