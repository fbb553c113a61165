//! What the operator sees while it happens: events, and flows again and again.

use testbed::agent::{Agent, Event, Flow};
use testbed::clock::wait_until;
use testbed::process::Process;
use testbed::topology::Family;

use crate::support::{LIMIT, Site, check_whole};

/// A verb that goes on until it is ended, in the machine's own namespace: the socket is a file.
fn start(agent: &Agent<'_>, arguments: &[&str]) -> Process {
    Process::start("mirror-ctl", agent.verb(arguments)).unwrap()
}

#[test]
fn events_are_told_as_they_happen() {
    let site = Site::new(2);
    let mut agent = site.agent(&site.topology.config());
    let mut events = start(&agent, &["events", "--follow", "--since", "0", "--json"]);
    let mut changes = start(
        &agent,
        &["events", "-f", "--since", "0", "--kind", "instance-state"],
    );
    let client = site.client(Family::V4, 5);
    let opened = |line: &str| -> anyhow::Result<Option<Event>> {
        let event: Event = serde_json::from_str(line)?;
        Ok((event.kind == "flow-opened").then_some(event))
    };
    let first = events.line("an opened flow", LIMIT, opened).unwrap();
    assert!(first.client.is_some() && first.to.is_some(), "{first:?}");

    agent.act("drain", "a").unwrap();
    let drained = "instance-state  a  up -> draining  operator";
    let is_it = |line: &str| Ok(line.ends_with(drained).then_some(()));
    changes.line(drained, LIMIT, is_it).unwrap();
    let state = |line: &str| -> anyhow::Result<Option<Event>> {
        let event: Event = serde_json::from_str(line)?;
        Ok((event.to.as_deref() == Some("draining")).then_some(event))
    };
    let told = events.line("a change", LIMIT, state).unwrap();
    // What has a number can be read again.
    assert_eq!(
        agent.events(told.seq - 1).unwrap()[0].kind,
        "instance-state"
    );
    let seen: Vec<Event> = agent.json(&["events", "--kind", "instance-state"]).unwrap();
    assert_eq!(seen.last().unwrap().seq, told.seq);

    check_whole(&client.finish().unwrap(), 5);
    agent.stop().unwrap();
    let status = events.wait(LIMIT).unwrap();
    assert_eq!(status.code(), Some(1), "more was wanted");
    assert!(events.said().contains("ended"), "{}", events.said());
}

#[test]
fn flows_are_watched() {
    let site = Site::new(2);
    let agent = site.agent(&site.topology.config());
    let mut watch = start(&agent, &["flows", "--watch", "0.1", "--json"]);
    let mut table = start(&agent, &["flows", "--watch=0.1"]);
    let count = |n: usize| {
        move |line: &str| -> anyhow::Result<Option<()>> {
            let flows: Vec<Flow> = serde_json::from_str(line)?;
            Ok((flows.len() == n).then_some(()))
        }
    };
    watch.line("no flow", LIMIT, count(0)).unwrap();
    let client = site.client(Family::V6, 3);
    watch.line("three flows", LIMIT, count(3)).unwrap();
    let warm = |line: &str| Ok(line.contains(" warm ").then_some(()));
    table.line("a warm mirror", LIMIT, warm).unwrap();
    check_whole(&client.finish().unwrap(), 3);
}

#[test]
fn readers_of_events_are_bounded() {
    let site = Site::new(1);
    let agent = site.agent(&site.topology.config().with_mirrors(0));
    let mut readers: Vec<Process> = (0..32)
        .map(|_| start(&agent, &["events", "--follow", "--since", "0"]))
        .collect();
    for reader in &mut readers {
        // It has its place when it has read something.
        reader.line("an event", LIMIT, |_| Ok(Some(()))).unwrap();
    }
    let output = agent.verb(&["events", "--follow"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(said, "mirror-ctl: there are 32 readers of events already\n");
    assert_eq!(output.status.code(), Some(1));
    // A listing needs no place, and one that goes leaves its place to the next.
    assert!(!agent.events(0).unwrap().is_empty());
    drop(readers);
    wait_until("a free place", LIMIT, || {
        let mut next = start(&agent, &["events", "--follow", "--since", "0"]);
        Ok(next.line("an event", LIMIT, |_| Ok(Some(()))).ok())
    })
    .unwrap();
}

#[test]
fn what_the_agent_runs_by_can_be_shown() {
    let site = Site::new(2);
    let agent = site.agent(&site.topology.config());
    let shown = agent.text(&["config", "show"]).unwrap();
    let file = site.topology.dir().join("shown.toml");
    std::fs::write(&file, &shown).unwrap();
    let again = agent.text(&["config", "show", file.to_str().unwrap()]);
    assert_eq!(again.unwrap(), shown);
    assert!(shown.contains("handshake_ms = 5"), "{shown}");
    let output = agent.verb(&["evacuate", "nobody"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "mirror-ctl: there is no instance \"nobody\"\n"
    );
}
