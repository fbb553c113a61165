//! The traffic programs over the plain kernel: when nothing fails they say so,
//! and when something does they notice.

use std::time::Duration;

use testbed::clock::{monotonic_ns, wait_until};
use testbed::topology::{Family, Topology};
use testbed::traffic::Profile;
use testbed::traffic::program::{Client, Ended, serve, service};
use testbed::turns;

const LIMIT: Duration = Duration::from_secs(20);
/// Far above what a loaded machine does, far below a retransmission's 200 ms
/// and the seconds of a real outage.
const BASELINE_MS_MAX: f64 = 150.0;

fn plain(instances: usize) -> Topology {
    let topology = Topology::create(instances).unwrap();
    topology.route_plainly(&topology.instances[0]).unwrap();
    topology
}

#[track_caller]
fn check_clean(ended: &Ended, connections: usize) {
    assert_eq!(ended.connections.len(), connections);
    for connection in &ended.connections {
        assert!(connection.is_whole(), "{connection:?}");
        assert!(connection.bytes_received > 0, "{connection:?}");
    }
    assert_eq!(ended.summary.duplicates, 0);
}

#[test]
fn a_thousand_connections_of_all_profiles_are_clean() {
    let _turn = turns::alone();
    let topology = plain(1);
    let _server = serve(&topology.instances[0]).unwrap();
    let service = service(Family::V4);
    // A quarter of the rates: what counts here is that no byte is lost.
    let rates = [
        "--think",
        "200",
        "--download-rate",
        "50000",
        "--upload-rate",
        "25000",
    ];
    let arguments = [&["--connections", "1000", "--duration", "3"], &rates[..]].concat();
    let client = Client::start(&topology.client, service, &arguments).unwrap();
    assert_eq!(client.running.connections, 1000);
    let ended = client.ended().unwrap();
    check_clean(&ended, 1000);
    for profile in [
        Profile::Request,
        Profile::Download,
        Profile::Upload,
        Profile::Idle,
    ] {
        let of = |c: &&testbed::traffic::report::Connection| c.profile == profile;
        assert!(
            ended.connections.iter().filter(of).count() >= 150,
            "{profile}"
        );
    }
}

#[test]
fn stalls_are_small_when_nothing_fails() {
    let _turn = turns::alone();
    for family in Family::ALL {
        let topology = plain(1);
        let _server = serve(&topology.instances[0]).unwrap();
        let service = service(family);
        let arguments = ["--connections", "60"];
        let mut client = Client::start(&topology.client, service, &arguments).unwrap();
        client.mark(monotonic_ns()).unwrap();
        wait_for_replies(&mut client, 1000);
        let ended = client.finish().unwrap();
        check_clean(&ended, 60);
        let stall = ended.summary.stall_ms;
        assert!(stall.max > 0.0 && stall.max < BASELINE_MS_MAX, "{stall:?}");
    }
}

#[test]
fn an_outage_is_measured_on_every_profile() {
    let _turn = turns::alone();
    let topology = plain(1);
    let instance = &topology.instances[0];
    let _server = serve(instance).unwrap();
    let arguments = ["--connections", "40"];
    let mut client = Client::start(&topology.client, service(Family::V4), &arguments).unwrap();
    wait_for_replies(&mut client, 200);
    let start = monotonic_ns();
    client.mark(start).unwrap();
    instance.silence().unwrap();
    // Longer than any server's delay, so that every idle connection is due to hear something.
    let outage = Duration::from_millis(1_500);
    wait_until("the outage", LIMIT, || {
        Ok((monotonic_ns() - start >= outage.as_nanos() as u64).then_some(()))
    })
    .unwrap();
    instance.unsilence().unwrap();
    let before = client.progress().unwrap().replies;
    wait_for_replies(&mut client, before + 400);
    let ended = client.finish().unwrap();
    check_clean(&ended, 40);
    for connection in &ended.connections {
        let stall = connection.stall_ms;
        let least = match connection.profile {
            // It wants something again at most so long after the beginning.
            Profile::Idle => 200.0,
            _ => 1_200.0,
        };
        assert!(stall >= least && stall < 10_000.0, "{connection:?}");
    }
}

#[test]
fn a_killed_server_is_noticed_on_every_connection() {
    let _turn = turns::beside();
    let topology = plain(1);
    let mut server = serve(&topology.instances[0]).unwrap();
    let arguments = ["--connections", "40"];
    let mut client = Client::start(&topology.client, service(Family::V4), &arguments).unwrap();
    wait_for_replies(&mut client, 200);
    server.kill();
    wait_until("the failure of all", LIMIT, || {
        Ok((client.progress()?.failed == 40).then_some(()))
    })
    .unwrap();
    let ended = client.finish().unwrap();
    assert_eq!(ended.summary.resets, 40);
    assert!(ended.summary.bytes_lost > 0);
}

#[test]
fn bytes_of_an_unreachable_server_are_lost() {
    let _turn = turns::beside();
    let topology = plain(1);
    let instance = &topology.instances[0];
    let _server = serve(instance).unwrap();
    let arguments = ["--connections", "20", "--finish", "1"];
    let mut client = Client::start(&topology.client, service(Family::V6), &arguments).unwrap();
    wait_for_replies(&mut client, 100);
    instance.link_down().unwrap();
    let ended = client.finish().unwrap();
    assert_eq!(ended.summary.resets, 0);
    assert!(
        ended.connections.iter().all(|c| c.bytes_lost > 0),
        "{:?}",
        ended.summary
    );
}

#[test]
fn replicas_of_the_server_answer_alike() {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpStream};
    use testbed::traffic::wire::{Header, Order};
    let _turn = turns::beside();

    let topology = plain(2);
    let servers: Vec<_> = topology
        .instances
        .iter()
        .map(|i| serve(i).unwrap())
        .collect();
    let said = header_and_orders();
    let mut answers = Vec::new();
    for (instance, _server) in topology.instances.iter().zip(&servers) {
        let connected = instance
            .namespace
            .run(|| TcpStream::connect(service(Family::V4)));
        let mut connection = connected.unwrap().unwrap();
        connection.set_read_timeout(Some(LIMIT)).unwrap();
        connection.write_all(&said).unwrap();
        connection.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).unwrap();
        answers.push(answer);
    }
    assert!(answers[0].len() > 40_000);
    assert_eq!(answers[0], answers[1]);

    fn header_and_orders() -> Vec<u8> {
        let mut said = Header {
            profile: 0,
            seed: 9,
        }
        .encode()
        .to_vec();
        for (body, due_ms, reply) in [(10, 0, 100), (0, 7, 40_000), (5000, 0, 0)] {
            said.extend(
                Order {
                    body,
                    due_ms,
                    reply,
                }
                .encode(),
            );
            said.resize(said.len() + body as usize, 0x55);
        }
        said
    }
}

#[test]
fn datagrams_are_answered_once() {
    let _turn = turns::alone();
    for family in Family::ALL {
        let topology = plain(1);
        let _server = serve(&topology.instances[0]).unwrap();
        let arguments = [
            "--udp",
            "--connections",
            "20",
            "--duration",
            "1",
            "--think",
            "20",
        ];
        let client = Client::start(&topology.client, service(family), &arguments).unwrap();
        let ended = client.ended().unwrap();
        check_clean(&ended, 20);
        assert!(
            ended.summary.bytes_received >= 20 * 10,
            "{:?}",
            ended.summary
        );
    }
}

fn wait_for_replies(client: &mut Client, replies: u64) {
    wait_until("replies", LIMIT, || {
        Ok((client.progress()?.replies >= replies).then_some(()))
    })
    .unwrap();
}
