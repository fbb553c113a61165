//! Floods of SYNs from addresses that are nobody's: mirrors get what the VNI allows, whoever is connected notices nothing,
//! who is real is connected, and no instance is taken for dead.

mod source;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use testbed::agent::{Agent, Flow};
use testbed::clock::wait_until;
use testbed::full;
use testbed::net::configure;
use testbed::net::delay::Delay;
use testbed::net::packet::SynTally;
use testbed::topology::{Family, HOST_LINK, Instance, Topology};
use testbed::traffic::program::{Client, PORT, service};

use crate::support::{LIMIT, Site, calmly, check_whole, wait_replies};
use source::Flood;

/// Connections that are there before the flood.
const BEFORE: usize = 40;
/// Connections that are made during it.
const DURING: usize = 20;
const PER_S: u32 = 100;
/// A port at which not everybody listens.
const OTHER_PORT: u16 = 7_001;

/// SYNs that have come to all instances.
fn tallies(site: &Site) -> Vec<SynTally> {
    let instances = site.topology.instances.iter();
    let start = |i: &Instance| i.namespace.run(|| SynTally::start(HOST_LINK));
    instances.map(|i| start(i).unwrap().unwrap()).collect()
}

fn counted(agent: &Agent<'_>, reason: &str) -> u64 {
    let counters = agent.status().unwrap().counters;
    counters.get(reason).copied().unwrap_or(0)
}

/// Nothing happened to any instance since, and to no flow but those of clients that are real.
#[track_caller]
fn check_calm(agent: &Agent<'_>, since: u64, flows: usize) {
    let instances = agent.instances().unwrap();
    assert!(instances.iter().all(|i| i.state == "up"), "{instances:?}");
    let events = agent.events(since).unwrap();
    let harm = |kind: &str| matches!(kind, "instance-state" | "takeover" | "flow-cold");
    let harm: Vec<_> = events.iter().filter(|event| harm(&event.kind)).collect();
    assert!(harm.is_empty(), "{harm:?}");
    // Opened, warm and closed.
    assert!(events.len() <= 3 * flows, "{} events", events.len());
}

fn is_mirrored(flow: &&Flow) -> bool {
    flow.replicas.len() > 1
}

fn is_alone_for(flow: &Flow, reason: &str) -> bool {
    flow.reason.as_deref() == Some(reason)
}

#[track_caller]
fn check(family: Family, mode: &str) {
    let flood = Flood {
        family,
        port: PORT,
        syns: 10_000,
        per_s: 5_000,
    };
    let site = Site::alone(2);
    let mut config = site.config().with_mode(mode);
    config.vni[0].mirrored_per_s = Some(PER_S);
    let agent = site.agent(&config);
    let mut client = site.client(family, BEFORE);
    agent.wait_warm(BEFORE, LIMIT).unwrap();
    let (since, limited) = (agent.last_event().unwrap(), counted(&agent, "mirror_limit"));
    let tallies = tallies(&site);
    let calm = site.calm();
    let (took, during) = thread::scope(|scope| {
        let flood = scope.spawn(|| flood.run(&site.topology));
        wait_until("the limit", LIMIT, || {
            Ok((counted(&agent, "mirror_limit") > limited).then_some(()))
        })
        .unwrap();
        let during = site.client(family, DURING);
        wait_replies(&mut client, 200);
        (flood.join().unwrap(), during)
    });
    // Each SYN that was limited came to an instance once, the others twice; the clients' own are among them. On a busy
    // machine some get lost in the kernel's queues, and are neither.
    let syns: u64 = tallies.iter().map(|tally| tally.take().unwrap()).sum();
    let sent = u64::from(flood.syns) + DURING as u64;
    let allowed = (f64::from(PER_S) * (1.0 + took.as_secs_f64())).ceil() as u64;
    let limited = counted(&agent, "mirror_limit") - limited;
    assert!(limited > sent / 2, "{limited} of {sent} were limited");
    assert!(
        syns <= limited + 2 * (allowed + DURING as u64),
        "{syns} came, {limited} of them limited, {allowed} allowed in {took:?}"
    );
    let mirrored = syns.saturating_sub(limited) / 2;
    println!(
        "{family:?} {mode}: {syns} SYNs of {sent} came to instances in {took:?}, {mirrored} as copies ({allowed} allowed), {limited} without mirrors"
    );

    let flows = agent.flows().unwrap();
    let real: Vec<_> = flows
        .iter()
        .filter(|flow| flow.state == "established")
        .collect();
    let warm = real.iter().filter(|flow| flow.has_warm_mirror()).count();
    let alone = real
        .iter()
        .filter(|flow| is_alone_for(flow, "mirror_limit"))
        .count();
    assert_eq!(
        (real.len(), warm + alone),
        (BEFORE + DURING, BEFORE + DURING)
    );
    assert!(warm >= BEFORE && alone > 0, "{warm} warm, {alone} alone");
    check_calm(&agent, since, BEFORE + DURING);
    wait_replies(&mut client, 200);
    check_whole(&during.finish().unwrap(), DURING);
    calm.check(&client.finish().unwrap(), BEFORE);
}

#[test]
fn a_flood_of_syns_is_not_multiplied_ipv4_native() {
    calmly(|| check(Family::V4, "native"));
}

#[test]
fn a_flood_of_syns_is_not_multiplied_ipv6_generic() {
    calmly(|| check(Family::V6, "generic"));
}

