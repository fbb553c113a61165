//! One instance: its container, its server, and what can be done to them.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use testbed::net::xdp::Loss;
use testbed::process::Process;
use testbed::topology::{Family, HOST_LINK, Instance, Topology};

use crate::container::{Container, MEMORY_BYTES};
use crate::plan::{self, Episode};
use crate::server::WORKERS;
use crate::wire::PORT;

const READY_LIMIT: Duration = Duration::from_secs(20);
const HOLD_LIMIT: Duration = Duration::from_millis(50);
/// What a server may lose: a little more than there is for it.
const LEAK_BYTES: f64 = (MEMORY_BYTES - (12 << 20)) as f64;
/// Loss that clients cannot bear.
const LOSS_OF_1000: f64 = 260.0;
/// A wait before each answer that is a failure.
const WAIT_US: f64 = 24_000.0;
/// Of a burner's time, in thousandths: three of these use up more than there is.
const BURN_OF_1000: f64 = 60.0;
/// Bytes a second that can be written: three writes of a block, fewer than there are to do.
const WRITE_BYTES_S: f64 = 12_000.0;
/// It stands still for so long in each turn.
const FLAP_S: (f64, f64) = (4.0, 10.0);

/// An instance's programs.
pub(crate) struct Host<'a> {
    pub(crate) of: &'a Instance,
    // Dropped before the group that they are in.
    server: Option<Process>,
    neighbour: Option<Process>,
    held: Vec<TcpStream>,
    loss: Option<Loss>,
    pub(crate) container: Container,
    program: PathBuf,
    journal: PathBuf,
    stopped: bool,
}

impl<'a> Host<'a> {
    /// Makes the container and starts the server in it.
    pub(crate) fn start(topology: &'a Topology, of: &'a Instance) -> Result<Self> {
        let mut host = Self {
            of,
            server: None,
            neighbour: None,
            held: Vec::new(),
            loss: None,
            container: Container::create(&topology.group_name(&of.name))?,
            program: std::env::current_exe().context("own path")?,
            journal: topology.dir().join(format!("journal-{}", of.name)),
            stopped: false,
        };
        host.serve()?;
        Ok(host)
    }

    /// Starts the server.
    fn serve(&mut self) -> Result<()> {
        let mut command = self.of.namespace.command(&self.program)?;
        command.args(["serve", &self.of.name, &format!("0.0.0.0:{PORT}")]);
        command.arg(&self.journal);
        let what = format!("the server of {}", self.of.name);
        let mut server = Process::start(&what, command)?;
        self.container.take_in(server.pid())?;
        server.send("go")?;
        server.line("ready", READY_LIMIT, |line| {
            Ok((line == "ready").then_some(()))
        })?;
        self.server = Some(server);
        self.stopped = false;
        Ok(())
    }

    /// Starts the server again if it has ended; whether it had.
    pub(crate) fn revive(&mut self) -> Result<bool> {
        let ended = match &mut self.server {
            Some(server) => server.try_wait()?.is_some(),
            None => true,
        };
        if ended {
            self.serve()?;
        }
        Ok(ended)
    }

    /// Whether the server is there.
    pub(crate) fn is_alive(&mut self) -> Result<bool> {
        match &mut self.server {
            Some(server) => Ok(server.try_wait()?.is_none()),
            None => Ok(false),
        }
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.server = None;
    }

    /// Has a fault of an episode be as far as it is after so many seconds. One that has ended by it is left so.
    pub(crate) fn suffer(
        &mut self,
        episode: &Episode,
        since_s: f64,
        host: &Topology,
    ) -> Result<()> {
        let grown = episode.grown(since_s);
        match episode.family {
            plan::Family::MemoryLeak => self.tell("leak", LEAK_BYTES * grown),
            plan::Family::LatencyCreep => self.tell("wait", WAIT_US * grown),
            plan::Family::CpuRamp => self.tell("burn", BURN_OF_1000 * grown),
            plan::Family::NoisyNeighbour => self.burn_beside(BURN_OF_1000 * grown),
            plan::Family::LossRamp => self.lose(LOSS_OF_1000 * grown),
            plan::Family::DiskStall => {
                // Half as much is a third more time: what is left of the disk goes with the square.
                let left = WRITE_BYTES_S * (grown.max(0.1)).powi(-2);
                self.container.throttle(&self.journal, Some(left as u64))
            }
            plan::Family::QueueExhaustion => {
                let wanted = (WORKERS as f64 * 1.15 * grown) as usize;
                host.host.run(|| self.hold(wanted))?
            }
            plan::Family::Flapping => self.stop(since_s % FLAP_S.1 < FLAP_S.0),
            plan::Family::Freeze => self.stop(true),
            plan::Family::Crash => {
                self.kill();
                Ok(())
            }
            plan::Family::Surge | plan::Family::Deploy => Ok(()),
        }
    }

    /// Takes every fault away, and starts the server again if it is gone.
    pub(crate) fn heal(&mut self) -> Result<()> {
        self.stop(false)?;
        self.held.clear();
        self.neighbour = None;
        self.loss = None;
        self.container.throttle(&self.journal, None)?;
        self.tell("burn", 0.0)?;
        self.tell("wait", 0.0)?;
        self.revive().map(drop)
    }

    /// A leak can be healed by another process only.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.kill();
        self.serve()
    }

    fn tell(&mut self, what: &str, number: f64) -> Result<()> {
        if !self.is_alive()? {
            return Ok(());
        }
        let told = self
            .server
            .as_mut()
            .map(|server| server.send(&format!("{what} {}", number.max(0.0) as u64)));
        // It may have been killed just now.
        match told {
            Some(Err(error)) if self.is_alive()? => Err(error),
            _ => Ok(()),
        }
    }

    fn stop(&mut self, stopped: bool) -> Result<()> {
        if self.stopped != stopped
            && let Some(server) = &self.server
        {
            server.signal(match stopped {
                true => Signal::SIGSTOP,
                false => Signal::SIGCONT,
            })?;
            self.stopped = stopped;
        }
        Ok(())
    }

    fn burn_beside(&mut self, of_1000: f64) -> Result<()> {
        if self.neighbour.is_none() {
            let mut command = self.of.namespace.command(&self.program)?;
            command.arg("neighbour");
            let mut neighbour = Process::start("a neighbour", command)?;
            self.container.put_beside(neighbour.pid())?;
            neighbour.line("ready", READY_LIMIT, |line| {
                Ok((line == "ready").then_some(()))
            })?;
            self.neighbour = Some(neighbour);
        }
        match &mut self.neighbour {
            Some(neighbour) => neighbour.send(&format!("burn {}", of_1000 as u64)),
            None => Ok(()),
        }
    }

    fn lose(&mut self, of_1000: f64) -> Result<()> {
        if self.loss.is_none() {
            self.loss = Some(self.of.namespace.run(|| Loss::begin(HOST_LINK))??);
        }
        match &self.loss {
            Some(loss) => loss.set((of_1000 as u32).min(950)),
            None => Ok(()),
        }
    }

    /// Connections that say nothing, from the VNI host: each takes a worker.
    fn hold(&mut self, wanted: usize) -> Result<()> {
        let address = self.of.address(Family::V4);
        ensure!(
            address.is_ipv4() && address != Ipv4Addr::UNSPECIFIED,
            "{address}"
        );
        while self.held.len() < wanted {
            match TcpStream::connect_timeout(&SocketAddr::new(address, PORT), HOLD_LIMIT) {
                Ok(connection) => self.held.push(connection),
                // Its queue is full: that is what was wanted.
                Err(_) => break,
            }
        }
        Ok(())
    }
}
