//! What the machine or somebody else has set up otherwise than it must be: refused with what to do
//! about it, and nothing is changed.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use aya::maps::{Array, Map, MapData};
use testbed::agent::{Agent, BINARY_VARIABLE, Event, sibling};
use testbed::net::xdp;
use testbed::process;
use testbed::topology::config::{Config, VniConfig};
use testbed::topology::{CLIENT_LINK, Family};

use crate::support::{Site, check_whole};

const NOBODY: u32 = 65_534;

/// Runs `load`, which starts as an agent does; exit code and what it said.
#[track_caller]
fn load(site: &Site, config: &Config) -> (Option<i32>, String) {
    let file = site.topology.dir().join("load.toml");
    config.write(&file).unwrap();
    let binary = sibling("mirror-ctl", Some(BINARY_VARIABLE)).unwrap();
    let mut command = site.topology.host.command(binary).unwrap();
    let output = command.arg("load").arg("--config").arg(file).output();
    let output = output.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

/// A start is refused, for a reason and with a remedy, and leaves nothing behind.
#[track_caller]
fn check_refused(site: &Site, config: &Config, reason: &str, remedy: &str) {
    let (code, said) = load(site, config);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(reason) && said.contains(remedy), "{said}");
    assert!(!site.topology.pin_dir().exists(), "{said}");
}

#[test]
fn an_occupied_interface_is_not_taken() {
    let site = Site::new(2);
    let config = site.topology.config();
    for interface in [CLIENT_LINK, "ib"] {
        let occupied = site.topology.host.run(|| xdp::occupy(interface));
        let occupied = occupied.unwrap().unwrap();
        let reason = format!("interface {interface}: another XDP program");
        let remedy = format!("`ip link set dev {interface} xdp off`");
        check_refused(&site, &config, &reason, &remedy);
        drop(occupied);
    }
    let agent = site.agent(&config);
    check_whole(&site.client(Family::V4, 5).finish().unwrap(), 5);
    drop(agent);
}

#[test]
fn an_unknown_interface_is_named() {
    let site = Site::new(2);
    let mut config = site.topology.config();
    config.vni[0].interfaces = vec!["nowhere".into()];
    let reason = "there is no interface \"nowhere\" in this network namespace";
    check_refused(&site, &config, reason, "`ip link`");
}

#[test]
fn pins_of_another_layout_are_left_alone() {
    let site = Site::new(2);
    let config = site.topology.config();
    let mut agent = site.agent(&config);
    agent.kill();
    let pin = config.agent.pin_dir.join("maps/LAYOUT");
    let version = |number: u32| {
        let map = Map::Array(MapData::from_pin(&pin).unwrap());
        let mut layout = Array::<MapData, u32>::try_from(map).unwrap();
        let before = layout.get(&0, 0).unwrap();
        layout.set(0, number, 0).unwrap();
        before
    };
    let own = version(77);
    let (code, said) = load(&site, &config);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("layout version 77"), "{said}");
    let remedy = format!(
        "`mirror-ctl unload --pin-dir {}`",
        config.agent.pin_dir.display()
    );
    assert!(said.contains(&remedy), "{said}");
    // What runs goes on.
    check_whole(&site.client(Family::V4, 5).finish().unwrap(), 5);
    version(own);
    agent.restart().unwrap();
    assert!(agent.status().unwrap().adopted);
    agent.kill();
    // The remedy works on what it is for.
    version(77);
}

#[test]
fn automatic_mode_falls_back_for_the_interface_that_needs_it() {
    let site = Site::new(2);
    let mut config = site.topology.config();
    // The loopback interface has no driver that could run a program.
    config.vni.push(VniConfig {
        name: "local".into(),
        addresses: vec!["10.77.0.101".into()],
        interfaces: vec!["lo".into()],
        ..config.vni[0].clone()
    });
    let agent = site.agent(&config);
    let modes = agent.status().unwrap().interfaces.into_iter();
    let mut modes: Vec<_> = modes.map(|i| (i.name, i.mode)).collect();
    modes.sort();
    let expected = [
        ("c0", "native"),
        ("ia", "native"),
        ("ib", "native"),
        ("lo", "generic"),
    ];
    assert_eq!(
        modes,
        expected.map(|(name, mode)| (name.to_owned(), mode.to_owned()))
    );
    let said = agent.said();
    let warned = said
        .lines()
        .find(|line| line.contains("no native XDP"))
        .unwrap();
    assert!(
        warned.contains("lo") && warned.contains("generic is used"),
        "{said}"
    );
    let told: Vec<Event> = agent.json(&["events", "--kind", "interface"]).unwrap();
    let of_lo = told
        .iter()
        .find(|event| event.from.as_deref() == Some("lo"))
        .unwrap();
    assert_eq!(of_lo.to.as_deref(), Some("generic"));
    check_whole(&site.client(Family::V4, 10).finish().unwrap(), 10);
    drop(agent);

    // Asked for, it is not replaced by something else.
    config
        .interface
        .push(testbed::topology::config::InterfaceConfig {
            name: "lo".into(),
            mode: "native".into(),
        });
    check_refused(
        &site,
        &config,
        "interface lo: XDP cannot be attached (native)",
        "`mode = \"generic\"`",
    );
}

/// Runs a copy of the tool as somebody who may do nothing.
#[track_caller]
fn as_nobody(agent: &Agent<'_>, binary: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    let verb = agent.verb(arguments);
    let mut command = Command::new(binary);
    command.args(verb.get_args()).uid(NOBODY).gid(NOBODY);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), said)
}

#[test]
fn who_may_not_is_told_what_to_type() {
    let site = Site::new(2);
    let config = site.topology.config();
    let agent = site.agent(&config);
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let binary = dir.path().join("mirror-ctl");
    process::copy(
        &sibling("mirror-ctl", Some(BINARY_VARIABLE)).unwrap(),
        &binary,
    )
    .unwrap();
    let file = dir.path().join("mirror.toml");
    config.write(&file).unwrap();
    let pin_dir = config.agent.pin_dir.to_str().unwrap().to_owned();
    let file = file.to_str().unwrap().to_owned();
    for (arguments, reason) in [
        (vec!["flows"], "may be used by its owner only"),
        (vec!["evacuate", "a"], "may be used by its owner only"),
        (vec!["unload", "--pin-dir", &pin_dir], "permission denied"),
        (vec!["load", "--config", &file], "missing CAP_NET_ADMIN"),
        (vec!["agent", "--config", &file], "missing CAP_NET_ADMIN"),
    ] {
        let (code, said) = as_nobody(&agent, &binary, &arguments);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(reason), "{said}");
        let line = format!("`sudo {} {}", binary.display(), arguments.join(" "));
        assert!(said.contains(&line), "{said}");
    }
    assert!(agent.instances().unwrap().iter().all(|i| i.state == "up"));
    check_whole(&site.client(Family::V4, 5).finish().unwrap(), 5);
}
