//! `soak`: real servers behind a VNI, many connections whose every byte is checked, and one failure after another.

mod client;
mod faults;
mod ledger;
mod servers;
mod verdict;

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use fastrand::Rng;
use testbed::agent::{Agent, Event};
use testbed::clock::monotonic_ns;
use testbed::exit;
use testbed::process::{Process, raise_descriptor_limit};
use testbed::topology::config::ProbeConfig;
use testbed::topology::{Family, Topology};
use testbed::traffic::report::Percentiles;

use client::{Harm, Plan, Report, Totals};
use faults::{Loss, Round, Servers};
use ledger::{Ledger, name};
use servers::{Kit, Service};
use verdict::Verdict;

/// Instances: while one fails, two serve.
const INSTANCES: usize = 3;
/// How long an instance that is well again may take to serve again.
const BACK_LIMIT: Duration = Duration::from_secs(90);
/// How long connections may take to end when they are told to.
const END_LIMIT: Duration = Duration::from_secs(60);
/// How often it is looked whether something was told.
const LOOK: Duration = Duration::from_millis(20);

/// Runs lighttpd, redis and vsftpd on three instances behind one address, with many connections whose every byte
/// is checked, and lets one instance after the other be killed, frozen, silenced or evacuated, with packets
/// lost on the links in part of the time. A seed decides what happens. Exits with 1 when a connection with a
/// warm mirror was harmed, or one without for a reason that has no cause.
#[derive(Parser)]
#[command(
    name = "soak",
    version,
    after_help = "\
Examples:
  soak --minutes 1                           a short run
  soak --minutes 60 --json soak.json         a long one, and the figures in a file
  soak --minutes 1 --seed 4711 --ipv6        what happens, by another seed, over IPv6"
)]
struct Cli {
    /// How long.
    #[arg(long, value_name = "M", default_value_t = 1.0)]
    minutes: f64,
    /// What decides what happens when [default: the time].
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
    /// How many connections at once.
    #[arg(long, value_name = "N", default_value_t = 1_200)]
    connections: usize,
    /// Mirrors of each connection.
    #[arg(long, value_name = "N", default_value_t = 2)]
    mirrors: u8,
    /// Write the figures here.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Have the clients speak IPv6.
    #[arg(long)]
    ipv6: bool,
}

fn main() -> ExitCode {
    exit::code("soak", run(&Cli::parse()))
}

