//! Makes connections go on at once when their active instance is lost, in a thread of its own.
//!
//! An instance that is dead or suspect: each of its connections is prompted ([`super::prompt`]), so
//! that the dataplane moves it now; first those whose client waits for what another replica has, and the others, most of
//! which move by themselves meanwhile, a little later. Any connection that moved: what its new active
//! replica said ahead of the old one is said once more ([`super::replay`]). A replica that went cold is prompted
//! too, a little later: what it answers, the dataplane answers with a reset, and its socket is gone. An instance that
//! is back: each of its connections is asked whether it is still there, before anybody relies on it. A
//! machine that began anew answers with a reset, and its replica goes cold.

use std::{
    collections::{HashMap, VecDeque, hash_map},
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    thread,
    time::{Duration, Instant},
};

use mirror_common::{
    event::{Event, kind},
    flow::{Flow, FlowKey, state},
    instance::{self, Instance},
    limits::REPLICAS,
    parked::places,
    steering, vni,
};
use tracing::{debug, warn};

use super::{Vnis, prompt, replay};
use crate::dataplane::{DataplaneError, Entry, FlowTable, Injector, Maps};

/// Tasks that may wait. Each is a walk over the flows or a batch of reports; beyond that, whoever
/// asks does not wait either: connections then move at their next packet.
const TASKS_QUEUED: usize = 1_024;
/// How long connections nobody waits on are left to move by themselves: until those that are waited on have moved.
const LEFT_FOR: Duration = Duration::from_millis(50);
/// How many of them are prompted before it is looked for tasks again.
const PROMPTED_BETWEEN: usize = 16;

/// What there is to do.
enum Task {
    /// An instance was lost.
    Lost(Loss),
    /// An instance leaves SYNs unanswered.
    Unresponsive(u32),
    /// An instance that was lost serves again.
    Back { number: u32 },
    /// Connections moved.
    Moved(Vec<FlowKey>),
    /// Replicas went cold: of which connections, and at which instances.
    Chilled(Vec<(FlowKey, u16)>),
}

/// The thread's handle; the thread ends with the last one.
#[derive(Clone)]
pub struct Rescuer(SyncSender<Task>);

impl Rescuer {
    /// Starts the thread.
    pub fn start(maps: Maps, injector: Injector) -> std::io::Result<Self> {
        let (sender, tasks) = sync_channel(TASKS_QUEUED);
        thread::Builder::new()
            .name("rescue".to_owned())
            .spawn(move || {
                let rescue = Rescue {
                    maps,
                    injector,
                    vnis: Vnis::default(),
                    vnis_read: None,
                    left: VecDeque::new(),
                    failed: None,
                };
                rescue.run(&tasks);
            })?;
        Ok(Self(sender))
    }

    /// An instance was written as dead or suspect.
    pub fn lost(&self, number: u32, state: u32) {
        self.send(Task::Lost(Loss {
            number,
            is_suspicion: state == instance::state::SUSPECT,
        }));
    }

    /// An instance leaves SYNs unanswered: handshakes wait for it.
    pub fn unresponsive(&self, number: u32) {
        self.send(Task::Unresponsive(number));
    }

    /// An instance that was dead or suspect was written as serving again.
    pub fn back(&self, number: u32) {
        self.send(Task::Back { number });
    }

    /// The dataplane reported events.
    pub fn reported(&self, events: &[Event]) {
        let of = |wanted: u8| events.iter().filter(move |event| event.kind == wanted);
        let moved: Vec<FlowKey> = of(kind::TAKEOVER).map(|event| event.flow).collect();
        if !moved.is_empty() {
            self.send(Task::Moved(moved));
        }
        let chilled: Vec<(FlowKey, u16)> = of(kind::FLOW_COLD)
            .map(|event| (event.flow, event.from))
            .collect();
        if !chilled.is_empty() {
            self.send(Task::Chilled(chilled));
        }
    }

    fn send(&self, task: Task) {
        if self.0.try_send(task).is_err() {
            warn!("nobody hurries the connections that move");
        }
    }
}

