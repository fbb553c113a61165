//! New connections do not wait for a mirror that answers no SYN.

use nix::sys::signal::Signal;
use testbed::agent::Agent;
use testbed::net::{sysctl, timers};
use testbed::topology::{Family, Topology};
use testbed::traffic::program::{Client, serve, service};
use testbed::turns;

use crate::support::{check_connected_at_once, check_whole, wait_replies};

const CONNECTIONS: usize = 40;

/// The service of one instance stands still with a full listen queue, while its host lives.
#[track_caller]
fn check(family: Family, mode: &str) {
    let _turn = turns::beside();
    let topology = Topology::create(2).unwrap();
    let (a, b) = (&topology.instances[0], &topology.instances[1]);
    sysctl::set(&b.namespace, &[("net.core.somaxconn", "1")]).unwrap();
    let _server = serve(a).unwrap();
    let frozen = serve(b).unwrap();
    let config = topology.config().with_mode(mode);
    let agent = Agent::start(&topology, &config).unwrap();
    frozen.signal(Signal::SIGSTOP).unwrap();

    let repeated = timers::fired(&topology.client).unwrap();
    let connections = CONNECTIONS.to_string();
    let arguments = ["--connections", connections.as_str()];
    let mut client = Client::start(&topology.client, service(family), &arguments).unwrap();
    // A SYN-ACK that is held until somebody repeats it takes a second (RFC 6298, section 2).
    check_connected_at_once(&topology, repeated, &client);
    let flows = agent.flows().unwrap();
    let alone = flows.iter().filter(|flow| !flow.has_warm_mirror()).count();
    assert!(alone > CONNECTIONS / 2, "the queue was not full: {flows:?}");

    frozen.signal(Signal::SIGCONT).unwrap();
    wait_replies(&mut client, 100);
    check_whole(&client.finish().unwrap(), CONNECTIONS);
}

#[test]
fn a_full_listen_queue_delays_nobody_ipv4_native() {
    check(Family::V4, "native");
}

#[test]
fn a_full_listen_queue_delays_nobody_ipv6_generic() {
    check(Family::V6, "generic");
}
