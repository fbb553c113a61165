//! The clients: so many connections at once, each of which is made anew when it has lived for a while.

mod talk;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use anyhow::{Context, Result};
use fastrand::Rng;
use testbed::clock::monotonic_ns;
use testbed::topology::Family;
use tokio::runtime::Builder;
use tokio::time::{Instant, sleep};

use crate::servers::{Phrases, Service, content};
use talk::{Lore, Talk, pause};
pub(crate) use wire::Harm;
use wire::Wire;

/// Connections are made over this time, as no flood of SYNs is what is to be shown.
const RAMP: Duration = Duration::from_secs(3);
/// After a connection that was refused, or harmed.
const BREATH: Duration = Duration::from_millis(500);

/// What the clients are to do.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) connections: usize,
    pub(crate) family: Family,
    pub(crate) seed: u64,
    pub(crate) phrases: Phrases,
}

/// Figures that all connections add to.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    /// Connections made.
    pub(crate) made: AtomicU64,
    /// Connections that exist now.
    pub(crate) live: AtomicU64,
    /// Exchanges that went well.
    pub(crate) exchanges: AtomicU64,
    /// Bytes received, each of them right.
    pub(crate) bytes: AtomicU64,
    /// Set: every connection ends after its present exchange.
    pub(crate) stop: AtomicBool,
}

/// What a connection has to tell.
#[derive(Clone, Debug)]
pub(crate) enum Report {
    /// It could not be made.
    Refused(String),
    /// It was harmed.
    Harmed {
        service: Service,
        local: SocketAddr,
        /// When it was made.
        since_ns: u64,
        at_ns: u64,
        harm: Harm,
    },
    /// It has ended, and its answers took so long.
    Waited(Vec<f32>),
}

/// Runs the clients in the calling thread, inside its namespace, until they are told to stop.
pub(crate) fn run(plan: &Plan, totals: &Arc<Totals>, reports: &Sender<Report>) -> Result<()> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .context("runtime")?;
    let lore = Arc::new(Lore {
        phrases: plan.phrases.clone(),
        content: content(),
    });
    runtime.block_on(async {
        let mut seeds = Rng::with_seed(plan.seed);
        let mut tasks = Vec::new();
        for number in 0..plan.connections {
            let place = Place {
                service: Service::ALL[[0, 1, 0, 1, 2][number % 5]],
                number: number as u64,
                family: plan.family,
                delay: RAMP.mul_f64(number as f64 / plan.connections as f64),
                lore: lore.clone(),
                totals: totals.clone(),
                reports: reports.clone(),
            };
            tasks.push(tokio::spawn(place.fill(Rng::with_seed(seeds.u64(..)))));
        }
        for task in tasks {
            task.await.context("a client")?;
        }
        Ok(())
    })
}

/// A place for a connection, which is filled again and again.
struct Place {
    service: Service,
    number: u64,
    family: Family,
    delay: Duration,
    lore: Arc<Lore>,
    totals: Arc<Totals>,
    reports: Sender<Report>,
}

impl Place {
    async fn fill(self, mut rng: Rng) {
        let server = SocketAddr::new(self.family.vni(), self.service.port());
        let mut round = 0;
        sleep(self.delay).await;
        while !self.is_over() {
            match Wire::connect(server).await {
                Err(error) => {
                    self.tell(Report::Refused(error.to_string()));
                    sleep(BREATH).await;
                }
                Ok(wire) => {
                    self.totals.made.fetch_add(1, Ordering::Relaxed);
                    self.totals.live.fetch_add(1, Ordering::Relaxed);
                    let talk = Talk::new(self.service, round * 1_000_000 + self.number);
                    self.live(wire, talk, &mut rng).await;
                    self.totals.live.fetch_sub(1, Ordering::Relaxed);
                }
            }
            round += 1;
        }
    }

    async fn live(&self, mut wire: Wire, talk: Talk, rng: &mut Rng) {
        let (local, since_ns) = (wire.local(), monotonic_ns());
        let ended = self.talk(&mut wire, talk, rng).await;
        self.totals
            .bytes
            .fetch_add(wire.received, Ordering::Relaxed);
        self.tell(Report::Waited(wire.take_waits_ms()));
        let ended = match ended {
            Ok(()) => wire.close().await,
            Err(harm) => Err(harm),
        };
        if let Err(harm) = ended {
            self.tell(Report::Harmed {
                service: self.service,
                local,
                since_ns,
                at_ns: monotonic_ns(),
                harm,
            });
            sleep(BREATH).await;
        }
    }

    async fn talk(&self, wire: &mut Wire, mut talk: Talk, rng: &mut Rng) -> Result<(), Harm> {
        let end = Instant::now() + Duration::from_millis(rng.u64(3_000..20_000));
        talk.begin(wire, &self.lore).await?;
        while !self.is_over() && Instant::now() < end {
            talk.go_on(wire, &self.lore, rng).await?;
            self.totals.exchanges.fetch_add(1, Ordering::Relaxed);
            sleep(pause(rng)).await;
        }
        talk.end(wire).await
    }

    fn is_over(&self) -> bool {
        self.totals.stop.load(Ordering::Relaxed)
    }

    fn tell(&self, report: Report) {
        // Nobody listens any more when the soak itself has failed.
        let _ = self.reports.send(report);
    }
}
