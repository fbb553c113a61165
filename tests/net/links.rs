//! Far ends of links that are set up wrongly, where the agent cannot see them: noticed by what it
//! can see, named, and not used.

use testbed::agent::{Agent, Event};
use testbed::clock::wait_until;
use testbed::net::ethtool::{self, Offload};
use testbed::net::timers;
use testbed::topology::{Family, HOST_LINK};

use crate::support::{LIMIT, Site, check_connected_at_once, check_whole, wait_replies};

#[track_caller]
fn switch(site: &Site, instance: usize, offload: Offload, on: bool) {
    let namespace = &site.topology.instances[instance].namespace;
    let switched = namespace.run(|| ethtool::set(HOST_LINK, offload, on));
    switched.unwrap().unwrap();
}

#[track_caller]
fn wait_state(agent: &Agent<'_>, instance: &str, state: &str, cause: &str) {
    wait_until("the instance's state", LIMIT, || {
        let instances = agent.instances()?;
        let found = instances.iter().find(|i| i.name == instance);
        let is_so = found.is_some_and(|i| i.state == state && i.cause.as_deref() == Some(cause));
        Ok(is_so.then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error:#}: {:?}{}", agent.instances(), agent.said()));
}

#[track_caller]
fn check_connects_at_once(site: &Site, connections: usize) {
    let repeated = timers::fired(&site.topology.client).unwrap();
    let client = site.client(Family::V4, connections);
    check_connected_at_once(&site.topology, repeated, &client);
    check_whole(&client.finish().unwrap(), connections);
}

/// Without GRO a veth takes no redirected frame: the copies vanish, and nothing counts them.
#[test]
fn an_end_without_gro_is_named_and_not_used_until_it_is_mended() {
    let site = Site::new(2);
    switch(&site, 0, Offload::GenericReceive, false);
    let agent = site.agent(&site.topology.config().with_mode("native"));
    wait_state(&agent, "a", "dead", "no-redirect");
    let said = agent.said();
    assert!(said.contains("no packet reaches instance \"a\""), "{said}");
    assert!(said.contains("ethtool -K DEV gro on"), "{said}");
    let closed = |agent: &Agent<'_>| {
        let interfaces = agent.status().unwrap().interfaces.into_iter();
        let closed = interfaces.filter(|i| !i.redirect);
        closed.map(|i| i.name).collect::<Vec<_>>()
    };
    assert_eq!(closed(&agent), ["ia"]);
    let metrics = agent.text(&["metrics"]).unwrap();
    assert!(
        metrics.contains("mirror_interface_redirect{interface=\"ia\"} 0"),
        "{metrics}"
    );
    check_connects_at_once(&site, 20);

    switch(&site, 0, Offload::GenericReceive, true);
    wait_state(&agent, "a", "up", "recovered");
    assert_eq!(closed(&agent), [""; 0]);
    let mut client = site.client(Family::V4, 20);
    agent.wait_warm(20, LIMIT).unwrap();
    // It goes off under traffic.
    switch(&site, 0, Offload::GenericReceive, false);
    wait_state(&agent, "a", "dead", "no-redirect");
    wait_replies(&mut client, 200);
    check_whole(&client.finish().unwrap(), 20);
    let told = agent.said().matches("no packet reaches instance").count();
    assert_eq!(told, 2, "once each time");
}

/// Generic mode does not need it.
#[test]
fn an_end_without_gro_does_for_generic_mode() {
    let site = Site::new(2);
    switch(&site, 0, Offload::GenericReceive, false);
    let agent = site.agent(&site.topology.config().with_mode("generic"));
    let client = site.client(Family::V4, 20);
    agent.wait_warm(20, LIMIT).unwrap();
    check_whole(&client.finish().unwrap(), 20);
    assert!(
        !agent.said().contains("takes no redirected frame"),
        "{}",
        agent.said()
    );
}

/// What answers with half a checksum is never heard by a client.
#[test]
fn an_instance_with_checksum_offload_is_not_used_until_it_is_mended() {
    let site = Site::new(2);
    let agent = site.agent(&site.topology.config().with_mode("native"));
    switch(&site, 0, Offload::TransmitChecksum, true);
    check_connects_at_once(&site, 20);
    wait_state(&agent, "a", "dead", "partial-checksum");
    let said = agent.said();
    assert!(
        said.contains("instance \"a\"'s packets have partly computed checksums"),
        "{said}"
    );
    assert!(said.contains("ethtool -K DEV tx off"), "{said}");
    let out = || {
        let told: Vec<Event> = agent.json(&["events", "--kind", "instance-state"]).unwrap();
        let of = |event: &&Event| event.cause.as_deref() == Some("partial-checksum");
        told.iter().filter(of).count()
    };
    let before = out();
    assert!(before >= 1);
    // On trial again and again, it harms nobody.
    wait_until("another trial that failed", LIMIT, || {
        check_connects_at_once(&site, 20);
        Ok((out() > before).then_some(()))
    })
    .unwrap();

    switch(&site, 0, Offload::TransmitChecksum, false);
    wait_until("full service", LIMIT, || {
        check_connects_at_once(&site, 20);
        let instances = agent.instances()?;
        let a = instances.iter().find(|i| i.name == "a");
        Ok(a.is_some_and(|a| a.cause.as_deref() == Some("recovered"))
            .then_some(()))
    })
    .unwrap();
}
