//! The agent: one loop over a closed set of events. What an event means is decided by pure code
//! ([`decide`]), what follows from it is done here.

pub mod bearings;
mod configure;
pub mod decide;
mod event;
pub mod foresee;
pub mod handover;
mod keeping;
pub mod log;
pub mod models;
pub mod orders;
mod ports;
pub mod predecessor;
mod prospects;
mod publish;
mod reload;
pub mod sets;
mod show;
mod start;
pub mod state;
#[cfg(test)]
mod tests;
mod traced;
pub mod view;
mod wire;
mod zone_tables;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use mirror_common::{event::Event as Report, limits::REPLICAS};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{self, MissedTickBehavior},
};
use tracing::{debug, error, info, warn};

use crate::{
    clock,
    connections::{Rescuer, Sweep, Sweeper, rescue::is_lost},
    dataplane::{Dataplane, DataplaneError, SourcePrefix},
    health::watch::Watch,
    metrics::Metrics,
    netlink::{Change, Netlink, Targets},
    notify::Watchdog,
};
use decide::Action;
use log::{EventLog, LogEntry};
use models::Models;
use publish::Published;
use sets::SetBook;
use state::State;
use view::{DrainingRow, View};

pub use event::{End, Event};
pub use keeping::Keeping;
pub use reload::Applied;
pub use start::{StartError, Started, start};

/// How often failed instances are reconsidered.
const TICK: Duration = Duration::from_millis(100);
/// How often what failed on interfaces is tried again.
const RETRY_TICKS: u64 = 10;

/// The agent's I/O and what it knows.
pub struct Agent {
    file: PathBuf,
    state: State,
    dataplane: Dataplane,
    netlink: Netlink,
    /// None: this kernel does not tell.
    targets: Option<Targets>,
    book: SetBook,
    published: HashMap<String, Published>,
    /// Prefixes of clients with a table, as they are in the dataplane.
    sources: BTreeMap<SourcePrefix, u32>,
    /// The VNIs whose entries say that there are such, as they were written last.
    zoned: Option<BTreeSet<u16>>,
    /// Interfaces of the sets as they were written last.
    wired: HashMap<u32, [u32; REPLICAS]>,
    /// Interfaces on which something failed.
    broken: HashSet<String>,
    watch: Watch,
    models: Models,
    /// The number of the judgement that was followed last.
    judged: u64,
    sweep: Sweep,
    sweeper: Sweeper,
    rescuer: Rescuer,
    probes: HashMap<String, JoinHandle<()>>,
    inputs: Inputs,
    log: Arc<EventLog>,
    metrics: Arc<Metrics>,
    views: watch::Sender<Arc<View>>,
    ticks: u64,
    /// Who was told of to send partly computed checksums.
    checksums_told: HashSet<u16>,
    /// Until when traced programs are in place.
    traced_until_ns: Option<u64>,
    /// What a keeper knows of its end.
    keeping: Option<Keeping>,
    /// The version before, while its flows are to end.
    draining: Option<DrainingRow>,
    /// Whether it was told to be looked after.
    kept_told: Option<bool>,
    /// That it is time to end.
    end: Option<End>,
}

/// What the loop listens to.
struct Inputs {
    changes: mpsc::Receiver<Change>,
    /// Interfaces that take no redirected frame.
    closed: mpsc::Receiver<Change>,
    reports: mpsc::Receiver<Vec<Report>>,
    sweeps: mpsc::Receiver<Sweep>,
    probes: mpsc::Receiver<(String, bool)>,
    probe_sender: mpsc::Sender<(String, bool)>,
    orders: mpsc::Receiver<Event>,
}

