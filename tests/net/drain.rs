//! A version with other maps comes in under load: what was connected before stays with the version before, with all that this
//! can do, until it ends by itself; what is new is the new version's.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aya::maps::{Array, Map, MapData};
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};
use nix::unistd::Pid;
use testbed::agent::{Agent, Draining, Event, Flow};
use testbed::changes::install_other_maps;
use testbed::clock::wait_until;
use testbed::scenario::most_active;
use testbed::topology::Family;
use testbed::topology::config::{Config, VniConfig};
use testbed::traffic::program::PORT;

use crate::support::{LIMIT, Site, calmly, check_whole, wait_moved, wait_replies};
use crate::upgrade::programs;

/// Entries of closed flows are kept for ten seconds, and walked over every second.
const END_LIMIT: Duration = Duration::from_secs(120);

/// Mirrored flows of two instances by IPv4, flows of a third one alone by IPv6.
fn config(site: &Site) -> Config {
    let mut config = site.config();
    let web = &mut config.vni[0];
    web.addresses = vec![Family::V4.vni().to_string()];
    web.instances = vec!["a".into(), "b".into()];
    let plain = VniConfig {
        name: "plain".into(),
        addresses: vec![Family::V6.vni().to_string()],
        instances: vec!["c".into()],
        mirrors: 0,
        ..web.clone()
    };
    config.vni.push(plain);
    config
}

/// Where the agent leaves what a keeper needs.
fn folder(config: &Config) -> PathBuf {
    config.agent.socket.with_extension("sock.predecessor")
}

/// How many programs of a version before packets can be handed to.
fn predecessors(pin_dir: &Path) -> usize {
    let data = MapData::from_pin(pin_dir.join("maps/PREDECESSOR")).unwrap();
    // Read, an entry is the program's number, as in an array.
    let map: Array<_, u32> = Map::Array(data).try_into().unwrap();
    (0..2).filter(|place| map.get(place, 0).is_ok()).count()
}

#[track_caller]
fn refused(agent: &Agent<'_>, arguments: &[&str], why: &str) {
    let output = agent.verb(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(why), "{said}");
}

/// Waits until the agent says of the version before what is wanted.
#[track_caller]
fn wait_draining<T>(
    agent: &Agent<'_>,
    what: &str,
    limit: Duration,
    wanted: impl Fn(Option<Draining>) -> Option<T>,
) -> T {
    wait_until(what, limit, || Ok(wanted(agent.status()?.draining))).unwrap()
}

/// The keeper, once it says how many flows are left.
#[track_caller]
fn wait_left(agent: &Agent<'_>, flows: u64) -> Draining {
    let what = format!("a keeper with {flows} flows");
    wait_draining(agent, &what, LIMIT, |draining| {
        draining.filter(|row| row.pid.is_some() && row.flows == Some(flows))
    })
}

#[track_caller]
fn wait_over(agent: &Agent<'_>, config: &Config) {
    wait_draining(agent, "the end of draining", END_LIMIT, |draining| {
        draining.is_none().then_some(())
    });
    let pins = &config.agent.pin_dir;
    assert_eq!(predecessors(pins), 0);
    assert!(!pins.join("draining").exists());
    assert!(!pins.join("next").exists());
    assert!(!folder(config).exists());
}

fn tcp(flows: &[Flow]) -> usize {
    flows.iter().filter(|flow| flow.protocol == "tcp").count()
}

#[track_caller]
fn told(agent: &Agent<'_>) -> Vec<(String, Option<String>)> {
    let events: Vec<Event> = agent.json(&["events", "--kind", "predecessor"]).unwrap();
    let events = events.into_iter();
    events
        .map(|event| (event.to.unwrap_or_default(), event.cause))
        .collect()
}