struct Rescue {
    maps: Maps,
    injector: Injector,
    vnis: Vnis,
    /// When they were read.
    vnis_read: Option<Instant>,
    /// What nobody waits on, in the order in which it is to be done.
    left: VecDeque<Left>,
    /// What went wrong with them last.
    failed: Option<DataplaneError>,
}

/// A connection that is yet to be prompted.
struct Left {
    key: FlowKey,
    why: Why,
    /// When that was known.
    since: Instant,
}

impl Left {
    /// It is prompted no earlier than then.
    fn due(&self) -> Instant {
        self.since + LEFT_FOR
    }
}

/// Why a connection is yet to be prompted.
enum Why {
    /// Its active instance was lost.
    Lost(FlowTable, Loss),
    /// Its replica at an instance went cold.
    Chilled(u16),
}

/// That an instance was lost.
#[derive(Clone, Copy)]
struct Loss {
    number: u32,
    is_suspicion: bool,
}

/// Whether a state of an instance is that of a lost one.
pub fn is_lost(state: u32) -> bool {
    matches!(state, instance::state::DEAD | instance::state::SUSPECT)
}

/// Instances by number, each read once.
type Instances = HashMap<u16, Instance>;

impl Rescue {
    /// Does what there is to do until nobody can ask for more.
    fn run(mut self, tasks: &Receiver<Task>) {
        loop {
            let task = match self.left.front() {
                None => tasks.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(left) => {
                    tasks.recv_timeout(left.due().saturating_duration_since(Instant::now()))
                }
            };
            let done = match task {
                Ok(task) => self.perform(task),
                Err(RecvTimeoutError::Timeout) => self.prompt_some(),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if let Err(error) = done {
                warn!("connections move at their next packet only: {error}");
            }
        }
    }

    fn perform(&mut self, task: Task) -> Result<(), DataplaneError> {
        match task {
            Task::Lost(loss) => self.lost(loss),
            Task::Unresponsive(number) => self.release(number),
            Task::Back { number } => self.back(number),
            Task::Moved(keys) => {
                for key in keys {
                    let is_active = |flow: &Flow, slot| slot == flow.active;
                    if !self.replay(FlowTable::Mirrored, &key, is_active)? {
                        // Refused by one: another's SYN-ACK that was held for the answer.
                        self.replay(FlowTable::HalfOpen, &key, is_active)?;
                    }
                }
                Ok(())
            }
            Task::Chilled(chilled) => {
                self.leave_chilled(&chilled);
                Ok(())
            }
        }
    }

    /// Reads all VNIs.
    fn read_vnis(&mut self) -> Result<(), DataplaneError> {
        self.vnis = Vnis::read(&self.maps)?;
        self.vnis_read = Some(Instant::now());
        Ok(())
    }

    /// Leaves a cold replica's connection for later, since whoever waits for a warm one comes first.
    fn leave_chilled(&mut self, chilled: &[(FlowKey, u16)]) {
        let since = Instant::now();
        let chilled = chilled.iter().map(|(key, number)| Left {
            key: *key,
            why: Why::Chilled(*number),
            since,
        });
        self.left.extend(chilled);
    }

    /// Prompts a cold replica, where its instance can be reached, and the client whom nobody is left to serve.
    fn prompt_chilled(&self, key: &FlowKey, number: u16) -> Result<(), DataplaneError> {
        let Some((address, vni)) = self.vnis.of(key) else {
            return Ok(());
        };
        let Some(flow) = self.maps.tcp_flow(FlowTable::Mirrored, key)? else {
            return Ok(());
        };
        let instance = self.maps.instance(u32::from(number))?;
        if instance.state & instance::state::REACHABLE != 0
            && let Some(frame) = prompt::to_cold(key, &flow, number, &instance, *address)
        {
            self.injector.send(instance.ifindex, &frame)?;
        }
        let active = flow.flow.instances[usize::from(flow.flow.active) % REPLICAS];
        let has_shadows = vni.flags & vni::flag::SHADOW != 0;
        // A shadow takes nobody over.
        let is_no_heir = |number: u16| {
            let instance = self.maps.instance(number.into());
            let is_dead = |instance: Instance| instance.state == instance::state::DEAD;
            has_shadows && number != active || instance.is_ok_and(is_dead)
        };
        if let Some((ifindex, frame)) = prompt::to_abandoned(key, &flow, *address, is_no_heir) {
            self.injector.send(ifindex, &frame)?;
        }
        Ok(())
    }

    /// Lets the programs take in once more the SYN-ACKs that are held for an instance's, and those
    /// in whose place an instance's was sent on that is lost: its own may never have been understood.
    fn release(&self, number: u32) -> Result<(), DataplaneError> {
        let mut waiting = Vec::new();
        self.maps.walk_table(FlowTable::HalfOpen, |entry| {
            let waits = entry
                .flow
                .instances
                .iter()
                .any(|of| u32::from(*of) == number);
            // Of a flow without mirrors nothing is held, and a flood leaves the table full of them.
            let is_mirrored = entry.flow.replicas > 1;
            if waits && is_mirrored && entry.flow.state <= state::ANSWERED {
                waiting.push(*entry.key);
            }
        })?;
        for key in waiting {
            self.replay(FlowTable::HalfOpen, &key, |flow, slot| {
                let active = flow.instances[usize::from(flow.active) % REPLICAS];
                let is_answered = flow.state == state::ANSWERED;
                !is_answered || u32::from(active) == number && slot != flow.active
            })?;
        }
        Ok(())
    }

    /// Asks every connection that has a warm replica on an instance that is back.
    fn back(&mut self, number: u32) -> Result<(), DataplaneError> {
        self.read_vnis()?;
        let instance = self.maps.instance(number)?;
        // Nobody else is asked, and no client.
        let only = HashMap::from([(number as u16, instance)]);
        let mut failed = None;
        self.maps.walk_table(FlowTable::Mirrored, |entry| {
            let vni = self.vnis.of(entry.key);
            if let Some((address, _)) = vni.filter(|_| prompt::mirrors(&entry, number)) {
                for (ifindex, frame) in prompt::frames(&entry, *address, &only, true) {
                    failed = self.injector.send(ifindex, &frame).err().or(failed.take());
                }
            }
        })?;
        failed.map_or(Ok(()), Err)
    }

    /// Prompts the connections of a lost instance whose clients wait, and leaves the others for later.
    fn lost(&mut self, loss: Loss) -> Result<(), DataplaneError> {
        let since = Instant::now();
        self.read_vnis()?;
        let mut instances = Instances::new();
        let mut left = VecDeque::new();
        let later = |entry: &Entry<'_>| Left {
            key: *entry.key,
            why: Why::Lost(entry.table, loss),
            since,
        };
        let (mut hurried, mut failed) = (0, None);
        self.maps.walk_table(FlowTable::Mirrored, |entry| {
            match prompt::concerns(&entry, loss.number) {
                true if prompt::is_urgent(&entry) => {
                    hurried += 1;
                    let prompted = self.prompt(&entry, loss, &mut instances);
                    failed = prompted.err().or(failed.take());
                }
                true => left.push_back(later(&entry)),
                false => {}
            }
        })?;
        self.release(loss.number)?;
        // Nobody can take over those without mirrors. All that can be done is to tell their clients, and not on a suspicion.
        if !loss.is_suspicion {
            self.maps.walk_table(FlowTable::Unmirrored, |entry| {
                if prompt::concerns(&entry, loss.number) {
                    left.push_back(later(&entry));
                }
            })?;
        }
        debug!(
            instance = loss.number,
            hurried,
            left = left.len(),
            "prompts"
        );
        self.left.append(&mut left);
        failed.map_or(Ok(()), Err)
    }

