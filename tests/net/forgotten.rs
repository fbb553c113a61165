//! A flow that is silent for too long is forgotten, and its mirrors are let go: what they said would pass in their own numbers.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use testbed::agent::Agent;
use testbed::clock::wait_until;
use testbed::topology::{Family, Instance, Topology};
use testbed::traffic::program::service;
use testbed::turns;

use crate::support::LIMIT;

/// A server that answers each byte with another, until its only connection ends; then it tells its name and how.
fn serve(instance: &Instance, family: Family, ended: Sender<(String, Option<ErrorKind>)>) {
    let listen = || TcpListener::bind(service(family));
    let listener = instance.namespace.run(listen).unwrap().unwrap();
    let name = instance.name.clone();
    thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let mut byte = [0];
        let end = loop {
            match connection.read(&mut byte) {
                Ok(0) => break None,
                Ok(_) => connection.write_all(b"!").unwrap(),
                Err(error) => break Some(error.kind()),
            }
        };
        // The test may be over.
        let _ = ended.send((name, end));
    });
}

fn ask(connection: &mut TcpStream) {
    connection.write_all(b"?").unwrap();
    connection.read_exact(&mut [0]).unwrap();
}

#[track_caller]
fn check(family: Family, mode: &str) {
    let _turn = turns::beside();
    let topology = Topology::create(2).unwrap();
    let (sender, ended) = channel();
    for instance in &topology.instances {
        serve(instance, family, sender.clone());
    }
    let config = topology.config().patient().with_mode(mode).with_idle(1);
    let agent = Agent::start(&topology, &config).unwrap();
    let connect = || TcpStream::connect(service(family));
    let mut connection = topology.client.run(connect).unwrap().unwrap();
    connection.set_read_timeout(Some(LIMIT)).unwrap();
    ask(&mut connection);
    let active = agent.wait_warm(1, LIMIT).unwrap().remove(0).active;
    wait_until("the flow to be forgotten", LIMIT, || {
        Ok(agent.flows()?.is_empty().then_some(()))
    })
    .unwrap();
    let (mirror, end) = ended.recv_timeout(LIMIT).unwrap();
    assert_ne!(mirror, active);
    assert_eq!(end, Some(ErrorKind::ConnectionReset));
    // Its numbers are the client's: nobody has to know the flow for it to go on.
    ask(&mut connection);
    drop(connection);
    assert_eq!(ended.recv_timeout(LIMIT).unwrap(), (active, None));
}

#[test]
fn the_mirrors_of_a_forgotten_flow_are_let_go_ipv4_native() {
    check(Family::V4, "native");
}

#[test]
fn the_mirrors_of_a_forgotten_flow_are_let_go_ipv6_generic() {
    check(Family::V6, "generic");
}
