//! The simulated world: a client, instances, the VNI host between them, and time.

use std::{
    cell::RefCell,
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use fastrand::Rng;
use mirror_common::instance::{self, Instance};
use smoltcp::socket::tcp::State;

use super::{
    agent::PROMPTS,
    endpoint::Time,
    frame::{Frame, IP},
    hosts::{End, Machine},
    middle::{Entry, Middle, Step, To},
    mutation::Mutation,
    scenario::{LinkPlan, S, Scenario},
};

/// After the last fault everything must be over within this time: several of the longest pauses between two
/// retransmissions.
const PATIENCE: Time = 900 * S;
/// More packets than any run needs: they go round.
const PACKETS_MAX: u64 = 300_000;

/// How a connection ended, as the client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(super) enum Ending {
    /// It has not begun.
    Waiting,
    Open,
    /// All was said and heard.
    Complete,
    /// It was reset, and nobody could have gone on.
    Lost,
}

/// What happens at a time.
#[derive(Debug)]
pub(super) enum Event {
    Start(usize),
    AtMiddle(Option<usize>, Frame),
    AtClient(Frame),
    AtInstance(usize, Frame),
    ClientWakes(usize),
    ServerWakes(usize, u16),
    Fault(usize),
    Recovers(usize, Recovery),
    /// The agent looks at an instance.
    Looks(usize),
    /// It asks the flows of an instance: whether that is back, and how often more.
    Prompts(usize, bool, u32),
    /// It asks the client of a flow, by its port, whom nobody is left to serve, and how often more.
    Asks(u16, u32),
    Sweep,
}

/// What comes back.
#[derive(Clone, Copy, Debug)]
pub(super) enum Recovery {
    Power,
    Motion,
    Link,
    Process,
    Evacuation,
}

/// An event with its time; earlier ones and, of equal ones, those made earlier come first.
struct Due(Time, u64, Event);

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// Counts of one run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Packets that the VNI host saw.
    pub packets: u64,
    /// Connections.
    pub flows: u64,
    /// Takeovers.
    pub takeovers: u64,
    /// Mirrors that became active because they were the first to say something.
    pub leads: u64,
    /// Connections that were reset because nobody was left.
    pub lost: u64,
    /// Replicas that went cold.
    pub cold: u64,
}

/// How a run went.
#[derive(Debug)]
pub struct Outcome {
    /// The rule that was broken, if one was.
    pub result: Result<(), String>,
    /// Counts up to there.
    pub counts: Counts,
    /// What happened, packet by packet, if it was asked for.
    pub lines: Vec<String>,
}

/// A run.
pub struct World {
    pub(super) scenario: Scenario,
    pub(super) now: Time,
    pub(super) middle: Middle,
    pub(super) clients: Vec<Option<End>>,
    pub(super) endings: Vec<Ending>,
    /// Each connection's entry after its last packet.
    pub(super) entries: Vec<Option<Entry>>,
    /// Whether each connection's client was sent a reset because nobody was left.
    pub(super) given_up: Vec<bool>,
    pub(super) machines: Vec<Machine>,
    /// The agent does nothing until then.
    pub(super) stalled_until: Time,
    pub(super) counts: Counts,
    /// What happened, if anybody wants to read it.
    pub(super) lines: Option<RefCell<Vec<String>>>,
    rng: Rng,
    queue: BinaryHeap<Reverse<Due>>,
    made: u64,
}

