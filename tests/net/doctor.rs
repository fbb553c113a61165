//! `doctor` on a machine with something to find, and `--fix`.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde::Deserialize;
use testbed::agent::{BINARY_VARIABLE, sibling};
use testbed::net::ethtool::{self, Offload};
use testbed::net::{End, MacAddr, configure, sysctl};
use testbed::topology::Topology;

use crate::support::Site;

/// An address of instance `a` that the VNI host has never asked for.
const UNKNOWN: &str = "10.66.1.9";

/// `doctor --json`
#[derive(Debug, Deserialize)]
struct Report {
    findings: Vec<Finding>,
    repairs: Vec<Repair>,
}

#[derive(Debug, Deserialize)]
struct Finding {
    severity: String,
    check: String,
    subject: Option<String>,
    finding: String,
}

#[derive(Debug, Deserialize)]
struct Repair {
    command: String,
    error: Option<String>,
}

impl Report {
    /// What is to be done: check and subject of errors and warnings.
    fn complaints(&self) -> Vec<(&str, &str)> {
        let mut complaints: Vec<_> = self
            .findings
            .iter()
            .filter(|finding| matches!(finding.severity.as_str(), "error" | "warning"))
            // What the machine is, is not the test's doing.
            .filter(|finding| {
                !matches!(
                    finding.check.as_str(),
                    "clock" | "jit" | "unprivileged-bpf" | "limits"
                )
            })
            .map(|finding| {
                (
                    finding.check.as_str(),
                    finding.subject.as_deref().unwrap_or("-"),
                )
            })
            .collect();
        complaints.sort_unstable();
        complaints
    }
}

fn mirror_ctl(topology: &Topology, arguments: &[&str]) -> Output {
    let binary = sibling("mirror-ctl", Some(BINARY_VARIABLE)).unwrap();
    let mut command = topology.host.command(binary).unwrap();
    command.args(arguments).output().unwrap()
}

