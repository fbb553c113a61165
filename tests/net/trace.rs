//! One flow is looked at packet by packet while all go on: its traffic and everybody's notice nothing, numbers are shown on both
//! sides of the translation, and the normal programs are in place again whatever ends it.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;
use serde::Deserialize;
use testbed::agent::{Agent, Flow};
use testbed::clock::wait_until;
use testbed::packaged::Packages;
use testbed::process::Process;
use testbed::topology::Family;

use crate::support::{LIMIT, Site, calmly, check_whole, wait_replies};
use crate::upgrade::programs;

const TOOLS: Packages = Packages {
    variable: "MIRROR_TEST_TOOLS",
    verb: "test",
};

/// `trace --json`
#[derive(Clone, Debug, Deserialize)]
struct Packet {
    client: String,
    direction: String,
    slot: Option<u8>,
    role: Option<String>,
    verdict: String,
    reasons: Vec<String>,
    before: Option<Segment>,
    after: Option<Segment>,
}

#[derive(Clone, Debug, Deserialize)]
struct Segment {
    seq: Option<u32>,
    ack: Option<u32>,
    payload: u32,
}

impl Packet {
    fn is(&self, direction: &str, role: Option<&str>, verdict: &str) -> bool {
        self.direction == direction && self.role.as_deref() == role && self.verdict == verdict
    }

    /// The numbers that a program changes on a packet's way from or to a replica.
    fn numbers(&self) -> Option<(u32, u32)> {
        let number = |segment: &Option<Segment>| {
            let segment = segment.as_ref()?;
            match self.direction.as_str() {
                "to-replica" => segment.ack,
                _ => segment.seq,
            }
        };
        Some((number(&self.before)?, number(&self.after)?))
    }
}

/// A verb that goes on until it is ended.
fn start(agent: &Agent<'_>, arguments: &[&str]) -> Process {
    Process::start("mirror-ctl", agent.verb(arguments)).unwrap()
}

/// The next packet that is wanted.
#[track_caller]
fn packet(trace: &mut Process, what: &str, wanted: impl Fn(&Packet) -> bool) -> Packet {
    let read = |line: &str| -> Result<Option<Packet>> {
        let packet: Packet = serde_json::from_str(line)?;
        Ok(Some(packet).filter(&wanted))
    };
    trace.line(what, LIMIT, read).unwrap()
}

/// Waits until no interface runs the normal programs: they get the traced ones one by one, and packets are told meanwhile.
#[track_caller]
fn wait_traced(pins: &Path) {
    wait_until("traced programs everywhere", LIMIT, || {
        Ok(programs(pins).is_empty().then_some(()))
    })
    .unwrap();
}

/// Waits until so many interfaces run the programs that are pinned: the normal ones.
#[track_caller]
fn wait_normal(pins: &Path, interfaces: usize) {
    wait_until("normal programs", LIMIT, || {
        Ok((programs(pins).len() == interfaces).then_some(()))
    })
    .unwrap();
}

fn mirrored(agent: &Agent<'_>, flows: usize) -> Flow {
    let flows = agent.wait_warm(flows, LIMIT).unwrap();
    let flow = flows.iter().find(|flow| flow.has_warm_mirror());
    flow.unwrap().clone()
}

