//! Starts the agent: numbers for names, tables filled, programs attached, in this order, so that
//! no packet ever meets a program without its tables. Takes up a new configuration the same way.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    sync::Arc,
    time::Duration,
};

use mirror_common::limits;
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};

use super::{
    Agent, Event, Inputs,
    log::{EventLog, LogEntry},
    publish::Published,
    sets::SetBook,
    state::{Instance, State},
    view::View,
};
use crate::{
    clock,
    config::{Config, Role},
    connections::{Rescuer, Sweep, Sweeper},
    dataplane::{Dataplane, DataplaneError},
    health::{evidence::Evidence, probe, score, silence::Silence, watch::Watch},
    metrics::Metrics,
    netlink::{Change, Link, Netlink, NetlinkError},
    routing::State as Service,
};

/// How long hardware addresses are waited for before the start goes on without them.
const RESOLVE_WAIT: Duration = Duration::from_millis(500);
/// Batches of the dataplane's reports that may wait for the loop.
const REPORTS_QUEUED: usize = 64;

/// Why the agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The kernel's side.
    #[error(transparent)]
    Dataplane(#[from] DataplaneError),
    /// The network's side.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A thread or a descriptor.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// The agent, ready to run, and what the API needs of it.
pub struct Started {
    /// The agent.
    pub agent: Agent,
    /// Orders to it.
    pub orders: mpsc::Sender<Event>,
    /// What it shows.
    pub views: watch::Receiver<Arc<View>>,
    /// What happened.
    pub log: Arc<EventLog>,
    /// What is measured.
    pub metrics: Arc<Metrics>,
    /// Handles of the maps for readers.
    pub maps: crate::dataplane::Maps,
}

/// Loads, attaches, pins or adopts everything that `config` (of `file`) asks for.
/// `log_programs`: level of the programs' own log, 0 (off) to 5 (trace).
pub async fn start(file: &Path, config: Config, log_programs: u8) -> Result<Started, StartError> {
    let dataplane = Dataplane::open(&config.agent.pin_dir, log_programs)?;
    if log_programs > 0 {
        tokio::spawn(dataplane.program_log()?.run());
    }
    let (netlink, changes) = Netlink::open()?;
    let now_ns = clock::now_ns();
    let (probe_sender, probes) = mpsc::channel(1024);
    let (order_sender, orders) = mpsc::channel(64);
    let (sweep_sender, sweeps) = mpsc::channel(1);
    let (report_sender, reports) = mpsc::channel(REPORTS_QUEUED);
    let mut events = dataplane.events()?;
    let rescuer = Rescuer::start(dataplane.reader()?, dataplane.injector()?)?;
    let at_once = rescuer.clone();
    tokio::spawn(async move {
        while let Ok(batch) = events.next().await {
            // Not through the loop, which may be busy.
            at_once.reported(&batch);
            if report_sender.send(batch).await.is_err() {
                return;
            }
        }
    });
    let (views, view_receiver) = watch::channel(Arc::new(View::default()));
    let metrics = Arc::new(Metrics::new());
    let log = Arc::new(EventLog::new(Arc::clone(&metrics)));
    let sweeper = Sweeper::start(dataplane.reader()?, sweep_sender)?;
    let maps = dataplane.reader()?;
    let mut agent = Agent {
        file: file.to_owned(),
        state: State {
            config: Config {
                instances: Vec::new(),
                vnis: Vec::new(),
                ..config.clone()
            },
            instances: Vec::new(),
            members: Vec::new(),
            links: HashMap::new(),
            silence: Silence::default(),
            evidence: Evidence::default(),
        },
        book: SetBook::of(&dataplane.sets()?, now_ns),
        dataplane,
        netlink,
        published: HashMap::new(),
        wired: HashMap::new(),
        broken: HashSet::new(),
        score: Box::<score::Configured>::default(),
        scored: 0,
        watch: Watch::default(),
        sweep: Sweep::default(),
        sweeper,
        rescuer,
        probes: HashMap::new(),
        inputs: Inputs {
            changes,
            reports,
            sweeps,
            probes,
            probe_sender,
            orders,
        },
        log: Arc::clone(&log),
        metrics: Arc::clone(&metrics),
        views,
        ticks: 0,
        checksums_told: HashSet::new(),
    };
    let occasion = match agent.dataplane.adopted() {
        true => Occasion::Adoption,
        false => Occasion::FirstStart,
    };
    agent.configure(config, occasion).await?;
    Ok(Started {
        agent,
        orders: order_sender,
        views: view_receiver,
        log,
        metrics,
        maps,
    })
}

/// When a configuration is put in force.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Occasion {
    /// Nothing was there.
    FirstStart,
    /// The dataplane was there.
    Adoption,
    /// Another configuration is in force.
    Reload,
}

