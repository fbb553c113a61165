//! The agent under a service manager: what it tells it, and that the unit's capabilities are enough.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::de::DeserializeOwned;
use testbed::agent::{BINARY_VARIABLE, Flow, Status, sibling};
use testbed::cgroup::MemoryGroup;
use testbed::changes::install_other_maps;
use testbed::clock::wait_until;
use testbed::process::{self, Process};
use testbed::topology::config::Config;
use testbed::topology::{Family, Topology};

use crate::support::{LIMIT, Site, check_whole, wait_replies};

const UNIT: &str = include_str!("../../contrib/systemd/mirror.service");

/// What a service manager hears. It listens all the time: whoever notifies it waits when too much was not heard.
struct Manager(Arc<Mutex<Vec<String>>>);

impl Manager {
    fn new(topology: &Topology) -> Result<Self> {
        let socket = UnixDatagram::bind(topology.dir().join("notify"))?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let heard = Arc::new(Mutex::new(Vec::new()));
        let listener = heard.clone();
        thread::spawn(move || listen(&socket, &listener));
        Ok(Self(heard))
    }

    fn heard(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    fn count(&self, line: &str) -> usize {
        self.heard().iter().filter(|heard| *heard == line).count()
    }

    /// Waits until a line was heard so often.
    #[track_caller]
    fn wait(&self, line: &str, times: usize) {
        wait_until(
            line,
            LIMIT,
            || Ok((self.count(line) >= times).then_some(())),
        )
        .unwrap_or_else(|error| panic!("{error}: {:?}", self.heard()));
    }
}

/// Until nobody wants to know any more.
fn listen(socket: &UnixDatagram, heard: &Arc<Mutex<Vec<String>>>) {
    let mut bytes = [0; 4096];
    while Arc::strong_count(heard) > 1 {
        // Nothing comes for a while, too.
        if let Ok(length) = socket.recv(&mut bytes) {
            let text = String::from_utf8_lossy(&bytes[..length]);
            let lines = text.lines().map(str::to_owned);
            heard.lock().unwrap().extend(lines);
        }
    }
}

/// The capabilities of the unit, as setpriv wants them.
fn bounding_set() -> String {
    let line = UNIT
        .lines()
        .find_map(|line| line.strip_prefix("CapabilityBoundingSet="));
    let names = line.unwrap().split_whitespace();
    let names = names.map(|name| format!(",+{}", name.trim_start_matches("CAP_").to_lowercase()));
    format!("-all{}", names.collect::<String>())
}

/// The unit, as systemd would run it.
struct Unit<'a> {
    topology: &'a Topology,
    manager: Manager,
    binary: PathBuf,
    file: PathBuf,
    state: PathBuf,
    socket: PathBuf,
}

impl<'a> Unit<'a> {
    #[track_caller]
    fn new(topology: &'a Topology, config: &Config, binary: PathBuf) -> Self {
        let file = topology.dir().join("mirror.toml");
        config.write(&file).unwrap();
        let state = topology.dir().join("state");
        fs::create_dir(&state).unwrap();
        Self {
            topology,
            manager: Manager::new(topology).unwrap(),
            binary,
            file,
            state,
            socket: config.agent.socket.clone(),
        }
    }

    /// Starts the agent, with the unit's rights and no others.
    #[track_caller]
    fn start(&self) -> Process {
        // Its standard error is the journal, as systemd says.
        let journal = "JOURNAL_STREAM=$(stat -Lc %d:%i /proc/self/fd/2) exec \"$@\"";
        let mut command = self.topology.host.command("sh").unwrap();
        command
            .args(["-c", journal, "sh", "setpriv"])
            .args(["--bounding-set", &bounding_set(), "--no-new-privs"])
            .arg(&self.binary)
            .args(["agent", "--config"])
            .arg(&self.file)
            .env("NOTIFY_SOCKET", self.topology.dir().join("notify"))
            .env("STATE_DIRECTORY", &self.state)
            .env("WATCHDOG_USEC", "600000");
        Process::start("the agent", command).unwrap()
    }

    /// Waits until it has been told so often that the agent serves.
    #[track_caller]
    fn wait_ready(&self, times: usize) {
        self.manager.wait("READY=1", times);
    }

    fn verb(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.topology.host.command(&self.binary)?;
        command.args(arguments).arg("--socket").arg(&self.socket);
        let output = command.output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{arguments:?}: {said}");
        Ok(String::from_utf8(output.stdout)?)
    }

    fn json<T: DeserializeOwned>(&self, arguments: &[&str]) -> Result<T> {
        let text = self.verb(&[arguments, &["--json"]].concat())?;
        Ok(serde_json::from_str(&text)?)
    }
}

impl Drop for Unit<'_> {
    fn drop(&mut self) {
        let mut unload = self.topology.host.command(&self.binary).unwrap();
        unload.args(["unload", "--config"]).arg(&self.file);
        let unloaded = unload.output().unwrap();
        assert!(unloaded.status.success() || thread::panicking());
    }
}