    /// Prompts some of the connections that are left. What failed is told when none is left: once, and not for each.
    fn prompt_some(&mut self) -> Result<(), DataplaneError> {
        let some = self.left.len().min(PROMPTED_BETWEEN);
        // Not for each group: they are looked for in many thousand places.
        let newest = self.left.iter().take(some).map(|left| left.since).max();
        if self.vnis_read < newest {
            self.read_vnis()?;
        }
        let mut instances = Instances::new();
        for left in self.left.drain(..some).collect::<Vec<_>>() {
            let prompted = match left.why {
                Why::Lost(table, loss) => self.prompt_left(table, &left.key, loss, &mut instances),
                Why::Chilled(number) => self.prompt_chilled(&left.key, number),
            };
            self.failed = prompted.err().or(self.failed.take());
        }
        match self.left.is_empty() {
            true => self.failed.take().map_or(Ok(()), Err),
            false => Ok(()),
        }
    }

    /// Prompts a connection that was left, unless it has moved or its instance serves again.
    fn prompt_left(
        &self,
        table: FlowTable,
        key: &FlowKey,
        loss: Loss,
        instances: &mut Instances,
    ) -> Result<(), DataplaneError> {
        let state = self.instance(loss.number as u16, instances)?.state;
        let (plain, mirrored) = match table {
            FlowTable::Mirrored => (None, self.maps.tcp_flow(table, key)?),
            _ => (self.maps.flow(table, key)?, None),
        };
        let Some(flow) = mirrored
            .as_ref()
            .map_or(plain.as_ref(), |flow| Some(&flow.flow))
        else {
            return Ok(());
        };
        let entry = Entry {
            table,
            key,
            flow,
            sync: mirrored.as_ref().map(|flow| &flow.sync),
        };
        match is_lost(state) && prompt::concerns(&entry, loss.number) {
            true => self.prompt(&entry, loss, instances),
            false => Ok(()),
        }
    }

