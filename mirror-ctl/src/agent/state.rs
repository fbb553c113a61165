//! What the agent knows, apart from I/O.

use std::collections::{BTreeSet, HashMap};

use mirror_common::{
    ethernet::Addresses,
    instance::{self, Vitals, state},
    time,
};

use super::{bearings::Bearings, foresee::Foreseen};
use crate::{
    config::{self, Config, Mac},
    dataplane::InstanceRecord,
    health::{
        Cause,
        evidence::Evidence,
        predict::policy::Healths,
        probe::Tally,
        recovery::{Failure, Signs, Trial},
        silence::Silence,
    },
    netlink::Link,
    routing::{Candidate, State as Service},
};

/// What an operator ordered. Stands until `restore`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Order {
    /// Nothing.
    #[default]
    None = 0,
    /// No new flows.
    Drain = 1,
    /// No new flows, and its flows move to their mirrors.
    Evacuate = 2,
    /// Treat it as dead.
    Takeover = 3,
}

impl Order {
    /// The order of a number in the register.
    pub fn from_number(number: u8) -> Self {
        let all = [Self::Drain, Self::Evacuate, Self::Takeover];
        let found = all.into_iter().find(|order| *order as u8 == number);
        found.unwrap_or_default()
    }

    /// The verb that orders it; empty: none does.
    pub const fn verb(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Drain => "drain",
            Self::Evacuate => "evacuate",
            Self::Takeover => "takeover",
        }
    }

    /// The order of a verb.
    pub fn of_verb(verb: &str) -> Self {
        let all = [Self::Drain, Self::Evacuate, Self::Takeover];
        let found = all.into_iter().find(|order| order.verb() == verb);
        found.unwrap_or_default()
    }
}

/// Everything that decisions depend on.
#[derive(Debug)]
pub struct State {
    /// What was asked for.
    pub config: Config,
    /// The instances, in the order of the configuration.
    pub instances: Vec<Instance>,
    /// The instances of each VNI, by place, in the order of the configuration.
    pub members: Vec<Vec<usize>>,
    /// The links of this namespace, by number.
    pub links: HashMap<u32, Link>,
    /// Those of them that take no redirected frame.
    pub closed: BTreeSet<u32>,
    /// Of which of those somebody was told.
    pub closed_told: BTreeSet<u32>,
    /// Whether drivers redirect, for which [`Self::closed`] counts: the network stack, which does
    /// it in generic mode, does not ask.
    pub is_native: bool,
    /// Debts of answers.
    pub silence: Silence,
    /// Failures of services.
    pub evidence: Evidence,
    /// What distance and load do to new flows.
    pub bearings: Bearings,
    /// What the policy remembers of each VNI's instances.
    pub foresight: HashMap<String, Healths>,
}

/// An instance.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Its number in the dataplane.
    pub number: u32,
    /// What was asked for.
    pub config: config::Instance,
    /// The interface that leads to it, 0 while there is none.
    pub ifindex: u32,
    /// The largest packet that the interface takes.
    pub mtu: u32,
    /// The hardware address of our end.
    pub source_mac: Mac,
    /// Since when the link is up.
    pub link_up_ns: Option<u64>,
    /// Its hardware address, once known.
    pub mac: Option<Mac>,
    /// When its hardware address was asked for last.
    pub asked_ns: u64,
    /// What an operator ordered.
    pub order: Order,
    /// When an evacuation stops waiting for a good moment.
    pub deadline_ms: u32,
    /// Why it is out, if it is.
    pub failure: Option<Failure>,
    /// The failure before.
    pub last_failure: Option<Failure>,
    /// If it is tried out.
    pub trial: Option<Trial>,
    /// What its probe said.
    pub probe: Tally,
    /// What the dataplane noticed.
    pub vitals: Vitals,
    /// The unanswered SYN ([`Vitals::syn_since_ns`]) for which handshakes were released last.
    pub released_ns: u64,
    /// When its state changed last.
    pub changed_ns: u64,
    /// Why it is in its state.
    pub cause: Cause,
    /// Whether somebody was told that it has never been heard.
    pub unheard_told: bool,
    /// What is expected of it.
    pub foreseen: Foreseen,
}

impl Instance {
    /// An instance of which nothing is known yet.
    pub fn new(number: u32, config: config::Instance, now_ns: u64) -> Self {
        Self {
            number,
            mac: config.mac,
            config,
            ifindex: 0,
            mtu: 0,
            source_mac: Mac::default(),
            link_up_ns: None,
            asked_ns: 0,
            order: Order::None,
            deadline_ms: 0,
            failure: None,
            last_failure: None,
            trial: None,
            probe: Tally::default(),
            vitals: Vitals::default(),
            released_ns: 0,
            changed_ns: now_ns,
            cause: Cause::Configured,
            unheard_told: false,
            foreseen: Foreseen::default(),
        }
    }

