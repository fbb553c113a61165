//! Another version takes the place of the one that runs, under load, and nobody notices; or it is refused, and nothing has
//! changed.

use std::fs;
use std::path::Path;

use aya::maps::{Array, Map, MapData};
use testbed::agent::Agent;
use testbed::changes::install_another;
use testbed::process;
use testbed::topology::Family;
use testbed::traffic::program::{Client, service};

use crate::support::{LIMIT, Site, calmly, check_whole, wait_replies};

/// The programs on all interfaces, as the kernel has them.
pub(crate) fn programs(pin_dir: &Path) -> Vec<u32> {
    let mut programs: Vec<u32> = aya::programs::loaded_links()
        .filter_map(Result::ok)
        .filter(|link| {
            link.link_type()
                .is_ok_and(|kind| kind == aya::programs::links::LinkType::Xdp)
        })
        .map(|link| link.program_id())
        .collect();
    let pinned = |name: &str| {
        aya::programs::ProgramInfo::from_pin(pin_dir.join("programs").join(name))
            .unwrap()
            .id()
    };
    let pinned = [pinned("vni_ingress"), pinned("instance_return")];
    programs.retain(|program| pinned.contains(program));
    programs
}

#[test]
fn another_version_is_swapped_in_under_load_and_not_noticed() {
    calmly(|| {
        let site = Site::alone(3);
        let agent = Agent::start_copy(&site.topology, &site.config()).unwrap();
        let pins = site.topology.pin_dir();
        let before = programs(&pins);
        assert_eq!(before.len(), 4, "{before:?}");
        let pid = agent.status().unwrap().pid;
        let mut client = site.client(Family::V4, 60);
        agent.wait_warm(60, LIMIT).unwrap();
        // Nothing repeats a datagram: each one that is answered was not lost.
        let arguments = ["--udp", "--connections", "20", "--think", "5"];
        let mut datagrams =
            Client::start(&site.topology.client, service(Family::V4), &arguments).unwrap();
        let calm = site.calm();
        wait_replies(&mut client, 100);
        wait_replies(&mut datagrams, 1_000);

        let former = agent.binary().with_extension("former");
        process::copy(agent.binary(), &former).unwrap();
        install_another(agent.binary()).unwrap();
        let dry = agent.text(&["upgrade", "--dry-run"]).unwrap();
        assert_eq!(
            dry,
            "it would be accepted; nothing was changed (--dry-run)\n"
        );
        assert_eq!(programs(&pins), before);
        let said = agent.text(&["upgrade"]).unwrap();
        assert!(
            said.ends_with(": 4 interfaces run this version's programs\n"),
            "{said}"
        );
        let after = programs(&pins);
        assert_eq!(after.len(), 4, "{after:?}");
        assert!(
            after.iter().all(|program| !before.contains(program)),
            "{before:?} {after:?}"
        );
        let status = agent.status().unwrap();
        assert!(status.adopted);
        assert_eq!(
            status.pid, pid,
            "the service manager looks after the process that it started"
        );

        wait_replies(&mut client, 300);
        wait_replies(&mut datagrams, 1_000);
        // The way back is the same.
        fs::rename(&former, agent.binary()).unwrap();
        agent.text(&["upgrade"]).unwrap();
        let back = programs(&pins);
        assert!(
            back.len() == 4 && back.iter().all(|program| !after.contains(program)),
            "{after:?} {back:?}"
        );
        wait_replies(&mut client, 300);
        wait_replies(&mut datagrams, 1_000);
        let flows = agent.wait_warm(60, LIMIT).unwrap();
        assert!(flows.iter().all(|flow| flow.takeovers == 0));
        check_whole(&datagrams.finish().unwrap(), 20);
        calm.check(&client.finish().unwrap(), 60);
    });
}

#[test]
fn a_version_with_other_maps_is_refused() {
    let site = Site::new(2);
    let agent = Agent::start_copy(&site.topology, &site.config()).unwrap();
    let pins = site.topology.pin_dir();
    let mut client = site.client(Family::V4, 10);
    agent.wait_warm(10, LIMIT).unwrap();
    let (before, pid) = (programs(&pins), agent.status().unwrap().pid);
    install_another(agent.binary()).unwrap();
    let data = MapData::from_pin(pins.join("maps/LAYOUT")).unwrap();
    let mut layout: Array<_, u32> = Map::Array(data).try_into().unwrap();
    let own = layout.get(&0, 0).unwrap();
    layout.set(0, 77, 0).unwrap();
    for arguments in [&["upgrade", "--dry-run"][..], &["upgrade"]] {
        let output = agent.verb(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        let why = format!("has layout version 77, and this program has {own}: ");
        assert!(said.contains(&why), "{said}");
    }
    layout.set(0, own, 0).unwrap();
    assert_eq!(programs(&pins), before);
    assert_eq!(agent.status().unwrap().pid, pid);
    wait_replies(&mut client, 100);
    check_whole(&client.finish().unwrap(), 10);
}

#[test]
fn only_the_version_at_the_agents_place_replaces_it() {
    let site = Site::new(2);
    let agent = site.agent(&site.config());
    let elsewhere = site.topology.dir().join("mirror-ctl");
    process::copy(agent.binary(), &elsewhere).unwrap();
    let socket = &site.config().agent.socket;
    let mut command = std::process::Command::new(&elsewhere);
    let output = command
        .arg("upgrade")
        .arg("--socket")
        .arg(socket)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("install this version there, and run it from there"),
        "{said}"
    );
}
