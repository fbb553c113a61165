//! QUIC connections whose client gets another port in the middle, as behind a NAT that forgets: they go on with their instance.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use quinn::{
    ClientConfig, Connection, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig,
    ServerConfig, TokioRuntime,
};
use rustls::RootCertStore;
use rustls::pki_types::PrivatePkcs8KeyDer;
use testbed::agent::Agent;
use testbed::topology::{Family, Instance, Topology};
use tokio::runtime::Runtime;

use crate::support::{LIMIT, Site};

const PORT: u16 = 4_433;
const NAME: &str = "web.test";
/// So often the client's port changes. By their hashes alone all of them would find the same of three instances once in half a million.
const CHANGES: u64 = 12;
const BYTES: usize = 20_000;
/// How often a NAT looks whether it is to end.
const LOOK: Duration = Duration::from_millis(5);
/// Ids of each instance are of another length.
const ID_BYTES: [usize; 3] = [8, 20, 13];

/// Has a client's datagrams come from a port of its own choice, and from another one when it is told to.
struct Nat {
    inside: UdpSocket,
    /// What it has used; the last one is in use.
    outside: Mutex<Vec<Arc<UdpSocket>>>,
    end: AtomicBool,
}

impl Nat {
    fn new(topology: &Topology, family: Family) -> Self {
        let nat = Self {
            inside: bind(topology, loopback(family)),
            outside: Mutex::default(),
            end: AtomicBool::new(false),
        };
        nat.forget(topology, family);
        nat
    }

    /// Uses another port from now on.
    fn forget(&self, topology: &Topology, family: Family) {
        let socket = bind(topology, family.client());
        socket.connect(service(family)).unwrap();
        self.outside.lock().unwrap().push(Arc::new(socket));
    }

    fn current(&self) -> Arc<UdpSocket> {
        Arc::clone(self.outside.lock().unwrap().last().unwrap())
    }

    /// Carries datagrams out until it is to end.
    fn carry_out(&self) {
        let mut bytes = [0; 1 << 16];
        while !self.end.load(Ordering::Relaxed) {
            if let Some(length) = receive(&self.inside, &mut bytes) {
                let _ = self.current().send(&bytes[..length]);
            }
        }
    }

    /// Carries them in. What comes to a port that was forgotten is lost.
    fn carry_in(&self, client: SocketAddr) {
        let mut bytes = [0; 1 << 16];
        while !self.end.load(Ordering::Relaxed) {
            if let Some(length) = receive(&self.current(), &mut bytes) {
                self.inside.send_to(&bytes[..length], client).unwrap();
            }
        }
    }
}

/// Ends a NAT whatever happens, or a test that has failed would wait for it.
struct Ending<'a>(&'a Nat);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.end.store(true, Ordering::Relaxed);
    }
}

fn loopback(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::LOCALHOST.into(),
        Family::V6 => Ipv6Addr::LOCALHOST.into(),
    }
}

fn service(family: Family) -> SocketAddr {
    SocketAddr::new(family.vni(), PORT)
}

fn bind(topology: &Topology, address: IpAddr) -> UdpSocket {
    let open = || UdpSocket::bind(SocketAddr::new(address, 0));
    let socket = topology.client.run(open).unwrap().unwrap();
    socket.set_read_timeout(Some(LOOK)).unwrap();
    socket
}

/// A datagram, unless none comes for a while.
fn receive(socket: &UdpSocket, bytes: &mut [u8]) -> Option<usize> {
    match socket.recv(bytes) {
        Ok(length) => Some(length),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
            None
        }
    }
}

/// Ids of so many bytes.
struct Ids(usize);