impl Agent {
    /// Puts a configuration in force, keeping everything that it does not change.
    pub(super) async fn configure(
        &mut self,
        config: Config,
        occasion: Occasion,
    ) -> Result<(), StartError> {
        let links = self.netlink.links().await?;
        self.check_interfaces(&config, &links, occasion)?;
        let now_ns = clock::now_ns();
        let instances = self.number_instances(&config, now_ns)?;
        let vnis = self.number_vnis(&config)?;
        self.score = self.watch.follow(&config);
        let removed = std::mem::replace(&mut self.state.instances, instances);
        self.state.config = config;
        self.state.regroup();
        self.learn_links(links);
        self.learn_neighbours().await?;
        self.state.settle(now_ns);
        self.remove_instances(&removed)?;
        for place in 0..self.state.instances.len() {
            self.write_instance(place);
        }
        self.write_targets()?;
        self.take_vnis(vnis)?;
        self.try_publish()?;
        self.write_vnis()?;
        self.start_probes(&removed);
        self.share_idle_limits();
        self.attach_all(occasion)?;
        self.detach_others()?;
        self.withdraw_others().await?;
        for (name, role) in self.state.config.ports() {
            if role == Role::VniInterface {
                self.announce(&name).await;
            }
        }
        self.log.add([LogEntry {
            time_ns: clock::now_ns(),
            kind: "configuration".to_owned(),
            ..LogEntry::default()
        }]);
        self.show();
        Ok(())
    }

    /// The instances with their numbers: those that are known keep what is known of them.
    fn number_instances(
        &self,
        config: &Config,
        now_ns: u64,
    ) -> Result<Vec<Instance>, DataplaneError> {
        let records: HashMap<_, _> = self
            .dataplane
            .maps
            .register
            .instances()?
            .into_iter()
            .collect();
        let mut taken: HashSet<u32> = records.values().map(|record| record.number).collect();
        let mut instances = Vec::new();
        for wanted in &config.instances {
            if let Some(place) = self.state.find(&wanted.name) {
                let known = self.state.instances[place].clone();
                instances.push(reconfigured(known, wanted, now_ns));
                continue;
            }
            let record = records.get(&wanted.name);
            let number = match record {
                Some(record) => record.number,
                None => (0..limits::INSTANCES)
                    .find(|number| !taken.contains(number) && !self.book.uses(*number as u16))
                    .ok_or(DataplaneError::Full {
                        what: "instance",
                        limit: limits::INSTANCES,
                    })?,
            };
            taken.insert(number);
            let mut instance = Instance::new(number, wanted.clone(), now_ns);
            if let Some(record) = record {
                instance.recall(record, &self.dataplane.maps.instance(number)?);
            }
            instances.push(instance);
        }
        Ok(instances)
    }

