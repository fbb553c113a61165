//! A service's session: its network, its instances, its agent and its clients, and one episode after the other.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::sync::{Barrier, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use testbed::agent::Agent;
use testbed::clock::wait_until;
use testbed::topology::Topology;
use testbed::topology::config::{Config, DetectConfig, HealthConfig};

use crate::client::{self, Shared, now_ms, now_s};
use crate::instance::Host;
use crate::plan::{Episode, Family, Part};
use crate::server::pause;
use crate::tally::Served;

/// How often a fault grows a little.
const STEP: Duration = Duration::from_millis(250);
/// How often the agent's engine reads.
const INTERVAL_MS: u64 = 1_000;
/// The agent is not to take an instance away before its clients have seen that it fails.
const DETECT: DetectConfig = DetectConfig {
    poll_ms: 50,
    silent_ms: 5_000,
};
/// An instance is left failing for so long.
const FAILING: Duration = Duration::from_secs(8);
/// A surge's rate, in thousandths of the usual one.
const SURGE_OF_1000: u64 = 1_600;
const CLIENTS_LIMIT: Duration = Duration::from_secs(60);
const DRAIN_LIMIT: Duration = Duration::from_secs(12);
const RECORDED_LIMIT: Duration = Duration::from_secs(15);

/// What is to be run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) number: usize,
    pub(crate) part: Part,
    pub(crate) instances: usize,
    pub(crate) episodes: Vec<Episode>,
    pub(crate) seconds: f64,
    pub(crate) seed: u64,
}

/// What happened, for `mirror-ctl health label`.
#[derive(Debug, Serialize)]
struct Truth {
    part: Part,
    seed: u64,
    from_ms: u64,
    episodes: Vec<Happened>,
    served: BTreeMap<String, Vec<Served>>,
    /// One-minute load average of the machine at the beginning and at each episode: what else there was to do.
    load: Vec<f64>,
}

#[derive(Debug, Serialize)]
struct Happened {
    #[serde(flatten)]
    episode: Episode,
    instance: String,
    begins_ms: u64,
    ends_ms: u64,
}

/// What all sessions share.
pub(crate) struct Common<'a> {
    pub(crate) folder: &'a Path,
    /// All begin together: who is being set up disturbs the others.
    pub(crate) ready: &'a Barrier,
    /// One is set up after the other; and the first error ends all.
    pub(crate) turn: &'a RwLock<Option<String>>,
}

impl Common<'_> {
    fn check(&self) -> Result<()> {
        match &*self.turn.read().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => bail!("another service: {error}"),
            None => Ok(()),
        }
    }
}

/// Runs a session; the recording's file comes back.
pub(crate) fn run(plan: &Plan, common: &Common<'_>) -> Result<PathBuf> {
    let set_up = || -> Result<Topology> {
        let _turn = common.turn.write().unwrap_or_else(PoisonError::into_inner);
        Topology::create(plan.instances)
    };
    let topology = set_up();
    let outcome = match &topology {
        Ok(topology) => play(plan, common, topology),
        Err(error) => {
            common.ready.wait();
            bail!("{error:#}")
        }
    };
    if let Err(error) = &outcome {
        let mut failed = common.turn.write().unwrap_or_else(PoisonError::into_inner);
        failed.get_or_insert_with(|| format!("{error:#}"));
    }
    outcome
}

/// The parts that run: gone before the topology is.
struct Stage<'a> {
    hosts: Vec<Host<'a>>,
    agent: Agent<'a>,
    records: PathBuf,
}

fn set_up<'a>(topology: &'a Topology, common: &Common<'_>) -> Result<Stage<'a>> {
    let _turn = common.turn.write().unwrap_or_else(PoisonError::into_inner);
    let hosts = topology
        .instances
        .iter()
        .map(|instance| Host::start(topology, instance))
        .collect::<Result<Vec<_>>>()?;
    let records = topology.dir().join("records");
    fs::create_dir_all(&records)?;
    let config = config(topology, &hosts, &records);
    Ok(Stage {
        agent: Agent::start(topology, &config)?,
        hosts,
        records,
    })
}

