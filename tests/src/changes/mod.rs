//! The agent is changed, replaced or killed while as much traffic goes on as the machine carries, and every frame of it is
//! counted at both ends. Tests hold it to nothing being lost; the bench makes figures of it.

mod ends;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

pub use ends::Counted;
use ends::Ends;

use crate::agent::{Agent, Event};
use crate::clock::wait_until;
use crate::process::{self, Process};
use crate::topology::config::{Config, VniConfig};
use crate::topology::{Family, Topology};
use crate::traffic::program::{Client, Ended, serve_with, service};
use crate::traffic::report::Connection;

const LIMIT: Duration = Duration::from_secs(30);
const MIRRORS: u64 = 1;
const CONNECTIONS: u64 = 40;
const SOCKETS: u64 = 4;
/// All traffic programs share one processor, and so do the queues between them. On several, one that waits for its turn
/// would hold a queue of the kernel up (a veth's ring has 256 places) while the others fill it: a mirror's answers are
/// awaited by nobody, so nothing would slow them down, and what is lost there is not what is looked for.
const PROCESSOR: [&str; 2] = ["--processor", "0"];
/// Connections of every kind, which know of each byte whether it came; those that ask do so without a pause.
const STREAMS: [&str; 8] = [
    "--connections",
    "40",
    "--think",
    "0",
    "--mix",
    "request=10,download=2,upload=4,idle=24",
    "--seed",
    "7",
];
/// 64 datagrams are under way at any time: with what the connections have, fewer than the shortest queue holds.
const DATAGRAMS: [&str; 5] = ["--udp", "--connections", "4", "--ahead", "16"];
/// Answered datagrams before the change, after it, and while there is no agent: some tenths of a second.
const ANSWERS: u64 = 20_000;
/// Replies on connections after the change.
const REPLIES: u64 = 1_000;
/// Less than any retransmission timer: who waits longer has noticed something.
pub const NOTICED_MS: f64 = 190.0;

/// What is done to the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing, to compare with.
    Nothing,
    /// Its file is another one, and it gets SIGHUP: an instance more, and other weights.
    Reload,
    /// `mirror-ctl apply`: another VNI, and another policy.
    Apply,
    /// `mirror-ctl upgrade` to a version with other programs.
    Upgrade,
    /// `mirror-ctl upgrade --drain` to a version with other maps.
    Drain,
    /// It is stopped, and started again.
    Restart,
    /// `kill -9`; traffic goes on without one, then one is started again.
    Kill,
}

/// What a change did.
#[derive(Clone, Debug)]
pub struct Found {
    /// How long it took, until the agent served again.
    pub took: Duration,
    /// How long traffic was counted, all in all.
    pub traffic: Duration,
    /// Each socket's datagrams.
    pub datagrams: Ended,
    /// Each connection's bytes.
    pub streams: Ended,
    /// What the hosts and the dataplane counted.
    pub counted: Counted,
}

