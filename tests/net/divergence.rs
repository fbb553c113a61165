//! Instances that do not answer alike are found out: the mirror goes cold and says why.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use testbed::agent::{Agent, Flow};
use testbed::clock::wait_until;
use testbed::topology::{Family, Instance, Topology};
use testbed::traffic::program::service;
use testbed::turns;

use crate::support::LIMIT;

/// A server on an instance that answers each byte with these, until its only connection ends.
fn answer(instance: &Instance, family: Family, answer: &'static [u8]) -> thread::JoinHandle<()> {
    let listen = || TcpListener::bind(service(family));
    let listener = instance.namespace.run(listen).unwrap().unwrap();
    thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        // Ends with the client, or with the reset of what is cold.
        while connection.read_exact(&mut [0]).is_ok() && connection.write_all(answer).is_ok() {}
    })
}

/// Asks time and again until the flow is as wanted, and returns it.
#[track_caller]
fn ask(
    family: Family,
    mode: &str,
    answers: [&'static [u8]; 2],
    until: impl Fn(u32, &Flow) -> bool,
) -> Flow {
    let _turn = turns::beside();
    let topology = Topology::create(2).unwrap();
    let pairs = topology.instances.iter().zip(answers);
    let servers: Vec<_> = pairs.map(|(i, a)| answer(i, family, a)).collect();
    let config = topology.config().patient().with_mode(mode);
    let agent = Agent::start(&topology, &config).unwrap();
    let connect = || TcpStream::connect(service(family));
    let mut connection = topology.client.run(connect).unwrap().unwrap();
    let warm = agent.wait_warm(1, LIMIT).unwrap();
    let active = topology
        .instances
        .iter()
        .position(|i| i.name == warm[0].active);
    let expected = answers[active.unwrap()];
    let mut asked = 0;
    let flow = wait_until("the flow to be as wanted", LIMIT, || {
        connection.write_all(b"?")?;
        let mut got = vec![0; expected.len()];
        connection.read_exact(&mut got)?;
        assert_eq!(got, expected);
        asked += 1;
        let flow = agent.flows()?.remove(0);
        Ok(until(asked, &flow).then_some(flow))
    })
    .unwrap();
    drop(connection);
    for server in servers {
        server.join().unwrap();
    }
    flow
}

/// Whether a mirror is cold because of what it said.
fn has_diverged(_: u32, flow: &Flow) -> bool {
    let mirror = flow.replicas.iter().find(|r| r.role == "mirror").unwrap();
    let is_told = mirror.reason.as_deref() == Some("diverged");
    assert_eq!(mirror.diverged_within.is_some(), is_told);
    mirror.state == "cold" && is_told
}

#[track_caller]
fn check(family: Family, mode: &str) {
    ask(family, mode, [b"made by a\n", b"made by b\n"], has_diverged);
    // Never level, whoever is active.
    ask(
        family,
        mode,
        [b"made by one\n", b"made by three\n"],
        has_diverged,
    );
    ask(
        family,
        mode,
        [b"made by three\n", b"made by one\n"],
        has_diverged,
    );
    let asked = |times: u32, flow: &Flow| {
        assert!(flow.has_warm_mirror(), "{flow:?}");
        times == 20
    };
    ask(family, mode, [b"made by one", b"made by one"], asked);
}

#[test]
fn a_mirror_that_answers_otherwise_is_cold_ipv4_native() {
    check(Family::V4, "native");
}

#[test]
fn a_mirror_that_answers_otherwise_is_cold_ipv6_generic() {
    check(Family::V6, "generic");
}
