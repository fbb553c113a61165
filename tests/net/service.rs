//! The agent under a service manager: what it tells it, and that the unit's capabilities are enough.

use std::io::ErrorKind;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::Signal;
use testbed::agent::{BINARY_VARIABLE, sibling};
use testbed::clock::wait_until;
use testbed::process::Process;
use testbed::topology::{Family, Topology};

use crate::support::{LIMIT, Site, check_whole};

const UNIT: &str = include_str!("../../contrib/systemd/mirror.service");

/// What a service manager hears.
struct Manager {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Manager {
    fn new(topology: &Topology) -> Result<Self> {
        let socket = UnixDatagram::bind(topology.dir().join("notify"))?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        Ok(Self {
            socket,
            heard: Vec::new(),
        })
    }

    /// Waits until a line was heard so often.
    #[track_caller]
    fn wait(&mut self, line: &str, times: usize) {
        let heard = wait_until(line, LIMIT, || {
            let mut bytes = [0; 4096];
            match self.socket.recv(&mut bytes) {
                Ok(length) => {
                    let text = String::from_utf8_lossy(&bytes[..length]);
                    self.heard.extend(text.lines().map(str::to_owned));
                }
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error.into()),
            }
            let count = self.heard.iter().filter(|heard| *heard == line).count();
            Ok((count >= times).then_some(()))
        });
        heard.unwrap_or_else(|error| panic!("{error}: {:?}", self.heard));
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

#[test]
fn the_service_manager_hears_of_readiness_life_and_end_from_an_agent_with_the_units_rights() {
    let site = Site::new(2);
    let topology = &site.topology;
    let mut manager = Manager::new(topology).unwrap();
    let config = topology.config();
    let file = topology.dir().join("mirror.toml");
    config.write(&file).unwrap();
    let binary = sibling("mirror-ctl", Some(BINARY_VARIABLE)).unwrap();
    // Its standard error is the journal, as systemd says.
    let journal = "JOURNAL_STREAM=$(stat -Lc %d:%i /proc/self/fd/2) exec \"$@\"";
    let mut command = topology.host.command("sh").unwrap();
    command
        .args(["-c", journal, "sh", "setpriv"])
        .args(["--bounding-set", &bounding_set(), "--no-new-privs"])
        .arg(&binary)
        .args(["agent", "--config"])
        .arg(&file)
        .env("NOTIFY_SOCKET", topology.dir().join("notify"))
        .env("WATCHDOG_USEC", "600000");
    let mut agent = Process::start("the agent", command).unwrap();
    manager.wait("READY=1", 1);
    assert!(
        manager.heard.iter().any(|line| line == "STATUS=serves"),
        "{:?}",
        manager.heard
    );
    let watchdog = manager
        .heard
        .iter()
        .filter(|line| *line == "WATCHDOG=1")
        .count();
    manager.wait("WATCHDOG=1", watchdog + 3);

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
    let socket = config.agent.socket.to_str().unwrap();
    let verb = |arguments: &[&str]| {
        let mut command = topology.host.command(&binary).unwrap();
        let output = command
            .args(arguments)
            .args(["--socket", socket])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{arguments:?}: {said}{}",
            agent.said()
        );
        String::from_utf8(output.stdout).unwrap()
    };
    verb(&["evacuate", "a"]);
    let moved = wait_until("all flows on b", LIMIT, || {
        let flows: serde_json::Value = serde_json::from_str(&verb(&["flows", "--json"]))?;
        let flows = flows.as_array().unwrap().iter();
        let flows: Vec<_> = flows.map(|flow| flow["active"] == "b").collect();
        Ok((flows.len() == 20 && flows.iter().all(|on_b| *on_b)).then_some(()))
    });
    moved.unwrap();
    crate::support::wait_replies(&mut client, 100);
    check_whole(&client.finish().unwrap(), 20);
    agent.signal(Signal::SIGTERM).unwrap();
    manager.wait("STOPPING=1", 1);
    assert!(agent.wait(LIMIT).unwrap().success(), "{}", agent.said());

    let mut unload = topology.host.command(&binary).unwrap();
    let unloaded = unload
        .args(["unload", "--config"])
        .arg(&file)
        .output()
        .unwrap();
    assert!(unloaded.status.success());
}