impl Change {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Nothing,
        Self::Reload,
        Self::Apply,
        Self::Upgrade,
        Self::Drain,
        Self::Restart,
        Self::Kill,
    ];

    /// Makes a network, has traffic go on in it, does it, and counts.
    pub fn run(self) -> Result<Found> {
        let topology = Topology::create(3)?;
        let instances = topology.instances.iter();
        let servers = instances.map(|instance| serve_with(instance, &PROCESSOR));
        let _servers = servers.collect::<Result<Vec<Process>>>()?;
        let mut config = topology.config();
        // A reload brings the third.
        config.instance.truncate(2);
        let mut agent = Agent::start_copy(&topology, &config)?;
        let before = Ends::quiet(&topology, &agent)?;
        let start = Instant::now();
        let start_client = |family, arguments: &[&str]| {
            let arguments = [arguments, &PROCESSOR].concat();
            Client::start(&topology.client, service(family), &arguments)
        };
        let mut streams = start_client(Family::V4, &STREAMS)?;
        ensure!(streams.running.failed == 0, "{:?}", streams.running);
        let mut datagrams = start_client(Family::V6, &DATAGRAMS)?;
        agent.wait_warm(CONNECTIONS as usize, LIMIT)?;
        wait_answers(&mut datagrams)?;
        let begun = Instant::now();
        self.make(&topology, &mut agent, &mut datagrams)?;
        let took = begun.elapsed();
        wait_answers(&mut datagrams)?;
        wait_more(&mut streams, REPLIES)?;
        let (datagrams, streams) = (datagrams.finish()?, streams.finish()?);
        let traffic = start.elapsed();
        let after = Ends::quiet(&topology, &agent)?;
        let counted = after.since(&before, 1 + MIRRORS);
        // The agent that unloads reads a file that is right for what is there.
        drop(agent);
        Ok(Found {
            took,
            traffic,
            datagrams,
            streams,
            counted,
        })
    }

    fn make(self, topology: &Topology, agent: &mut Agent<'_>, client: &mut Client) -> Result<()> {
        let mut wanted = topology.config();
        match self {
            Self::Nothing => wait_answers(client),
            Self::Reload => {
                wanted.instance[0].weight = 50;
                wanted.write(agent.file())?;
                agent.hang_up()?;
                wait_until("the third instance", LIMIT, || {
                    Ok((agent.instances()?.len() == 3).then_some(()))
                })
            }
            Self::Apply => apply(topology, agent, wanted),
            Self::Upgrade => {
                install_another(agent.binary())?;
                let pid = agent.status()?.pid;
                agent.text(&["upgrade"])?;
                ensure!(agent.status()?.pid == pid, "another process");
                Ok(())
            }
            Self::Drain => {
                install_other_maps(agent.binary())?;
                agent.text(&["upgrade", "--drain"])?;
                ensure!(agent.status()?.draining.is_some(), "nothing drains");
                Ok(())
            }
            Self::Restart => {
                agent.stop()?;
                restart(agent)
            }
            Self::Kill => {
                agent.kill();
                wait_answers(client)?;
                restart(agent)
            }
        }
    }
}

fn apply(topology: &Topology, agent: &Agent<'_>, mut wanted: Config) -> Result<()> {
    wanted.instance.truncate(2);
    wanted.vni[0].on_loss = Some("leave".to_owned());
    let other = VniConfig {
        name: "other".into(),
        addresses: vec!["10.77.0.101".into()],
        ..wanted.vni[0].clone()
    };
    wanted.vni.push(other);
    let new = topology.dir().join("new.toml");
    wanted.write(&new)?;
    agent.text(&["apply", "-f", new.to_str().context("a path")?])?;
    let told: Vec<Event> = agent.json(&["events", "--kind", "configuration"])?;
    ensure!(told.len() == 2, "{told:?}");
    Ok(())
}

fn restart(agent: &mut Agent<'_>) -> Result<()> {
    agent.restart()?;
    ensure!(agent.status()?.adopted, "it found no dataplane");
    Ok(())
}

fn wait_answers(client: &mut Client) -> Result<()> {
    wait_more(client, ANSWERS)
}

fn wait_more(client: &mut Client, answers: u64) -> Result<()> {
    let start = client.progress()?.replies;
    wait_until("answers", LIMIT, || {
        Ok((client.progress()?.replies >= start + answers).then_some(()))
    })
}

