//! The VNI host: looks flows up, runs the protocol, carries its verdicts out, in the order of `mirror-ebpf/src/tcp.rs`,
//! `tcp/returned.rs` and `clone.rs`.

use std::collections::BTreeMap;

use mirror_common::{
    flow::{Flow, PlainFlow, TcpFlow, state},
    instance::{self, Instance},
    limits::REPLICAS,
    plan::Copy,
    tcp::{
        Conditions, Notes, Segment, client, divergence, option,
        replica::{self, Output, Verdict},
        segment::bit,
        seq,
    },
    vni::Vni,
};

use super::{
    endpoint::{CLIENT, PORT, Time, VNI},
    frame::{Bare, Frame, Parsed, bare},
    mutation::Mutation,
    scenario::{FlowPlan, MS},
};

/// Where a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// To the client.
    Client,
    /// To an instance, by its number.
    Instance(usize),
}

/// A flow's entry in a table.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Which of the scenario's connections.
    pub number: usize,
    /// The map's value.
    pub flow: TcpFlow,
}

/// What became of one packet.
#[derive(Debug, Default)]
pub struct Step {
    /// The flow's entry before and after.
    pub flow: Option<(Entry, Entry)>,
    /// What the protocol noted.
    pub notes: Notes,
    /// What is sent.
    pub out: Vec<(To, Frame)>,
    /// The verdict, for the trace.
    pub verdict: String,
}

/// The last word of a mirror, kept for a takeover.
#[derive(Debug)]
struct Parked {
    number: usize,
    end: u32,
    frame: Frame,
}

/// The VNI host.
pub struct Middle {
    /// The VNI's settings.
    pub vni: Vni,
    /// The instance table.
    pub instances: Vec<Instance>,
    plans: Vec<FlowPlan>,
    half_open: BTreeMap<u16, Entry>,
    established: BTreeMap<u16, Entry>,
    /// By port and slot.
    parked: BTreeMap<(u16, u8), Parked>,
    mutation: Option<Mutation>,
}

impl Middle {
    /// With empty tables.
    pub fn new(
        vni: Vni,
        instances: Vec<Instance>,
        plans: Vec<FlowPlan>,
        mutation: Option<Mutation>,
    ) -> Self {
        Self {
            vni,
            instances,
            plans,
            half_open: BTreeMap::new(),
            established: BTreeMap::new(),
            parked: BTreeMap::new(),
            mutation,
        }
    }

    /// A port's entry: established before half-open.
    pub fn find(&self, port: u16) -> Option<&Entry> {
        let established = self.established.get(&port);
        established.or_else(|| self.half_open.get(&port))
    }

    fn find_mut(&mut self, port: u16) -> Option<&mut Entry> {
        let established = self.established.get_mut(&port);
        established.or_else(|| self.half_open.get_mut(&port))
    }

    /// All entries, with their ports.
    pub fn entries(&self) -> impl Iterator<Item = (u16, &Entry)> {
        let all = self.established.iter().chain(&self.half_open);
        all.map(|(&port, entry)| (port, entry))
    }

    /// What the instance table says of a flow's replicas.
    pub fn conditions(&self, flow: &Flow, now: Time) -> Conditions {
        let mut conditions = Conditions {
            now_ms: (now / MS) as u32,
            vni: self.vni,
            ..Conditions::default()
        };
        for slot in 0..usize::from(flow.replicas) {
            let instance = &self.instances[usize::from(flow.instances[slot])];
            conditions.state[slot] = instance.state as u8;
            conditions.deadline_ms[slot] = instance.deadline_ms;
        }
        if let Some(mutation) = self.mutation {
            mutation.conditions(&mut conditions);
        }
        conditions
    }

    /// Forgets what is over, as the agent's sweep does. Returns what lets its replicas go, by instance.
    pub fn sweep(&mut self, now: Time) -> Vec<(usize, Frame)> {
        let now_s = (now / (1_000 * MS)) as u32;
        let keep = |_: &u16, entry: &mut Entry| {
            let limit = match entry.flow.flow.state {
                state::CLOSED => 10,
                state::ESTABLISHED => 7_200,
                _ => 120,
            };
            now_s.saturating_sub(entry.flow.flow.seen_s) <= limit
        };
        self.half_open.retain(keep);
        let mut farewells = Vec::new();
        self.established.retain(|port, entry| {
            let kept = keep(port, entry);
            if !kept {
                farewells.extend(farewells_of(*port, &entry.flow));
            }
            kept
        });
        farewells
    }

    /// What a replica said last ahead of the others, if the client was not sent it.
    pub fn last_word(&self, port: u16, slot: u8) -> Option<Frame> {
        let flow = &self.find(port)?.flow;
        let parked = self.parked.get(&(port, slot))?;
        let end = parked.end.wrapping_sub(flow.delta(slot));
        let same = self.find(port)?.number == parked.number;
        let news = same && seq::after(end, flow.sync.sent) && parked.frame.is_intact();
        news.then(|| parked.frame.clone())
    }

