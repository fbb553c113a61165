//! Puts a configuration in force. First everything that can be checked is checked, then programs
//! are attached where they were not, which is what fails in practice; only then is anything
//! changed that serves. What fails after all is taken back: a configuration is in force as a
//! whole, or the one before it is.
//!
//! The order of changes: instances and targets before the tables that name them, tables before the
//! addresses that lead to them, and what is not wanted any more last. A program that is there
//! before its tables passes packets on to the kernel.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::atomic::Ordering,
    time::Duration,
};

use mirror_common::limits;
use tracing::{error, info, warn};

use super::{
    Agent,
    log::LogEntry,
    ports::Taken,
    publish::{Published, Recalled},
    start::StartError,
    state::Instance,
};
use crate::{
    clock,
    config::{Config, Role},
    dataplane::DataplaneError,
    health::probe,
    netlink::{Change, Link},
    routing::State as Service,
};

/// How long hardware addresses are waited for before the configuration goes on without them.
const RESOLVE_WAIT: Duration = Duration::from_millis(500);

/// What there may be no room for: a kernel's map has one size for life.
const VNI: &str = "VNI (the maps were made for half as many: `mirror-ctl unload` and a start make larger ones, and end what is mirrored)";

/// When a configuration is put in force.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Occasion {
    /// Nothing was there.
    FirstStart,
    /// The dataplane was there.
    Adoption,
    /// Another version's was there, whose interfaces this one gets.
    Succession,
    /// Another configuration is in force.
    Reload,
}

/// What is asked for, with a number for each name.
struct Numbered {
    config: Config,
    instances: Vec<Instance>,
    vnis: Vec<Published>,
}

