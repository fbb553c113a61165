//! Load balancers that one would use instead, in front of three instances.

use anyhow::{Context, Result};
use tempfile::TempDir;
use testbed::agent::sibling;
use testbed::process::Process;
use testbed::topology::{Family, Instance, Topology};
use testbed::traffic::program::PORT;

use crate::PEERS;
use crate::probe;

const READY_LIMIT: std::time::Duration = std::time::Duration::from_secs(10);

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Balancer {
    /// Proxies TCP, checks instances every 100 ms, takes one out after two checks and ends its sessions.
    HaProxy,
    /// Translates addresses by turns, and checks nothing.
    Dnat,
}

/// What runs, for as long as it lives.
#[expect(dead_code, reason = "held for what dropping it ends")]
pub(crate) struct Running(Option<(Process, TempDir)>);

impl Balancer {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::HaProxy => "HAProxy",
            Self::Dnat => "nftables DNAT",
        }
    }

    /// Balances both services over all instances.
    pub(crate) fn start(self, topology: &Topology) -> Result<Running> {
        topology.forward()?;
        match self {
            Self::HaProxy => proxy(topology).map(|running| Running(Some(running))),
            Self::Dnat => translate(topology).map(|()| Running(None)),
        }
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