impl ConnectionIdGenerator for Ids {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut bytes = [0; 20];
        fastrand::fill(&mut bytes);
        ConnectionId::new(&bytes[..self.0])
    }

    fn cid_len(&self) -> usize {
        self.0
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// A QUIC server that says what it is told.
fn serve(instance: &Instance, family: Family, config: ServerConfig, id_bytes: usize) {
    let open = || UdpSocket::bind(service(family));
    let socket = instance.namespace.run(open).unwrap().unwrap();
    let mut ends = EndpointConfig::default();
    ends.cid_generator(move || Box::new(Ids(id_bytes)));
    let runtime = Arc::new(TokioRuntime);
    let endpoint = Endpoint::new(ends, Some(config), socket, runtime).unwrap();
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            tokio::spawn(async move {
                // A mirror's handshake is never answered.
                let Ok(connection) = incoming.await else {
                    return;
                };
                while let Ok((mut answer, mut question)) = connection.accept_bi().await {
                    let Ok(bytes) = question.read_to_end(BYTES).await else {
                        return;
                    };
                    let _ = answer.write_all(&bytes).await;
                    let _ = answer.finish();
                }
            });
        }
    });
}

/// Bytes that tell their place and their round.
fn pattern(round: u64) -> Vec<u8> {
    (0..BYTES as u64)
        .map(|place| (place * 7 / 3 + round * 11) as u8)
        .collect()
}

async fn exchange(connection: &Connection, round: u64) {
    let question = pattern(round);
    let answer = async {
        let (mut out, mut back) = connection.open_bi().await.unwrap();
        out.write_all(&question).await.unwrap();
        out.finish().unwrap();
        back.read_to_end(BYTES).await.unwrap()
    };
    let answer = tokio::time::timeout(LIMIT, answer).await;
    assert!(answer.expect("no answer") == question, "round {round}");
}

fn counted(agent: &Agent<'_>, reason: &str) -> u64 {
    let counters = agent.status().unwrap().counters;
    counters.get(reason).copied().unwrap_or(0)
}

/// Has the port of a client change in the middle of its connection.
fn check_followed(runtime: &Runtime, site: &Site, agent: &Agent<'_>, family: Family, ends: &Ends) {
    let _context = runtime.enter();
    for (instance, id_bytes) in site.topology.instances.iter().zip(ID_BYTES) {
        serve(instance, family, ends.server.clone(), id_bytes);
    }
    let socket = bind(&site.topology, loopback(family));
    let client = socket.local_addr().unwrap();
    let tokio = Arc::new(TokioRuntime);
    let endpoint = Endpoint::new(EndpointConfig::default(), None, socket, tokio).unwrap();
    let nat = Nat::new(&site.topology, family);
    let inside = nat.inside.local_addr().unwrap();
    let before = counted(agent, "quic_followed");
    thread::scope(|scope| {
        let _ending = Ending(&nat);
        scope.spawn(|| nat.carry_out());
        scope.spawn(|| nat.carry_in(client));
        let connecting = endpoint.connect_with(ends.client.clone(), inside, NAME);
        let connection = runtime.block_on(connecting.unwrap()).unwrap();
        runtime.block_on(exchange(&connection, 0));
        for round in 1..=CHANGES {
            nat.forget(&site.topology, family);
            runtime.block_on(exchange(&connection, round));
            assert_eq!(counted(agent, "quic_followed") - before, round);
        }
        connection.close(0_u8.into(), b"");
        runtime.block_on(endpoint.wait_idle());
    });
}

/// How both ends speak.
struct Ends {
    server: ServerConfig,
    client: ClientConfig,
}

impl Ends {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let chain = vec![made.cert.der().clone()];
        let mut roots = RootCertStore::empty();
        roots.add(chain[0].clone()).unwrap();
        Self {
            server: ServerConfig::with_single_cert(chain, key.into()).unwrap(),
            client: ClientConfig::with_root_certificates(Arc::new(roots)).unwrap(),
        }
    }
}

#[test]
fn a_connection_goes_on_when_its_clients_port_changes() {
    for mode in ["native", "generic"] {
        let site = Site::new(3);
        let mut config = site.config().with_mode(mode);
        config.vni[0].quic_ports = vec![PORT];
        let agent = site.agent(&config);
        let runtime = Runtime::new().unwrap();
        let ends = Ends::new();
        for family in Family::ALL {
            check_followed(&runtime, &site, &agent, family, &ends);
        }
        let opened = counted(&agent, "flow_opened");
        assert_eq!(opened, 2 * (CHANGES + 1), "{mode}");
    }
}
