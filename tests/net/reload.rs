//! A configuration is in force as a whole, or the one before it is.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use aya::maps::{ArrayOfMaps, Map, MapData};
use mirror_common::counts::FIRST_VNI;
use testbed::agent::{Agent, Event};
use testbed::clock::wait_until;
use testbed::net::xdp;
use testbed::topology::Family;
use testbed::topology::config::{Config, VniConfig};

use crate::support::{LIMIT, Site, check_whole, wait_replies};

/// What is in force, as far as it can be seen: programs, instances, configuration, attached links.
type InForce = (
    BTreeMap<String, String>,
    Vec<String>,
    String,
    BTreeSet<OsString>,
);

fn in_force(site: &Site, agent: &Agent<'_>) -> InForce {
    let links = fs::read_dir(site.topology.pin_dir().join("links")).unwrap();
    let interfaces = agent.status().unwrap().interfaces.into_iter();
    let instances = agent.instances().unwrap().into_iter();
    (
        interfaces.map(|i| (i.name, i.mode)).collect(),
        instances
            .map(|i| format!("{} {}", i.name, i.state))
            .collect(),
        agent.text(&["config", "show"]).unwrap(),
        links.map(|link| link.unwrap().file_name()).collect(),
    )
}

/// Another configuration is refused, for a reason, while connections go on and new ones are made.
#[track_caller]
fn check_refused(site: &Site, change: impl Fn(&mut Config), reason: &str) {
    check_refused_after(site, || {}, change, reason);
}

/// `prepare`: what happens after the start.
#[track_caller]
fn check_refused_after(
    site: &Site,
    prepare: impl Fn(),
    change: impl Fn(&mut Config),
    reason: &str,
) {
    let mut config = site.config();
    config.instance.truncate(2);
    let agent = site.agent(&config);
    let mut client = site.client(Family::V4, 20);
    agent.wait_warm(20, LIMIT).unwrap();
    let before = in_force(site, &agent);
    prepare();

    let mut wanted = site.config();
    // What could be done must not be done either.
    wanted.instance[0].weight = 1;
    change(&mut wanted);
    let new = site.topology.dir().join("new.toml");
    wanted.write(&new).unwrap();
    let applied = agent.verb(&["apply", "-f", new.to_str().unwrap()]).output();
    wanted.write(agent.file()).unwrap();
    let reloaded = agent.verb(&["reload"]).output();
    for output in [applied.unwrap(), reloaded.unwrap()] {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(reason), "{said}");
    }
    agent.hang_up().unwrap();
    wait_until("word of the signal", LIMIT, || {
        let said = agent.said();
        let told = said
            .lines()
            .filter(|line| line.contains("the running configuration stays"));
        Ok((told.count() == 2).then_some(()))
    })
    .unwrap();

    assert_eq!(in_force(site, &agent), before);
    let told: Vec<Event> = agent.json(&["events", "--kind", "configuration"]).unwrap();
    assert_eq!(told.len(), 1, "{told:?}");
    wait_replies(&mut client, 300);
    check_whole(&site.client(Family::V6, 10).finish().unwrap(), 10);
    check_whole(&client.finish().unwrap(), 20);
    // Its file is taken up by the unload.
    config.write(agent.file()).unwrap();
}

/// Puts another program on the last instance's interface, until the second is dropped.
fn occupy(site: &Site) -> (String, OwnedFd) {
    let link = site.topology.instances[2].link.clone();
    let occupied = site.topology.host.run(|| xdp::occupy(&link));
    (link, occupied.unwrap().unwrap())
}

#[test]
fn an_occupied_interface_keeps_the_running_configuration() {
    let site = Site::new(3);
    let (link, occupied) = occupy(&site);
    let reason = format!("interface {link}: another XDP program");
    check_refused(&site, |_| {}, &reason);
    drop(occupied);
}

#[test]
fn an_unknown_interface_keeps_the_running_configuration() {
    let site = Site::new(3);
    let change = |config: &mut Config| {
        config.vni.push(VniConfig {
            name: "other".into(),
            addresses: vec!["10.77.0.101".into()],
            interfaces: vec!["nowhere".into()],
            ..config.vni[0].clone()
        });
    };
    check_refused(&site, change, "there is no interface \"nowhere\"");
}

/// The maps were made for one.
#[test]
fn more_vnis_than_there_is_room_for_keep_the_running_configuration() {
    let site = Site::new(3);
    let change = |config: &mut Config| {
        let more = (0..1_100).map(|number| VniConfig {
            name: format!("other{number}"),
            addresses: vec![Ipv4Addr::from_bits(0x0a4e_0000 + number).to_string()],
            ..config.vni[0].clone()
        });
        let more: Vec<_> = more.collect();
        config.vni.extend(more);
    };
    check_refused(&site, change, "the dataplane holds at most 1022");
}

/// The first is put in another mode before the second fails.
#[test]
fn what_was_attached_before_the_failure_is_as_it_was() {
    let site = Site::new(3);
    let (_, occupied) = occupy(&site);
    let change = |config: &mut Config| *config = config.clone().with_mode("generic");
    check_refused(&site, change, "another XDP program");
    drop(occupied);
}

/// Instances and targets are written, programs attached; then the tables cannot be.
#[test]
fn a_failure_in_the_middle_is_taken_back() {
    let site = Site::new(3);
    let steering = site.topology.pin_dir().join("maps/STEERING");
    let prepare = || xdp::freeze(&steering).unwrap();
    check_refused_after(
        &site,
        prepare,
        |_| {},
        "maps/STEERING: Operation not permitted",
    );
}

/// The kernel's numbers of the steering tables of so many VNIs, in the order of the VNIs' numbers.
fn tables(site: &Site, vnis: u32) -> Vec<u32> {
    let pin = site.topology.pin_dir().join("maps/STEERING");
    let map = Map::from_map_data(MapData::from_pin(pin).unwrap()).unwrap();
    let steering = ArrayOfMaps::<MapData, MapData>::try_from(map).unwrap();
    let id = |number| steering.get(&number, 0).unwrap().info().unwrap().id();
    let first = u32::from(FIRST_VNI);
    (first..first + vnis).map(id).collect()
}

#[test]
fn vnis_of_the_same_instances_share_a_table_until_one_has_others() {
    let site = Site::new(3);
    let mut config = site.config();
    let second = VniConfig {
        name: "second".into(),
        addresses: vec!["10.77.0.101".into()],
        ..config.vni[0].clone()
    };
    config.vni.push(second);
    let mut agent = site.agent(&config);
    let share = || {
        let tables = tables(&site, 2);
        assert_eq!(tables[0], tables[1]);
        tables[0]
    };
    agent.stop().unwrap();
    let first = share();
    agent.restart().unwrap();
    assert_eq!(share(), first, "a successor leaves them as they are");
    // What changes for one does not for the other.
    config.vni[1].mode = Some("shadow".into());
    config.vni[1].canaries = vec![config.instance[2].name.clone()];
    config.write(agent.file()).unwrap();
    agent.text(&["reload"]).unwrap();
    let changed = tables(&site, 2);
    assert_eq!(changed[0], first);
    assert_ne!(changed[1], first);
}