    /// Takes in a packet of the client.
    pub fn from_client(&mut self, now: Time, frame: &Frame, parsed: &Parsed) -> Step {
        let segment = &parsed.segment;
        let port = parsed.ports.0;
        if !self.find_way(now, port, segment) {
            return self.stateless(port, frame);
        }
        let half_open = !self.established.contains_key(&port);
        if half_open && !segment.is(bit::SYN | bit::RST) {
            let Some(mut entry) = self.half_open.get(&port).copied() else {
                return Step::default();
            };
            if !client::completes_handshake(&entry.flow, segment) {
                return Step::said("bad handshake ACK");
            }
            entry.flow.flow.state = state::ESTABLISHED;
            self.half_open.remove(&port);
            self.established.insert(port, entry);
        }
        self.mirrored_from_client(now, frame, parsed)
    }

    /// Finds the flow's entry, or opens one. False: there is none and cannot be.
    fn find_way(&mut self, now: Time, port: u16, segment: &Segment) -> bool {
        const OPENS: u8 = bit::SYN | bit::ACK | bit::RST | bit::FIN;
        let opens = segment.flags & OPENS == bit::SYN;
        if opens {
            // A SYN of a flow that is over, or another one than we wait for, begins anew.
            if let Some(entry) = self.established.get(&port) {
                if entry.flow.flow.state < state::CLOSED {
                    return true;
                }
                self.established.remove(&port);
            }
            let over = |entry: &Entry| {
                let other = entry.flow.sync.client_isn != segment.seq;
                other || entry.flow.flow.state >= state::CLOSED
            };
            if self.half_open.get(&port).is_none_or(over) {
                self.half_open.remove(&port);
                self.open(now, port, segment);
            }
        }
        self.find(port).is_some()
    }

    fn open(&mut self, now: Time, port: u16, syn: &Segment) {
        let same = |plan: &FlowPlan| plan.port == port && plan.isns.0 == syn.seq;
        let Some(number) = self.plans.iter().position(same) else {
            return;
        };
        let set = &self.plans[number].set;
        let mut instances = [0; REPLICAS];
        instances[..set.len()].copy_from_slice(set);
        let now_s = (now / (1_000 * MS)) as u32;
        let mut flow = TcpFlow {
            flow: Flow {
                plain: PlainFlow {
                    opened_s: now_s,
                    seen_s: now_s,
                    ..PlainFlow::default()
                },
                instances,
                replicas: set.len() as u8,
                ..Flow::default()
            },
            sync: Default::default(),
        };
        client::open(&mut flow, syn, ((now / MS) as u32) << 6);
        self.half_open.insert(port, Entry { number, flow });
    }

    /// Where a port's hash steers: to the first of its set that serves.
    fn primary(&self, port: u16) -> Option<usize> {
        let plan = self.plans.iter().find(|plan| plan.port == port)?;
        let mut set = plan.set.iter().map(|&number| usize::from(number));
        set.find(|&number| self.instances[number].state == instance::state::UP)
    }

    /// A packet of no known flow goes to the primary.
    fn stateless(&self, port: u16, frame: &Frame) -> Step {
        let to = self
            .primary(port)
            .map(|primary| (To::Instance(primary), unmarked(frame)));
        Step {
            out: to.into_iter().collect(),
            ..Step::said("no flow")
        }
    }

    fn mirrored_from_client(&mut self, now: Time, frame: &Frame, parsed: &Parsed) -> Step {
        let port = parsed.ports.0;
        let Some(&before) = self.find(port) else {
            return Step::default();
        };
        let conditions = self.conditions(&before.flow.flow, now);
        let mutation = self.mutation;
        let Some(entry) = self.find_mut(port) else {
            return Step::default();
        };
        let flow = &mut entry.flow;
        flow.flow.seen_s = (now / (1_000 * MS)) as u32;
        let mut notes = Notes::default();
        let segment = &parsed.segment;
        let verdict = client::receive(flow, segment, &conditions, &mut notes);
        let mut out = Vec::new();
        for slot in 0..REPLICAS as u8 {
            let mut copy = Copy::default();
            if client::copy_for(flow, slot, segment, &conditions, &mut copy) {
                if let Some(mutation) = mutation {
                    mutation.copy(flow, slot, segment, &mut copy);
                }
                let mut clone = frame.clone();
                clone.translate(parsed, &copy);
                out.push((To::Instance(copy.instance.into()), clone));
            }
        }
        let after = *entry;
        match verdict {
            client::Verdict::Clone => {}
            client::Verdict::Drop(_) => out.clear(),
            client::Verdict::Reset => {
                out.clear();
                if !segment.is(bit::RST) {
                    out.push((To::Client, reset(parsed)));
                }
            }
        }
        Step {
            flow: Some((before, after)),
            notes,
            out,
            verdict: format!("{verdict:?}"),
        }
        .mark()
    }

