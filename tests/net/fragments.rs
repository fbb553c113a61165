//! Datagrams larger than a link takes in one frame, both ways and each answered once, and fragments that no host would
//! send.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, Scope};
use std::time::Duration;

use etherparse::PacketBuilder;
use testbed::agent::Agent;
use testbed::clock::wait_until;
use testbed::net::{MacAddr, fragments, packet};
use testbed::topology::{Family, HOST_LINK, Instance, Topology};

use crate::support::{LIMIT, Site};

const PORT: u16 = 9_001;
/// How often a server looks whether it is to end.
const LOOK: Duration = Duration::from_millis(20);
const ETHERNET: usize = 14;
/// A fragment's part of a datagram: a multiple of 8 for which a frame has room with either family's headers.
const UNIT: usize = 1_448;

fn service(family: Family) -> SocketAddr {
    SocketAddr::new(family.vni(), PORT)
}

/// Servers that say what they are told.
struct Servers {
    end: AtomicBool,
    /// Datagrams that they were told.
    told: AtomicU64,
}

impl Servers {
    fn new() -> Self {
        Self {
            end: AtomicBool::new(false),
            told: AtomicU64::new(0),
        }
    }

    fn start<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>, topology: &Topology) {
        for instance in &topology.instances {
            for family in Family::ALL {
                let socket = bind(instance, family);
                scope.spawn(move || self.serve(&socket));
            }
        }
    }

    /// Waits until they were told so many datagrams.
    #[track_caller]
    fn wait_told(&self, wanted: u64) {
        let told = || self.told.load(Ordering::Relaxed);
        wait_until("every replica", LIMIT, || {
            Ok((told() >= wanted).then_some(()))
        })
        .unwrap_or_else(|error| panic!("{error}: {} of {wanted}", told()));
    }

    fn serve(&self, socket: &UdpSocket) {
        let mut bytes = vec![0; 1 << 16];
        while !self.end.load(Ordering::Relaxed) {
            match socket.recv_from(&mut bytes) {
                Ok((length, client)) => {
                    self.told.fetch_add(1, Ordering::Relaxed);
                    socket.send_to(&bytes[..length], client).unwrap();
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
            }
        }
    }
}

/// Ends servers whatever happens, or a test that has failed would wait for them.
struct Ending<'a>(&'a Servers);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.end.store(true, Ordering::Relaxed);
    }
}

fn bind(instance: &Instance, family: Family) -> UdpSocket {
    let open = || UdpSocket::bind(service(family));
    let socket = instance.namespace.run(open).unwrap().unwrap();
    socket.set_read_timeout(Some(LOOK)).unwrap();
    socket
}

fn client(topology: &Topology, family: Family) -> UdpSocket {
    let open = || UdpSocket::bind(SocketAddr::new(family.client(), 0));
    let socket = topology.client.run(open).unwrap().unwrap();
    socket.connect(service(family)).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    socket
}

fn counted(agent: &Agent<'_>, reason: &str) -> u64 {
    let counters = agent.status().unwrap().counters;
    counters.get(reason).copied().unwrap_or(0)
}

/// Bytes that tell their place.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|place| (place * 7 / 3) as u8).collect()
}

/// The answer, and no second one.
#[track_caller]
fn check_answer(client: &UdpSocket, question: &[u8]) {
    let mut bytes = vec![0; 1 << 16];
    let length = client.recv(&mut bytes).unwrap();
    assert!(
        bytes[..length] == *question,
        "{length} of {}",
        question.len()
    );
}

