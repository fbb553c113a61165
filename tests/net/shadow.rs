//! A canary is judged on live traffic: it gets every flow's packets, its answers are compared, and it never serves anybody.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;

use testbed::agent::{Agent, InstanceStatus};
use testbed::clock::wait_until;
use testbed::topology::{Family, Topology};
use testbed::traffic::program::service;
use testbed::turns;

use crate::diff::{BAD, GOOD, REQUEST, ask, compare, serve};
use crate::support::LIMIT;

/// What `diff` says of a canary that answers so, while clients ask.
#[track_caller]
fn judge(family: Family, mode: &str, canary: &'static str) {
    let _turn = turns::beside();
    let topology = Topology::create(3).unwrap();
    for (instance, answer) in topology.instances.iter().zip([GOOD, GOOD, canary]) {
        serve(instance, family, answer);
    }
    let config = topology
        .config()
        .patient()
        .with_mode(mode)
        .with_canaries(["c"]);
    let agent = Agent::start(&topology, &config).unwrap();
    let (report, answers) = compare(&agent, &topology, family);
    assert_eq!(answers, BTreeSet::from([GOOD.to_owned()]));
    let [mirror] = &report.mirrors[..] else {
        panic!("{report:?}");
    };
    assert_eq!(mirror.instance, "c", "{mirror:?}");
    if canary == GOOD {
        mirror.check_same();
    } else {
        mirror.check_diverged();
        let sample = mirror.first_sample();
        assert!(["a", "b"].contains(&sample.active.as_str()), "{sample:?}");
        sample.check(GOOD, canary);
    }
    let flows = agent.flows().unwrap();
    for flow in &flows {
        assert!(flow.active != "c" && flow.takeovers == 0, "{flow:?}");
        assert_eq!(flow.replicas.len(), 2, "{flow:?}");
    }
}

#[test]
fn a_canary_that_answers_otherwise_is_found_out_ipv4_native() {
    judge(Family::V4, "native", BAD);
}

#[test]
fn a_canary_that_answers_alike_is_said_to_ipv6_generic() {
    judge(Family::V6, "generic", GOOD);
}

#[test]
fn a_shadow_never_serves() {
    let _turn = turns::beside();
    let topology = Topology::create(3).unwrap();
    for instance in &topology.instances {
        serve(instance, Family::V4, GOOD);
    }
    let agent = Agent::start(&topology, &topology.config().patient().with_canaries(["c"])).unwrap();
    let connect = || TcpStream::connect(service(Family::V4));
    let mut connection = topology.client.run(connect).unwrap().unwrap();
    connection.set_read_timeout(Some(LIMIT)).unwrap();
    let flow = agent.wait_warm(1, LIMIT).unwrap().remove(0);
    let warm = flow
        .replicas
        .iter()
        .find(|replica| replica.role == "mirror")
        .unwrap();
    assert_eq!(warm.instance, "c");
    let mut exchange = |expected: bool| {
        let asked = connection.write_all(REQUEST);
        let mut got = vec![0; GOOD.len()];
        let answered = asked.and_then(|()| connection.read_exact(&mut got));
        assert_eq!(answered.is_ok(), expected, "{answered:?}");
    };
    exchange(true);
    // An evacuated one keeps its flows, for there is nobody they could go to.
    agent.act("evacuate", &flow.active).unwrap();
    exchange(true);
    agent.act("restore", &flow.active).unwrap();
    agent.act("takeover", &flow.active).unwrap();
    // As a flow without mirrors: its client is told.
    exchange(false);
    let none = agent
        .flows()
        .unwrap()
        .iter()
        .all(|flow| flow.takeovers == 0 && flow.active != "c");
    assert!(none);
    // New ones go to who is left, and with that one gone too still not to the canary.
    ask(&topology, Family::V4, 2);
    let other = ["a", "b"]
        .into_iter()
        .find(|name| *name != flow.active)
        .unwrap();
    let shares = |instances: Vec<InstanceStatus>| {
        let of = |name: &str| instances.iter().find(|i| i.name == name).unwrap().share;
        (of(other), of("c"))
    };
    wait_until("new flows elsewhere", LIMIT, || {
        let (of_other, of_canary) = shares(agent.instances()?);
        Ok((of_other > 0.999 && of_canary == 0.0).then_some(()))
    })
    .unwrap();
    let forced = agent
        .verb(&["takeover", other, "--force"])
        .output()
        .unwrap();
    assert!(forced.status.success(), "{forced:?}");
    assert_eq!(shares(agent.instances().unwrap()).1, 0.0);
}