#[track_caller]
fn doctor(topology: &Topology, arguments: &[&str]) -> Report {
    let output = mirror_ctl(topology, &[&["doctor", "--json"], arguments].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    let report: Report =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"));
    let bad = |finding: &Finding| matches!(finding.severity.as_str(), "error" | "warning");
    let expected = i32::from(report.findings.iter().any(bad));
    assert_eq!(output.status.code(), Some(expected), "{report:#?}{said}");
    report
}

/// A veth with both ends in the VNI host's namespace, as the kernel makes them: checksums left to be computed
/// later, no GRO.
fn untreated_pair(topology: &Topology) {
    let end = |name, number| End {
        namespace: &topology.host,
        name,
        mac: MacAddr::local(9, number),
    };
    configure(&topology.host, async |net| {
        net.veth(end("ix", 1), end("ex", 2), 1500).await?;
        net.up("ix").await?;
        net.up("ex").await
    })
    .unwrap();
}

/// Gives `a` its unknown address.
fn unknown_address(topology: &Topology) {
    let address: IpAddr = UNKNOWN.parse().unwrap();
    let instance = &topology.instances[0].namespace;
    configure(instance, async |net| net.address("e0", address, 24).await).unwrap();
}

/// The configuration of the test's network, with the pair as the way to `b` and `a` known by its address.
fn configuration(topology: &Topology, pin_dir: &Path, name: &str) -> String {
    let text = format!(
        "[agent]\nsocket = {:?}\npin_dir = {pin_dir:?}\n\
         [[instance]]\nname = \"a\"\nlink = \"ia\"\naddress = \"{UNKNOWN}\"\n\
         [[instance]]\nname = \"b\"\nlink = \"ix\"\nmac = \"02:00:00:00:09:02\"\n\
         [[vni]]\nname = \"web\"\naddresses = [\"10.77.0.100\"]\ninterfaces = [\"c0\"]\n",
        topology.dir().join("agent.sock"),
    );
    let path = topology.dir().join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A dataplane without an agent; taken off when dropped.
struct Loaded<'a> {
    topology: &'a Topology,
    config: &'a str,
}

impl<'a> Loaded<'a> {
    #[track_caller]
    fn new(topology: &'a Topology, config: &'a str) -> Self {
        let output = mirror_ctl(topology, &["load", "--config", config]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        Self { topology, config }
    }
}

impl Drop for Loaded<'_> {
    fn drop(&mut self) {
        mirror_ctl(self.topology, &["unload", "--config", self.config]);
    }
}

#[test]
fn what_keeps_the_dataplane_from_working_is_found_and_repaired() {
    let site = Site::new(1);
    let topology = &site.topology;
    untreated_pair(topology);
    unknown_address(topology);
    sysctl::set(&topology.host, &[("net.ipv4.conf.c0.arp_ignore", "2")]).unwrap();
    let config = configuration(topology, &topology.pin_dir(), "mirror.toml");
    let arguments = ["--config", config.as_str()];

    let found = doctor(topology, &arguments);
    assert_eq!(
        found.complaints(),
        [
            ("arp", "c0"),
            ("checksum", "ix"),
            ("neighbour", "a"),
            ("redirect", "ix")
        ],
        "{found:#?}"
    );
    assert!(found.repairs.is_empty());
    // Looking changes nothing.
    assert_eq!(doctor(topology, &arguments).complaints().len(), 4);

    let repaired = doctor(topology, &[&arguments[..], &["--fix"]].concat());
    assert_eq!(repaired.complaints(), [], "{repaired:#?}");
    for done in &repaired.repairs {
        assert_eq!(done.error, None, "{}", done.command);
    }
    let commands: Vec<_> = repaired
        .repairs
        .iter()
        .map(|done| done.command.as_str())
        .collect();
    for command in [
        "ethtool -K ex tx off",
        "ethtool -K ex gro on",
        "sysctl -w net.ipv4.conf.c0.arp_ignore=1",
        "ping -c 1 -I ia 10.66.1.9",
    ] {
        assert!(
            commands.contains(&command),
            "{command} is not in {commands:?}"
        );
    }
    topology
        .host
        .run(|| {
            assert!(!ethtool::get("ex", Offload::TransmitChecksum).unwrap());
            assert!(ethtool::get("ex", Offload::GenericReceive).unwrap());
        })
        .unwrap();
}

#[test]
fn programs_of_others_and_pins_without_an_owner_are_found() {
    let site = Site::new(1);
    let topology = &site.topology;
    untreated_pair(topology);
    unknown_address(topology);
    let own = configuration(topology, &topology.pin_dir(), "mirror.toml");
    let mut other_pins = topology.pin_dir().into_os_string();
    other_pins.push("-other");
    let other = configuration(topology, &PathBuf::from(other_pins), "other.toml");
    let arguments = ["--config", own.as_str()];
    doctor(topology, &["--config", own.as_str(), "--fix"]);

    let foreign = Loaded::new(topology, &other);
    let found = doctor(topology, &arguments);
    assert_eq!(
        found.complaints(),
        [("xdp", "c0"), ("xdp", "ia"), ("xdp", "ix")],
        "{found:#?}"
    );
    let told = found
        .findings
        .iter()
        .find(|finding| finding.check == "xdp")
        .unwrap();
    assert!(
        told.finding
            .starts_with("another XDP program is attached: "),
        "{told:?}"
    );
    drop(foreign);

    let loaded = Loaded::new(topology, &own);
    assert_eq!(doctor(topology, &arguments).complaints(), [("pins", "-")]);
    configure(&topology.host, async |net| net.delete("ix").await).unwrap();
    let found = doctor(topology, &arguments);
    let complaints = found.complaints();
    assert_eq!(complaints.len(), 3, "{found:#?}");
    assert!(complaints.contains(&("interface", "ix")), "{complaints:?}");
    // Its pin is removed; that there is no such interface is for the operator.
    let repaired = doctor(topology, &[&arguments[..], &["--fix"]].concat());
    assert_eq!(repaired.repairs.len(), 1, "{repaired:#?}");
    assert!(repaired.repairs[0].command.starts_with("rm "));
    assert_eq!(repaired.complaints(), [("interface", "ix"), ("pins", "-")]);
    drop(loaded);
}

#[test]
fn a_running_agent_is_looked_at_by_its_own_configuration() {
    let site = Site::new(2);
    let config = site.topology.config();
    let _agent = site.agent(&config);
    let socket = config.agent.socket.to_str().unwrap();
    let report = doctor(&site.topology, &["--socket", socket]);
    assert_eq!(report.complaints(), [], "{report:#?}");
    for name in ["c0", "ia", "ib"] {
        let on =
            |finding: &&Finding| finding.check == "xdp" && finding.subject.as_deref() == Some(name);
        let xdp = report.findings.iter().find(on).unwrap();
        assert_eq!(xdp.finding, "attached, native, veth");
    }
    // For people: a table with a sum.
    let output = mirror_ctl(&site.topology, &["doctor", "--socket", socket]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.starts_with("SEVERITY"), "{text}");
    assert!(text.contains("\n0 errors, "), "{text}");
}
