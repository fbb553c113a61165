//! What callers of the API that keep to nothing cannot do: damaged, endless, cut and piled up requests get an answer or the
//! connection's end in time, none is an error of the agent's, and nothing changes. And who may call at all, and how many at a time.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use nix::unistd::Group;
use testbed::agent::Agent;
use testbed::topology::Family;

use crate::support::{LIMIT, Site, calmly, wait_replies};

const STATUS: &[u8] = b"GET /v1/status HTTP/1.1\r\nHost: agent\r\n\r\n";
const SEED: u64 = 0x5eed_0a91;
const REQUESTS: usize = 1_000;

/// Requests that are right. Those that change something do so to what is not there; streams, which never end, are left out.
const RIGHT: [(&str, &str); 14] = [
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
    ("GET", "/v1/config"),
    ("POST", "/v1/config"),
    ("GET", "/v1/events?since=0"),
    ("GET", "/v1/flows?limit=5"),
    ("GET", "/v1/instances"),
    ("GET", "/v1/instances/a/health"),
    ("POST", "/v1/instances/nobody/evacuate?force=true"),
    ("GET", "/v1/mirrors"),
    ("GET", "/v1/models"),
    ("POST", "/v1/models/nothing"),
    ("GET", "/v1/status"),
    ("GET", "/v1/vnis/web/select?source=10.77.0.2"),
];

/// What lies badly in parsers.
const PIECES: [&[u8]; 14] = [
    b"\0",
    b"\r\n\r\n",
    b"\n",
    b"%00",
    b"%ff%fe",
    b"../../",
    b"?limit=18446744073709551616",
    b"&since=-1",
    b"Content-Length: 18446744073709551615\r\n",
    b"Content-Length: -1\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Expect: 100-continue\r\n",
    b"\xff\xfe\xfd",
    b"{\"a\":[[[[[[",
];

fn request(rng: &mut Rng) -> Vec<u8> {
    let (method, path) = RIGHT[rng.usize(..RIGHT.len())];
    let mut bytes = format!("{method} {path} HTTP/1.1\r\nHost: agent\r\n").into_bytes();
    for number in 0..[0, 1, 200][rng.usize(..3)] {
        bytes.extend(format!("x-{number}: {}\r\n", "y".repeat(rng.usize(..40))).bytes());
    }
    let body = match rng.u8(..8) {
        0 => 3 << 20,
        1 => 5_000,
        2 => 10,
        _ => 0,
    };
    bytes.extend(format!("Content-Length: {body}\r\n\r\n").bytes());
    bytes.extend(std::iter::repeat_with(|| rng.u8(..)).take(body));
    bytes
}

/// Bytes of one connection.
fn connection(rng: &mut Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..[1, 1, 1, 40][rng.usize(..4)] {
        bytes.extend(request(rng));
    }
    // The head is what is parsed.
    let head = bytes.len().min(600);
    for _ in 0..rng.usize(..4) {
        let at = rng.usize(..head);
        match rng.u8(..4) {
            0 => bytes[at] = rng.u8(..),
            1 => bytes.truncate(at + 1),
            _ => {
                let piece = PIECES[rng.usize(..PIECES.len())];
                bytes.splice(at..at, piece.iter().copied());
            }
        }
        if bytes.len() < head {
            break;
        }
    }
    bytes
}

/// Sends it all, and says what came back until the connection's end.
#[track_caller]
fn send(socket: &Path, bytes: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.set_write_timeout(Some(LIMIT)).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let mut answer = Vec::new();
    // Answers are read meanwhile: else each side would wait for the other to read.
    let (said, heard) = thread::scope(|scope| {
        let said = scope.spawn(|| {
            let said = writer.write_all(bytes);
            let _ = writer.shutdown(Shutdown::Write);
            said
        });
        let heard = stream.read_to_end(&mut answer);
        (said.join().unwrap(), heard)
    });
    for error in [said.err(), heard.err()].into_iter().flatten() {
        // Whoever has heard enough may close before all is said.
        let ended = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
        assert!(ended.contains(&error.kind()), "{error}: {}", shown(bytes));
    }
    answer
}

fn shown(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(800)].escape_ascii().to_string()
}

/// The status codes of the answers of a connection.
fn codes(answer: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(answer);
    let lines = text.split("HTTP/1.1 ").skip(1);
    lines
        .filter_map(|rest| rest.get(..3)?.parse().ok())
        .collect()
}

/// What must be as it was.
fn state(agent: &Agent<'_>) -> String {
    let instances = agent.instances().unwrap();
    let instances: Vec<_> = instances
        .iter()
        .map(|i| (&i.name, &i.state, i.weight))
        .collect();
    let config = agent.text(&["config", "show"]).unwrap();
    format!("{:?} {instances:?}\n{config}", agent.pid())
}

#[test]
fn requests_that_keep_to_nothing_change_nothing() {
    calmly(|| {
        let site = Site::alone(2);
        let config = site.config();
        let mut agent = site.agent(&config);
        let mut client = site.client(Family::V4, 20);
        agent.wait_warm(20, LIMIT).unwrap();
        let before = state(&agent);
        let calm = site.calm();
        let mut rng = Rng::with_seed(SEED);
        let mut met = [0; 6];
        for _ in 0..REQUESTS {
            let bytes = connection(&mut rng);
            for code in codes(&send(&config.agent.socket, &bytes)) {
                assert!(code < 500, "{code}: {}", shown(&bytes));
                met[usize::from(code / 100)] += 1;
            }
        }
        // Some were right all the same, and some were not.
        assert!(met[2] > 100 && met[4] > 100, "{met:?}");
        assert_eq!(state(&agent), before);
        agent.check_alive().unwrap();
        assert!(!agent.said().contains("panicked"), "{}", agent.said());
        wait_replies(&mut client, 50);
        calm.check(&client.finish().unwrap(), 20);
    });
}

/// As many as there may be (`CONNECTIONS_MAX`, mirror-ctl/src/api/listen.rs).
const CONNECTIONS: usize = 128;

#[test]
fn connections_beyond_the_bound_wait_for_a_place() {
    let site = Site::new(2);
    let config = site.config();
    let agent = site.agent(&config);
    let connect = || UnixStream::connect(&config.agent.socket).unwrap();
    // Each has been answered once, so that it has its place, and is kept.
    let mut held: Vec<_> = std::iter::repeat_with(connect).take(CONNECTIONS).collect();
    for stream in &mut held {
        stream.write_all(STATUS).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        assert!(stream.read(&mut [0; 64]).unwrap() > 0);
    }
    let mut late = connect();
    late.write_all(STATUS).unwrap();
    late.set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let none = late.read(&mut [0; 64]).unwrap_err();
    assert_eq!(none.kind(), ErrorKind::WouldBlock, "{none}");
    held.pop();
    late.set_read_timeout(Some(LIMIT)).unwrap();
    let mut answer = [0; 12];
    late.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    drop(held);
    agent.status().unwrap();
}

#[test]
fn the_socket_is_its_owners_or_a_groups() {
    let site = Site::new(2);
    let mut config = site.config();
    for (group, mode) in [(None, 0o600), (Some("daemon"), 0o660)] {
        config.agent.group = group.map(str::to_owned);
        let agent = site.agent(&config);
        let socket = fs::metadata(&config.agent.socket).unwrap();
        assert_eq!(socket.mode() & 0o7777, mode);
        let name = group.unwrap_or("root");
        let owner = Group::from_name(name).unwrap().unwrap();
        assert_eq!((socket.uid(), socket.gid()), (0, owner.gid.as_raw()));
        drop(agent);
    }
}
