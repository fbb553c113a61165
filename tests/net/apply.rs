//! Changes while traffic flows: applied, reloaded, written down with who made them.

use std::fs;

use testbed::agent::Event;
use testbed::clock::wait_until;
use testbed::topology::Family;

use crate::support::{LIMIT, Site, check_whole, wait_replies};

#[test]
fn another_configuration_is_applied_under_traffic_and_kept() {
    let site = Site::new(3);
    let mut config = site.config();
    config.instance.truncate(2);
    let mut agent = site.agent(&config);
    let mut client = site.client(Family::V4, 30);
    agent.wait_warm(30, LIMIT).unwrap();
    let own = site.topology.dir().join("mirror.toml");
    let before = fs::read_to_string(&own).unwrap();

    // A third instance, and another weight.
    let mut wanted = site.config();
    wanted.instance[0].weight = 50;
    let new = site.topology.dir().join("new.toml");
    wanted.write(&new).unwrap();
    let new = new.to_str().unwrap();
    let changes = "~ instance \"a\": weight 100 -> 50\n+ instance \"c\"\n\
                   ~ vni \"web\": instances [\"a\",\"b\"] -> [\"a\",\"b\",\"c\"]\n";
    let dry = agent.text(&["apply", "-f", new, "--dry-run"]).unwrap();
    assert_eq!(dry, format!("{changes}nothing was changed (--dry-run)\n"));
    assert_eq!(fs::read_to_string(&own).unwrap(), before);
    assert_eq!(agent.instances().unwrap().len(), 2);

    let done = agent.text(&["apply", "--file", new]).unwrap();
    assert_eq!(done, format!("{changes}applied\n"));
    assert_eq!(agent.instances().unwrap().len(), 3);
    assert_eq!(
        fs::read_to_string(&own).unwrap(),
        fs::read_to_string(new).unwrap()
    );
    assert_eq!(
        fs::read_to_string(own.with_extension("toml.before")).unwrap(),
        before
    );
    assert_eq!(
        agent.text(&["apply", "-f", new]).unwrap(),
        "nothing changes\n"
    );
    wait_replies(&mut client, 300);
    let second = site.client(Family::V4, 60);
    wait_until("a flow on the new instance", LIMIT, || {
        let flows = agent.flows()?;
        Ok(flows.iter().any(|flow| flow.active == "c").then_some(()))
    })
    .unwrap();
    check_whole(&second.finish().unwrap(), 60);

    // A restart finds it.
    agent.kill();
    agent.restart().unwrap();
    assert_eq!(agent.instances().unwrap().len(), 3);
    check_whole(&client.finish().unwrap(), 30);
}

#[test]
fn what_cannot_be_changed_is_refused_and_who_tried_is_written_down() {
    let site = Site::new(2);
    let agent = site.agent(&site.config());
    let mut wanted = site.config();
    wanted.agent.metrics = Some("127.0.0.1:9477".to_owned());
    let new = site.topology.dir().join("new.toml");
    wanted.write(&new).unwrap();
    let output = agent
        .verb(&["apply", "-f", new.to_str().unwrap()])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "mirror-ctl: [agent] cannot be changed while the agent runs\n"
    );
    agent.act("drain", "a").unwrap();
    let orders: Vec<Event> = agent.json(&["events", "--kind", "order"]).unwrap();
    let told: Vec<_> = orders
        .iter()
        .map(|order| {
            let by = order.by.as_deref().unwrap_or_default();
            assert!(by.starts_with("root, pid "), "{order:?}");
            (
                order.to.as_deref().unwrap(),
                order.instance.as_deref(),
                order.cause.as_deref(),
            )
        })
        .collect();
    let refused = "refused: [agent] cannot be changed while the agent runs";
    assert_eq!(
        told,
        [("apply", None, Some(refused)), ("drain", Some("a"), None)]
    );
}