    /// Takes in a packet of an instance.
    pub fn from_instance(
        &mut self,
        now: Time,
        instance: usize,
        frame: &Frame,
        parsed: &Parsed,
    ) -> Step {
        let port = parsed.ports.1;
        let Some(&before) = self.find(port) else {
            let primary = self.primary(port) == Some(instance);
            return Step {
                out: primary
                    .then(|| (To::Client, unmarked(frame)))
                    .into_iter()
                    .collect(),
                ..Step::said("return without flow")
            };
        };
        let used = usize::from(before.flow.flow.replicas);
        let mut slots = before.flow.flow.instances[..used].iter();
        let Some(from) = slots.position(|&number| usize::from(number) == instance) else {
            return Step::said("not a replica");
        };
        let mut conditions = self.conditions(&before.flow.flow, now);
        let mutation = self.mutation;
        let Some(entry) = self.find_mut(port) else {
            return Step::default();
        };
        let flow = &mut entry.flow;
        let mut notes = Notes::default();
        let from = from as u8;
        let segment = &parsed.segment;
        let length = divergence::part(flow, from, segment);
        conditions.part = frame.part(parsed, length);
        if let Some(mutation) = mutation {
            mutation.part(&mut conditions.part);
        }
        let mut output = replica::receive(flow, from, segment, &conditions, &mut notes);
        if output.verdict == Verdict::ToClient {
            flow.flow.seen_s = (now / (1_000 * MS)) as u32;
        }
        if let Some(mutation) = mutation {
            mutation.output(flow, from, segment, &conditions, &mut output);
        }
        let after = *entry;
        if output.parks(&after.flow, segment) {
            let parked = Parked {
                number: after.number,
                end: segment.end(),
                frame: frame.clone(),
            };
            self.parked.insert((port, from), parked);
        }
        Step {
            flow: Some((before, after)),
            notes,
            out: carry_out(instance, frame, parsed, &output)
                .into_iter()
                .collect(),
            verdict: format!("{:?} {:?}", output.verdict, output.reason),
        }
        .mark()
    }
}

impl Step {
    /// Marks what is sent as this connection's, unless it is late and another's.
    fn mark(mut self) -> Self {
        let number = self.flow.as_ref().map(|(_, entry)| entry.number);
        for (_, frame) in &mut self.out {
            if frame.of.is_none() {
                frame.of = number;
            }
        }
        self
    }

    fn said(verdict: &str) -> Self {
        Self {
            verdict: verdict.to_owned(),
            ..Self::default()
        }
    }
}

/// A frame that passes without a flow.
fn unmarked(frame: &Frame) -> Frame {
    Frame {
        of: None,
        ..frame.clone()
    }
}

/// Rewrites a replica's segment as the protocol decided.
fn carry_out(
    instance: usize,
    frame: &Frame,
    parsed: &Parsed,
    output: &Output,
) -> Option<(To, Frame)> {
    let segment = &parsed.segment;
    let back = match output.verdict {
        Verdict::Drop => return None,
        Verdict::TurnRound => true,
        Verdict::ToClient | Verdict::AckToClient => false,
    };
    if !back && (output.verdict == Verdict::ToClient || segment.length() == 0) {
        let mut sent = frame.clone();
        sent.renumber(parsed, output);
        return Some((To::Client, sent));
    }
    let stamped = segment.options & option::TIMESTAMP != 0;
    let needed = if stamped { 32 } else { 20 };
    if parsed.header as u32 + segment.payload < needed {
        return None;
    }
    let (addresses, ports) = if back {
        ([CLIENT, VNI], (parsed.ports.1, parsed.ports.0))
    } else {
        ([VNI, CLIENT], parsed.ports)
    };
    let sent = bare(&Bare {
        addresses,
        ports,
        numbers: (output.seq, output.ack),
        timestamps: stamped.then_some((output.ts_val, output.ts_ecr)),
        window: output.window,
        flags: output.flags,
    });
    let to = if back {
        To::Instance(instance)
    } else {
        To::Client
    };
    Some((to, sent))
}

/// The resets that let go the replicas of a flow that is forgotten.
fn farewells_of(port: u16, flow: &TcpFlow) -> Vec<(usize, Frame)> {
    let slots = (0..flow.flow.replicas).filter_map(|slot| Some((slot, flow.farewell(slot)?)));
    slots
        .map(|(slot, seq)| {
            let reset = bare(&Bare {
                addresses: [CLIENT, VNI],
                ports: (port, PORT),
                numbers: (seq, 0),
                flags: bit::RST,
                ..Bare::default()
            });
            (flow.flow.instances[usize::from(slot)].into(), reset)
        })
        .collect()
}

/// Resets the client's connection in the name of an instance that is gone.
fn reset(parsed: &Parsed) -> Frame {
    let segment = &parsed.segment;
    let acknowledges = segment.is(bit::ACK);
    bare(&Bare {
        addresses: [VNI, CLIENT],
        ports: (parsed.ports.1, parsed.ports.0),
        numbers: (if acknowledges { segment.ack } else { 0 }, segment.end()),
        flags: if acknowledges {
            bit::RST
        } else {
            bit::RST | bit::ACK
        },
        ..Bare::default()
    })
}