impl World {
    /// The world of a seed.
    pub fn new(seed: u64, mutation: Option<Mutation>, traced: bool) -> Self {
        let scenario = Scenario::new(seed);
        let count = scenario.instances.len();
        let up = Instance {
            state: instance::state::UP,
            ..Instance::default()
        };
        let machine = || Machine {
            powered: true,
            frozen: false,
            cut: false,
            serving: true,
            held: Vec::new(),
            ends: BTreeMap::new(),
            struck: false,
            killed: false,
            crashes: 0,
            declared_dead: false,
            doubted: false,
        };
        let plans = scenario.flows.clone();
        let mut world = Self {
            now: 0,
            middle: Middle::new(scenario.vni, vec![up; count], plans, mutation),
            clients: scenario.flows.iter().map(|_| None).collect(),
            entries: vec![None; scenario.flows.len()],
            given_up: vec![false; scenario.flows.len()],
            endings: vec![Ending::Waiting; scenario.flows.len()],
            machines: (0..count).map(|_| machine()).collect(),
            stalled_until: 0,
            counts: Counts {
                flows: scenario.flows.len() as u64,
                ..Counts::default()
            },
            lines: traced.then(RefCell::default),
            rng: Rng::with_seed(!seed),
            queue: BinaryHeap::new(),
            made: 0,
            scenario,
        };
        world.schedule();
        world
    }

    fn schedule(&mut self) {
        for number in 0..self.scenario.flows.len() {
            let plan = &self.scenario.flows[number];
            if plan.after.is_none() {
                let start = plan.start;
                self.at(start, Event::Start(number));
            }
        }
        for number in 0..self.scenario.faults.len() {
            self.at(self.scenario.faults[number].at, Event::Fault(number));
        }
        self.at(S, Event::Sweep);
    }

    pub(super) fn at(&mut self, time: Time, event: Event) {
        self.made += 1;
        self.queue.push(Reverse(Due(time, self.made, event)));
    }

    /// Runs to the end.
    pub fn run(mut self) -> Outcome {
        let result = self.run_all();
        Outcome {
            result: result.map_err(|why| format!("at {} us: {why}", self.now)),
            counts: self.counts,
            lines: self.lines.map(RefCell::into_inner).unwrap_or_default(),
        }
    }

    fn run_all(&mut self) -> Result<(), String> {
        let mut end = self.scenario.calm + PATIENCE;
        let mut over = false;
        while let Some(Reverse(Due(time, _, event))) = self.queue.pop() {
            if !over && self.endings.iter().all(|&ending| ending > Ending::Open) {
                over = true;
                end = self.now + PATIENCE;
            }
            if time > end || over && self.is_quiet() {
                break;
            }
            self.now = time;
            self.carry_out(event)?;
            if self.counts.packets > PACKETS_MAX {
                return Err("packets go round for ever".to_owned());
            }
        }
        self.check_end()
    }

    /// Whether no server has anything to say any more.
    fn is_quiet(&self) -> bool {
        let mut ends = self
            .machines
            .iter()
            .flat_map(|machine| machine.ends.values());
        ends.all(|end| {
            matches!(
                end.endpoint.state(),
                State::Closed | State::TimeWait | State::Listen
            )
        })
    }

