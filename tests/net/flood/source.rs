//! Where a flood comes from: SYNs from addresses that are nobody's, at a pace, and no more than so many.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use etherparse::{IpHeaders, Ipv4Header, Ipv6Header, PacketBuilder, TcpOptionElement, ip_number};
use fastrand::Rng;
use testbed::net::{MacAddr, packet};
use testbed::topology::{Family, HOST_LINK, Topology};

/// The client's end of its link, and the VNI host's.
pub(super) const ENDS: (MacAddr, MacAddr) = (MacAddr::local(0, 2), MacAddr::local(0, 1));
/// Frames that go out together. A veth's ring has 256 places.
const BURST: u32 = 32;

/// A flood of SYNs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flood {
    pub(super) family: Family,
    pub(super) port: u16,
    /// How many in all.
    pub(super) syns: u32,
    /// How many a second; the machine may be slower.
    pub(super) per_s: u32,
}

impl Flood {
    /// Sends it from the clients' host; how long it took.
    #[track_caller]
    pub(super) fn run(self, topology: &Topology) -> Duration {
        let run = || {
            let socket = packet::sender(HOST_LINK).unwrap();
            let mut rng = Rng::with_seed(0xf100d);
            let start = Instant::now();
            for sent in (0..self.syns).step_by(BURST as usize) {
                for _ in 0..BURST.min(self.syns - sent) {
                    match socket.send(&self.frame(&mut rng)) {
                        // A full ring loses it, as anywhere.
                        Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                        sent => assert!(sent.is_ok(), "{sent:?}"),
                    }
                }
                let due = Duration::from_secs_f64(f64::from(sent) / f64::from(self.per_s));
                pause(due.saturating_sub(start.elapsed()));
            }
            start.elapsed()
        };
        topology.client.run(run).unwrap()
    }

    fn frame(&self, rng: &mut Rng) -> Vec<u8> {
        let to = SocketAddr::new(self.family.vni(), self.port);
        let ip = match (to.ip(), self.source(rng)) {
            (IpAddr::V4(to), IpAddr::V4(from)) => {
                let header = Ipv4Header::new(0, 64, ip_number::TCP, from.octets(), to.octets());
                IpHeaders::Ipv4(header.unwrap(), Default::default())
            }
            (IpAddr::V6(to), IpAddr::V6(from)) => {
                let header = Ipv6Header {
                    source: from.octets(),
                    destination: to.octets(),
                    hop_limit: 64,
                    ..Ipv6Header::default()
                };
                IpHeaders::Ipv6(header, Default::default())
            }
            _ => unreachable!("addresses of one family"),
        };
        let options = [
            TcpOptionElement::MaximumSegmentSize(1_460),
            TcpOptionElement::SelectiveAcknowledgementPermitted,
            TcpOptionElement::Timestamp(rng.u32(1..), 0),
        ];
        let step = PacketBuilder::ethernet2(ENDS.0.0, ENDS.1.0)
            .ip(ip)
            .tcp(rng.u16(1_024..), self.port, rng.u32(..), 64_240)
            .syn()
            .options(&options)
            .unwrap();
        let mut frame = Vec::with_capacity(step.size(0));
        step.write(&mut frame, &[]).unwrap();
        frame
    }

    /// In the clients' network, so that instances answer, but none of its hosts.
    fn source(&self, rng: &mut Rng) -> IpAddr {
        match self.family {
            Family::V4 => Ipv4Addr::new(10, 77, 0, rng.u8(101..=254)).into(),
            Family::V6 => {
                let host = u128::from(rng.u64(1 << 32..));
                Ipv6Addr::from(0xfd77 << 112 | host).into()
            }
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the pace of the flood: there is no condition to wait for"
)]
fn pause(time: Duration) {
    if !time.is_zero() {
        thread::sleep(time);
    }
}
