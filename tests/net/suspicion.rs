//! A false alarm: an instance that falls silent for a moment and goes on. Its connections move, none
//! of them loses a warm replica, and the next real failure harms nobody.

use anyhow::Result;
use testbed::agent::{Agent, Event, Flow};
use testbed::clock::wait_until;
use testbed::topology::Family;

use crate::support::{LIMIT, Site, check_whole, wait_replies};

/// The silence is to be over before it counts as death, after a second: a busy machine may miss that.
const ATTEMPTS: usize = 5;

/// Whether it was told that an instance came into a state. What is told is not missed, however short it lasts.
fn is_told(agent: &Agent<'_>, since: u64, name: &str, state: &str) -> Result<bool> {
    let events = agent.events(since)?;
    let is_it = |event: &Event| {
        event.kind == "instance-state"
            && event.instance.as_deref() == Some(name)
            && event.to.as_deref() == Some(state)
    };
    Ok(events.iter().any(is_it))
}

#[track_caller]
fn wait_told(agent: &Agent<'_>, since: u64, name: &str, state: &str) {
    wait_until(&format!("{name} to be {state}"), LIMIT, || {
        Ok(is_told(agent, since, name, state)?.then_some(()))
    })
    .unwrap();
}

#[track_caller]
fn check(family: Family, mode: &str) {
    let is_done = (0..ATTEMPTS).any(|_| attempt(family, mode));
    assert!(is_done, "no silence was short, {ATTEMPTS} times");
}

/// False: the silence lasted too long.
#[track_caller]
fn attempt(family: Family, mode: &str) -> bool {
    let site = Site::alone(2);
    let agent = site.agent(&site.topology.config().with_mode(mode));
    let mut client = site.client(family, 30);
    agent.wait_warm(30, LIMIT).unwrap();
    let (a, b) = (&site.topology.instances[0], &site.topology.instances[1]);

    let since = agent.last_event().unwrap();
    a.silence().unwrap();
    wait_told(&agent, since, "a", "suspect");
    a.unsilence().unwrap();
    wait_told(&agent, since, "a", "up");
    if is_told(&agent, since, "a", "dead").unwrap() {
        return false;
    }
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
    true
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
    let since = agent.last_event().unwrap();
    a.silence().unwrap();
    for state in ["suspect", "dead"] {
        wait_told(&agent, since, "a", state);
    }
    a.unsilence().unwrap();
    wait_told(&agent, since, "a", "up");
    wait_replies(&mut client, 100);
    check_whole(&client.finish().unwrap(), 30);
}
