//! A mirror never answers a client. Each instance's kernel sends with a time to
//! live of its own, so the packets themselves tell at the client whose they are.

use std::collections::BTreeMap;

use testbed::agent::Agent;
use testbed::topology::{Family, Topology};

use crate::capture::{Capture, Seen};
use crate::support::{LIMIT, Site, check_whole, wait_replies};

/// Far enough apart that hops on the way cannot make one look like another.
fn mark_packets(topology: &Topology) -> BTreeMap<String, u8> {
    let marks = (1..).map(|n| n * 50).zip(&topology.instances);
    marks
        .map(|(hops, instance)| {
            instance.set_hop_limit(hops).unwrap();
            (instance.name.clone(), hops)
        })
        .collect()
}

/// The instance active for each client port.
fn active(agent: &Agent<'_>) -> BTreeMap<u16, String> {
    let flows = agent.flows().unwrap();
    let port = |client: &str| client.rsplit_once(':').unwrap().1.parse().unwrap();
    flows
        .into_iter()
        .map(|flow| (port(&flow.client), flow.active))
        .collect()
}

#[track_caller]
fn check_senders(
    seen: &[Seen],
    hops: &BTreeMap<String, u8>,
    active: &BTreeMap<u16, String>,
    relevant: impl Fn(&Seen) -> bool,
) {
    let mut checked = 0;
    for packet in seen.iter().filter(|packet| relevant(packet)) {
        let Some(instance) = active.get(&packet.port) else {
            continue;
        };
        let sent = hops[instance];
        assert!(
            (sent - 5..=sent).contains(&packet.hops),
            "{packet:?} is not of {instance}"
        );
        checked += 1;
    }
    assert!(
        checked >= 100,
        "only {checked} of {} packets could be checked",
        seen.len()
    );
}

/// With a router underneath: what the dataplane does not stop gets through.
#[track_caller]
fn check(family: Family, mode: &str) {
    let site = Site::new(3);
    let hops = mark_packets(&site.topology);
    site.topology.forward().unwrap();
    let agent = site.agent(&site.config().with_mode(mode).with_mirrors(2));
    let capture = Capture::start(&site.topology.client);
    let mut client = site.client(family, 24);
    agent.wait_warm(24, LIMIT).unwrap();
    wait_replies(&mut client, 300);
    let active = active(&agent);
    assert_eq!(active.len(), 24);
    check_whole(&client.finish().unwrap(), 24);
    // A mirror's SYN-ACK, acknowledgement or FIN may be what releases the active
    // one's and be sent on in its name; its bytes and resets may not.
    let speaks = |packet: &Seen| packet.protocol == "tcp" && (packet.payload > 0 || packet.reset);
    check_senders(&capture.received_from(family.vni()), &hops, &active, speaks);
}

#[test]
fn of_tcp_ipv4_native() {
    check(Family::V4, "native");
}

#[test]
fn of_tcp_ipv6_native() {
    check(Family::V6, "native");
}

#[test]
fn of_tcp_ipv4_generic() {
    check(Family::V4, "generic");
}

#[test]
fn of_tcp_ipv6_generic() {
    check(Family::V6, "generic");
}