impl Agent {
    /// Puts a configuration in force, keeping everything that it does not change. When that fails
    /// on a reload, what was in force before is in force afterwards.
    pub(super) async fn configure(
        &mut self,
        config: Config,
        occasion: Occasion,
    ) -> Result<(), StartError> {
        let links = self.netlink.links().await?;
        self.check_interfaces(&config, &links, occasion)?;
        let now_ns = clock::now_ns();
        let wanted = Numbered {
            instances: self.number_instances(&config, now_ns)?,
            vnis: self.number_vnis(&config)?,
            config,
        };
        let taken = self.take_ports(&wanted.config, &links, occasion)?;
        self.learn_ways();
        let before = (self.state.config.clone(), self.state.instances.clone());
        if let Err(error) = self.put_in_place(wanted, links.clone(), &before.1).await {
            if occasion == Occasion::Reload {
                self.put_back(before, links, taken).await;
            }
            return Err(error);
        }
        if occasion == Occasion::Succession {
            self.take_charge(&links)?;
        }
        self.start_probes(&before.1);
        self.share_idle_limits();
        self.leave_the_rest().await;
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

    /// Changes what the agent knows and the maps. `before`: the instances so far.
    async fn put_in_place(
        &mut self,
        wanted: Numbered,
        links: Vec<Link>,
        before: &[Instance],
    ) -> Result<(), StartError> {
        self.watch_health(&wanted.config);
        self.state.instances = wanted.instances;
        self.state.config = wanted.config;
        self.state.regroup();
        if !self.state.config.predicts() {
            self.state.forget_foresight();
        }
        self.learn_links(links);
        self.learn_mode();
        self.learn_neighbours().await?;
        self.state.settle(clock::now_ns());
        for place in 0..self.state.instances.len() {
            self.write_instance(place);
        }
        self.add_targets()?;
        self.take_vnis(wanted.vnis)?;
        self.try_publish()?;
        self.write_vnis()?;
        self.remove_instances(before)?;
        self.remove_targets()?;
        self.forget_vnis()?;
        Ok(())
    }

    /// Puts back what was in force, after something else could not be put in its place.
    async fn put_back(
        &mut self,
        (config, instances): (Config, Vec<Instance>),
        links: Vec<Link>,
        taken: Vec<Taken>,
    ) {
        let before = std::mem::take(&mut self.state.instances);
        let put_back = async {
            let vnis = self.number_vnis(&config)?;
            let numbered = Numbered {
                config,
                instances,
                vnis,
            };
            self.put_in_place(numbered, links, &before).await
        };
        if let Err(error) = put_back.await {
            error!("what was in force could not be put back as a whole: {error}");
        }
        self.leave_ports(taken);
        self.show();
    }

    /// Takes programs and addresses off where they are not wanted any more. What fails is said,
    /// and fails nothing else: the configuration is in force.
    async fn leave_the_rest(&mut self) {
        if let Err(error) = self.detach_others() {
            error!("{error}");
        }
        if let Err(error) = self.withdraw_others().await {
            error!("{error}");
        }
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
    fn number_vnis(&self, config: &Config) -> Result<Vec<Published>, DataplaneError> {
        let known: HashMap<_, _> = self.dataplane.maps.register.vnis()?.into_iter().collect();
        let taken: HashSet<u16> = known.values().copied().collect();
        let mut in_force: HashMap<u16, HashMap<IpAddr, u8>> = HashMap::new();
        for (address, entry) in self.dataplane.maps.vnis()? {
            let of_vni = in_force.entry(entry.vni).or_default();
            of_vni.insert(address, entry.address);
        }
        let numbers = self.dataplane.maps.vni_numbers();
        let limit = numbers.len() as u32;
        let mut free = numbers.filter(|number| !taken.contains(number));
        let mut vnis = Vec::new();
        for vni in &config.vnis {
            let number = match known.get(&vni.name) {
                Some(number) => *number,
                None => free
                    .next()
                    .ok_or(DataplaneError::Full { what: VNI, limit })?,
            };
            let places = in_force.remove(&number).unwrap_or_default();
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

    /// Recalls what is in force for VNIs that are new to this agent.
    fn take_vnis(&mut self, numbered: Vec<Published>) -> Result<(), DataplaneError> {
        let mut before = std::mem::take(&mut self.published);
        let zones = self.dataplane.maps.register.zone_tables();
        let zones = zones.inspect_err(|error| warn!("tables of zones are made anew: {error}"));
        let zones = zones.unwrap_or_default();
        let mut recalled = Recalled::default();
        for (vni, numbered) in self.state.config.vnis.iter().zip(numbered) {
            let register = &mut self.dataplane.maps.register;
            register.set_vni(&vni.name, numbered.number)?;
            let mut published = match before.remove(&vni.name) {
                Some(published) => published,
                None => recalled.vni(numbered.number, self, &zones),
            };
            published.addresses = numbered.addresses;
            self.published.insert(vni.name.clone(), published);
        }
        Ok(())
    }

    /// Frees the numbers of VNIs that are not configured any more.
    fn forget_vnis(&mut self) -> Result<(), DataplaneError> {
        for (name, number) in self.dataplane.maps.register.vnis()? {
            if !self.published.contains_key(&name) {
                self.dataplane.maps.retire_counts(number)?;
                self.dataplane.maps.register.remove_vni(&name)?;
            }
        }
        Ok(())
    }

    /// Learns which interfaces take redirected frames: after programs were attached, because some
    /// drivers need one for it.
    fn learn_ways(&mut self) {
        match self.targets.map(|targets| targets.closed()) {
            Some(Ok(closed)) => self.state.closed = closed,
            Some(Err(error)) => warn!("which interfaces take redirected frames: {error}"),
            None => {}
        }
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
            instance.mtu = link.map_or(0, |link| link.mtu);
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
                Occasion::Adoption | Occasion::Succession => false,
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
        let learns = self.state.config.steering.learn;
        self.sweeper.learns.store(learns, Ordering::Relaxed);
        let limits = self.state.config.vnis.iter().filter_map(|vni| {
            let number = self.published.get(&vni.name)?.number;
            Some((number, vni.idle_s))
        });
        if let Ok(mut shared) = self.sweeper.idle_s.write() {
            *shared = limits.collect();
        }
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
        known.trial = None;
        known.link_up_ns = None;
        known.changed_ns = now_ns;
    }
    known.config = wanted.clone();
    known
}
