//! Failures that are seen coming, from real signals; and sources that fail themselves, which is nobody's failure.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;
use testbed::agent::{Agent, InstanceStatus};
use testbed::clock::wait_until;
use testbed::process::Process;
use testbed::scenario::outcome::Step;
use testbed::scenario::predicted::{Contained, INTERVAL_MS};
use testbed::scenario::{Fault, Plan};
use testbed::topology::{Family, Instance, Topology};
use testbed::traffic::program::{Client, service};
use testbed::turns;

use crate::support::{LIMIT, Site, check_whole, wait_replies};
use crate::takeover;

const EXPORTER: &str = "prometheus-node-exporter";
const DIR_VARIABLE: &str = "MIRROR_NODE_EXPORTER";
const EXPORTER_PORT: u16 = 9100;
/// What is usual is known after 30 judgements.
const KNOWN_LIMIT: Duration = Duration::from_secs(90);

/// `health explain --json`
#[derive(Debug, Deserialize)]
struct Health {
    source: String,
    evacuated: bool,
    predicted_score: Option<f64>,
    reasons: Vec<Named>,
    signals: Vec<Named>,
}

#[derive(Debug, Deserialize)]
struct Named {
    signal: String,
}

fn explain(agent: &Agent<'_>, instance: &str) -> Result<Health> {
    agent.json(&["health", "explain", instance])
}

#[track_caller]
fn wait_told(agent: &Agent<'_>, instance: &str, told: &str, limit: Duration) -> String {
    wait_until(&format!("{instance} to be {told}"), limit, || {
        let events = agent.events(0)?;
        let found = events.into_iter().find(|event| {
            event.kind == "prediction"
                && event.instance.as_deref() == Some(instance)
                && event.to.as_deref() == Some(told)
        });
        Ok(found.map(|event| event.cause.unwrap_or_default()))
    })
    .unwrap()
}

/// What routing is made of.
fn routing(agent: &Agent<'_>) -> Vec<(String, String, f64, f64)> {
    let of = |i: InstanceStatus| (i.name, i.state, i.share, i.score);
    agent.instances().unwrap().into_iter().map(of).collect()
}

/// The demo's scenario, in small: the same fault with somebody who sees it coming and without.
#[test]
fn a_leak_is_left_before_it_kills() {
    let _turn = turns::beside();
    let plan = Plan {
        mode: "native".into(),
        ..Plan::new(Fault::Predicted, 20)
    };
    let outcome = takeover::run(&plan);
    assert!(
        outcome.lead_ms.is_some_and(|lead_ms| lead_ms > 1_000.0),
        "{outcome:?}"
    );
    assert_eq!((outcome.resets, outcome.bytes_lost), (0, 0));

    let seen = outcome.foresight.unwrap();
    assert_eq!(seen.migrated_before_failure, outcome.connections);
    assert!(seen.lead_s.is_some_and(|lead_s| lead_s > 0.0), "{seen:?}");
    assert_eq!(seen.failed, 0);
    let risk = |step: &Step| step.risk.unwrap_or(0.0);
    let (first, last) = (&seen.timeline[0], seen.timeline.last().unwrap());
    assert!(risk(first) < 0.5, "{:?}", seen.timeline);
    assert!(seen.timeline.iter().any(|step| risk(step) > 0.5));
    assert!(first.flows > 0 && last.flows == 0, "{:?}", seen.timeline);

    // The same where nobody predicts: survived, too, but only when it had died.
    let without = outcome.without_prediction.unwrap();
    let unseen = without.foresight.unwrap();
    assert_eq!((unseen.migrated_before_failure, unseen.lead_s), (0, None));
    assert_eq!(without.taken_over, without.connections);
    assert!(unseen.timeline.iter().all(|step| step.risk.is_none()));
}

/// Why it was left is said; an operator who knows better is heard.
#[test]
fn a_prediction_is_explained_and_can_be_overruled() {
    let _turn = turns::beside();
    let topology = Topology::create(3).unwrap();
    let mut servers = Contained::start(&topology).unwrap();
    let agent = Agent::start(&topology, &servers.config(&topology)).unwrap();
    let arguments = ["--connections", "30"];
    let client = Client::start(&topology.client, service(Family::V4), &arguments).unwrap();
    agent.wait_warm(30, LIMIT).unwrap();
    agent.wait_foreseen(KNOWN_LIMIT).unwrap();
    // Of the group's files and of its network, which an agent that may not trace the server reads all the same.
    let known = explain(&agent, "a").unwrap().signals;
    for wanted in [
        "memory_share",
        "established_connections",
        "retransmissions_share",
    ] {
        assert!(
            known.iter().any(|named| named.signal == wanted),
            "{known:?}"
        );
    }
    servers.leak(0).unwrap();
    let why = wait_told(&agent, "a", "evacuated", KNOWN_LIMIT);
    assert!(
        why.contains("score 0.") && why.contains("memory_share"),
        "{why}"
    );
    // What is told is shown a moment later.
    let health = wait_until("a's evacuation to be shown", LIMIT, || {
        Ok(Some(explain(&agent, "a")?).filter(|health| health.evacuated))
    })
    .unwrap();
    assert!(health.predicted_score.is_some_and(|score| score < 0.5));
    assert_eq!(health.reasons[0].signal, "memory_share", "{health:?}");
    let text = agent.text(&["health", "explain", "a"]).unwrap();
    assert!(
        text.contains("its flows leave") && text.contains("memory used up in"),
        "{text}"
    );

    agent.act("restore", "a").unwrap();
    let instances = agent.instances().unwrap();
    assert_eq!(
        (instances[0].state.as_str(), instances[0].score),
        ("up", 1.0)
    );
    check_whole(&client.finish().unwrap(), 30);
}