impl Found {
    /// Everything that is not as it is when nothing happens to the agent; empty when nobody has lost anything.
    #[must_use]
    pub fn amiss(&self) -> Vec<String> {
        let (asked, counted) = (&self.datagrams.summary, &self.counted);
        let whole = |ended: &Ended| ended.connections.iter().filter(|c| c.is_whole()).count();
        let sent = asked.bytes_sent;
        let copies = sent * (1 + MIRRORS);
        let (client, instances) = (counted.client_datagrams, counted.instance_datagrams);
        let (frames, judged) = counted.host_frames;
        let pairs = [
            ("sockets", SOCKETS, whole(&self.datagrams) as u64),
            ("connections", CONNECTIONS, whole(&self.streams) as u64),
            ("answers that the client read", sent, asked.bytes_received),
            ("datagrams that the client sent", sent, client.0),
            ("answers that came to it", sent, client.1),
            ("datagrams at the instances", copies, instances.0),
            ("answers of the instances", copies, instances.1),
            ("frames with a verdict", frames, judged),
            ("copies", counted.copies.0, counted.copies.1),
            ("frames that were dropped", 0, counted.dropped),
            ("answers that came twice", 0, asked.duplicates),
        ];
        let unequal = pairs
            .into_iter()
            .filter(|(_, wanted, found)| wanted != found);
        let unequal = unequal.map(|(what, wanted, found)| format!("{what}: {found} of {wanted}"));
        let losses = counted.losses.iter();
        let losses = losses.map(|(reason, count)| format!("{count} frames: {reason}"));
        unequal.chain(losses).collect()
    }

    /// Frames that some end counted as sent and another one not as received, or that were dropped in between.
    #[must_use]
    pub fn lost(&self) -> u64 {
        let counted = &self.counted;
        let (frames, judged) = counted.host_frames;
        let (copies, made) = counted.copies;
        let sent = self.datagrams.summary.bytes_sent;
        let in_dataplane: u64 = counted.losses.values().sum();
        // What the dataplane has dropped is missing at the ends too, and counts once.
        let at_ends = [
            sent.saturating_sub(counted.client_datagrams.1),
            (sent * (1 + MIRRORS)).saturating_sub(counted.instance_datagrams.0),
        ];
        let missing = at_ends.into_iter().max().unwrap_or(0).max(in_dataplane);
        frames.abs_diff(judged) + copies.abs_diff(made) + counted.dropped + missing
    }

    /// The longest that any connection or datagram was waited for, in milliseconds.
    #[must_use]
    pub fn longest_wait_ms(&self) -> f64 {
        let waits = [&self.streams, &self.datagrams].map(|ended| ended.summary.baseline_ms.max);
        waits[0].max(waits[1])
    }

    /// Connections that broke or waited so long that somebody has noticed.
    #[must_use]
    pub fn noticed(&self) -> u64 {
        let connections = self.streams.connections.iter();
        let noticed = |c: &&Connection| !c.is_whole() || c.baseline_ms > NOTICED_MS;
        connections.filter(noticed).count() as u64
    }
}

/// Puts a version of the program with other XDP programs in its place: the same ones under another licence, which is in
/// the object and, like any change of it, makes it another one to the agent.
pub fn install_another(binary: &Path) -> Result<()> {
    install_changed(binary, b"Dual MIT/GPL\0", b"Dual BSD/GPL\0")
}

/// Puts a version with other maps in the program's place: what is one map to the version before is another one to it, by name.
pub fn install_other_maps(binary: &Path) -> Result<()> {
    install_changed(binary, b"DATAGRAM_FLOWS", b"DATAGRAM_FLOWZ")
}

/// Puts the program in its own place with some bytes, wherever they are, changed for as many others.
fn install_changed(binary: &Path, old: &[u8], new: &[u8]) -> Result<()> {
    ensure!(old.len() == new.len(), "the program would be another size");
    let mut bytes = fs::read(binary)?;
    let places: Vec<usize> = bytes
        .windows(old.len())
        .enumerate()
        .filter_map(|(place, window)| (window == old).then_some(place))
        .collect();
    ensure!(
        !places.is_empty(),
        "nothing to change in {}",
        binary.display()
    );
    for place in places {
        bytes[place..place + new.len()].copy_from_slice(new);
    }
    let (changed, next) = (
        binary.with_extension("changed"),
        binary.with_extension("next"),
    );
    fs::write(&changed, bytes)?;
    fs::set_permissions(&changed, fs::metadata(binary)?.permissions())?;
    process::copy(&changed, &next)?;
    fs::remove_file(&changed)?;
    // As a package manager does it: the running one keeps its file.
    fs::rename(&next, binary).context("replace the program")
}