    fn carry_out(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Start(number) => self.start(number),
            Event::AtMiddle(from, frame) => self.pass(from, &frame),
            Event::AtClient(frame) => self.client_hears(frame),
            Event::AtInstance(instance, frame) => self.instance_hears(instance, frame),
            Event::ClientWakes(number) => {
                let now = self.now;
                match &self.clients[number] {
                    Some(end) if end.wake_at == Some(now) => self.client_works(number),
                    _ => Ok(()),
                }
            }
            Event::ServerWakes(instance, port) => {
                let now = self.now;
                match self.machines[instance].ends.get(&port) {
                    Some(end) if end.wake_at == Some(now) => self.server_works(instance, port),
                    _ => Ok(()),
                }
            }
            Event::Fault(number) => self.strike(number),
            Event::Recovers(instance, what) => self.recover(instance, what),
            Event::Looks(instance) => {
                self.look_at(instance);
                Ok(())
            }
            Event::Prompts(instance, back, times) => {
                self.prompt(instance, back, times);
                Ok(())
            }
            Event::Asks(port, times) => {
                self.ask_client(port, times);
                Ok(())
            }
            Event::Sweep => {
                for (instance, frame) in self.middle.sweep(self.now) {
                    self.send_to_instance(instance, frame);
                }
                self.at(self.now + S, Event::Sweep);
                Ok(())
            }
        }
    }

    /// A frame reaches the VNI host.
    fn pass(&mut self, from: Option<usize>, frame: &Frame) -> Result<(), String> {
        self.counts.packets += 1;
        let Some(parsed) = frame.parse() else {
            return Ok(());
        };
        let step = match from {
            None => self.middle.from_client(self.now, frame, &parsed),
            Some(instance) => self
                .middle
                .from_instance(self.now, instance, frame, &parsed),
        };
        self.trace_step(from, &parsed, &step);
        self.counts.takeovers += u64::from(step.notes.takeover != 0);
        self.counts.cold += u64::from(step.notes.went_cold.count_ones());
        self.check_step(from, &step)?;
        if let Some((before, entry)) = step.flow {
            let moved = before.flow.flow.active != entry.flow.flow.active;
            self.counts.leads += u64::from(moved && step.notes.takeover == 0);
            self.entries[entry.number] = Some(entry);
            // Nothing else of the client's is answered here.
            let answers = step.out.iter().any(|(to, _)| *to == To::Client);
            self.given_up[entry.number] |= from.is_none() && answers;
            if step.notes.went_cold != 0 && self.is_abandoned(&entry) {
                self.at(
                    self.now,
                    Event::Asks(self.scenario.flows[entry.number].port, PROMPTS),
                );
            }
            if step.notes.takeover != 0 {
                self.moved(self.scenario.flows[entry.number].port, &entry);
            }
        }
        self.send_on(step);
        Ok(())
    }

    fn send_on(&mut self, step: Step) {
        for (to, frame) in step.out {
            match to {
                To::Client => self.send_to_client(frame),
                To::Instance(instance) => self.send_to_instance(instance, frame),
            }
        }
    }

    pub(super) fn send_to_instance(&mut self, instance: usize, frame: Frame) {
        let link = self.scenario.instance_links[instance];
        self.transmit(link, frame, true, |frame| {
            Event::AtInstance(instance, frame)
        });
    }

    pub(super) fn send_to_client(&mut self, frame: Frame) {
        let link = self.scenario.client_link;
        self.transmit(link, frame, true, Event::AtClient);
    }

    /// Puts a frame on a link. Damage to headers on the way *to* the VNI host is for the link's own checksum to
    /// find: XDP sees packets before anybody has looked at theirs.
    pub(super) fn transmit(
        &mut self,
        link: LinkPlan,
        frame: Frame,
        outward: bool,
        event: impl Fn(Frame) -> Event,
    ) {
        let mut copies = 1;
        let mut delay = link.delay;
        let mut frame = frame;
        if self.now < self.scenario.calm {
            let mut happens = |rate: u32| rate > 0 && self.rng.u32(..10_000) < rate;
            if happens(link.loss) {
                return;
            }
            copies += u32::from(happens(link.repeat));
            if happens(link.late) {
                delay += 20 * link.delay;
            }
            if happens(link.corrupt) {
                damage(&mut self.rng, &mut frame, outward);
            }
        }
        for _ in 0..copies {
            let jitter = if link.jitter > 0 {
                self.rng.u64(..link.jitter)
            } else {
                0
            };
            self.at(self.now + delay + jitter, event(frame.clone()));
        }
    }
}

/// Flips a bit: anywhere, or of the payload alone. One only, since two can hide each other from a checksum.
fn damage(rng: &mut Rng, frame: &mut Frame, anywhere: bool) {
    if !frame.is_intact() {
        return;
    }
    let headers = frame.parse().map_or(0, |parsed| IP + parsed.header);
    let start = if anywhere { 0 } else { headers };
    if start < frame.bytes.len() {
        let at = rng.usize(start..frame.bytes.len());
        frame.bytes[at] ^= 1 << rng.u32(..8);
    }
}