/// Returns whether all is as it should be.
fn run(cli: &Cli) -> Result<bool> {
    raise_descriptor_limit()?;
    let seed = cli.seed.unwrap_or_else(|| monotonic_ns() % 1_000_000);
    println!(
        "seed {seed}: {} connections for {} min",
        cli.connections, cli.minutes
    );
    let topology = Topology::create(INSTANCES)?;
    let kit = Kit::new(&topology)?;
    let mut servers = Servers::start(&kit, &topology)?;
    let mut config = topology.config().with_mirrors(cli.mirrors);
    for (instance, of) in config.instance.iter_mut().zip(&topology.instances) {
        let tcp = format!("{}:{}", of.address(Family::V4), Service::Store.port());
        instance.probe = Some(ProbeConfig { tcp });
    }
    let mut agent = Agent::start(&topology, &config)?;
    let plan = Plan {
        connections: cli.connections,
        family: if cli.ipv6 { Family::V6 } else { Family::V4 },
        seed,
        phrases: servers::learn(&topology.instances[0])?,
    };
    let totals = Arc::new(Totals::default());
    let (sender, reports) = channel();
    let mut soak = Soak {
        events: Process::start(
            "mirror-ctl events",
            agent.verb(&["events", "--follow", "--since", "0", "--json"]),
        )?,
        reports,
        totals: totals.clone(),
        ledger: Ledger::default(),
        vni: plan.family.vni(),
        harms: Vec::new(),
        waits_ms: Vec::new(),
        verdict: Verdict {
            seed,
            ..Verdict::default()
        },
    };
    let start = Instant::now();
    let verdict = thread::scope(|scope| -> Result<Verdict> {
        let clients = scope.spawn(|| topology.client.run(|| client::run(&plan, &totals, &sender)));
        let end = start + Duration::from_secs_f64(cli.minutes * 60.0);
        let rounds = soak.rounds(end, &plan, &topology, &mut servers, &agent);
        totals.stop.store(true, Ordering::Relaxed);
        let deadline = Instant::now() + END_LIMIT;
        while !clients.is_finished() && Instant::now() < deadline {
            soak.pass(LOOK)?;
        }
        rounds?;
        let ended = clients
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        ended??;
        soak.finish(&agent)
    })?;
    agent.check_alive()?;
    let verdict = Verdict {
        seconds: start.elapsed().as_secs(),
        ..verdict
    };
    let text = serde_json::to_string_pretty(&verdict).context("figures")? + "\n";
    print!("{text}");
    if let Some(path) = &cli.json {
        fs::write(path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let misses = verdict.misses();
    misses.iter().for_each(|miss| println!("FAILED: {miss}"));
    Ok(misses.is_empty())
}

/// A run.
struct Soak {
    events: Process,
    reports: Receiver<Report>,
    totals: Arc<Totals>,
    ledger: Ledger,
    vni: IpAddr,
    harms: Vec<(String, u64, u64, Harm)>,
    waits_ms: Vec<f64>,
    verdict: Verdict,
}

impl Soak {
    /// One fault after the other, until the time is over.
    fn rounds(
        &mut self,
        end: Instant,
        plan: &Plan,
        topology: &Topology,
        servers: &mut Servers<'_>,
        agent: &Agent<'_>,
    ) -> Result<()> {
        let mut rng = Rng::with_seed(plan.seed);
        let start = Instant::now();
        let mut most = 0;
        while most < plan.connections * 9 / 10 {
            self.pass(LOOK)?;
            most = self.totals.live.load(Ordering::Relaxed) as usize;
            if start.elapsed() > BACK_LIMIT {
                bail!("only {most} connections could be made");
            }
        }
        while Instant::now() < end {
            let round = Round::any(&mut rng, topology.instances.len());
            println!("{:7.1} s  {round}", start.elapsed().as_secs_f64());
            *self.verdict.faults.entry(round.fault.name()).or_default() += 1;
            let loss = match round.lossy {
                true => Some(Loss::begin(topology)?),
                false => None,
            };
            if loss.is_some() {
                self.ledger.lose(monotonic_ns());
                *self.verdict.faults.entry("lossy").or_default() += 1;
            }
            self.ledger
                .strike(monotonic_ns(), &topology.instances[round.victim].name);
            servers.strike(&round, agent)?;
            self.pass(round.lasts)?;
            servers.heal(&round, agent)?;
            drop(loss);
            self.wait_back(agent)
                .with_context(|| format!("after {round}"))?;
            self.pass(round.calm)?;
        }
        Ok(())
    }

    /// Lets traffic run until every instance serves.
    fn wait_back(&mut self, agent: &Agent<'_>) -> Result<()> {
        let deadline = Instant::now() + BACK_LIMIT;
        loop {
            let instances = agent.instances()?;
            if instances.iter().all(|instance| instance.state == "up") {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("not every instance came back: {instances:#?}");
            }
            self.pass(10 * LOOK)?;
        }
    }

    /// Lets traffic run for a while, and takes in what is told.
    fn pass(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while let left = end.saturating_duration_since(Instant::now())
            && !left.is_zero()
        {
            match self.reports.recv_timeout(left.min(LOOK)) {
                Ok(report) => self.note(report),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => bail!("the clients are gone"),
            }
            self.read_events()?;
            let live = self.totals.live.load(Ordering::Relaxed);
            self.verdict.connections_at_once = self.verdict.connections_at_once.max(live);
        }
        Ok(())
    }

    fn read_events(&mut self) -> Result<()> {
        for line in self.events.pending() {
            self.ledger.take(read(&line)?);
        }
        Ok(())
    }

    fn note(&mut self, report: Report) {
        match report {
            Report::Refused(error) => *self.verdict.refused.entry(error).or_default() += 1,
            Report::Waited(waits_ms) => self.waits_ms.extend(waits_ms.into_iter().map(f64::from)),
            Report::Harmed {
                service,
                local,
                since_ns,
                at_ns,
                harm,
            } => {
                println!("           {local} with {}: {harm}", service.name());
                let address = (self.vni, service.port());
                let connection = name(&local.to_string(), &SocketAddr::from(address).to_string());
                self.harms.push((connection, since_ns, at_ns, harm));
            }
        }
    }

    /// Judges, when all connections have ended.
    fn finish(mut self, agent: &Agent<'_>) -> Result<Verdict> {
        while let Ok(report) = self.reports.try_recv() {
            self.note(report);
        }
        let last = agent.last_event()?;
        while self.ledger.last < last {
            let event = self
                .events
                .line("the last event", END_LIMIT, |line| read(line).map(Some))?;
            self.ledger.take(event);
        }
        let mut verdict = self.verdict;
        for (connection, since_ns, at_ns, harm) in &self.harms {
            let judgement = self.ledger.judge(connection, *since_ns, *at_ns);
            verdict.harm(connection, harm, &judgement);
        }
        let figure = |of: &std::sync::atomic::AtomicU64| of.load(Ordering::Relaxed);
        verdict.connections = figure(&self.totals.made);
        verdict.exchanges = figure(&self.totals.exchanges);
        verdict.bytes = figure(&self.totals.bytes);
        verdict.takeovers = self.ledger.takeovers.values().sum();
        verdict.takeovers_by_cause = self.ledger.takeovers;
        verdict.cold = self.ledger.cold;
        verdict.wait_ms = Percentiles::of(self.waits_ms.into_iter());
        Ok(verdict)
    }
}

fn read(line: &str) -> Result<Event> {
    serde_json::from_str(line).with_context(|| format!("an event: {line}"))
}
