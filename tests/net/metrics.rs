//! What Prometheus gets to read, checked by Prometheus' own programs.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use testbed::clock::wait_until;
use testbed::process::Process;
use testbed::topology::{Family, Topology};

use crate::support::{LIMIT, Site, check_whole, wait_replies};

/// Where the agent and Prometheus listen: the namespace is the test's own.
const AGENT: &str = "127.0.0.1:9477";
const PROMETHEUS: &str = "127.0.0.1:9478";
/// The alerts and the dashboard that are handed to users.
const RULES: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../contrib/prometheus/mirror.rules.yml"
);
const ALERT_TESTS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../contrib/prometheus/mirror.test.yml"
);
const DASHBOARD: &str = include_str!("../../contrib/grafana/mirror.json");
const DIR_VARIABLE: &str = "MIRROR_PROMETHEUS";

fn program(name: &str) -> PathBuf {
    let own = std::env::var_os(DIR_VARIABLE).map(|dir| PathBuf::from(dir).join(name));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = own
        .into_iter()
        .chain(std::env::split_paths(&path).map(|dir| dir.join(name)));
    places.find(|place| place.is_file()).unwrap_or_else(|| {
        panic!("there is no {name}: run this by `cargo xtask test`, or name its folder in {DIR_VARIABLE}")
    })
}

fn said(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    String::from_utf8_lossy(&[out.as_slice(), err].concat()).into_owned()
}

/// What promtool has against a text; nothing when it is well.
fn complaints(text: &str, topology: &Topology) -> String {
    let file = topology.dir().join("metrics.txt");
    fs::write(&file, text).unwrap();
    let output = Command::new(program("promtool"))
        .args(["check", "metrics"])
        .stdin(Stdio::from(fs::File::open(&file).unwrap()))
        .output()
        .unwrap();
    match output.status.success() {
        true => said(&output),
        false => format!("{}: {}", output.status, said(&output)),
    }
}

/// The value of a sample.
#[track_caller]
fn sample(text: &str, name: &str) -> f64 {
    let line = text
        .lines()
        .find(|line| line.starts_with(&format!("{name} ")));
    let line = line.unwrap_or_else(|| panic!("{name} is not in\n{text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// A Prometheus in the VNI host's namespace that reads the agent's metrics.
fn prometheus(topology: &Topology) -> Result<Process> {
    let dir = topology.dir();
    let config = dir.join("prometheus.yml");
    let text = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\n\
         rule_files: [{RULES:?}]\n\
         scrape_configs: [{{job_name: mirror, static_configs: [{{targets: [\"{AGENT}\"]}}]}}]\n"
    );
    fs::write(&config, text)?;
    let mut command = topology.host.command(program("prometheus"))?;
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!(
            "--storage.tsdb.path={}",
            dir.join("tsdb").display()
        ))
        .arg(format!("--web.listen-address={PROMETHEUS}"));
    Process::start("prometheus", command)
}

fn query(topology: &Topology, expression: &str) -> Result<String> {
    let mut command = topology.host.command(program("promtool"))?;
    command.args(["query", "instant"].map(OsStr::new));
    command.arg(format!("http://{PROMETHEUS}")).arg(expression);
    let output = command.output().context("promtool")?;
    ensure!(output.status.success(), "{}", said(&output));
    Ok(said(&output))
}

#[test]
fn prometheus_reads_the_metrics() {
    let site = Site::new(2);
    let mut config = site.config();
    config.agent.metrics = Some(AGENT.to_owned());
    let agent = site.agent(&config);
    let mut client = site.client(Family::V4, 20);
    agent.wait_warm(20, LIMIT).unwrap();
    let prometheus = prometheus(&site.topology).unwrap();
    agent.act("evacuate", "a").unwrap();
    wait_replies(&mut client, 100);

    let moved = "mirror_takeovers_total{vni=\"web\",compute_instance=\"a\",cause=\"evacuated\"}";
    let counted = "mirror_packets_total{vni=\"web\",reason=\"takeover\"}";
    // By event as by the dataplane, which counts a moment earlier.
    let text = wait_until("the walk over the flows", LIMIT, || {
        let text = agent.text(&["metrics"])?;
        let warm = "mirror_instance_warm_flows{compute_instance=\"a\"}";
        let is_told = sample(&text, moved) == sample(&text, counted);
        Ok((sample(&text, warm) == 20.0 && is_told).then_some(text))
    })
    .unwrap();
    assert_eq!(complaints(&text, &site.topology), "");
    assert_eq!(
        sample(
            &text,
            "mirror_instance_active_flows{compute_instance=\"b\"}"
        ),
        20.0
    );
    assert_eq!(
        sample(&text, "mirror_map_entries{map=\"mirrored_flows\"}"),
        20.0
    );
    assert_eq!(sample(&text, "mirror_vni_flows{vni=\"web\"}"), 20.0);
    assert_eq!(
        sample(
            &text,
            "mirror_packets_total{vni=\"web\",reason=\"fragment\"}"
        ),
        0.0
    );
    assert!(sample(&text, moved) > 0.0);
    assert!(sample(&text, "mirror_agent_loop_seconds_count{event=\"look\"}") > 0.0);

    // The same over TCP, as Prometheus itself has read it.
    let evacuating = "mirror_instance_state{compute_instance=\"a\",state=\"evacuating\"} == 1";
    let mut last = String::new();
    let scraped = wait_until("a scrape", LIMIT, || {
        // It does not answer at first.
        last = query(&site.topology, evacuating).unwrap_or_else(|error| format!("{error:#}"));
        Ok(last.contains("job=\"mirror\"").then_some(()))
    });
    scraped.unwrap_or_else(|error| panic!("{error}: {last}{}", prometheus.said()));
    // Prometheus has taken the alerts, and understands each question of the dashboard.
    let output = Command::new(program("promtool"))
        .args(["check", "rules", RULES])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let output = Command::new(program("promtool"))
        .args(["test", "rules", ALERT_TESTS])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let alerts = query(&site.topology, "count(ALERTS) or vector(0)");
    assert!(alerts.is_ok(), "{alerts:?}");
    let dashboard = serde_json::from_str(DASHBOARD).unwrap();
    // A rate needs two scrapes.
    wait_until("most panels to show something", LIMIT, || {
        let mut answered = 0;
        for expression in expressions(&dashboard) {
            let answer = query(&site.topology, &expression)
                .unwrap_or_else(|error| panic!("{expression}: {error:#}"));
            answered += usize::from(!answer.trim().is_empty());
        }
        Ok((answered >= 15).then_some(()))
    })
    .unwrap();
    check_whole(&client.finish().unwrap(), 20);
}

/// What the dashboard asks, with its variables filled in as Grafana does.
fn expressions(value: &serde_json::Value) -> Vec<String> {
    let inner = match value {
        serde_json::Value::Object(fields) => fields.values().flat_map(expressions).collect(),
        serde_json::Value::Array(values) => values.iter().flat_map(expressions).collect(),
        _ => Vec::new(),
    };
    let own = value.get("expr").and_then(serde_json::Value::as_str);
    let fill = |text: &str| {
        text.replace("$host", ".*")
            .replace("$__rate_interval", "5s")
    };
    own.map(fill).into_iter().chain(inner).collect()
}
