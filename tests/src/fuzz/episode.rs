//! One flow, from its SYN on, under random packets and conditions, all of it decided by a seed.

use std::fmt;

use fastrand::Rng;
use mirror_common::{
    flow::{Flow, TcpFlow, state},
    instance,
    limits::REPLICAS,
    plan::Copy,
    tcp::{
        Conditions, Notes, Part, Segment, client, divergence, option,
        replica::{self, Verdict},
        segment::bit,
    },
    vni,
};
use serde::Serialize;

use super::oracle::Seen;
use super::packets::{self, Numbers};

/// Packets of a seed.
pub const PACKETS: u64 = 256;

/// What was met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Packets that the protocol was given.
    pub packets: u64,
    /// Flows that were established.
    pub established: u64,
    /// Takeovers.
    pub takeovers: u64,
    /// Replicas that went cold.
    pub cold: u64,
    /// Segments that were sent on to the client.
    pub to_client: u64,
    /// Acknowledgements that were sent to the client in a segment's place.
    pub acked: u64,
    /// Segments that were answered in the client's stead.
    pub turned_round: u64,
    /// Copies that replicas got.
    pub copies: u64,
    /// Flows that nobody was left to serve.
    pub lost: u64,
    /// Flows that were closed.
    pub closed: u64,
}

impl Counts {
    /// Adds what was met elsewhere.
    pub fn add(&mut self, other: &Self) {
        self.packets += other.packets;
        self.established += other.established;
        self.takeovers += other.takeovers;
        self.cold += other.cold;
        self.to_client += other.to_client;
        self.acked += other.acked;
        self.turned_round += other.turned_round;
        self.copies += other.copies;
        self.lost += other.lost;
        self.closed += other.closed;
    }
}

/// A seed's flow.
pub struct Episode {
    /// What was met so far.
    pub counts: Counts,
    rng: Rng,
    numbers: Numbers,
    flow: TcpFlow,
    conditions: Conditions,
    /// Whether the flow was ever established: one that is closed may not have been.
    established: bool,
}

