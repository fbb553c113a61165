//! What is done to the instances, one after the other, by the seed: killed, frozen, silenced, evacuated,
//! with packets lost on the links in part of the time; and how each is put right again.

use std::fmt;
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context, Result};
use fastrand::Rng;
use nix::sys::signal::Signal;
use testbed::agent::Agent;
use testbed::net::xdp;
use testbed::process::Process;
use testbed::topology::{HOST_LINK, Topology};

use crate::servers::{self, Kit, Service};

/// What is lost, while something is lost.
const LOSS_PERCENT: u8 = 5;

/// What happens to an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// SIGKILL of all its servers; they are started again.
    Killed,
    /// SIGKILL of one of them.
    ServerKilled(Service),
    /// SIGSTOP of all its servers: its kernel goes on.
    Frozen,
    /// Nothing that it sends gets out.
    Silent,
    /// `mirror-ctl evacuate`, then `restore`.
    Evacuated,
}

impl Fault {
    fn any(rng: &mut Rng) -> Self {
        match rng.u8(..6) {
            0 | 1 => Self::Killed,
            2 => Self::ServerKilled(Service::ALL[rng.usize(..3)]),
            3 => Self::Frozen,
            4 => Self::Silent,
            _ => Self::Evacuated,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::ServerKilled(_) => "server_killed",
            Self::Frozen => "frozen",
            Self::Silent => "silent",
            Self::Evacuated => "evacuated",
        }
    }
}

/// One fault, from its beginning until it is put right.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Round {
    pub(crate) fault: Fault,
    /// The index of the instance.
    pub(crate) victim: usize,
    /// Whether packets are lost on the way to every instance meanwhile.
    pub(crate) lossy: bool,
    /// How long it lasts.
    pub(crate) lasts: Duration,
    /// How long all is well afterwards.
    pub(crate) calm: Duration,
}

impl Round {
    pub(crate) fn any(rng: &mut Rng, instances: usize) -> Self {
        Self {
            fault: Fault::any(rng),
            victim: rng.usize(..instances),
            lossy: rng.u8(..3) == 0,
            lasts: Duration::from_millis(rng.u64(100..3_000)),
            calm: Duration::from_millis(rng.u64(500..4_000)),
        }
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = char::from(b'a' + self.victim as u8);
        write!(f, "{letter} {}", self.fault.name())?;
        if let Fault::ServerKilled(service) = self.fault {
            write!(f, " ({})", service.name())?;
        }
        if self.lossy {
            write!(f, ", {LOSS_PERCENT} % of packets to instances lost")?;
        }
        write!(f, ", for {} ms", self.lasts.as_millis())
    }
}

/// Loss on every instance's link, for as long as this is held.
pub(crate) struct Loss {
    _links: Vec<OwnedFd>,
}

impl Loss {
    pub(crate) fn begin(topology: &Topology) -> Result<Self> {
        let links = topology.instances.iter().map(|instance| {
            instance
                .namespace
                .run(|| xdp::lose(HOST_LINK, LOSS_PERCENT))?
        });
        let links = links.collect::<Result<_>>()?;
        Ok(Self { _links: links })
    }
}

/// All servers, by instance and service.
pub(crate) struct Servers<'a> {
    kit: &'a Kit,
    topology: &'a Topology,
    running: Vec<[Process; 3]>,
}

impl<'a> Servers<'a> {
    pub(crate) fn start(kit: &'a Kit, topology: &'a Topology) -> Result<Self> {
        let mut running = Vec::new();
        for instance in &topology.instances {
            let start = |service| kit.start(instance, service);
            let [files, store, lines] = Service::ALL;
            running.push([start(files)?, start(store)?, start(lines)?]);
        }
        Ok(Self {
            kit,
            topology,
            running,
        })
    }

    /// Begins a fault.
    pub(crate) fn strike(&mut self, round: &Round, agent: &Agent<'_>) -> Result<()> {
        let instance = &self.topology.instances[round.victim];
        match round.fault {
            Fault::Killed => servers::signal(instance, Signal::SIGKILL),
            Fault::ServerKilled(service) => {
                self.running[round.victim][service as usize].kill();
                Ok(())
            }
            Fault::Frozen => servers::signal(instance, Signal::SIGSTOP),
            Fault::Silent => instance.silence(),
            Fault::Evacuated => agent.act("evacuate", &instance.name),
        }
    }

    /// Puts it right.
    pub(crate) fn heal(&mut self, round: &Round, agent: &Agent<'_>) -> Result<()> {
        let instance = &self.topology.instances[round.victim];
        match round.fault {
            Fault::Killed => Service::ALL
                .into_iter()
                .try_for_each(|service| self.restart(round.victim, service)),
            Fault::ServerKilled(service) => self.restart(round.victim, service),
            Fault::Frozen => servers::signal(instance, Signal::SIGCONT),
            Fault::Silent => instance.unsilence(),
            Fault::Evacuated => agent.act("restore", &instance.name),
        }
    }

    fn restart(&mut self, instance: usize, service: Service) -> Result<()> {
        let place = &mut self.running[instance][service as usize];
        place.kill();
        let instance = &self.topology.instances[instance];
        *place = self
            .kit
            .start(instance, service)
            .with_context(|| format!("restart in {}", instance.name))?;
        Ok(())
    }
}

impl Drop for Servers<'_> {
    fn drop(&mut self) {
        for instance in &self.topology.instances {
            // With what they have forked, which nobody else would end.
            let _ = servers::signal(instance, Signal::SIGKILL);
        }
    }
}
