//! Where flows are and move to: unmirrored ones, the operator's evacuation, and
//! the end of those that nobody can take over.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::time::Duration;

use testbed::agent::Flow;
use testbed::clock::wait_until;
use testbed::scenario::most_active;
use testbed::topology::Family;
use testbed::traffic::program::service;
use testbed::{full, memory};

use crate::support::{LIMIT, Site, check_whole, wait_replies};

/// A SYN is repeated after a second (RFC 6298, section 2).
const SYN_REPEATED: Duration = Duration::from_millis(900);

/// Open connections that an instance serves. Those that ended stay in the table for a while.
fn active_on(flows: &[Flow], instance: &str) -> usize {
    let open = |flow: &&Flow| flow.active == instance && flow.state != "closed";
    flows.iter().filter(open).count()
}

#[test]
fn an_unmirrored_vni_is_served_by_one_instance_a_flow() {
    let site = Site::new(2);
    let agent = site.agent(&site.config().with_mirrors(0));
    for family in Family::ALL {
        let mut client = site.client(family, 20);
        wait_replies(&mut client, 200);
        let flows = agent.flows().unwrap();
        let of_family = |flow: &&Flow| flow.client.contains(&family.client().to_string());
        assert_eq!(flows.iter().filter(of_family).count(), 20);
        assert!(
            flows.iter().all(|flow| flow.replicas.len() == 1),
            "{flows:?}"
        );
        assert!(active_on(&flows, "a") > 0 && active_on(&flows, "b") > 0);
        check_whole(&client.finish().unwrap(), 20);
    }
}

#[test]
fn an_evacuated_instance_is_a_warm_mirror_until_it_is_restored() {
    let site = Site::new(2);
    let agent = site.agent(&site.config());
    let mut client = site.client(Family::V4, 30);
    let flows = agent.wait_warm(30, LIMIT).unwrap();
    assert!(active_on(&flows, "a") > 0);

    agent.act("evacuate", "a").unwrap();
    wait_until("the evacuation", LIMIT, || {
        let flows = agent.flows()?;
        let moved = active_on(&flows, "a") == 0 && flows.iter().all(Flow::has_warm_mirror);
        Ok(moved.then_some(()))
    })
    .unwrap();
    wait_replies(&mut client, 100);
    let second = site.client(Family::V4, 10);
    assert_eq!(
        active_on(&agent.flows().unwrap(), "b"),
        40,
        "new flows avoid it"
    );
    check_whole(&second.finish().unwrap(), 10);

    agent.act("restore", "a").unwrap();
    let restored = |flows: &[Flow]| active_on(flows, "a") > 0;
    let third = wait_until("a new flow on the restored instance", LIMIT, || {
        let third = site.client(Family::V4, 10);
        Ok(restored(&agent.flows()?).then_some(third))
    })
    .unwrap();
    check_whole(&third.finish().unwrap(), 10);

    // And back again, on the same connections.
    agent.act("evacuate", "b").unwrap();
    wait_until("the way back", LIMIT, || {
        Ok((active_on(&agent.flows()?, "b") == 0).then_some(()))
    })
    .unwrap();
    wait_replies(&mut client, 100);
    check_whole(&client.finish().unwrap(), 30);
}

#[test]
fn the_last_instance_is_not_evacuated() {
    let site = Site::new(1);
    let agent = site.agent(&site.config().with_mirrors(0));
    let client = site.client(Family::V4, 4);
    assert!(agent.act("evacuate", "a").is_err());
    check_whole(&client.finish().unwrap(), 4);
}

/// What becomes of flows without a mirror, by the setting.
#[track_caller]
fn lose(on_loss: &str) -> (u64, usize) {
    let site = Site::new(2);
    let mut config = site.config().with_mirrors(0);
    config.vni[0].on_loss = Some(on_loss.into());
    let agent = site.agent(&config);
    let mut client = site.client(Family::V4, 20);
    wait_replies(&mut client, 100);
    let flows = agent.flows().unwrap();
    let victim = most_active(&flows).unwrap();
    let lost = active_on(&flows, &victim);
    site.topology
        .instance(&victim)
        .unwrap()
        .link_down()
        .unwrap();
    wait_until("the agent to notice", LIMIT, || {
        let dead = |i: &testbed::agent::InstanceStatus| i.name == victim && i.state == "dead";
        Ok(agent.instances()?.iter().any(dead).then_some(()))
    })
    .unwrap();
    wait_replies(&mut client, 100);
    if on_loss == "reset" {
        wait_until("the resets", LIMIT, || {
            Ok((client.progress()?.failed == lost as u64).then_some(()))
        })
        .unwrap();
    }
    (client.progress().unwrap().failed, lost)
}

#[test]
fn a_flow_without_a_mirror_is_reset_at_once() {
    let (reset, lost) = lose("reset");
    assert_eq!(reset, lost as u64);
}

/// The answer of a program goes out by itself, and does not wait for the next frame on its way.
#[test]
fn without_an_instance_a_client_is_refused_at_once() {
    for mode in ["native", "generic"] {
        let site = Site::new(1);
        let config = site.config().with_mirrors(0).with_mode(mode);
        let agent = site.agent(&config);
        site.topology.instances[0].link_down().unwrap();
        wait_until("the agent to notice", LIMIT, || {
            let dead = |i: &testbed::agent::InstanceStatus| i.state == "dead";
            Ok(agent.instances()?.iter().any(dead).then_some(()))
        })
        .unwrap();
        let connect = || TcpStream::connect_timeout(&service(Family::V4), SYN_REPEATED);
        let connected = site.topology.client.run(connect).unwrap();
        let error = connected.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{mode}");
    }
}

#[test]
fn a_flow_without_a_mirror_is_left_when_so_set() {
    let (reset, lost) = lose("leave");
    assert_eq!((reset, lost > 0), (0, true));
}

/// Of a table that does not fit into the memory that an answer may take.
#[test]
fn all_flows_of_a_full_table_are_told_in_little_memory() {
    const FLOWS: u32 = 200_000;
    const GROWTH_MAX: u64 = 16 << 20;
    let site = Site::new(2);
    let agent = site.agent(&site.config());
    let mut client = site.client(Family::V4, 20);
    agent.wait_warm(20, LIMIT).unwrap();
    let flows = full::fill(&site.topology.pin_dir(), FLOWS).unwrap();
    let pid = agent.status().unwrap().pid;
    let before = memory::begin(pid).unwrap();
    let text = agent.text(&["flows", "--json"]).unwrap();
    let growth = memory::peak(pid).unwrap().saturating_sub(before);
    assert!(text.len() as u64 > 2 * GROWTH_MAX, "{} bytes", text.len());
    assert!(growth < GROWTH_MAX, "{growth} bytes");
    let told: Vec<Flow> = serde_json::from_str(&text).unwrap();
    let clients: std::collections::HashSet<_> = told.iter().map(|flow| &flow.client).collect();
    assert_eq!(clients.len(), told.len(), "some are told twice");
    assert_eq!(told.len(), flows);
    // None of them is without a warm mirror, and one is found among them.
    assert_eq!(
        agent.json::<Vec<Flow>>(&["flows", "--cold"]).unwrap().len(),
        0
    );
    let one: Vec<Flow> = agent
        .json(&["flows", "--client", "100.64.0.7", "--vni", "web"])
        .unwrap();
    assert_eq!(one.len(), 1);
    let few = agent.text(&["flows", "--limit", "3"]).unwrap();
    assert_eq!(few.lines().count(), 4, "{few}");
    wait_replies(&mut client, 200);
    check_whole(&client.finish().unwrap(), 20);
}
