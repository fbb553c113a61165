//! What is measured of instances while packets pass, with real servers: stuck ones, and such as take no more connections.

use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::Signal;
use serde::Deserialize;
use testbed::agent::Agent;
use testbed::clock::wait_until;
use testbed::net::sysctl;
use testbed::topology::{Family, Topology};
use testbed::traffic::program::{Client, serve, service};
use testbed::turns;

use crate::support::{LIMIT, wait_replies};

/// Longer than a client waits before it sends its SYN again (RFC 6298: one second).
const CONNECT_LIMIT: Duration = Duration::from_millis(2_500);

/// A kernel acknowledges for a process by then.
const DELAYED_ACK_MS: f64 = 40.0;

/// Of `instances --json`.
#[derive(Debug, Deserialize)]
struct Measured {
    name: String,
    in_flight: Option<u64>,
    requests_per_s: Option<f64>,
    mirror_lag_bytes: Option<u64>,
    ack_p50_ms: Option<f64>,
    ack_p99_ms: Option<f64>,
    answer_p50_ms: Option<f64>,
    answer_p99_ms: Option<f64>,
}

/// Waits until it is as it should be of two instances.
#[track_caller]
fn wait_measured(agent: &Agent<'_>, what: &str, is: impl Fn(&Measured, &Measured) -> bool) {
    wait_until(what, LIMIT, || {
        let rows: Vec<Measured> = agent.json(&["instances"])?;
        let of = |name: &str| rows.iter().find(|row| row.name == name).unwrap();
        Ok(is(of("a"), of("b")).then_some(()))
    })
    .unwrap_or_else(|error| {
        let rows: Result<Vec<Measured>> = agent.json(&["instances"]);
        panic!("{error:?}: {rows:?}")
    });
}

/// The acknowledgements of its kernel go on; the answers of its process do not.
#[test]
fn a_stopped_server_has_requests_in_flight() {
    let _turn = turns::beside();
    let topology = Topology::create(2).unwrap();
    let servers: Vec<_> = topology
        .instances
        .iter()
        .map(|i| serve(i).unwrap())
        .collect();
    let agent = Agent::start(&topology, &topology.config().patient()).unwrap();
    let arguments = ["--connections", "30"];
    let mut client = Client::start(&topology.client, service(Family::V4), &arguments).unwrap();
    agent.wait_warm(30, LIMIT).unwrap();
    wait_replies(&mut client, 300);
    wait_measured(&agent, "times and requests of both", |a, b| {
        [a, b].into_iter().all(|of| {
            of.ack_p50_ms.is_some_and(|ms| ms > 0.0)
                && of.ack_p99_ms >= of.ack_p50_ms
                && of.answer_p50_ms.is_some_and(|ms| ms > 0.0)
                && of.requests_per_s.is_some_and(|rate| rate > 0.0)
                && of.mirror_lag_bytes.is_some()
                && of.in_flight.is_some_and(|requests| requests <= 30)
        })
    });
    servers[1].signal(Signal::SIGSTOP).unwrap();
    wait_measured(&agent, "b to owe answers that a does not", |a, b| {
        b.in_flight > Some(5) && b.in_flight > a.in_flight.map(|requests| requests + 5)
    });
    servers[1].signal(Signal::SIGCONT).unwrap();
    wait_measured(&agent, "b's clients to have waited", |a, b| {
        b.answer_p99_ms > Some(2.0 * DELAYED_ACK_MS) && a.answer_p99_ms < b.answer_p99_ms
    });
    wait_replies(&mut client, 300);
    wait_measured(&agent, "b to owe no more than a", |a, b| {
        b.in_flight <= a.in_flight.map(|requests| requests + 5)
    });
    drop(client);
}

/// The sum of a counter's samples, of an instance.
fn counter(text: &str, name: &str, instance: &str) -> f64 {
    let wanted = format!("{name}{{compute_instance=\"{instance}\"}} ");
    let found = text.lines().find_map(|line| line.strip_prefix(&wanted));
    found.map_or(0.0, |value| value.parse().unwrap())
}

/// As many connections as that at once, each kept for a moment; how many came to be.
fn connect(topology: &Topology, connections: usize) -> usize {
    let all = || {
        thread::scope(|scope| {
            let tried: Vec<_> = (0..connections)
                .map(|_| {
                    let address = service(Family::V4);
                    scope.spawn(move || TcpStream::connect_timeout(&address, CONNECT_LIMIT).ok())
                })
                .collect();
            let made = tried.into_iter().filter_map(|one| one.join().unwrap());
            made.count()
        })
    };
    topology.client.run(all).unwrap()
}

/// A process that accepts nothing: its queue fills, and the kernel answers no further SYN.
#[test]
fn a_full_queue_leaves_syns_unanswered() {
    let _turn = turns::beside();
    let topology = Topology::create(2).unwrap();
    // Of `b` alone: connections that come at once can fill so short a queue of a
    // server that accepts, too.
    let short = &topology.instances[1].namespace;
    sysctl::set(short, &[("net.core.somaxconn", "2")]).unwrap();
    let servers: Vec<_> = topology
        .instances
        .iter()
        .map(|instance| serve(instance).unwrap())
        .collect();
    let agent = Agent::start(&topology, &topology.config().patient().with_mirrors(0)).unwrap();
    let told = |what: &str, instance: &str| {
        let text = agent.text(&["metrics"]).unwrap();
        counter(&text, &format!("mirror_instance_{what}"), instance)
    };
    let unanswered = |instance: &str| told("unanswered_syns_total", instance);
    let answered = |instance: &str| told("handshake_seconds_count", instance);
    assert_eq!(connect(&topology, 10), 10);
    let before = unanswered("a");
    servers[1].signal(Signal::SIGSTOP).unwrap();
    // Some of the first fill the queue; from then on only the other one answers.
    wait_until("unanswered SYNs", LIMIT, || {
        connect(&topology, 16);
        let is_full = unanswered("b") > 0.0 && answered("a") > answered("b");
        Ok(is_full.then_some(()))
    })
    .unwrap();
    assert_eq!(unanswered("a"), before);
}