impl Agent {
    /// Runs until it is told to stop. The dataplane runs on after that.
    pub async fn run(mut self) -> End {
        let poll_ms = self.state.config.detect.poll_ms;
        let mut looks = time::interval(Duration::from_millis(poll_ms.into()));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ticks = time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut watchdog = Watchdog::of_environment();
        loop {
            let inputs = &mut self.inputs;
            // In this order: what takes an instance out must not wait behind anything else.
            let event = tokio::select! {
                biased;
                Some(change) = inputs.changes.recv() => Event::Network(change),
                Some(closed) = inputs.closed.recv() => Event::Network(closed),
                Some(event) = inputs.orders.recv() => event,
                _ = looks.tick() => Event::Look,
                Some(reports) = inputs.reports.recv() => Event::Reported(reports),
                Some((instance, ok)) = inputs.probes.recv() => Event::Probed(instance, ok),
                _ = ticks.tick() => Event::Tick,
                Some(sweep) = inputs.sweeps.recv() => Event::Swept(Box::new(sweep)),
            };
            let event = match event {
                Event::Stop => {
                    self.untrace("the agent ends");
                    info!("ends; the dataplane runs on");
                    return End::Stopped;
                }
                Event::Replace(reply) => {
                    self.untrace("the agent is replaced");
                    info!("makes room for another version; the dataplane runs on");
                    // Whoever asked sees it by what comes after.
                    let _ = reply.send(());
                    return End::Replaced;
                }
                Event::HandOver(reply) => {
                    self.untrace("the agent is replaced");
                    info!("makes room for another version, and keeps its flows until they end");
                    let _ = reply.send(());
                    return End::HandedOver;
                }
                event => event,
            };
            let poll_before = self.state.config.detect.poll_ms;
            let (kind, began) = (event.kind(), Instant::now());
            self.handle(event).await;
            self.metrics.looped(kind, began.elapsed().as_secs_f64());
            watchdog.alive(began);
            if let Some(end) = self.end {
                return end;
            }
            let poll_ms = self.state.config.detect.poll_ms;
            if poll_ms != poll_before {
                looks = time::interval(Duration::from_millis(poll_ms.into()));
                looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            }
        }
    }

    async fn handle(&mut self, event: Event) {
        let now_ns = clock::now_ns();
        let actions = match event {
            Event::Network(change) => self.state.network(&change, now_ns),
            Event::Look => match self.vitals() {
                Ok(vitals) => self.state.looked(&vitals, now_ns),
                Err(error) => {
                    warn!("no evidence, no change: {error}");
                    return;
                }
            },
            Event::Tick => {
                self.retry();
                self.end_late_trace();
                self.look_for_pins();
                let mut actions = self.state.tick(now_ns);
                actions.extend(self.foresee(now_ns));
                actions
            }
            Event::Reported(reports) => {
                let actions = self.state.reported(&reports, now_ns);
                // Before it is written down: connections wait.
                self.apply(actions).await;
                self.log_reports(&reports);
                return;
            }
            Event::Probed(instance, ok) => self.state.probed(&instance, ok, now_ns),
            Event::Swept(sweep) => {
                self.swept(*sweep);
                Vec::new()
            }
            Event::Ordered {
                instance,
                order,
                force,
                reply,
            } => {
                let ordered = self.state.ordered(&instance, order, force, now_ns);
                let (actions, answer) = match ordered {
                    Ok(actions) => (actions, Ok(())),
                    Err(refusal) => (Vec::new(), Err(refusal)),
                };
                self.apply(actions).await;
                // Whoever asked may have gone.
                let _ = reply.send(answer);
                return;
            }
            Event::Models { act, reply } => {
                let _ = reply.send(self.change_models(act, "operator"));
                return;
            }
            Event::Reload(reply) => {
                let reloaded = self.reload().await;
                if let Err(reason) = &reloaded {
                    error!("the running configuration stays: {reason}");
                }
                if let Some(reply) = reply {
                    let _ = reply.send(reloaded);
                }
                return;
            }
            Event::Apply { text, reply } => {
                let applied = self.put_in_force_and_keep(&text).await;
                let _ = reply.send(applied);
                return;
            }
            Event::LoadTraced(reply) => {
                self.load_traced(reply);
                return;
            }
            Event::Trace {
                programs,
                until_ns,
                reply,
            } => {
                let traced = self.trace(programs, until_ns);
                let _ = reply.send(traced.map_err(|error| error.to_string()));
                return;
            }
            Event::Untrace => {
                self.untrace("the trace is over");
                return;
            }
            Event::Predecessor(news) => {
                self.heard_of_predecessor(news);
                return;
            }
            Event::Replace(_) | Event::HandOver(_) | Event::Stop => return,
        };
        self.apply(actions).await;
    }

