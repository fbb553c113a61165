//! The dataplane outlives the agent, and leaves no trace when it is told to go.

use testbed::scenario::most_active;
use testbed::topology::Family;
use testbed::traffic::program::{Client, service};

use crate::support::{LIMIT, Site, calmly, check_whole, wait_moved, wait_replies};

#[test]
fn a_killed_agent_is_not_noticed_and_its_successor_adopts() {
    calmly(|| {
        let site = Site::alone(3);
        let mut agent = site.agent(&site.config());
        assert!(!agent.status().unwrap().adopted);
        let mut client = site.client(Family::V4, 60);
        agent.wait_warm(60, LIMIT).unwrap();
        // Nothing repeats a datagram: each one that is answered was not lost.
        let arguments = ["--udp", "--connections", "20", "--think", "5"];
        let server = service(Family::V4);
        let mut datagrams = Client::start(&site.topology.client, server, &arguments).unwrap();
        let calm = site.calm();
        agent.kill();
        wait_replies(&mut client, 300);
        wait_replies(&mut datagrams, 1_000);
        // Made while nobody is there to see it.
        let during = site.client(Family::V6, 10);
        agent.restart().unwrap();
        assert!(agent.status().unwrap().adopted);
        wait_replies(&mut client, 300);
        wait_replies(&mut datagrams, 1_000);
        let flows = agent.wait_warm(70, LIMIT).unwrap();
        assert_eq!(
            flows.iter().filter(|flow| flow.protocol == "tcp").count(),
            70
        );
        check_whole(&datagrams.finish().unwrap(), 20);
        check_whole(&during.finish().unwrap(), 10);
        calm.check(&client.finish().unwrap(), 60);
    });
}

#[test]
fn the_successor_of_a_killed_agent_takes_over() {
    let site = Site::new(3);
    let mut agent = site.agent(&site.config());
    let mut client = site.client(Family::V4, 60);
    agent.wait_warm(60, LIMIT).unwrap();
    agent.kill();
    agent.restart().unwrap();
    let victim = most_active(&agent.flows().unwrap()).unwrap();
    site.topology
        .instance(&victim)
        .unwrap()
        .link_down()
        .unwrap();
    wait_replies(&mut client, 600);
    wait_moved(&victim, || agent.flows());
    check_whole(&client.finish().unwrap(), 60);
}

#[test]
fn nothing_is_left_after_unload() {
    let site = Site::new(2);
    let config = site.config();
    let agent = site.agent(&config);
    assert!(config.agent.pin_dir.exists());
    drop(agent);
    assert!(!config.agent.pin_dir.exists());
    // The kernel alone forwards again, which it could not with programs attached.
    site.topology
        .route_plainly(&site.topology.instances[0])
        .unwrap();
    check_whole(&site.client(Family::V4, 8).finish().unwrap(), 8);
}

#[test]
fn the_mode_that_is_asked_for_is_the_mode_that_is_reported() {
    for mode in ["native", "generic"] {
        let site = Site::new(2);
        let agent = site.agent(&site.config().with_mode(mode));
        let interfaces = agent.status().unwrap().interfaces;
        assert_eq!(interfaces.len(), 3, "{interfaces:?}");
        assert!(interfaces.iter().all(|i| i.mode == mode), "{interfaces:?}");
    }
}