#[test]
fn large_datagrams_are_answered_once() {
    for mode in ["native", "generic"] {
        let site = Site::new(3);
        // A mirror's answer that got by would reach the client.
        site.topology.forward().unwrap();
        let agent = site.agent(&site.config().with_mode(mode).with_mirrors(2));
        let servers = Servers::new();
        thread::scope(|scope| {
            let _ending = Ending(&servers);
            servers.start(scope, &site.topology);
            let mut asked = 0;
            for family in Family::ALL {
                let client = client(&site.topology, family);
                let questions = [1_473, 4_000, 4_001, 9_000, 30_000, 60_000].map(pattern);
                // Whatever was said twice has come before the answer to the last.
                for question in questions.iter().map(Vec::as_slice).chain([&b"last"[..]]) {
                    client.send(question).unwrap();
                    check_answer(&client, question);
                    // A mirror may well be the last to hear it, and has no room for two of the long ones.
                    asked += 1;
                    servers.wait_told(3 * asked);
                }
            }
        });
        assert_eq!(servers.told.load(Ordering::Relaxed), 3 * 2 * 7, "{mode}");
        assert_eq!(counted(&agent, "fragment_unknown"), 0, "{mode}");
        let flows = agent.flows().unwrap();
        let warm = flows.iter().filter(|flow| flow.has_warm_mirror()).count();
        assert_eq!((flows.len(), warm), (2, 2), "{flows:?}");
    }
}

/// A whole datagram in one frame, too large for any link, to be cut.
fn datagram(family: Family, port: u16, payload: &[u8]) -> Vec<u8> {
    let ends = PacketBuilder::ethernet2(MacAddr::local(0, 2).0, MacAddr::local(0, 1).0);
    let mut frame = Vec::new();
    match (family.client(), family.vni()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => ends
            .ipv4(from.octets(), to.octets(), 64)
            .udp(port, PORT)
            .write(&mut frame, payload),
        (IpAddr::V6(from), IpAddr::V6(to)) => ends
            .ipv6(from.octets(), to.octets(), 64)
            .udp(port, PORT)
            .write(&mut frame, payload),
        _ => unreachable!("addresses of one family"),
    }
    .unwrap();
    frame
}

/// The last fragment first, and fragments that overlap: what cannot be followed is dropped, and hosts get what they
/// judge by themselves.
#[test]
fn fragments_in_the_wrong_order_or_on_each_other_do_no_harm() {
    let site = Site::new(2);
    let agent = site.agent(&site.config());
    let servers = Servers::new();
    thread::scope(|scope| {
        let _ending = Ending(&servers);
        servers.start(scope, &site.topology);
        let open = || packet::sender(HOST_LINK);
        let line = site.topology.client.run(open).unwrap().unwrap();
        for family in Family::ALL {
            let client = client(&site.topology, family);
            let port = client.local_addr().unwrap().port();
            let question = pattern(4_000);
            let frame = datagram(family, port, &question);
            let pieces = fragments::cut(&frame, ETHERNET, UNIT, 1);
            assert_eq!(pieces.len(), 3);
            let unknown = counted(&agent, "fragment_unknown");
            for piece in [&pieces[2], &pieces[1], &pieces[0]] {
                line.send(piece).unwrap();
            }
            // They come again in another order that begins with the first.
            for piece in [&pieces[0], &pieces[2], &pieces[1]] {
                line.send(piece).unwrap();
            }
            check_answer(&client, &question);
            assert_eq!(counted(&agent, "fragment_unknown") - unknown, 2);

            // Each of them tells other bytes of the same place, the first one's ports among them.
            let other = datagram(family, port, &vec![0xee; 4_000]);
            for (number, from) in [0, 8, UNIT - 8].into_iter().enumerate() {
                let id = 10 + number as u16;
                line.send(&fragments::piece(&frame, ETHERNET, (0, UNIT), id))
                    .unwrap();
                let lying = fragments::piece(&other, ETHERNET, (from, from + UNIT), id);
                line.send(&lying).unwrap();
                let rest = fragments::piece(&frame, ETHERNET, (2 * UNIT, 4_008), id);
                line.send(&rest).unwrap();
            }
            client.send(b"whole").unwrap();
            check_answer(&client, b"whole");
        }
        let instances = agent.instances().unwrap();
        assert!(instances.iter().all(|i| i.state == "up"), "{instances:?}");
    });
}
