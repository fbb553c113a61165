//! Packet sockets: frames onto a link, and how many of a kind come by it.

use std::io;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use nix::net::if_::if_nametoindex;
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, Socket, Type};

/// A socket that sends frames on a link and receives none.
pub fn sender(link: &str) -> Result<Socket> {
    open(link, 0).with_context(|| format!("packet socket on {link}"))
}

/// Counts the SYNs of new connections that come by a link, TCP without options in front of it.
#[derive(Debug)]
pub struct SynTally(Socket);

impl SynTally {
    /// Begins to count, in the calling thread's namespace.
    pub fn start(link: &str) -> Result<Self> {
        const SYN: u32 = 0x02;
        const SYN_ACK: u32 = 0x12;
        let [load_half, load_byte] = [
            (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16,
            (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16,
        ];
        let equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
        let and = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
        let give = (libc::BPF_RET | libc::BPF_K) as u16;
        let step = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
        // Jumps count from the next step on; the last step refuses.
        let program = [
            step(load_half, 12, 0, 0),
            step(equal, libc::ETH_P_IP as u32, 0, 5),
            step(load_byte, 14 + 9, 0, 0),
            step(equal, libc::IPPROTO_TCP as u32, 0, 10),
            step(load_byte, 14 + 20 + 13, 0, 0),
            step(and, SYN_ACK, 0, 0),
            step(equal, SYN, 6, 7),
            step(equal, libc::ETH_P_IPV6 as u32, 0, 6),
            step(load_byte, 14 + 6, 0, 0),
            step(equal, libc::IPPROTO_TCP as u32, 0, 4),
            step(load_byte, 14 + 40 + 13, 0, 0),
            step(and, SYN_ACK, 0, 0),
            step(equal, SYN, 0, 1),
            step(give, 1, 0, 0),
            step(give, 0, 0, 0),
        ];
        // Nothing comes in before the filter is there.
        let socket = open(link, 0)?;
        let filter = libc::sock_fprog {
            len: program.len() as u16,
            filter: program.as_ptr().cast_mut(),
        };
        set(&socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &filter).context("filter")?;
        bind(&socket, link, libc::ETH_P_ALL as u16)?;
        Ok(Self(socket))
    }

    /// How many there were since the last call.
    pub fn take(&self) -> Result<u64> {
        // SAFETY: it is made of integers.
        let mut statistics: libc::tpacket_stats = unsafe { std::mem::zeroed() };
        let mut length = size_of::<libc::tpacket_stats>() as libc::socklen_t;
        // SAFETY: the kernel writes at most `length` bytes into the value, which outlives the call.
        let result = unsafe {
            libc::getsockopt(
                self.0.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut statistics).cast(),
                &mut length,
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error()).context("statistics of a packet socket");
        }
        // Those that there was no room for are among them: nobody reads them.
        Ok(statistics.tp_packets.into())
    }
}

/// A packet socket on a link; with protocol 0 it receives nothing.
fn open(link: &str, protocol: u16) -> Result<Socket> {
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
    bind(&socket, link, protocol)?;
    Ok(socket)
}

fn bind(socket: &Socket, link: &str, protocol: u16) -> Result<()> {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: `sockaddr_ll` is one of the types that the storage is for.
    let address: &mut libc::sockaddr_ll = unsafe { storage.view_as() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = if_nametoindex(link)?.cast_signed();
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the storage holds a `sockaddr_ll` of that length.
    let address = unsafe { SockAddr::new(storage, length) };
    Ok(socket.bind(&address)?)
}

fn set<T>(socket: &Socket, level: libc::c_int, name: libc::c_int, value: &T) -> Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel reads `length` bytes of the value, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(value).cast(),
            length,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error().into()),
    }
}