fn is_there(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn connections_end_with_the_version_that_they_began_with() {
    calmly(|| {
        let site = Site::alone(3);
        let config = config(&site);
        let agent = Agent::start_copy(&site.topology, &config).unwrap();
        let pins = &config.agent.pin_dir;
        let (before, pid) = (programs(pins), agent.status().unwrap().pid);
        assert_eq!(before.len(), 4, "{before:?}");
        let mut mirrored = site.client(Family::V4, 30);
        let mut plain = site.client(Family::V6, 20);
        agent.wait_warm(30, LIMIT).unwrap();
        let calm = site.calm();
        wait_replies(&mut mirrored, 100);

        refused(
            &agent,
            &["upgrade", "--drain"],
            "`mirror-ctl upgrade` keeps all connections",
        );
        install_other_maps(agent.binary()).unwrap();
        refused(&agent, &["upgrade"], "`mirror-ctl upgrade --drain`");
        assert_eq!(
            agent.text(&["upgrade", "--drain", "--dry-run"]).unwrap(),
            "the running version would be drained; nothing was changed (--dry-run)\n"
        );
        assert_eq!(programs(pins), before);
        let said = agent.text(&["upgrade", "--drain"]).unwrap();
        assert!(
            said.contains(": 4 interfaces run this version's programs\n"),
            "{said}"
        );
        let after = programs(pins);
        assert_eq!(after.len(), 4, "{after:?}");
        assert!(after.iter().all(|program| !before.contains(program)));
        assert_eq!(predecessors(pins), 2);
        let status = agent.status().unwrap();
        assert_eq!(
            status.pid, pid,
            "the service manager looks after the process that it started"
        );
        let keeper = wait_left(&agent, 50);
        assert_ne!(keeper.pid, Some(pid));
        assert!((3_500..=3_600).contains(&keeper.left_s), "{keeper:?}");

        // What was there goes on without a packet lost, and what is new is the new version's.
        wait_replies(&mut mirrored, 300);
        wait_replies(&mut plain, 200);
        let new = site.client(Family::V4, 10);
        let flows = agent.wait_warm(10, LIMIT).unwrap();
        assert_eq!(tcp(&flows), 10);
        let old = agent.flows_on(&keeper.socket).unwrap();
        assert_eq!(tcp(&old), 50);
        assert!(old.iter().all(|flow| flow.takeovers == 0));
        calm.check(&plain.finish().unwrap(), 20);
        refused(
            &agent,
            &["upgrade", "--drain"],
            "still lets its connections end",
        );

        // An order is for all of an instance's flows.
        agent.act("evacuate", "a").unwrap();
        wait_until("old flows to leave a", LIMIT, || {
            let old = agent.flows_on(&keeper.socket)?;
            let stays = |flow: &Flow| flow.vni == "web" && flow.active == "a";
            Ok((!old.iter().any(stays)).then_some(()))
        })
        .unwrap();
        agent.act("restore", "a").unwrap();
        wait_until("warm mirrors of old flows", LIMIT, || {
            let old = agent.flows_on(&keeper.socket)?;
            let warm = old.iter().filter(|flow| flow.has_warm_mirror()).count();
            Ok((warm == 30).then_some(()))
        })
        .unwrap();
        // A failure in the middle of it.
        let mut old = agent.flows_on(&keeper.socket).unwrap();
        old.retain(|flow| flow.vni == "web");
        let victim = most_active(&old).unwrap();
        let instance = site.topology.instance(&victim).unwrap();
        instance.link_down().unwrap();
        wait_replies(&mut mirrored, 300);
        let old = wait_moved(&victim, || agent.flows_on(&keeper.socket));
        let taken = old.iter().filter(|flow| flow.vni == "web");
        assert_eq!(taken.count(), 30);
        let events: Vec<Event> = agent
            .json_on(&keeper.socket, &["events", "--kind", "takeover"])
            .unwrap();
        let dead = events
            .iter()
            .filter(|event| event.cause.as_deref() == Some("dead"));
        println!("{} old flows were taken over", dead.clone().count());
        assert!(dead.count() > 0, "{events:?}");

        check_whole(&mirrored.finish().unwrap(), 30);
        wait_over(&agent, &config);
        wait_until("the keeper's end", LIMIT, || {
            Ok((!is_there(keeper.pid.unwrap())).then_some(()))
        })
        .unwrap();
        let told = told(&agent);
        let words: Vec<&str> = told.iter().map(|(to, _)| to.as_str()).collect();
        assert_eq!(words, ["kept", "ended"]);
        assert_eq!(told[1].1, None, "nothing was cut");
        check_whole(&new.finish().unwrap(), 10);
    });
}

/// A SYN as a client sends it that begins anew from a port, with a right checksum.
fn syn(from: SocketAddrV4, to: SocketAddrV4) -> [u8; 20] {
    let mut header = [0; 20];
    header[0..2].copy_from_slice(&from.port().to_be_bytes());
    header[2..4].copy_from_slice(&to.port().to_be_bytes());
    header[4..8].copy_from_slice(&0x5eed_0001_u32.to_be_bytes());
    header[12..16].copy_from_slice(&[5 << 4, 2, 0xff, 0xff]);
    let pseudo = [&from.ip().octets()[..], &to.ip().octets(), &[0, 6, 0, 20]].concat();
    let words = pseudo
        .as_chunks::<2>()
        .0
        .iter()
        .chain(header.as_chunks::<2>().0);
    let sum: u32 = words.map(|word| u32::from(u16::from_be_bytes(*word))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    header[16..18].copy_from_slice(&sum.to_be_bytes());
    header
}

/// Sends such a SYN for each of some flows, from the client's host.
fn forge(site: &Site, flows: &[Flow]) {
    let to = SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 100), PORT);
    assert_eq!(IpAddr::from(*to.ip()), Family::V4.vni());
    let send = || -> nix::Result<()> {
        let (inet, raw) = (AddressFamily::Inet, SockType::Raw);
        let socket = socket(inet, raw, SockFlag::empty(), SockProtocol::Tcp)?;
        for flow in flows {
            let from: SocketAddrV4 = flow.client.parse().expect("an address and a port");
            let to_address = SockaddrIn::from(SocketAddrV4::new(*to.ip(), 0));
            sendto(
                socket.as_raw_fd(),
                &syn(from, to),
                &to_address,
                MsgFlags::empty(),
            )?;
        }
        Ok(())
    };
    site.topology.client.run(send).unwrap().unwrap();
}