#[test]
fn a_flow_is_traced_and_nobody_notices() {
    calmly(|| {
        let site = Site::alone(3);
        let agent = site.agent(&site.config());
        let pins = site.topology.pin_dir();
        wait_normal(&pins, 4);
        let mut client = site.client(Family::V4, 60);
        let flow = mirrored(&agent, 60);
        let calm = site.calm();
        wait_replies(&mut client, 100);

        let mut trace = start(&agent, &["trace", &flow.client, "--json"]);
        let mut seen = Vec::new();
        let both: [(&str, Option<&str>, &str, &str); 5] = [
            ("from-client", None, "to-replicas", "cloned"),
            ("to-replica", Some("active"), "to-replica", "clone_sent"),
            ("to-replica", Some("mirror"), "to-replica", "clone_sent"),
            ("from-replica", Some("active"), "to-client", "delivered"),
            (
                "from-replica",
                Some("mirror"),
                "dropped",
                "mirror_suppressed",
            ),
        ];
        for (direction, role, verdict, reason) in both {
            seen.push(packet(&mut trace, direction, |packet| {
                let carries = packet.before.as_ref().is_some_and(|s| s.payload > 0);
                packet.is(direction, role, verdict)
                    && packet.reasons.iter().any(|r| r == reason)
                    && (direction != "from-replica" || carries)
            }));
        }
        assert!(
            seen.iter().all(|packet| packet.client == flow.client),
            "{seen:?}"
        );
        // The active replica's numbers are the client's, for the flow was never taken over; a mirror's are its own.
        let numbers: Vec<_> = seen.iter().map(Packet::numbers).collect();
        let ((before, after), (of_mirror, translated)) = (numbers[1].unwrap(), numbers[2].unwrap());
        assert_eq!(before, after, "{seen:?}");
        assert_ne!(of_mirror, translated, "{seen:?}");
        let slots: BTreeSet<_> = seen.iter().filter_map(|packet| packet.slot).collect();
        assert_eq!(slots, BTreeSet::from([0, 1]));
        wait_traced(&pins);

        let second = agent.verb(&["trace", &flow.client]).output().unwrap();
        let said = String::from_utf8_lossy(&second.stderr).into_owned();
        assert_eq!(
            said,
            "mirror-ctl: another trace goes on: there is one at a time, and each ends by itself\n"
        );
        assert_eq!(second.status.code(), Some(1));

        // Whoever looks goes away without a word.
        drop(trace);
        wait_normal(&pins, 4);
        wait_replies(&mut client, 300);
        let orders = agent.events(0).unwrap();
        let ordered = |event: &&testbed::agent::Event| event.to.as_deref() == Some("trace");
        let orders: Vec<_> = orders.iter().filter(ordered).collect();
        assert_eq!(orders.len(), 2, "{orders:?}");
        assert!(orders[0].by.is_some() && orders[0].client.as_ref() == Some(&flow.client));
        let flows = agent.flows().unwrap();
        assert!(flows.iter().all(|flow| flow.takeovers == 0));
        calm.check(&client.finish().unwrap(), 60);
    });
}

#[test]
fn a_trace_ends_by_itself_and_with_the_agent() {
    let site = Site::new(2);
    let mut agent = site.agent(&site.config());
    let pins = site.topology.pin_dir();
    let mut client = site.client(Family::V6, 4);
    let flow = mirrored(&agent, 4);
    let vni = testbed::traffic::program::service(Family::V6).to_string();

    let few = agent
        .text(&["trace", &flow.client, "--vni", &vni, "--count", "7"])
        .unwrap();
    assert_eq!(few.lines().count(), 7, "{few}");
    wait_normal(&pins, 3);
    // Of a flow that there is not: nothing, until the time is up.
    let unknown = agent
        .verb(&["trace", "[fd77::dead]:9", "--duration", "0.3"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert_eq!(unknown.status.code(), Some(0), "{said}");
    assert!(
        unknown.stdout.is_empty() && said.ends_with("its time is up\n"),
        "{said}"
    );
    wait_normal(&pins, 3);
    let nobodys = agent
        .verb(&["trace", &flow.client, "--vni", "[fd77::dead]:9"])
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&nobodys.stderr),
        "mirror-ctl: fd77::dead is no VNI's address\n"
    );

    let any = |_: &Packet| true;
    let mut trace = start(&agent, &["trace", &flow.client, "--json"]);
    packet(&mut trace, "a packet", any);
    agent.stop().unwrap();
    wait_normal(&pins, 3);
    assert_eq!(
        trace.wait(LIMIT).unwrap().code(),
        Some(1),
        "more was wanted"
    );

    agent.restart().unwrap();
    let mut trace = start(&agent, &["trace", &flow.client, "--json"]);
    packet(&mut trace, "a packet", any);
    wait_traced(&pins);
    agent.kill();
    // The dataplane outlives the agent, as it is; the next one puts it right.
    assert_eq!(programs(&pins).len(), 0);
    wait_replies(&mut client, 20);
    agent.restart().unwrap();
    wait_normal(&pins, 3);
    wait_replies(&mut client, 20);
    check_whole(&client.finish().unwrap(), 4);
}