    /// Takes up what an earlier agent noted and wrote.
    pub fn recall(&mut self, record: &InstanceRecord, entry: &instance::Instance) {
        self.order = Order::from_number(record.order);
        self.cause = Cause::from_number(record.cause);
        self.changed_ns = record.changed_ns;
        self.deadline_ms = entry.deadline_ms;
        if entry.state == state::EVACUATING && self.order == Order::None {
            self.foreseen = Foreseen::recalled();
        }
        let lasting = matches!(
            self.cause,
            Cause::Silent | Cause::Resets | Cause::Probe | Cause::PartialChecksum
        );
        let is_suspicion = entry.state == state::SUSPECT;
        let out = is_suspicion || entry.state == state::DEAD;
        if out && lasting && self.order != Order::Takeover {
            self.failure = Some(Failure {
                is_suspicion,
                ..Failure::after(None, self.cause, record.changed_ns)
            });
        }
    }

    /// What it may be used for.
    pub fn service(&self) -> Service {
        match self.order {
            Order::Takeover => Service::Dead,
            _ if self.failure.is_some_and(|failure| failure.is_suspicion) => Service::Suspect,
            _ if self.failure.is_some() => Service::Dead,
            Order::Evacuate => Service::Evacuating,
            Order::Drain => Service::Draining,
            Order::None if self.foreseen.evacuate => Service::Evacuating,
            Order::None => Service::Up,
        }
    }

    /// Its entry in the dataplane.
    pub fn entry(&self) -> instance::Instance {
        instance::Instance {
            state: match self.service() {
                Service::Up | Service::Draining => state::UP,
                Service::Evacuating => state::EVACUATING,
                Service::Suspect => state::SUSPECT,
                Service::Dead => state::DEAD,
            },
            ifindex: self.ifindex,
            addresses: Addresses::new(self.mac.unwrap_or_default().0, self.source_mac.0),
            deadline_ms: self.deadline_ms,
            mtu: self.mtu,
        }
    }

    /// Its entry in the register.
    pub fn record(&self) -> InstanceRecord {
        InstanceRecord {
            number: self.number,
            order: self.order as u8,
            cause: self.cause as u8,
            changed_ns: self.changed_ns,
        }
    }

    /// What its recovery depends on. `redirects`: whether its interface takes redirected frames.
    pub fn signs(&self, evidence: &Evidence, redirects: bool) -> Signs {
        Signs {
            link_up_ns: self.link_up_ns,
            resolved: self.mac.is_some(),
            redirects,
            probe: self.probe.verdict(),
            probed: self.config.probe.is_some(),
            heard_ns: self.vitals.heard_ns,
            owes_since_ns: self.vitals.owes_since_ns,
            refused_ns: evidence.refused_ns(self.number as u16),
        }
    }

    /// Its health score: the configured one, or what is foreseen where that is lower.
    fn score(&self) -> f64 {
        match self.foreseen.overruled {
            true => self.config.score,
            false => self.config.score.min(self.foreseen.followed()),
        }
    }

    /// The instance as the choice of new flows' ways sees it.
    pub fn candidate(&self) -> Candidate<'_> {
        let score = self.score();
        Candidate {
            state: self.service(),
            score: self.trial.map_or(score, |trial| score.min(trial.score)),
            domain: self.config.domain.as_deref(),
            ..Candidate::new(&self.config.name, self.config.weight)
        }
    }

    /// An evacuation's patience begins.
    pub(super) fn be_patient(&mut self, now_ns: u64) {
        let patience = mirror_common::limits::EVACUATION_PATIENCE_MS;
        self.deadline_ms = time::ms(now_ns).wrapping_add(patience);
    }

    /// Sets the order; an evacuation's patience begins.
    pub fn set_order(&mut self, order: Order, now_ns: u64) {
        self.order = order;
        if order == Order::Evacuate {
            self.be_patient(now_ns);
        }
    }
}

impl State {
    /// Nothing is known yet of the network or of the instances.
    pub fn new(config: Config, instances: Vec<Instance>) -> Self {
        let mut state = Self {
            config,
            instances,
            members: Vec::new(),
            links: HashMap::new(),
            closed: BTreeSet::new(),
            closed_told: BTreeSet::new(),
            is_native: false,
            silence: Silence::default(),
            evidence: Evidence::default(),
            bearings: Bearings::default(),
            foresight: HashMap::new(),
        };
        state.regroup();
        state
    }

    /// An instance's place by its name.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.instances
            .iter()
            .position(|instance| instance.config.name == name)
    }

    /// Finds each VNI's instances anew, after configuration or instances changed.
    pub fn regroup(&mut self) {
        let places: HashMap<&str, usize> = self
            .instances
            .iter()
            .enumerate()
            .map(|(place, instance)| (instance.config.name.as_str(), place))
            .collect();
        let place = |name: &String| places.get(name.as_str()).copied();
        let vnis = self.config.vnis.iter();
        self.members = vnis
            .map(|vni| vni.instances.iter().filter_map(place).collect())
            .collect();
        self.take_bearings();
    }

    /// Whether copies for an instance would vanish: nothing says so later, neither a packet nor a
    /// counter.
    pub fn is_closed(&self, place: usize) -> bool {
        self.is_native && self.closed.contains(&self.instances[place].ifindex)
    }

    /// A link by its name.
    pub fn link(&self, name: &str) -> Option<&Link> {
        self.links.values().find(|link| link.name == name)
    }
}
