//! Namespaces, links, addresses, offloads; and that all of it goes away.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

use testbed::cleanup;
use testbed::clock::wait_until;
use testbed::net::ethtool::{self, Offload};
use testbed::netns::{NETNS_DIR, Namespace};
use testbed::run::Run;
use testbed::topology::{Family, HOST_LINK, Topology};

const LIMIT: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_millis(200);

#[test]
fn a_namespace_has_a_name_and_loses_it() {
    let name = Run::begin().namespace("x");
    let path = Path::new(NETNS_DIR).join(&name);
    let namespace = Namespace::create(&name).unwrap();
    assert!(path.exists());
    let inside = namespace.run(|| std::fs::read_link("/proc/thread-self/ns/net").unwrap());
    let outside = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
    assert_ne!(inside.unwrap(), outside);
    drop(namespace);
    assert!(!path.exists());
}

#[test]
fn a_panic_leaves_nothing() {
    let name = Run::begin().namespace("x");
    let path = Path::new(NETNS_DIR).join(&name);
    let result = std::panic::catch_unwind(|| {
        let _namespace = Namespace::create(&name).unwrap();
        assert!(path.exists());
        panic!("on purpose");
    });
    assert!(result.is_err());
    assert!(!path.exists());
}

#[test]
fn a_sweep_takes_the_dead_and_spares_the_living() {
    let live = Namespace::create(&Run::begin().namespace("live")).unwrap();
    // No process has this id: it is above the kernel's largest pid_max.
    let dead = Namespace::create("mir4194305-0-dead").unwrap();
    cleanup::sweep();
    assert!(Path::new(NETNS_DIR).join(live.name()).exists());
    assert!(!Path::new(NETNS_DIR).join(dead.name()).exists());
}

#[test]
fn every_link_is_fit_for_xdp() {
    let topology = Topology::create(2).unwrap();
    for host in [&topology.client, &topology.instances[0].namespace] {
        let (checksum, receive, statistics) = host
            .run(|| {
                (
                    ethtool::get(HOST_LINK, Offload::TransmitChecksum).unwrap(),
                    ethtool::get(HOST_LINK, Offload::GenericReceive).unwrap(),
                    ethtool::statistics(HOST_LINK).unwrap(),
                )
            })
            .unwrap();
        assert!(!checksum);
        assert!(receive);
        assert!(
            statistics.contains_key("rx_queue_0_xdp_packets"),
            "{statistics:?}"
        );
    }
}

/// A connection through the plain router, made and used.
#[track_caller]
fn connect(topology: &Topology, family: Family) -> (TcpStream, TcpStream) {
    let address = SocketAddr::new(family.vni(), 7000);
    let instance = &topology.instances[0].namespace;
    let listener = instance
        .run(|| TcpListener::bind(address))
        .unwrap()
        .unwrap();
    let client = topology
        .client
        .run(|| TcpStream::connect_timeout(&address, LIMIT))
        .unwrap()
        .unwrap();
    (client, listener.accept().unwrap().0)
}

#[test]
fn an_instance_is_reached_at_the_vni() {
    let topology = Topology::create(2).unwrap();
    topology.route_plainly(&topology.instances[0]).unwrap();
    for family in Family::ALL {
        let (client, server) = connect(&topology, family);
        assert_eq!(server.peer_addr().unwrap().ip(), family.client());
        assert_eq!(client.peer_addr().unwrap().ip(), family.vni());
    }
}

#[test]
fn a_silent_instance_hears_and_does_not_answer() {
    let topology = Topology::create(1).unwrap();
    let instance = &topology.instances[0];
    topology.route_plainly(instance).unwrap();
    for family in Family::ALL {
        let socket = |host: &Namespace, ip| {
            let bound = host.run(|| UdpSocket::bind(SocketAddr::new(ip, 7000)));
            bound.unwrap().unwrap()
        };
        let client = socket(&topology.client, family.client());
        let server = socket(&instance.namespace, family.vni());
        client.connect((family.vni(), 7000)).unwrap();
        for socket in [&client, &server] {
            socket.set_read_timeout(Some(LIMIT)).unwrap();
        }
        client.send(b"before").unwrap();
        let (_, from) = server.recv_from(&mut [0; 9]).unwrap();
        server.send_to(b"answer", from).unwrap();
        client.recv(&mut [0; 9]).unwrap();

        instance.silence().unwrap();
        client.send(b"after").unwrap();
        server.recv_from(&mut [0; 9]).unwrap();
        // Some kernels report the drop to the sender, others do not.
        let _ = server.send_to(b"answer", from);
        client.set_read_timeout(Some(SHORT)).unwrap();
        let error = client.recv(&mut [0; 9]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
        instance.unsilence().unwrap();
    }
}

#[test]
fn a_link_that_goes_down_is_seen_at_the_other_end() {
    let topology = Topology::create(1).unwrap();
    let carrier = || topology.host.run(|| ethtool::has_carrier("ia")).unwrap();
    let found = |wanted| move |carrier: bool| (carrier == wanted).then_some(());
    wait_until("a carrier", LIMIT, || carrier().map(found(true))).unwrap();
    topology.instances[0].link_down().unwrap();
    wait_until("the loss of it", LIMIT, || carrier().map(found(false))).unwrap();
}