#[test]
fn the_service_manager_hears_of_readiness_life_and_end_from_an_agent_with_the_units_rights() {
    let site = Site::new(2);
    let binary = sibling("mirror-ctl", Some(BINARY_VARIABLE)).unwrap();
    let unit = Unit::new(&site.topology, &site.config(), binary);
    let mut agent = unit.start();
    unit.wait_ready(1);
    let manager = &unit.manager;
    assert!(manager.count("STATUS=serves") > 0, "{:?}", manager.heard());
    manager.wait("WATCHDOG=1", manager.count("WATCHDOG=1") + 3);

    // The journal is told priorities; it knows the time itself.
    let said = agent.said();
    let log: Vec<_> = said
        .lines()
        .filter(|line| line.contains("published"))
        .collect();
    assert!(
        !log.is_empty() && log.iter().all(|line| line.starts_with("<6>")),
        "{said}"
    );

    // It does everything with these rights: new flows, takeovers, prompts.
    let mut client = site.client(Family::V4, 20);
    unit.verb(&["evacuate", "a"]).unwrap();
    wait_until("all flows on b", LIMIT, || {
        let flows: Vec<Flow> = unit.json(&["flows"])?;
        let on_b = flows.iter().filter(|flow| flow.active == "b").count();
        Ok(((on_b, flows.len()) == (20, 20)).then_some(()))
    })
    .unwrap();
    wait_replies(&mut client, 100);
    check_whole(&client.finish().unwrap(), 20);
    agent.signal(Signal::SIGTERM).unwrap();
    unit.manager.wait("STOPPING=1", 1);
    assert!(agent.wait(LIMIT).unwrap().success(), "{}", agent.said());
}

/// More than the tables of two versions.
const GROUP_BYTES: u64 = 16 << 30;

/// A unit with its control group, in which its keeper is too.
struct Grouped<'a> {
    unit: Unit<'a>,
    group: MemoryGroup,
    starts: usize,
}

impl Grouped<'_> {
    #[track_caller]
    fn start(&mut self) -> Process {
        let agent = self.unit.start();
        self.group.take_in(agent.pid()).unwrap();
        self.starts += 1;
        self.unit.wait_ready(self.starts);
        agent
    }

    /// The keeper, which looks after so many flows and is in the unit's group with the agent and nobody else.
    #[track_caller]
    fn wait_keeper(&self, agent: &Process, flows: u64) -> u32 {
        let keeper = wait_until("a keeper", LIMIT, || {
            let status: Status = self.unit.json(&["status"])?;
            let row = status.draining.filter(|row| row.flows == Some(flows));
            Ok(row.and_then(|row| row.pid))
        });
        let keeper = keeper.unwrap_or_else(|error| panic!("{error}{}", agent.said()));
        let mut members = self.group.processes().unwrap();
        members.sort_unstable();
        let mut both = [agent.pid(), keeper];
        both.sort_unstable();
        assert_eq!(members, both);
        keeper
    }

    /// Ends everybody who is left in the group, as systemd does without `KillMode=`; they go without being killed.
    #[track_caller]
    fn end_all(&self, agent: &mut Process) {
        for pid in self.group.processes().unwrap() {
            kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM).unwrap();
        }
        wait_until("an empty group", LIMIT, || {
            agent.try_wait()?;
            Ok(self.group.processes()?.is_empty().then_some(()))
        })
        .unwrap();
    }
}

#[test]
fn a_unit_that_is_stopped_while_a_version_drains_stops_its_keeper_and_starts_it_again() {
    assert!(!UNIT.contains("KillMode="), "{UNIT}");
    let site = Site::new(2);
    let topology = &site.topology;
    let config = site.config();
    let binary = topology.dir().join("program");
    let original = sibling("mirror-ctl", Some(BINARY_VARIABLE)).unwrap();
    process::copy(&original, &binary).unwrap();
    let mut grouped = Grouped {
        unit: Unit::new(topology, &config, binary.clone()),
        group: MemoryGroup::create(&topology.group_name("unit"), GROUP_BYTES).unwrap(),
        starts: 0,
    };
    let mut agent = grouped.start();
    let mut client = site.client(Family::V4, 10);
    install_other_maps(&binary).unwrap();
    let upgraded = grouped.unit.verb(&["upgrade", "--drain"]);
    upgraded.unwrap_or_else(|error| panic!("{error}{}", agent.said()));
    // The new version tells that it serves, by the process that was started.
    grouped.starts += 1;
    grouped.unit.wait_ready(grouped.starts);
    let first = grouped.wait_keeper(&agent, 10);

    // `systemctl stop`: nobody is left, and the connections go on.
    grouped.end_all(&mut agent);
    assert!(agent.wait(LIMIT).unwrap().success(), "{}", agent.said());
    wait_replies(&mut client, 100);
    let mut agent = grouped.start();
    let second = grouped.wait_keeper(&agent, 10);
    assert_ne!(first, second);
    // The agent dies: systemd ends who is left, and starts the unit again.
    agent.kill();
    grouped.end_all(&mut agent);
    wait_replies(&mut client, 100);
    let mut agent = grouped.start();
    let third = grouped.wait_keeper(&agent, 10);
    assert_ne!(second, third);

    check_whole(&client.finish().unwrap(), 10);
    wait_until("the end of draining", 2 * LIMIT, || {
        let status: Status = grouped.unit.json(&["status"])?;
        Ok(status.draining.is_none().then_some(()))
    })
    .unwrap();
    wait_until("the keeper's end", LIMIT, || {
        Ok((grouped.group.processes()? == [agent.pid()]).then_some(()))
    })
    .unwrap();
    let left = fs::read_dir(&grouped.unit.state).unwrap();
    assert_eq!(left.count(), 0, "the copy of its program is gone");
    grouped.end_all(&mut agent);
}
