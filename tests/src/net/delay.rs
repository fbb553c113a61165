//! Delays what a host sends: a longer way, as far as round trips are concerned.
//!
//! Not netem, which many small kernels are built without. The host's routes to its clients lead into a TUN device instead, a thread
//! holds each packet for as long as is wanted and puts it on the link.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::Socket;

use super::{MacAddr, packet};

const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
/// How late the thread may see that it is to end.
const LOOK: Duration = Duration::from_millis(50);

/// Holds packets for as long as this is there; then the device is gone, and with it the routes into it.
#[derive(Debug)]
pub struct Delay {
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Delay {
    /// In the calling thread's namespace: makes the device `name`; what is routed into it leaves by `link`, from `source` to
    /// `destination`, after `delay`.
    pub fn start(
        name: &str,
        link: &str,
        (source, destination): (MacAddr, MacAddr),
        delay: Duration,
    ) -> Result<Self> {
        let tun = open_tun(name).with_context(|| format!("TUN device {name}"))?;
        let socket = packet::sender(link)?;
        let mut addresses = [0; 12];
        addresses[..6].copy_from_slice(&destination.0);
        addresses[6..].copy_from_slice(&source.0);
        let end = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&end);
        let thread = thread::spawn(move || forward(tun, &socket, addresses, delay, &ended));
        Ok(Self {
            end,
            thread: Some(thread),
        })
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of it was printed.
            let _ = thread.join();
        }
    }
}

fn forward(mut tun: File, socket: &Socket, addresses: [u8; 12], delay: Duration, end: &AtomicBool) {
    let mut held: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let mut packet = vec![0; 65_536];
    while !end.load(Ordering::Relaxed) {
        let now = Instant::now();
        while held.front().is_some_and(|(due, _)| *due <= now) {
            if let Some((_, frame)) = held.pop_front() {
                // A full queue loses packets, as everywhere.
                let _ = socket.send(&frame);
            }
        }
        let due = held
            .front()
            .map(|(due, _)| due.saturating_duration_since(now));
        // Rounded up: it would turn for nothing.
        let wait = due
            .map_or(LOOK, |due| due + Duration::from_millis(1))
            .min(LOOK);
        let timeout = PollTimeout::try_from(wait).unwrap_or(PollTimeout::ZERO);
        let _ = poll(&mut [PollFd::new(tun.as_fd(), PollFlags::POLLIN)], timeout);
        loop {
            let length = match tun.read(&mut packet) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("TUN device: {error}"),
            };
            let kind = match packet[0] >> 4 {
                4 => ETH_P_IP,
                _ => ETH_P_IPV6,
            };
            let mut frame = addresses.to_vec();
            frame.extend(kind.to_be_bytes());
            frame.extend(&packet[..length]);
            held.push_back((Instant::now() + delay, frame));
        }
    }
}

fn open_tun(name: &str) -> Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")?;
    // SAFETY: it is made of integers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name[..libc::IFNAMSIZ - 1]
        .iter_mut()
        .zip(name.bytes())
    {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as i16;
    // SAFETY: the command reads and writes one `ifreq`, which outlives the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &mut request) };
    if result < 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    Ok(file)
}