#[test]
fn a_syn_out_of_place_does_not_cut_a_connection_off() {
    let site = Site::new(3);
    let config = config(&site);
    let agent = Agent::start_copy(&site.topology, &config).unwrap();
    let mut client = site.client(Family::V4, 20);
    agent.wait_warm(20, LIMIT).unwrap();
    install_other_maps(agent.binary()).unwrap();
    agent.text(&["upgrade", "--drain"]).unwrap();
    let keeper = wait_left(&agent, 20);
    let old = agent.flows_on(&keeper.socket).unwrap();
    assert_eq!(tcp(&old), 20);
    forge(&site, &old);
    // Each is a new flow to the new version, which has cloned nothing else so far, until its client goes on with the old one.
    wait_until("copies of the SYNs", LIMIT, || {
        let cloned = agent.status()?.counters.get("cloned").copied();
        Ok((cloned >= Some(20)).then_some(()))
    })
    .unwrap();
    let mut left = Vec::new();
    let gone = wait_until("no new flow", LIMIT, || {
        left = agent.flows()?;
        Ok(left.is_empty().then_some(()))
    });
    gone.unwrap_or_else(|error| panic!("{error}: {left:#?}"));
    wait_replies(&mut client, 200);
    check_whole(&client.finish().unwrap(), 20);
}

#[test]
fn either_agent_may_be_killed_while_connections_end() {
    let site = Site::new(3);
    let config = config(&site);
    let mut agent = Agent::start_copy(&site.topology, &config).unwrap();
    let mut mirrored = site.client(Family::V4, 30);
    agent.wait_warm(30, LIMIT).unwrap();
    install_other_maps(agent.binary()).unwrap();
    agent.text(&["upgrade", "--drain"]).unwrap();
    let keeper = wait_left(&agent, 30);

    let pid = keeper.pid.unwrap();
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap();
    wait_replies(&mut mirrored, 100);
    let again = wait_draining(&agent, "another keeper", LIMIT, |draining| {
        draining.filter(|row| row.pid.is_some_and(|other| other != pid))
    });
    agent.kill();
    wait_replies(&mut mirrored, 100);
    agent.restart().unwrap();
    assert!(agent.status().unwrap().adopted);
    assert_eq!(predecessors(&config.agent.pin_dir), 2);
    let kept = wait_left(&agent, 30);
    assert_eq!(kept.pid, again.pid);
    wait_replies(&mut mirrored, 100);
    // The keeper that was started again keeps.
    let victim = most_active(&agent.flows_on(&kept.socket).unwrap()).unwrap();
    let instance = site.topology.instance(&victim).unwrap();
    instance.link_down().unwrap();
    wait_replies(&mut mirrored, 300);
    let old = wait_moved(&victim, || agent.flows_on(&kept.socket));
    assert_eq!(tcp(&old), 30);
    check_whole(&mirrored.finish().unwrap(), 30);
    wait_over(&agent, &config);
}

#[test]
fn what_is_left_when_time_is_up_is_cut() {
    let site = Site::new(3);
    let config = config(&site);
    let agent = Agent::start_copy(&site.topology, &config).unwrap();
    let _old = site.client(Family::V4, 8);
    agent.wait_warm(8, LIMIT).unwrap();
    install_other_maps(agent.binary()).unwrap();
    agent
        .text(&["upgrade", "--drain", "--drain-for", "2s"])
        .unwrap();
    wait_over(&agent, &config);
    let told = told(&agent);
    assert_eq!(
        told.last().unwrap(),
        &("ended".to_owned(), Some("8 flows cut".to_owned())),
        "{told:?}"
    );
    let metrics = agent.text(&["metrics"]).unwrap();
    assert!(
        metrics.contains("mirror_predecessor_flows_cut_total 8\n"),
        "{metrics}"
    );
    // There is room for the next one.
    let new = site.client(Family::V6, 8);
    check_whole(&new.finish().unwrap(), 8);
}

#[test]
fn a_version_that_cannot_leave_anything_behind_goes_on() {
    let site = Site::new(2);
    let config = site.config();
    let agent = Agent::start_copy(&site.topology, &config).unwrap();
    let mut client = site.client(Family::V4, 10);
    agent.wait_warm(10, LIMIT).unwrap();
    let (before, pid) = (programs(&config.agent.pin_dir), agent.status().unwrap().pid);
    install_other_maps(agent.binary()).unwrap();
    fs::write(folder(&config), "in the way").unwrap();
    refused(
        &agent,
        &["upgrade", "--drain"],
        "what a keeper needs cannot be left behind: ",
    );
    assert!(!config.agent.pin_dir.join("next").exists());
    assert_eq!(programs(&config.agent.pin_dir), before);
    assert_eq!(agent.status().unwrap().pid, pid);
    wait_replies(&mut client, 100);
    check_whole(&client.finish().unwrap(), 10);
}