fn config(topology: &Topology, hosts: &[Host<'_>], records: &Path) -> Config {
    let places = hosts.iter().map(|host| host.container.place());
    // Without mirrors: what a client gets is what its instance gives.
    let mut config = topology.config().with_mirrors(0).with_metrics(places);
    config.detect = Some(DETECT);
    config.health = Some(HealthConfig {
        interval_ms: Some(INTERVAL_MS),
        apply: Some("nothing".into()),
        record: Some(records.into()),
        ..HealthConfig::default()
    });
    config
}

fn play(plan: &Plan, common: &Common<'_>, topology: &Topology) -> Result<PathBuf> {
    let stage = set_up(topology, common);
    common.ready.wait();
    let mut stage = stage?;
    let shared = Shared::new();
    thread::scope(|scope| {
        let asking = scope.spawn(|| {
            topology
                .client
                .run(|| client::run(plan.instances, &shared, plan.seed))
        });
        let mut session = Session {
            plan,
            common,
            topology,
            stage: &mut stage,
            shared: &shared,
            happened: Vec::new(),
            load: Vec::new(),
        };
        let outcome = session.live();
        shared.stop.store(true, Ordering::Relaxed);
        let ended = asking
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let (from_ms, to_s) = outcome?;
        ended??;
        session.label(from_ms, to_s)
    })
}

struct Session<'a, 'b> {
    plan: &'a Plan,
    common: &'a Common<'a>,
    topology: &'a Topology,
    stage: &'a mut Stage<'b>,
    shared: &'a Shared,
    happened: Vec<Happened>,
    load: Vec<f64>,
}

impl Session<'_, '_> {
    /// Every episode there is time for; when it began (ms) and ended (s).
    fn live(&mut self) -> Result<(u64, u64)> {
        wait_until("every instance's clients", CLIENTS_LIMIT, || {
            self.common.check()?;
            let instances = 0..self.plan.instances;
            let second = now_s();
            let asked = |i| self.shared.tally(|tally| tally.ends(i, second, 3) >= 10);
            Ok(instances.into_iter().all(asked).then_some(()))
        })?;
        let from_ms = (now_s() + 1) * 1_000;
        let start = Instant::now();
        for episode in &self.plan.episodes {
            self.load.push(load());
            let left = self.plan.seconds - start.elapsed().as_secs_f64();
            if episode.healthy_s + episode.likely_s() > left {
                break;
            }
            self.pass(Duration::from_secs_f64(episode.healthy_s), |_| Ok(false))?;
            self.suffer(episode)?;
        }
        let left = self.plan.seconds - start.elapsed().as_secs_f64();
        self.pass(Duration::from_secs_f64(left.max(45.0)), |_| Ok(false))?;
        Ok((from_ms, now_s()))
    }

    /// Lets time pass, in steps, until it is over or `each` says so.
    fn pass(
        &mut self,
        time: Duration,
        mut each: impl FnMut(&mut Self) -> Result<bool>,
    ) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.common.check()?;
            self.stage.agent.check_alive()?;
            if each(self)? {
                return Ok(());
            }
            pause(STEP.min(end.saturating_duration_since(Instant::now())));
        }
        Ok(())
    }

    fn suffer(&mut self, episode: &Episode) -> Result<()> {
        let begins_ms = now_ms();
        let name = self.topology.instances[episode.victim].name.clone();
        match episode.family {
            Family::Surge => self.surge()?,
            Family::Deploy => self.deploy(episode.victim, &name)?,
            _ => self.grow(episode)?,
        }
        let ends_ms = now_ms();
        println!(
            "service {}: {} of {name}, ramp {:.0} s, reach {:.2}, bend {:.2}: {:.0} s",
            self.plan.number,
            episode.family,
            episode.ramp_s,
            episode.reach,
            episode.bend,
            (ends_ms - begins_ms) as f64 / 1_000.0
        );
        self.happened.push(Happened {
            episode: *episode,
            instance: name,
            begins_ms,
            ends_ms,
        });
        Ok(())
    }

    /// Until the instance has failed for a while, or the fault has lasted.
    fn grow(&mut self, episode: &Episode) -> Result<()> {
        let (begin, from) = (Instant::now(), now_s());
        let mut failed_since = None;
        self.pass(Duration::from_secs_f64(episode.lasts_s()), |session| {
            let since_s = begin.elapsed().as_secs_f64();
            session.stage.hosts[episode.victim].suffer(episode, since_s, session.topology)?;
            let failed = || {
                session
                    .shared
                    .tally(|tally| tally.has_failed(episode.victim, from, now_s()))
            };
            if !episode.family.is_gradual() || (failed_since.is_none() && !failed()) {
                return Ok(false);
            }
            Ok(failed_since.get_or_insert_with(Instant::now).elapsed() > FAILING)
        })?;
        let host = &mut self.stage.hosts[episode.victim];
        host.heal()?;
        if episode.family == Family::MemoryLeak {
            host.restart()?;
        }
        Ok(())
    }

    fn surge(&mut self) -> Result<()> {
        let seconds = 30.0;
        let begin = Instant::now();
        let outcome = self.pass(Duration::from_secs_f64(2.0 * seconds), |session| {
            // Up and down again, as surges are.
            let share = 1.0 - (begin.elapsed().as_secs_f64() / seconds - 1.0).abs();
            let more = (SURGE_OF_1000 - 1_000) as f64 * (2.0 * share).min(1.0);
            session
                .shared
                .rate
                .store(1_000 + more as u64, Ordering::Relaxed);
            Ok(false)
        });
        self.shared.rate.store(1_000, Ordering::Relaxed);
        outcome
    }

    fn deploy(&mut self, victim: usize, name: &str) -> Result<()> {
        self.stage.agent.act("drain", name)?;
        self.pass(DRAIN_LIMIT, |session| {
            let instances = session.stage.agent.instances()?;
            Ok(instances.iter().any(|i| i.name == name && i.flows == 0))
        })?;
        self.stage.hosts[victim].restart()?;
        self.stage.agent.act("restore", name)
    }

    /// Writes the recording, with what happened in it.
    fn label(&mut self, from_ms: u64, to_s: u64) -> Result<PathBuf> {
        let served = self.topology.instances.iter().enumerate().map(|(i, of)| {
            let served = self
                .shared
                .tally(|tally| tally.served(i, from_ms / 1_000, to_s));
            (of.name.clone(), served)
        });
        let truth = Truth {
            part: self.plan.part,
            seed: self.plan.seed,
            from_ms,
            episodes: std::mem::take(&mut self.happened),
            served: served.collect(),
            load: std::mem::take(&mut self.load),
        };
        let strays = self.shared.strays.load(Ordering::Relaxed);
        println!(
            "service {}: {strays} answers of another instance than the port's",
            self.plan.number
        );
        let dir = self.topology.dir();
        let truth_file = dir.join("truth.json");
        fs::write(&truth_file, serde_json::to_string(&truth)?)?;
        let recording = wait_until("the recording", RECORDED_LIMIT, || {
            let files = fs::read_dir(&self.stage.records)?.flatten();
            Ok(files.map(|file| file.path()).max())
        })?;
        let folder = self.common.folder.join(self.plan.part.folder());
        fs::create_dir_all(&folder)?;
        let out = folder.join(format!("service-{:02}.rec.gz", self.plan.number));
        let mut command = Command::new(self.stage.agent.binary());
        command.args(["health", "label"]).arg(&recording).arg(&out);
        command.arg("--truth").arg(&truth_file);
        let output = command.output().context("mirror-ctl health label")?;
        ensure!(
            output.status.success(),
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        print!("{}", String::from_utf8_lossy(&output.stdout));
        Ok(out)
    }
}

fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let first = text.split_whitespace().next();
    first.and_then(|load| load.parse().ok()).unwrap_or(0.0)
}
