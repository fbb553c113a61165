//! Ways that take less than the ends send: between a client and the VNI, where a router says so, and between the VNI and an
//! instance, where the VNI says so itself. Whatever is sent comes through, and mirrors stay in step.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::thread;
use std::time::Duration;

use testbed::agent::Agent;
use testbed::clock::wait_until;
use testbed::netns::Namespace;
use testbed::topology::{Family, Instance};
use testbed::traffic::program::{Client, service};

use crate::support::{LIMIT, Site, check_whole};

/// What the narrow part of a way takes.
const NARROW: u32 = 1_400;
/// Enough for each of two instances to be active for some: with all at one of them once in eight million times.
const CONNECTIONS: usize = 24;
/// Enough for every connection to send many packets that are as large as they may be.
const BYTES: u64 = 2_000_000;
const UDP_PORT: u16 = 9_001;
/// The largest datagram for which the client's own link has room.
const DATAGRAM: usize = 1_452;
/// How long an answer to one may take before it is asked for again.
const PATIENCE: Duration = Duration::from_millis(50);

fn counted(agent: &Agent<'_>, reason: &str) -> u64 {
    let counters = agent.status().unwrap().counters;
    counters.get(reason).copied().unwrap_or(0)
}

fn carried(client: &mut Client) -> anyhow::Result<u64> {
    let progress = client.progress()?;
    Ok(progress.bytes_received + progress.bytes_sent)
}

/// Waits until much more has come or gone.
#[track_caller]
fn wait_carried(client: &mut Client) {
    let start = carried(client).unwrap();
    wait_until("bytes", LIMIT, || {
        Ok((carried(client)? >= start + BYTES).then_some(()))
    })
    .unwrap();
}

fn start(host: &Namespace, family: Family, mix: &str) -> Client {
    let connections = CONNECTIONS.to_string();
    let arguments = [
        "--connections",
        &connections,
        "--mix",
        mix,
        "--download-rate",
        "150000",
        "--upload-rate",
        "150000",
    ];
    let client = Client::start(host, service(family), &arguments).unwrap();
    assert_eq!(client.running.failed, 0, "{:?}", client.running);
    client
}

fn everywhere() -> impl Iterator<Item = (&'static str, Family)> {
    let modes = ["native", "generic"].into_iter();
    modes.flat_map(|mode| Family::ALL.map(|family| (mode, family)))
}

/// Every flow has a mirror that could take over.
#[track_caller]
fn check_warm(agent: &Agent<'_>) {
    let flows = agent.flows().unwrap();
    let cold: Vec<_> = flows.iter().filter(|f| !f.has_warm_mirror()).collect();
    assert!(cold.is_empty(), "{cold:?}");
    assert_eq!(flows.len(), CONNECTIONS);
}

#[test]
fn every_replica_learns_what_the_way_to_the_client_takes() {
    for (mode, family) in everywhere() {
        let site = Site::new(2);
        let beyond = site.topology.connect_beyond(NARROW).unwrap();
        let agent = site.agent(&site.config().with_mode(mode));
        let mut client = start(&beyond, family, "download=1");
        wait_carried(&mut client);
        let told = counted(&agent, "icmp_error");
        assert!(told > 0, "{family:?} {mode}: the way is as wide as any");
        check_warm(&agent);
        // Who becomes active knows it.
        agent.act("takeover", "a").unwrap();
        wait_carried(&mut client);
        let flows = agent.flows().unwrap();
        assert!(flows.iter().all(|flow| flow.active == "b"), "{flows:?}");
        assert_eq!(counted(&agent, "icmp_error"), told, "{family:?} {mode}");
        check_whole(&client.finish().unwrap(), CONNECTIONS);
    }
}

/// Has clients send what one instance's link does not take. `both`: the instance knows it itself.
#[track_caller]
fn check_narrow_link(both: bool) {
    for (mode, family) in everywhere() {
        let site = Site::new(2);
        let instance = &site.topology.instances[1];
        instance.set_mtu(&site.topology.host, NARROW, both).unwrap();
        let agent = site.agent(&site.config().with_mode(mode));
        let mut client = start(&site.topology.client, family, "upload=1");
        wait_carried(&mut client);
        let told = counted(&agent, "packet_too_big");
        assert!(told > 0, "{family:?} {mode}");
        check_warm(&agent);
        check_whole(&client.finish().unwrap(), CONNECTIONS);
    }
}

#[test]
fn clients_learn_what_every_instances_link_takes() {
    // The instance announces it in its SYN-ACKs, of which a client hears the active replica's only.
    check_narrow_link(true);
}

#[test]
fn clients_learn_what_an_instance_does_not_know_of_its_own_link() {
    check_narrow_link(false);
}

/// Answers one datagram.
fn answer(instance: &Instance, family: Family) {
    let open = || UdpSocket::bind(SocketAddr::new(family.vni(), UDP_PORT));
    let socket = instance.namespace.run(open).unwrap().unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let mut bytes = [0; 1 << 11];
    let (length, client) = socket.recv_from(&mut bytes).unwrap();
    socket.send_to(&bytes[..length], client).unwrap();
}

#[test]
fn datagrams_come_through_once_their_sender_knows() {
    for (mode, family) in everywhere() {
        let site = Site::new(1);
        let instance = &site.topology.instances[0];
        instance.set_mtu(&site.topology.host, NARROW, true).unwrap();
        let config = site.config().with_mode(mode).with_mirrors(0);
        let agent = site.agent(&config);
        thread::scope(|scope| {
            scope.spawn(|| answer(instance, family));
            let open = || UdpSocket::bind(SocketAddr::new(family.client(), 0));
            let socket = site.topology.client.run(open).unwrap().unwrap();
            let service = SocketAddr::new(family.vni(), UDP_PORT);
            socket.connect(service).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            let question: Vec<u8> = (0..DATAGRAM).map(|place| place as u8).collect();
            let mut bytes = [0; 1 << 11];
            let length = wait_until("an answer", LIMIT, || {
                // The kernel cuts it into fragments once it knows.
                match socket.send(&question).and_then(|_| socket.recv(&mut bytes)) {
                    Ok(length) => Ok(Some(length)),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
                    // What has become of the last one, or of one before the server was there.
                    Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => Ok(None),
                    Err(error) if error.kind() == ErrorKind::ConnectionRefused => Ok(None),
                    Err(error) => Err(error.into()),
                }
            })
            .unwrap();
            assert!(bytes[..length] == question, "{length}");
        });
        assert!(counted(&agent, "packet_too_big") > 0, "{family:?} {mode}");
    }
}
