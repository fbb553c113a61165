//! Load balancers that one would use instead, in front of three instances.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;
use testbed::agent::sibling;
use testbed::process::Process;
use testbed::scenario::INSTANCES;
use testbed::topology::{Family, Instance, Topology};
use testbed::traffic::program::PORT;

use crate::PEERS;
use crate::probe;

const READY_LIMIT: Duration = Duration::from_secs(10);

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Balancer {
    /// Proxies TCP, checks instances every 100 ms, takes one out after two checks and ends its sessions.
    HaProxy,
    /// Translates addresses by turns, and checks nothing.
    Dnat,
    /// One instance has the address, the next one gets it when two checks 100 ms apart have failed: what keepalived does, without
    /// its negotiation.
    Moved,
}

/// What runs, for as long as it lives.
#[expect(dead_code, reason = "held for what dropping it ends")]
pub(crate) enum Running {
    Proxy(Process, TempDir),
    Kernel,
    Checker(Checker),
}

impl Balancer {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::HaProxy => "HAProxy",
            Self::Dnat => "nftables DNAT",
            Self::Moved => "address move",
        }
    }

    /// Balances both services over all instances, or gives them to the first.
    pub(crate) fn start(self, topology: &Topology) -> Result<Running> {
        topology.forward()?;
        match self {
            Self::HaProxy => proxy(topology).map(|(process, files)| Running::Proxy(process, files)),
            Self::Dnat => translate(topology).map(|()| Running::Kernel),
            Self::Moved => Checker::start(topology).map(Running::Checker),
        }
    }

    /// The address that clients connect to.
    pub(crate) fn address(self) -> IpAddr {
        match self {
            Self::HaProxy | Self::Dnat => Family::V4.client_gateway(),
            Self::Moved => Family::V4.vni(),
        }
    }

    /// Over how many instances connections are spread.
    pub(crate) fn spread(self) -> usize {
        match self {
            Self::HaProxy | Self::Dnat => INSTANCES,
            Self::Moved => 1,
        }
    }
}

/// Checks who has the address, and moves it.
pub(crate) struct Checker {
    _stop: Sender<()>,
}

impl Checker {
    const INTERVAL: Duration = Duration::from_millis(100);
    const FALL: usize = 2;

    fn start(topology: &Topology) -> Result<Self> {
        let [first, second] = [&topology.instances[0], &topology.instances[1]];
        topology.route_plainly(first)?;
        let checked = SocketAddr::new(first.address(Family::V4), probe::PORT);
        let ip = PEERS.find(&["ip"])?;
        let route = format!(
            "route replace {}/32 via {} dev {} onlink",
            Family::V4.vni(),
            second.address(Family::V4),
            second.link
        );
        let (stop, stopped) = channel::<()>();
        let check = move || {
            let mut failed = 0;
            while failed < Self::FALL {
                if !matches!(
                    stopped.recv_timeout(Self::INTERVAL),
                    Err(RecvTimeoutError::Timeout)
                ) {
                    return;
                }
                let answer = TcpStream::connect_timeout(&checked, Self::INTERVAL);
                failed = if answer.is_ok() { 0 } else { failed + 1 };
            }
            let words: Vec<&str> = route.split_whitespace().collect();
            if let Err(error) = ip.first_line(&words) {
                eprintln!("{error:#}");
            }
        };
        // A thread stays in the namespace in which it was started. It ends when nobody holds the other end.
        topology.host.run(|| drop(thread::spawn(check)))?;
        Ok(Self { _stop: stop })
    }
}

/// Starts an instance's server at the instance's own address.
pub(crate) fn serve(instance: &Instance) -> Result<Process> {
    let mut command = instance.namespace.command(sibling("traffic", None)?)?;
    let address = instance.address(Family::V4);
    command.args(["server", "--listen", &format!("{address}:{PORT}")]);
    let mut server = Process::start(&format!("server {}", instance.name), command)?;
    server.line("ready", READY_LIMIT, |line| {
        Ok((line == "ready").then_some(()))
    })?;
    Ok(server)
}

fn proxy(topology: &Topology) -> Result<(Process, TempDir)> {
    let haproxy = PEERS.find(&["haproxy"])?;
    let host = Family::V4.client_gateway();
    let mut text = String::from(
        "global\n  maxconn 4096\ndefaults\n  mode tcp\n  retries 3\n  option redispatch\n  \
         timeout connect 200ms\n  timeout check 100ms\n  timeout client 60s\n  timeout server 60s\n",
    );
    for port in [PORT, probe::PORT] {
        text += &format!("listen p{port}\n  bind {host}:{port}\n  balance roundrobin\n");
        for instance in &topology.instances {
            let (name, address) = (&instance.name, instance.address(Family::V4));
            text += &format!(
                "  server {name} {address}:{port} check inter 100ms fall 2 rise 2 \
                 on-marked-down shutdown-sessions\n"
            );
        }
    }
    let files = tempfile::tempdir().context("temporary directory")?;
    let path = files.path().join("haproxy.cfg");
    std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    let path = path.to_string_lossy();
    haproxy.run(&topology.host, &["-c", "-f", &path])?;
    let process = Process::start(
        "HAProxy",
        haproxy.command(&topology.host, &["-db", "-f", &path])?,
    )?;
    crate::echo::wait_for(&topology.client, (host, probe::PORT).into())?;
    Ok((process, files))
}

fn translate(topology: &Topology) -> Result<()> {
    let nft = PEERS.find(&["nft"])?;
    let host = Family::V4.client_gateway();
    let targets = topology.instances.iter().enumerate();
    let targets =
        targets.map(|(turn, instance)| format!("{turn} : {}", instance.address(Family::V4)));
    let targets = targets.collect::<Vec<_>>().join(" , ");
    let turns = topology.instances.len();
    for line in [
        "add table ip bench".to_owned(),
        "add chain ip bench in { type nat hook prerouting priority -100 ; }".into(),
        format!(
            "add rule ip bench in ip daddr {host} tcp dport {{ {PORT} , {} }} dnat to numgen inc mod {turns} \
             map {{ {targets} }}",
            probe::PORT
        ),
    ] {
        let words: Vec<&str> = line.split_whitespace().collect();
        nft.run(&topology.host, &words)?;
    }
    Ok(())
}