impl Episode {
    /// The flow of a seed, before its SYN.
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let conditions = Conditions {
            now_ms: packets::awkward(&mut rng),
            vni: vni::Vni {
                flags: vni_flags(&mut rng),
                lag_bytes_max: [1, 10_000, 1 << 20, 1 << 30][rng.usize(..4)],
                lag_ms_max: [1, 100, 1_000][rng.usize(..3)],
                handshake_ms: [0, 5, 3_000][rng.usize(..3)],
                ..vni::Vni::default()
            },
            ..Conditions::default()
        };
        Self {
            counts: Counts::default(),
            rng,
            numbers: Numbers::default(),
            flow: TcpFlow {
                flow: flow(0),
                sync: Default::default(),
            },
            conditions,
            established: false,
        }
    }

    /// Runs it; `tell` hears of each packet.
    ///
    /// # Errors
    ///
    /// The first rule that is broken, with the packet.
    pub fn run(&mut self, mut tell: impl FnMut(fmt::Arguments<'_>)) -> Result<(), String> {
        self.open();
        // Some never come to the protocol.
        for number in 0..4 * PACKETS {
            if self.counts.packets >= PACKETS {
                break;
            }
            if self.rng.u8(..8) == 0 {
                self.change_conditions();
            }
            let before = self.flow;
            let is_client = self.rng.u8(..5) < 2;
            let (who, segment, judged) = match is_client {
                true => self.client(),
                false => self.replica(),
            };
            tell(format_args!(
                "{number} {who}: {segment:?}\n  {:?}\n  {:?}",
                self.flow.flow, self.flow.sync
            ));
            judged.map_err(|why| {
                format!(
                    "packet {number} of {who}: {why}\n  {segment:?}\n  before: {before:?}\n  after: {:?}\n  {:?}",
                    self.flow, self.conditions
                )
            })?;
            if self.flow.flow.state == state::CLOSED && self.rng.u8(..8) == 0 {
                self.open();
            }
        }
        Ok(())
    }

    /// The SYN of a new connection.
    fn open(&mut self) {
        let rng = &mut self.rng;
        let usual = option::TIMESTAMP | option::SACK | option::WINDOW_SCALE;
        self.numbers = Numbers {
            client_isn: packets::awkward(rng),
            isn: std::array::from_fn(|_| packets::awkward(rng)),
            options: std::array::from_fn(|_| if rng.u8(..8) == 0 { rng.u8(..8) } else { usual }),
        };
        let replicas = rng.u8(2..=REPLICAS as u8);
        self.flow = TcpFlow {
            flow: flow(replicas),
            sync: Default::default(),
        };
        self.established = false;
        self.conditions.state = [0; REPLICAS];
        for state in self.conditions.state.iter_mut().take(replicas.into()) {
            *state = instance::state::UP as u8;
        }
        let syn = packets::syn(rng, &self.numbers);
        client::open(&mut self.flow, &syn, self.conditions.now_ms << 6);
        let _ = client::receive(
            &mut self.flow,
            &syn,
            &self.conditions,
            &mut Notes::default(),
        );
        self.counts.packets += 1;
    }

    fn change_conditions(&mut self) {
        use instance::state::{DEAD, EVACUATING, SUSPECT, UP};
        let rng = &mut self.rng;
        let conditions = &mut self.conditions;
        let passed = match rng.u8(..4) {
            0 => rng.u32(..3_000),
            _ => rng.u32(..20),
        };
        conditions.now_ms = conditions.now_ms.wrapping_add(passed);
        let slot = rng.usize(..REPLICAS);
        if slot < usize::from(self.flow.flow.replicas) {
            let state = [UP, UP, UP, EVACUATING, SUSPECT, DEAD][rng.usize(..6)];
            conditions.state[slot] = state as u8;
            conditions.deadline_ms[slot] = conditions.now_ms.wrapping_add(rng.u32(..1_000));
        }
        conditions.unresponsive = if rng.u8(..4) == 0 { rng.u8(..16) } else { 0 };
    }

    /// The client says something, and the dataplane does with it what it does before it asks the protocol.
    fn client(&mut self) -> (String, Segment, Result<(), String>) {
        const OPENS: u8 = bit::SYN | bit::ACK | bit::RST | bit::FIN;
        let mut segment = packets::of_client(&mut self.rng, &self.flow);
        let who = "client".to_owned();
        if segment.flags & OPENS == bit::SYN {
            // Another SYN is another flow; the same one may come again.
            segment.seq = self.numbers.client_isn;
            if self.flow.flow.state == state::CLOSED {
                return (who, segment, Ok(()));
            }
        }
        let before = self.flow;
        let mut established = self.established;
        if !self.established && !segment.is(bit::SYN | bit::RST) {
            if !client::completes_handshake(&self.flow, &segment) {
                return (who, segment, Ok(()));
            }
            self.flow.flow.state = state::ESTABLISHED;
            self.counts.established += 1;
            established = true;
        }
        let mut notes = Notes::default();
        let verdict = client::receive(&mut self.flow, &segment, &self.conditions, &mut notes);
        let mut copies = [None; REPLICAS];
        if verdict == client::Verdict::Clone {
            for (slot, copy) in (0u8..).zip(&mut copies) {
                let mut made = Copy::default();
                let wanted =
                    client::copy_for(&self.flow, slot, &segment, &self.conditions, &mut made);
                *copy = wanted.then_some(made);
            }
        }
        self.count(&before, &notes);
        self.counts.lost += u64::from(verdict != client::Verdict::Clone);
        self.counts.copies += copies.iter().flatten().count() as u64;
        let seen = self.seen(&before, &segment, &notes);
        let judged = seen
            .check()
            .and_then(|()| seen.check_client(verdict, &copies));
        self.established = established;
        (who, segment, judged)
    }

    fn replica(&mut self) -> (String, Segment, Result<(), String>) {
        let from = self.rng.u8(..self.flow.flow.replicas);
        let segment = packets::of_replica(&mut self.rng, &self.flow, from, &self.numbers);
        let before = self.flow;
        // The sum of a part is as good as that of the whole, or not known.
        self.conditions.part = Part {
            length: divergence::part(&self.flow, from, &segment) * u32::from(self.rng.bool()),
            sum: segment.sum,
        };
        let mut notes = Notes::default();
        let output = replica::receive(&mut self.flow, from, &segment, &self.conditions, &mut notes);
        self.count(&before, &notes);
        match output.verdict {
            Verdict::ToClient => self.counts.to_client += 1,
            Verdict::AckToClient => self.counts.acked += 1,
            Verdict::TurnRound => self.counts.turned_round += 1,
            Verdict::Drop => {}
        }
        let seen = self.seen(&before, &segment, &notes);
        let judged = seen
            .check()
            .and_then(|()| seen.check_replica(from, &output));
        (format!("replica {from}"), segment, judged)
    }

    /// What there is to be checked of a packet.
    fn seen<'a>(&'a self, before: &'a TcpFlow, segment: &'a Segment, notes: &'a Notes) -> Seen<'a> {
        Seen {
            before,
            after: &self.flow,
            conditions: &self.conditions,
            segment,
            notes,
            established: self.established,
        }
    }

    fn count(&mut self, before: &TcpFlow, notes: &Notes) {
        self.counts.packets += 1;
        self.counts.takeovers += u64::from(notes.takeover != 0);
        self.counts.cold += u64::from(notes.went_cold.count_ones());
        let closed = before.flow.state != state::CLOSED && self.flow.flow.state == state::CLOSED;
        self.counts.closed += u64::from(closed);
    }
}

fn vni_flags(rng: &mut Rng) -> u8 {
    use vni::flag::{FIRST, HOLD_ACKS, LEAVE_LOST, MIRRORED, SHADOW, VOTE_ON_CLOSE};
    let mut flags = MIRRORED;
    if rng.u8(..4) == 0 {
        flags |= LEAVE_LOST;
    }
    if rng.u8(..6) == 0 {
        return flags | SHADOW;
    }
    if rng.u8(..3) == 0 {
        flags |= FIRST;
    }
    if rng.u8(..4) > 0 {
        flags |= HOLD_ACKS;
    }
    if rng.u8(..4) > 0 {
        flags |= VOTE_ON_CLOSE;
    }
    flags
}

/// A flow as the dataplane makes it, before its SYN is taken in.
fn flow(replicas: u8) -> Flow {
    Flow {
        instances: [10, 11, 12, 13],
        replicas,
        ..Flow::default()
    }
}
