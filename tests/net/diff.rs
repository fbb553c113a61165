//! Mirrors whose answers are other ones than the clients' are found out, with what both sides said.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use testbed::agent::Agent;
use testbed::topology::{Family, Instance, Topology};
use testbed::traffic::program::service;
use testbed::turns;

use crate::support::LIMIT;

pub(crate) const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n";
pub(crate) const BAD: &str = "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 3\r\n\r\nno\n";
/// Where they part: at their status.
const FIRST: u32 = 9;
pub(crate) const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n";

/// `diff --json`
#[derive(Debug, Deserialize)]
pub(crate) struct Report {
    pub(crate) mirrors: Vec<Mirror>,
    lost_records: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Mirror {
    pub(crate) instance: String,
    flows: u64,
    diverged: u64,
    rate: f64,
    pub(crate) samples: Vec<Sample>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Sample {
    pub(crate) active: String,
    offset: u32,
    active_status: Option<String>,
    mirror_status: Option<String>,
    active_bytes: String,
    mirror_bytes: String,
}

impl Mirror {
    #[track_caller]
    pub(crate) fn check_same(&self) {
        let found = (self.diverged, self.rate, self.samples.len());
        assert_eq!(found, (0, 0.0, 0), "{self:?}");
    }

    /// A difference in the first answer. Of a connection that there was before anybody looked, a later one is the first that
    /// was seen.
    #[track_caller]
    pub(crate) fn first_sample(&self) -> &Sample {
        let mut samples = self.samples.iter();
        let found = samples.find(|sample| sample.offset == FIRST);
        found.unwrap_or_else(|| panic!("{self:?}"))
    }

    #[track_caller]
    pub(crate) fn check_diverged(&self) {
        assert_eq!((self.diverged, self.rate), (self.flows, 1.0), "{self:?}");
    }
}

impl Sample {
    /// Checks that both sides' status lines and bytes are those of these answers.
    #[track_caller]
    pub(crate) fn check(&self, active: &str, mirror: &str) {
        let status = |answer: &str| answer.lines().next().map(str::to_owned);
        assert_eq!(self.active_status, status(active), "{self:?}");
        assert_eq!(self.mirror_status, status(mirror), "{self:?}");
        for (said, answer) in [(&self.active_bytes, active), (&self.mirror_bytes, mirror)] {
            let answer = answer.as_bytes().escape_ascii().to_string();
            assert!(answer.starts_with(&said[..30]), "{self:?}");
        }
    }
}

/// An HTTP server on an instance that gives the same answer to each request, for as long as the test runs.
pub(crate) fn serve(instance: &Instance, family: Family, answer: &'static str) {
    let listen = || TcpListener::bind(service(family));
    let listener = instance.namespace.run(listen).unwrap().unwrap();
    thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            thread::spawn(move || {
                let mut asked = Vec::new();
                let mut piece = [0; 512];
                // Ends with the client, or with the reset of what is cold.
                while let Ok(n @ 1..) = connection.read(&mut piece) {
                    asked.extend(&piece[..n]);
                    if asked.ends_with(b"\r\n\r\n") {
                        asked.clear();
                        if connection.write_all(answer.as_bytes()).is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
}

/// The answers to so many requests on one connection.
pub(crate) fn ask(topology: &Topology, family: Family, requests: usize) -> Vec<String> {
    let connect = || TcpStream::connect(service(family));
    let mut connection = topology.client.run(connect).unwrap().unwrap();
    connection.set_read_timeout(Some(LIMIT)).unwrap();
    let answers = (0..requests).map(|_| {
        connection.write_all(REQUEST).unwrap();
        let mut got = Vec::new();
        while !got.ends_with(b"\r\n\r\nok\n") && !got.ends_with(b"\r\n\r\nno\n") {
            let mut byte = [0];
            connection.read_exact(&mut byte).unwrap();
            got.extend(byte);
        }
        String::from_utf8(got).unwrap()
    });
    let answers = answers.collect();
    connection.shutdown(Shutdown::Both).unwrap();
    answers
}

/// Fewer answers would say little.
const ANSWERS_MIN: usize = 30;

/// What `diff` says while clients ask, and the different answers that they got.
#[track_caller]
pub(crate) fn compare(
    agent: &Agent<'_>,
    topology: &Topology,
    family: Family,
) -> (Report, BTreeSet<String>) {
    let asking = AtomicBool::new(true);
    let (report, answers) = thread::scope(|scope| {
        let asker = scope.spawn(|| {
            let mut answers = Vec::new();
            while asking.load(Ordering::Relaxed) || answers.len() <= ANSWERS_MIN {
                answers.extend(ask(topology, family, 3));
                pace();
            }
            answers
        });
        let report = agent.json(&["diff", "web", "--duration", "2"]);
        asking.store(false, Ordering::Relaxed);
        (report.unwrap(), asker.join().unwrap())
    });
    let report: Report = report;
    assert!(
        report.lost_records == 0 && !report.mirrors.is_empty(),
        "{report:?}"
    );
    assert!(
        report.mirrors.iter().all(|mirror| mirror.flows > 0),
        "{report:?}"
    );
    (report, answers.into_iter().collect())
}

/// Between two connections: the ports are to last.
fn pace() {
    #[expect(clippy::disallowed_methods, reason = "a client's pace")]
    thread::sleep(Duration::from_millis(20));
}

#[test]
fn mirrors_that_answer_otherwise_are_found_out_ipv4_native() {
    let _turn = turns::beside();
    let topology = Topology::create(2).unwrap();
    for (instance, answer) in topology.instances.iter().zip([GOOD, BAD]) {
        serve(instance, Family::V4, answer);
    }
    let agent = Agent::start(&topology, &topology.config().patient()).unwrap();
    let (report, _) = compare(&agent, &topology, Family::V4);
    for mirror in &report.mirrors {
        mirror.check_diverged();
        let sample = mirror.first_sample();
        assert_ne!(sample.active, mirror.instance);
        let (active, said) = match mirror.instance.as_str() {
            "b" => (GOOD, BAD),
            _ => (BAD, GOOD),
        };
        sample.check(active, said);
    }
}

#[test]
fn mirrors_that_answer_alike_are_said_to_ipv6_generic() {
    let _turn = turns::beside();
    let topology = Topology::create(2).unwrap();
    for instance in &topology.instances {
        serve(instance, Family::V6, GOOD);
    }
    let config = topology.config().patient().with_mode("generic");
    let agent = Agent::start(&topology, &config).unwrap();
    let (report, answers) = compare(&agent, &topology, Family::V6);
    assert_eq!(answers, BTreeSet::from([GOOD.to_owned()]));
    for mirror in &report.mirrors {
        mirror.check_same();
    }
}