/// Neither sources that do not answer nor a model that is not there.
#[test]
fn what_is_not_known_changes_no_routing() {
    let site = Site::new(3);
    let nobody = |i: &Instance| format!("http://{}:9", i.address(Family::V4));
    let mut config = site
        .config()
        .with_metrics(site.topology.instances.iter().map(nobody));
    config.health = Some(testbed::topology::config::HealthConfig {
        model: Some("/nowhere/health.model".into()),
        ..Default::default()
    });
    let agent = site.agent(&config);
    let mut client = site.client(Family::V4, 30);
    agent.wait_warm(30, LIMIT).unwrap();
    let before = routing(&agent);
    for name in ["a", "b", "c"] {
        wait_told(&agent, name, "unknown", LIMIT);
    }
    let events = agent.events(0).unwrap();
    let refused = |to: &Option<String>| to.as_deref() == Some("model-refused");
    assert!(events.iter().any(|event| refused(&event.to)), "{events:?}");
    wait_replies(&mut client, 200);
    assert_eq!(routing(&agent), before);
    assert!(before.iter().all(|(_, state, ..)| state == "up"));
    assert_eq!(explain(&agent, "a").unwrap().source, "missing");
    check_whole(&client.finish().unwrap(), 30);
}

fn exporter(instance: &Instance) -> Result<Process> {
    let own = std::env::var_os(DIR_VARIABLE).map(|dir| PathBuf::from(dir).join(EXPORTER));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = own
        .into_iter()
        .chain(std::env::split_paths(&path).map(|dir| dir.join(EXPORTER)));
    let program = places.find(|place| place.is_file()).with_context(|| {
        format!("there is no {EXPORTER}: run this by `cargo xtask test`, or name its folder in {DIR_VARIABLE}")
    })?;
    let mut command = instance.namespace.command(program)?;
    let address = instance.address(Family::V4);
    command.arg(format!("--web.listen-address={address}:{EXPORTER_PORT}"));
    Process::start(EXPORTER, command)
}

/// The real node exporter is read in each instance's namespace; one that dies is no failure of its instance.
#[test]
fn node_exporters_are_read_and_their_end_changes_no_routing() {
    let site = Site::new(3);
    let instances = &site.topology.instances;
    let mut exporters: Vec<_> = instances.iter().map(|i| exporter(i).unwrap()).collect();
    let place = |i: &Instance| format!("http://{}:{EXPORTER_PORT}", i.address(Family::V4));
    let config = site.config().with_health(INTERVAL_MS);
    let agent = site.agent(&config.with_metrics(instances.iter().map(place)));
    let mut client = site.client(Family::V4, 30);
    agent.wait_warm(30, LIMIT).unwrap();
    agent.wait_foreseen(KNOWN_LIMIT).unwrap();
    // Of the exporter, and of the dataplane, which has something to tell when there is traffic.
    let wanted = [
        "cpu_share",
        "memory_share",
        "listen_overflows_per_s",
        "established_connections",
        "silence_ms",
        "ack_p50_ms",
        "ack_p99_ms",
        "answer_p50_ms",
        "answer_p99_ms",
        "requests_per_s",
        "in_flight_requests",
        "mirror_lag_bytes",
    ];
    wait_until("signals of both", KNOWN_LIMIT, || {
        let health = explain(&agent, "a")?;
        let has = |wanted: &&str| health.signals.iter().any(|named| named.signal == *wanted);
        Ok((health.source == "answers" && wanted.iter().all(has)).then_some(()))
    })
    .unwrap();
    wait_until("a calm moment", KNOWN_LIMIT, || {
        Ok(agent
            .instances()?
            .iter()
            .all(|i| i.state == "up")
            .then_some(()))
    })
    .unwrap();
    exporters[0].kill();
    wait_told(&agent, "a", "unknown", LIMIT);
    let before = routing(&agent);
    wait_replies(&mut client, 200);
    let after = routing(&agent);
    assert_eq!(after[0], before[0]);
    assert_eq!(after[0].1, "up");
    check_whole(&client.finish().unwrap(), 30);
}
