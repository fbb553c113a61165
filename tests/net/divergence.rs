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

/// Asks three times and says what became of the mirror.
#[track_caller]
fn ask(family: Family, mode: &str, answers: [&'static [u8]; 2]) -> Flow {
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
    for _ in 0..3 {
        connection.write_all(b"?").unwrap();
        let mut got = vec![0; expected.len()];
        connection.read_exact(&mut got).unwrap();
        assert_eq!(got, expected);
        // So that both have answered: the mirror's word comes unseen.
        wait_until("both to have answered", LIMIT, || {
            let flows = agent.flows()?;
            let replicas = &flows[0].replicas;
            let done = replicas
                .iter()
                .all(|r| r.lag_bytes == 0 || r.state == "cold");
            Ok(done.then_some(()))
        })
        .unwrap();
    }
    let flow = agent.flows().unwrap().remove(0);
    drop(connection);
    for server in servers {
        server.join().unwrap();
    }
    flow
}

#[track_caller]
fn check(family: Family, mode: &str) {
    let flow = ask(family, mode, [b"made by a\n", b"made by b\n"]);
    let mirror = flow.replicas.iter().find(|r| r.role == "mirror").unwrap();
    assert_eq!(mirror.state, "cold", "{flow:?}");
    assert_eq!(mirror.reason.as_deref(), Some("diverged"), "{flow:?}");
    let flow = ask(family, mode, [b"made by one", b"made by one"]);
    assert!(flow.has_warm_mirror(), "{flow:?}");
}

#[test]
fn a_mirror_that_answers_otherwise_is_cold_ipv4_native() {
    check(Family::V4, "native");
}

#[test]
fn a_mirror_that_answers_otherwise_is_cold_ipv6_generic() {
    check(Family::V6, "generic");
}