/// Has what the clients' host sends to the VNI take so much longer.
#[track_caller]
fn delay(topology: &Topology, time: Duration) -> Delay {
    const LINK: &str = "late";
    let start = || Delay::start(LINK, HOST_LINK, source::ENDS, time);
    let line = topology.client.run(start).unwrap().unwrap();
    configure(&topology.client, async |net| {
        net.up(LINK).await?;
        for family in Family::ALL {
            let bits = if family.vni().is_ipv4() { 32 } else { 128 };
            net.route((family.vni(), bits), None, LINK).await?;
        }
        Ok(())
    })
    .unwrap();
    line
}

/// Before the client has acknowledged the SYN-ACK its entry is gone, as when more SYNs have come than there are half-open
/// places.
#[test]
fn a_client_whose_handshake_is_pushed_out_is_connected_all_the_same() {
    const CONNECTIONS: usize = 10;
    let site = Site::alone(2);
    let agent = site.agent(&site.config());
    // Less than a SYN's retransmission time.
    let _line = delay(&site.topology, Duration::from_millis(500));
    let mut client = thread::scope(|scope| {
        let pins = site.topology.pin_dir();
        let push_out = scope.spawn(move || {
            let mut gone = 0;
            wait_until("SYN-ACKs", LIMIT, || {
                gone += full::forget_answered(&pins)?;
                Ok((gone >= CONNECTIONS).then_some(()))
            })
        });
        let arguments = ["--connections", "10", "--mix", "request=1", "--think", "20"];
        let host = &site.topology.client;
        let client = Client::start(host, service(Family::V4), &arguments).unwrap();
        push_out.join().unwrap().unwrap();
        client
    });
    assert_eq!(client.running.failed, 0, "{:?}", client.running);
    wait_replies(&mut client, 3 * CONNECTIONS as u64);
    let flows = agent.flows().unwrap();
    let met = |flow: &Flow| is_alone_for(flow, "joined_late") && flow.state == "established";
    assert!(
        flows.len() == CONNECTIONS && flows.iter().all(met),
        "{flows:?}"
    );
    check_whole(&client.finish().unwrap(), CONNECTIONS);
}

/// Refusals count when somebody else accepts and the client is heard again; else five SYNs from anywhere would take an
/// instance out.
#[test]
fn refusals_count_when_the_client_is_heard_again() {
    calmly(|| {
        let site = Site::alone(3);
        let agent = site.agent(&site.config());
        let mut client = site.client(Family::V4, BEFORE);
        agent.wait_warm(BEFORE, LIMIT).unwrap();
        // On b and c, and not on a.
        let at = SocketAddr::new(Family::V4.vni(), OTHER_PORT);
        let listen = |i: &Instance| i.namespace.run(|| TcpListener::bind(at)).unwrap().unwrap();
        let _listeners: Vec<_> = site.topology.instances[1..].iter().map(listen).collect();
        let flood = Flood {
            family: Family::V4,
            port: OTHER_PORT,
            syns: 1_000,
            per_s: 1_000,
        };
        let calm = site.calm();
        let before = counted(&agent, "takeover");
        flood.run(&site.topology);
        let moved = counted(&agent, "takeover") - before;
        assert!(
            moved > 200,
            "{moved} of {} were refused and moved",
            flood.syns
        );
        wait_replies(&mut client, 300);
        let instances = agent.instances().unwrap();
        assert!(instances.iter().all(|i| i.state == "up"), "{instances:?}");
        let flows = agent.wait_warm(BEFORE, LIMIT).unwrap();
        let moved = |flow: &&Flow| flow.takeovers > 0 && flow.state == "established";
        assert_eq!(flows.iter().filter(moved).count(), 0);
        calm.check(&client.finish().unwrap(), BEFORE);

        let connect = || {
            thread::scope(|scope| {
                let one = || TcpStream::connect(at).unwrap();
                let all: Vec<_> = (0..40).map(|_| scope.spawn(one)).collect();
                all.into_iter()
                    .map(|one| one.join().unwrap())
                    .collect::<Vec<_>>()
            })
        };
        let _streams = site.topology.client.run(connect).unwrap();
        wait_until("a's service to be given up", LIMIT, || {
            let instances = agent.instances()?;
            let is_out = |i: &testbed::agent::InstanceStatus| i.name == "a" && i.state == "dead";
            Ok(instances.iter().any(is_out).then_some(()))
        })
        .unwrap();
    });
}

#[test]
fn another_limit_counts_at_once() {
    let site = Site::new(2);
    let mut config = site.config();
    config.vni[0].mirrored_per_s = Some(1);
    let agent = site.agent(&config);
    let first = site.client(Family::V4, 10);
    let flows = agent.flows().unwrap();
    let mirrored = flows.iter().filter(is_mirrored).count();
    assert!((1..10).contains(&mirrored), "{flows:?}");
    let table = agent.text(&["flows"]).unwrap();
    assert!(table.contains("- (mirror_limit)"), "{table}");
    config.vni[0].mirrored_per_s = Some(1_000);
    config.write(agent.file()).unwrap();
    agent.text(&["reload"]).unwrap();
    let second = site.client(Family::V6, 10);
    let flows = agent.wait_warm(mirrored + 10, LIMIT).unwrap();
    assert_eq!(flows.iter().filter(is_mirrored).count(), mirrored + 10);
    for client in [first, second] {
        check_whole(&client.finish().unwrap(), 10);
    }
}