/// What tshark says of each packet of a file.
fn tshark(site: &Site, file: &Path, fields: &[&str]) -> Vec<Vec<String>> {
    let mut arguments = vec!["-r", file.to_str().unwrap(), "-T", "fields"];
    arguments.extend([
        "-o",
        "tcp.check_checksum:TRUE",
        "-o",
        "ip.check_checksum:TRUE",
    ]);
    arguments.extend(["-o", "tcp.relative_sequence_numbers:FALSE"]);
    for field in fields {
        arguments.extend(["-e", field]);
    }
    let mut command = TOOLS
        .find(&["tshark"])
        .unwrap()
        .command(&site.topology.host, &arguments)
        .unwrap();
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let text = String::from_utf8(output.stdout).unwrap();
    let rows = text
        .lines()
        .map(|line| line.split('\t').map(str::to_owned).collect());
    rows.collect()
}

#[track_caller]
fn check_capture(family: Family, mode: &str) {
    let site = Site::new(2);
    let agent = site.agent(&site.config().with_mode(mode));
    let client = site.client(family, 4);
    let flow = mirrored(&agent, 4);
    let file = site.topology.dir().join("flow.pcapng");
    let name = file.to_str().unwrap();
    agent
        .text(&[
            "capture",
            "--flow",
            &flow.client,
            "-w",
            name,
            "--count",
            "120",
        ])
        .unwrap();
    wait_normal(&site.topology.pin_dir(), 3);

    let fields = [
        "frame.interface_name",
        "tcp.checksum.status",
        "tcp.srcport",
        "tcp.seq",
        "tcp.ack",
        "tcp.len",
        "frame.comment",
    ];
    let rows = tshark(&site, &file, &fields);
    assert_eq!(rows.len(), 120);
    let sides: BTreeSet<_> = rows.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(
        sides,
        BTreeSet::from(["client", "replica:0", "replica:1"]),
        "{rows:?}"
    );
    // 1: good. What was translated has been summed anew.
    let wrong: Vec<_> = rows.iter().filter(|row| row[1] != "1").collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(rows.iter().all(|row| row[6].contains(": ")), "{rows:?}");
    let vni_port = testbed::traffic::program::PORT.to_string();
    // Mirrors speak in numbers of their own: what one says with a number, the client hears with another.
    let said = |side: &str| -> BTreeSet<&str> {
        let from_vni = rows
            .iter()
            .filter(|row| row[0] == side && row[2] == vni_port);
        from_vni.map(|row| row[3].as_str()).collect()
    };
    let of_client = said("client");
    assert!(!of_client.is_empty());
    let slots: Vec<_> = ["replica:0", "replica:1"]
        .iter()
        .map(|side| said(side))
        .collect();
    let active = usize::from(slots[0].is_disjoint(&of_client));
    assert!(!slots[active].is_disjoint(&of_client), "{rows:?}");
    assert!(!slots[1 - active].is_empty(), "{rows:?}");
    assert!(slots[1 - active].is_disjoint(&of_client), "{rows:?}");

    // To a pipe, one side only, read by another program.
    let mut command = agent.verb(&[
        "capture",
        "--flow",
        &flow.client,
        "--side",
        "replica:1",
        "-c",
        "20",
    ]);
    let pipe = site.topology.dir().join("replica.pcapng");
    command.stdout(std::fs::File::create(&pipe).unwrap());
    let output = command.output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&output.stderr).lines().last(),
        Some("mirror-ctl: 20 packets")
    );
    let tcpdump = TOOLS.find(&["tcpdump"]).unwrap();
    // It becomes a user of its own otherwise, whom only its package makes.
    let arguments = ["-Z", "root", "-n", "-vv", "-r", pipe.to_str().unwrap()];
    let output = tcpdump
        .command(&site.topology.host, &arguments)
        .unwrap()
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(text.matches("(correct)").count(), 20, "{text}{said}");
    let rows = tshark(&site, &pipe, &["frame.interface_name"]);
    assert!(rows.iter().all(|row| row[0] == "replica:1"), "{rows:?}");
    check_whole(&client.finish().unwrap(), 4);
}

#[test]
fn a_capture_is_read_by_others_ipv4_native() {
    check_capture(Family::V4, "native");
}

#[test]
fn a_capture_is_read_by_others_ipv6_generic() {
    check_capture(Family::V6, "generic");
}