    /// Does what was decided: what takes an instance out first, everything else after it.
    async fn apply(&mut self, actions: Vec<Action>) {
        if actions.is_empty() {
            return;
        }
        for action in &actions {
            if let Action::WriteInstance(place) = action {
                self.write_instance(*place);
            }
        }
        let mut publish = false;
        for action in actions {
            match action {
                Action::WriteInstance(_) => {}
                Action::Tell {
                    instance,
                    from,
                    to,
                    cause,
                    time_ns,
                } => {
                    info!(instance, from = from.name(), to = to.name(), %cause, "instance");
                    self.log.add([LogEntry {
                        time_ns,
                        kind: "instance-state".to_owned(),
                        instance: Some(instance),
                        from: Some(from.name().to_owned()),
                        to: Some(to.name().to_owned()),
                        cause: Some(cause.name().to_owned()),
                        ..LogEntry::default()
                    }]);
                }
                Action::Foretell {
                    instance,
                    told,
                    why,
                    time_ns,
                } => {
                    info!(instance, told = told.name(), why, "prediction");
                    self.log.add([LogEntry {
                        time_ns,
                        kind: "prediction".to_owned(),
                        instance: Some(instance),
                        to: Some(told.name().to_owned()),
                        cause: Some(why),
                        ..LogEntry::default()
                    }]);
                }
                Action::Publish => publish = true,
                Action::Rewire(name) => self.rewire(&name),
                Action::Resolve(place) => self.resolve(place).await,
                Action::Announce(interface) => self.announce(&interface).await,
                Action::Unheard(place) => {
                    let config = &self.state.instances[place].config;
                    warn!(
                        instance = config.name,
                        "was sent packets and has never answered: are the VNI's addresses on it, \
                         is its hardware address right, does its way back lead over {}, and is \
                         GRO or an XDP program on at its end of a veth (`ethtool -K DEV gro on`)?",
                        config.link
                    );
                }
                Action::Closed {
                    interface,
                    instance,
                } => wire::closed(&interface, instance.as_deref()),
                Action::Release(place) => {
                    let instance = &self.state.instances[place];
                    debug!(instance = instance.config.name, "leaves SYNs unanswered");
                    self.rescuer.unresponsive(instance.number);
                }
                Action::Resync => self.resync().await,
            }
        }
        if publish {
            self.publish();
        }
        self.show();
    }

    /// The one write that takes an instance out, or back in; then the note for a later agent.
    fn write_instance(&mut self, place: usize) {
        let instance = &self.state.instances[place];
        let maps = &mut self.dataplane.maps;
        let before = maps.instance(instance.number);
        let was_lost = before.is_ok_and(|before| is_lost(before.state));
        let written = maps
            .set_instance(instance.number, instance.entry())
            .and_then(|()| {
                maps.register
                    .set_instance(&instance.config.name, instance.record())
            });
        if let Err(error) = written {
            error!(instance = instance.config.name, "{error}");
        }
        let state = instance.entry().state;
        if is_lost(state) {
            self.rescuer.lost(instance.number, state);
        } else if was_lost {
            self.rescuer.back(instance.number);
        }
    }

    fn vitals(&self) -> Result<Vec<mirror_common::instance::Vitals>, DataplaneError> {
        let instances = self.state.instances.iter();
        let numbers: Vec<u32> = instances.map(|instance| instance.number).collect();
        self.dataplane.maps.vitals(&numbers)
    }

    async fn resolve(&self, place: usize) {
        let instance = &self.state.instances[place];
        let Some(address) = instance.config.address else {
            return;
        };
        if let Err(error) = self.netlink.resolve(instance.ifindex, address).await {
            warn!(instance = instance.config.name, %address, "{error}");
        }
    }

    /// Asks for everything that netlink may have dropped.
    async fn resync(&mut self) {
        let (links, neighbours) =
            match (self.netlink.links().await, self.netlink.neighbours().await) {
                (Ok(links), Ok(neighbours)) => (links, neighbours),
                (Err(error), _) | (_, Err(error)) => {
                    error!("{error}");
                    return;
                }
            };
        let now_ns = clock::now_ns();
        let gone: Vec<u32> = self
            .state
            .links
            .keys()
            .copied()
            .filter(|ifindex| !links.iter().any(|link| link.ifindex == *ifindex))
            .collect();
        let changes = gone
            .into_iter()
            .map(Change::LinkGone)
            .chain(links.into_iter().map(Change::Link))
            .chain(neighbours.into_iter().map(Change::Neighbour));
        for change in changes {
            let actions = self.state.network(&change, now_ns);
            Box::pin(self.apply(actions)).await;
        }
    }

    fn retry(&mut self) {
        self.ticks += 1;
        if self.ticks.is_multiple_of(RETRY_TICKS) {
            for name in self.broken.clone() {
                self.rewire(&name);
            }
        }
    }

    fn swept(&mut self, sweep: Sweep) {
        self.look_for_end(&sweep);
        for number in self.book.swept(sweep.began_ns, &sweep.sets) {
            self.wired.remove(&number);
            if let Err(error) = self.dataplane.retire_set(number) {
                error!("{error}");
            }
        }
        self.sweep = sweep;
        let seen = std::mem::take(&mut self.sweep.seen);
        let in_flight = self.sweep.census.in_flight.clone();
        let is_elsewhere = self.state.shook(&seen);
        if self.state.loaded(in_flight, clock::now_ns()) || is_elsewhere {
            self.publish();
        }
        self.show();
    }
}