    /// The VNIs' numbers and the places of their addresses.
    fn number_vnis(&mut self, config: &Config) -> Result<Vec<Published>, DataplaneError> {
        let known: HashMap<_, _> = self.dataplane.maps.register.vnis()?.into_iter().collect();
        let mut taken: HashSet<u16> = known.values().copied().collect();
        let in_force = self.dataplane.maps.vnis()?;
        let mut vnis = Vec::new();
        for vni in &config.vnis {
            let number = match known.get(&vni.name) {
                Some(number) => *number,
                None => (0..limits::VNIS as u16)
                    .find(|number| !taken.contains(number))
                    .ok_or(DataplaneError::Full {
                        what: "VNI",
                        limit: limits::VNIS,
                    })?,
            };
            taken.insert(number);
            self.dataplane.maps.register.set_vni(&vni.name, number)?;
            let places: HashMap<_, _> = in_force
                .iter()
                .filter(|(_, entry)| entry.vni == number)
                .map(|(address, entry)| (*address, entry.address))
                .collect();
            let mut used: HashSet<u8> = places.values().copied().collect();
            let mut addresses = Vec::new();
            for address in &vni.addresses {
                let place = places
                    .get(address)
                    .copied()
                    .or_else(|| (0..=u8::MAX).find(|place| !used.contains(place)));
                let place = place.ok_or(DataplaneError::Full {
                    what: "address of one VNI",
                    limit: 256,
                })?;
                used.insert(place);
                addresses.push((*address, place));
            }
            vnis.push(Published {
                number,
                addresses,
                ..Published::default()
            });
        }
        Ok(vnis)
    }

    /// Recalls what is in force for VNIs that are new to this agent, and forgets removed ones.
    fn take_vnis(&mut self, numbered: Vec<Published>) -> Result<(), DataplaneError> {
        let mut before = std::mem::take(&mut self.published);
        for (vni, numbered) in self.state.config.vnis.iter().zip(numbered) {
            let mut published = match before.remove(&vni.name) {
                Some(published) => published,
                None => Published::recall(numbered.number, self),
            };
            published.addresses = numbered.addresses;
            self.published.insert(vni.name.clone(), published);
        }
        for (name, _) in self.dataplane.maps.register.vnis()? {
            if !self.published.contains_key(&name) {
                self.dataplane.maps.register.remove_vni(&name)?;
            }
        }
        Ok(())
    }

    fn learn_links(&mut self, links: Vec<Link>) {
        self.state.links = links
            .iter()
            .map(|link| (link.ifindex, link.clone()))
            .collect();
        let now_ns = clock::now_ns();
        for instance in &mut self.state.instances {
            let link = links.iter().find(|link| link.name == instance.config.link);
            instance.ifindex = link.map_or(0, |link| link.ifindex);
            instance.source_mac = link.and_then(|link| link.mac).unwrap_or_default();
            let up = link.is_some_and(|link| link.up);
            instance.link_up_ns = up.then(|| instance.link_up_ns.unwrap_or(now_ns));
        }
    }

