//! First-writer delivery with real TCP stacks: the client is answered by whoever answers first, and waits neither for the slow nor
//! for the dead.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use testbed::agent::{Agent, Flow};
use testbed::clock::wait_until;
use testbed::topology::config::{Config, DetectConfig};
use testbed::topology::{Family, Topology};
use testbed::traffic::program::service;
use testbed::turns;

use crate::diff::{GOOD, REQUEST, serve};
use crate::support::LIMIT;

/// How late the active replica's answers come. An age to a busy machine, too, and less than any retransmission timer.
const LATE: Duration = Duration::from_millis(150);
const REQUESTS: usize = 9;

/// Nobody is ever found to be silent.
fn undetected(mut config: Config) -> Config {
    config.detect = Some(DetectConfig {
        poll_ms: 5,
        silent_ms: 60_000,
    });
    config
}

/// One connection that asks.
struct Asking {
    connection: TcpStream,
}

impl Asking {
    fn start(topology: &Topology, family: Family) -> Self {
        let connect = || TcpStream::connect(service(family));
        let connection = topology.client.run(connect).unwrap().unwrap();
        // With the acknowledgement hold nobody's next request must wait until the last one is acknowledged.
        connection.set_nodelay(true).unwrap();
        connection.set_read_timeout(Some(LIMIT)).unwrap();
        Self { connection }
    }

    /// How long the answer took.
    fn ask(&mut self) -> Duration {
        let start = Instant::now();
        self.connection.write_all(REQUEST).unwrap();
        let mut got = vec![0; GOOD.len()];
        self.connection.read_exact(&mut got).unwrap();
        assert_eq!(got, GOOD.as_bytes());
        start.elapsed()
    }
}

fn the_flow(agent: &Agent<'_>) -> Flow {
    agent.wait_warm(1, LIMIT).unwrap().remove(0)
}

/// How long answers of replicas take of which one is late: the one that would be the active one.
#[track_caller]
fn ask_with_one_late(family: Family, mode: &str, delivery: fn(Config) -> Config) -> Vec<Duration> {
    let topology = Topology::create(2).unwrap();
    for instance in &topology.instances {
        serve(instance, family, GOOD);
    }
    let config = delivery(undetected(topology.config().with_mode(mode)));
    let agent = Agent::start(&topology, &config).unwrap();
    let mut asking = Asking::start(&topology, family);
    let late = the_flow(&agent).active;
    let _late = topology.instance(&late).unwrap().delay(LATE).unwrap();
    let mut times: Vec<_> = (0..REQUESTS).map(|_| asking.ask()).collect();
    times.sort();
    // The one that is late has not been given up.
    assert!(the_flow(&agent).has_warm_mirror());
    times
}

#[track_caller]
fn check_late(family: Family, mode: &str) {
    let _turn = turns::alone();
    let times = ask_with_one_late(family, mode, |config| config);
    assert!(times[0] >= LATE, "nothing was late: {times:?}");
    let times = ask_with_one_late(family, mode, Config::with_first_delivery);
    assert!(times[REQUESTS / 2] < LATE, "{times:?}");
}

#[test]
fn nobody_waits_for_a_late_replica_ipv4_native() {
    check_late(Family::V4, "native");
}

#[test]
fn nobody_waits_for_a_late_replica_ipv6_generic() {
    check_late(Family::V6, "generic");
}

/// An instance falls silent between two answers, and nobody ever learns of it: its client does not either.
#[test]
fn nobody_waits_for_a_death_to_be_found_out() {
    let _turn = turns::alone();
    let topology = Topology::create(2).unwrap();
    for instance in &topology.instances {
        serve(instance, Family::V4, GOOD);
    }
    let mut config = undetected(topology.config().with_first_delivery());
    // The acknowledgement hold would wait.
    config.vni[0].ack = Some("async".into());
    let agent = Agent::start(&topology, &config).unwrap();
    let mut asking = Asking::start(&topology, Family::V4);
    the_flow(&agent);
    asking.ask();
    // Level, as the client's acknowledgement has shown.
    let flow = wait_until("both to have answered", LIMIT, || {
        let flow = agent.flows()?.remove(0);
        let level = flow.replicas.iter().all(|r| r.lag_bytes == 0);
        Ok(level.then_some(flow))
    })
    .unwrap();
    topology.instance(&flow.active).unwrap().silence().unwrap();
    let times: Vec<_> = (0..REQUESTS).map(|_| asking.ask()).collect();
    let state = agent.instances().unwrap();
    let silent = state.iter().find(|i| i.name == flow.active).unwrap();
    assert_eq!(silent.state, "up", "somebody found it out: {silent:?}");
    assert_ne!(agent.flows().unwrap()[0].active, flow.active);
    let longest = times.iter().max().unwrap();
    assert!(*longest < LATE, "{times:?}");
}