    /// An instance's entry, read once for many connections.
    fn instance(&self, number: u16, read: &mut Instances) -> Result<Instance, DataplaneError> {
        Ok(match read.entry(number) {
            hash_map::Entry::Occupied(known) => *known.get(),
            hash_map::Entry::Vacant(place) => *place.insert(self.maps.instance(number.into())?),
        })
    }

    /// Prompts one connection of a lost instance.
    fn prompt(
        &self,
        entry: &Entry<'_>,
        loss: Loss,
        instances: &mut Instances,
    ) -> Result<(), DataplaneError> {
        let Some((address, vni)) = self.vnis.of(entry.key) else {
            return Ok(());
        };
        // Bytes before acknowledgements: an answer that arrives first moves the flow too.
        if entry.sync.is_some() {
            self.replay(entry.table, entry.key, |flow, slot| slot != flow.active)?;
        }
        for number in entry.flow.instances {
            self.instance(number, instances)?;
        }
        // Of a flow whose mirrors are shadows nobody takes over: its client is to know.
        let nobody = Instances::new();
        let heirs = match vni.flags & vni::flag::SHADOW {
            0 => &*instances,
            _ => &nobody,
        };
        for (ifindex, frame) in prompt::frames(entry, *address, heirs, loss.is_suspicion) {
            self.injector.send(ifindex, &frame)?;
        }
        Ok(())
    }

    /// Lets the programs take in the last words of the `chosen` slots of a flow once more, if the
    /// client lacks them. Whether there is such a flow.
    fn replay(
        &self,
        table: FlowTable,
        key: &FlowKey,
        chosen: impl Fn(&Flow, u8) -> bool,
    ) -> Result<bool, DataplaneError> {
        // As it is now: it may have moved since it was met on a walk.
        let Some(flow) = self.maps.tcp_flow(table, key)? else {
            return Ok(false);
        };
        let slots = 0..flow.flow.replicas;
        for slot in slots.filter(|slot| chosen(&flow.flow, *slot) && replay::is_ahead(&flow, *slot))
        {
            let (first, second) = places(steering::hash(key), slot);
            for place in [first, second] {
                let parked = self.maps.parked(place)?;
                if let Some(frame) = replay::last_word(&parked, key, &flow, slot) {
                    let number = flow.flow.instances[usize::from(slot) % REPLICAS];
                    let link = self.maps.instance(number.into())?.ifindex;
                    self.injector.take_in(link, flow.flow.ifindex, frame)?;
                }
            }
        }
        Ok(true)
    }
}