    /// Waits a moment for hardware addresses that are not known yet.
    async fn learn_neighbours(&mut self) -> Result<(), StartError> {
        let deadline = tokio::time::Instant::now() + RESOLVE_WAIT;
        loop {
            let unknown: Vec<usize> = (0..self.state.instances.len())
                .filter(|&place| {
                    let instance = &self.state.instances[place];
                    instance.mac.is_none() && instance.link_up_ns.is_some()
                })
                .collect();
            if unknown.is_empty() || tokio::time::Instant::now() > deadline {
                return Ok(());
            }
            for place in unknown {
                self.resolve(place).await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
            let now_ns = clock::now_ns();
            for neighbour in self.netlink.neighbours().await? {
                // Written with everything else.
                let _ = self.state.network(&Change::Neighbour(neighbour), now_ns);
            }
        }
    }

    /// A VNI interface that is new must be there; an instance's link may come later, and what
    /// was there once may come back.
    fn check_interfaces(
        &self,
        config: &Config,
        links: &[Link],
        occasion: Occasion,
    ) -> Result<(), DataplaneError> {
        let known = self.state.config.ports();
        for (name, role) in config.ports() {
            if links.iter().any(|link| link.name == name) {
                continue;
            }
            let is_new = match occasion {
                Occasion::FirstStart => true,
                Occasion::Adoption => false,
                Occasion::Reload => !known.iter().any(|(other, _)| *other == name),
            };
            if role == Role::VniInterface && is_new {
                return Err(DataplaneError::UnknownInterface { name });
            }
            warn!(
                interface = name,
                "there is no such interface; waiting for it"
            );
        }
        Ok(())
    }

    fn remove_instances(&mut self, before: &[Instance]) -> Result<(), DataplaneError> {
        for (name, record) in self.dataplane.maps.register.instances()? {
            if self.state.find(&name).is_some() {
                continue;
            }
            // Its flows move to their mirrors; its number is free when no set names it.
            let mut entry = self.dataplane.maps.instance(record.number)?;
            entry.state = mirror_common::instance::state::DEAD;
            self.dataplane.maps.set_instance(record.number, entry)?;
            self.dataplane.maps.register.remove_instance(&name)?;
            info!(instance = name, "removed");
            if let Some(gone) = before.iter().find(|instance| instance.config.name == name) {
                self.log.add([LogEntry {
                    time_ns: clock::now_ns(),
                    kind: "instance-state".to_owned(),
                    instance: Some(name),
                    from: Some(gone.service().name().to_owned()),
                    to: Some(Service::Dead.name().to_owned()),
                    cause: Some("configured".to_owned()),
                    ..LogEntry::default()
                }]);
            }
        }
        Ok(())
    }

    fn start_probes(&mut self, before: &[Instance]) {
        let unchanged = |instance: &Instance| {
            before.iter().any(|b| {
                b.config.name == instance.config.name && b.config.probe == instance.config.probe
            })
        };
        let mut probes = HashMap::new();
        for instance in &self.state.instances {
            let name = &instance.config.name;
            let running = self.probes.remove(name);
            let task = match (&instance.config.probe, running) {
                (Some(_), Some(task)) if unchanged(instance) => task,
                (Some(wanted), running) => {
                    running.inspect(|task| task.abort());
                    let sender = self.inputs.probe_sender.clone();
                    probe::start(name.clone(), wanted.clone(), sender)
                }
                (None, running) => {
                    running.inspect(|task| task.abort());
                    continue;
                }
            };
            probes.insert(name.clone(), task);
        }
        for task in self.probes.values() {
            task.abort();
        }
        self.probes = probes;
    }

    fn share_idle_limits(&self) {
        let limits = self.state.config.vnis.iter().filter_map(|vni| {
            let number = self.published.get(&vni.name)?.number;
            Some((number, vni.idle_s))
        });
        if let Ok(mut shared) = self.sweeper.idle_s.write() {
            *shared = limits.collect();
        }
    }

    /// Instance links first: an answer must find its way before a question is asked.
    fn attach_all(&mut self, occasion: Occasion) -> Result<(), DataplaneError> {
        for (name, role) in self.state.config.ports() {
            let Some(link) = self.state.link(&name).cloned() else {
                continue;
            };
            match self.attach(&link, role) {
                // What serves must not end for one interface: it is tried again.
                Err(error) if occasion != Occasion::FirstStart => {
                    error!("{error}");
                    self.broken.insert(name);
                }
                result => result?,
            }
        }
        Ok(())
    }
}

/// A known instance under a new configuration.
fn reconfigured(mut known: Instance, wanted: &crate::config::Instance, now_ns: u64) -> Instance {
    if known.config.probe != wanted.probe {
        known.probe.reset();
    }
    let moved = known.config.link != wanted.link
        || known.config.mac != wanted.mac
        || known.config.address != wanted.address;
    if moved {
        // Another place to reach it: what was concluded of the old one does not hold.
        known.mac = wanted.mac;
        known.failure = None;
        known.trial_ns = None;
        known.link_up_ns = None;
        known.changed_ns = now_ns;
    }
    known.config = wanted.clone();
    known
}
