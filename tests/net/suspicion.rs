//! A false alarm: an instance that falls silent for a moment and goes on. Its connections move, none
//! of them loses a warm replica, and the next real failure harms nobody.

use testbed::agent::{Agent, Flow};
use testbed::clock::wait_until;
use testbed::topology::Family;

use crate::support::{LIMIT, Site, check_whole, wait_replies};

#[track_caller]
fn wait_state(agent: &Agent<'_>, name: &str, state: &str) {
    wait_until(&format!("{name} to be {state}"), LIMIT, || {
        let instances = agent.instances()?;
        let found = instances.iter().find(|instance| instance.name == name);
        Ok(found.filter(|found| found.state == state).map(drop))
    })
    .unwrap();
}

#[track_caller]
fn check(family: Family, mode: &str) {
    let site = Site::new(2);
    let agent = site.agent(&site.topology.config().with_mode(mode));
    let mut client = site.client(family, 30);
    agent.wait_warm(30, LIMIT).unwrap();
    let (a, b) = (&site.topology.instances[0], &site.topology.instances[1]);

    a.silence().unwrap();
    wait_state(&agent, "a", "suspect");
    a.unsilence().unwrap();
    wait_state(&agent, "a", "up");
    let flows = agent.flows().unwrap();
    let open: Vec<&Flow> = flows.iter().filter(|flow| flow.state != "closed").collect();
    assert_eq!(open.len(), 30);
    for flow in open {
        assert!(flow.has_warm_mirror(), "{flow:?}");
        assert_eq!(flow.active, "b", "{flow:?}");
    }
    wait_replies(&mut client, 100);

    b.link_down().unwrap();
    wait_until("a to serve", LIMIT, || {
        let flows = agent.flows()?;
        Ok(flows.iter().all(|flow| flow.active == "a").then_some(()))
    })
    .unwrap();
    wait_replies(&mut client, 100);
    check_whole(&client.finish().unwrap(), 30);
}

#[test]
fn costs_no_warm_replica_ipv4_native() {
    check(Family::V4, "native");
}

#[test]
fn costs_no_warm_replica_ipv6_generic() {
    check(Family::V6, "generic");
}

/// Silent for longer, it is dead, and is tried out when it is heard again.
#[test]
fn silence_that_lasts_is_death() {
    let site = Site::new(2);
    let agent = site.agent(&site.topology.config());
    let mut client = site.client(Family::V4, 30);
    agent.wait_warm(30, LIMIT).unwrap();
    let a = &site.topology.instances[0];
    a.silence().unwrap();
    wait_state(&agent, "a", "suspect");
    wait_state(&agent, "a", "dead");
    a.unsilence().unwrap();
    wait_state(&agent, "a", "up");
    wait_replies(&mut client, 100);
    check_whole(&client.finish().unwrap(), 30);
}
