//! The simulated world: one client, some replicas, the links between them, and the protocol under
//! test in the middle, carried out as the dataplane does it.

use std::collections::VecDeque;

use super::endpoint::{Endpoint, Frame, State};
use crate::{
    flow::{TcpFlow, state},
    instance,
    plan::Copy,
    tcp::{
        Conditions, Notes, client, option,
        replica::{self, Output, Verdict},
        segment::bit,
        slot,
        tests::hosts::new_flow,
    },
    vni,
};

/// Where frames wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    FromClient,
    ToClient,
    FromReplica(usize),
    ToReplica(usize),
}

pub(super) struct World {
    pub(super) now_ms: u32,
    pub(super) flow: TcpFlow,
    pub(super) conditions: Conditions,
    pub(super) client: Endpoint,
    pub(super) replicas: Vec<Endpoint>,
    /// Cut off: hears and says nothing.
    pub(super) cut_off: Vec<bool>,
    /// The process was killed.
    pub(super) killed: Vec<bool>,
    from_client: VecDeque<Frame>,
    to_client: VecDeque<Frame>,
    from_replica: Vec<VecDeque<Frame>>,
    to_replica: Vec<VecDeque<Frame>>,
    /// What the server answers to all that the client wrote.
    truth: Vec<u8>,
    /// After so many bytes of the client the server closes.
    quota: usize,
    checked: usize,
    opened: bool,
    pub(super) takeovers: u32,
}

/// A byte of the client's stream.
pub(super) fn client_byte(at: usize) -> u8 {
    (at as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0]
}

/// What the server says when it is connected.
const GREETING: &[u8] = b"220 ready\n";

/// What the server has to say to what it received: a function of the bytes alone.
pub(super) fn answer(received: &[u8], quota: usize) -> Vec<u8> {
    let mut said = GREETING.to_vec();
    for (at, &byte) in received.iter().take(quota).enumerate() {
        for turn in 0..byte % 4 {
            said.push(byte ^ turn ^ (at as u8));
        }
    }
    said
}

impl World {
    pub(super) fn new(
        mut client: Endpoint,
        mut replicas: Vec<Endpoint>,
        now_ms: u32,
        quota: usize,
    ) -> Self {
        let count = replicas.len();
        for endpoint in replicas.iter_mut().chain([&mut client]) {
            endpoint.epoch_ms = now_ms;
        }
        let mut conditions = Conditions {
            now_ms,
            vni: vni::Vni {
                flags: vni::flag::MIRRORED | vni::flag::HOLD_ACKS | vni::flag::VOTE_ON_CLOSE,
                lag_bytes_max: 1 << 24,
                lag_ms_max: 1 << 24,
                handshake_ms: 1 << 24,
                ..vni::Vni::default()
            },
            ..Conditions::default()
        };
        conditions.state[..count].fill(instance::state::UP as u8);
        Self {
            now_ms,
            flow: new_flow(count as u8),
            conditions,
            client,
            replicas,
            cut_off: vec![false; count],
            killed: vec![false; count],
            from_client: VecDeque::new(),
            to_client: VecDeque::new(),
            from_replica: vec![VecDeque::new(); count],
            to_replica: vec![VecDeque::new(); count],
            truth: GREETING.to_vec(),
            quota,
            checked: 0,
            opened: false,
            takeovers: 0,
        }
    }

    pub(super) fn queue(&mut self, link: Link) -> &mut VecDeque<Frame> {
        match link {
            Link::FromClient => &mut self.from_client,
            Link::ToClient => &mut self.to_client,
            Link::FromReplica(slot) => &mut self.from_replica[slot],
            Link::ToReplica(slot) => &mut self.to_replica[slot],
        }
    }

    pub(super) fn links(&self) -> Vec<Link> {
        let slots = 0..self.replicas.len();
        [Link::FromClient, Link::ToClient]
            .into_iter()
            .chain(slots.clone().map(Link::ToReplica))
            .chain(slots.map(Link::FromReplica))
            .collect()
    }

    pub(super) fn wait(&mut self, ms: u32) {
        self.now_ms = self.now_ms.wrapping_add(ms);
        self.conditions.now_ms = self.now_ms;
    }

    /// Whether a replica lives and could serve the client alone.
    pub(super) fn is_good(&self, slot: usize) -> bool {
        !self.cut_off[slot]
            && !self.killed[slot]
            && self.flow.flow.state >= state::ESTABLISHED
            && self.flow.is_warm(slot as u8, &self.conditions)
    }

    /// Moves what endpoints have to say onto their links.
    pub(super) fn collect(&mut self) {
        self.from_client.extend(self.client.out.drain(..));
        for (slot, replica) in self.replicas.iter_mut().enumerate() {
            let said = replica.out.drain(..);
            if self.cut_off[slot] {
                drop(said);
            } else {
                self.from_replica[slot].extend(said);
            }
        }
    }

    /// The application of a replica reads, and writes so many bytes of its answer.
    pub(super) fn serve(&mut self, slot: usize, bytes: usize) {
        if self.killed[slot] || self.cut_off[slot] {
            return;
        }
        let quota = self.quota;
        let replica = &mut self.replicas[slot];
        if replica.state != State::Established {
            return;
        }
        let was_full = replica.read < replica.received.len();
        replica.read = replica.received.len();
        let said = answer(&replica.received, quota);
        let upto = said.len().min(replica.written.len() + bytes);
        if upto > replica.written.len() {
            let fresh = &said[replica.written.len()..upto];
            replica.written.extend_from_slice(fresh);
        }
        let last = replica.peer_closed || replica.received.len() >= quota;
        replica.closed |= last && replica.written.len() == said.len();
        if was_full {
            replica.acknowledge(self.now_ms, false);
        }
        replica.transmit(self.now_ms);
        self.collect();
    }

    /// The client writes so many bytes, and perhaps closes.
    pub(super) fn ask(&mut self, bytes: usize, close: bool) {
        if self.client.closed {
            return;
        }
        for _ in 0..bytes {
            let at = self.client.written.len();
            self.client.written.push(client_byte(at));
        }
        self.client.closed = close;
        self.truth = answer(&self.client.written, self.quota);
        self.client.transmit(self.now_ms);
        self.collect();
    }

    /// The client reads what it received.
    pub(super) fn read(&mut self) {
        if self.client.read < self.client.received.len() {
            self.client.read = self.client.received.len();
            self.client.acknowledge(self.now_ms, false);
            self.collect();
        }
    }

    /// A frame comes out of a link.
    pub(super) fn deliver(&mut self, link: Link, at: usize) {
        let queue = self.queue(link);
        let Some(frame) = queue.remove(at.min(queue.len().saturating_sub(1))) else {
            return;
        };
        match link {
            Link::FromClient => self.client_said(&frame),
            Link::FromReplica(slot) => self.replica_said(slot, &frame),
            Link::ToClient => self.client.handle(self.now_ms, &frame),
            Link::ToReplica(slot) if !self.cut_off[slot] => {
                self.replicas[slot].handle(self.now_ms, &frame);
            }
            Link::ToReplica(_) => {}
        }
        self.collect();
        self.check_client();
    }

    fn client_said(&mut self, frame: &Frame) {
        let segment = &frame.segment;
        let mut notes = Notes::default();
        if segment.is(bit::SYN) && !self.opened {
            self.opened = true;
            client::open(&mut self.flow, segment, self.now_ms << 6);
        }
        if self.flow.flow.state < state::ESTABLISHED && !segment.is(bit::SYN) {
            if !client::completes_handshake(&self.flow, segment) {
                return;
            }
            self.flow.flow.state = state::ESTABLISHED;
        }
        let verdict = client::receive(&mut self.flow, segment, &self.conditions, &mut notes);
        assert_eq!(verdict, client::Verdict::Clone, "{self:?}");
        self.note(&notes);
        for slot in 0..self.replicas.len() {
            let mut copy = Copy::default();
            let conditions = &self.conditions;
            if client::copy_for(&self.flow, slot as u8, segment, conditions, &mut copy) {
                let mut clone = frame.clone();
                clone.segment.ack = copy.ack;
                clone.segment.ts_ecr = copy.ts_ecr;
                self.to_replica[slot].push_back(clone);
            }
        }
    }

    fn replica_said(&mut self, slot: usize, frame: &Frame) {
        let segment = &frame.segment;
        let mut notes = Notes::default();
        let conditions = &self.conditions;
        let output = replica::receive(&mut self.flow, slot as u8, segment, conditions, &mut notes);
        self.note(&notes);
        let mut sent = frame.clone();
        sent.segment.seq = output.seq;
        sent.segment.ack = output.ack;
        sent.segment.ts_val = output.ts_val;
        sent.segment.ts_ecr = output.ts_ecr;
        sent.segment.window = output.window;
        if output.strip_fin {
            sent.segment.flags &= !bit::FIN;
        }
        if output.blank_sack {
            sent.segment.options &= !option::SACK;
        }
        if matches!(output.verdict, Verdict::TurnRound | Verdict::AckToClient) {
            sent.payload.clear();
            sent.segment.payload = 0;
            sent.segment.flags = output.flags;
        }
        match output.verdict {
            Verdict::Drop => {}
            Verdict::TurnRound => self.to_replica[slot].push_back(sent),
            Verdict::ToClient | Verdict::AckToClient => {
                self.check_told(slot, &sent, &output);
                self.to_client.push_back(sent);
            }
        }
    }

    fn note(&mut self, notes: &Notes) {
        self.takeovers += u32::from(notes.takeover != 0);
    }

    /// What goes to the client is the active replica's, and says no more than is true of all.
    #[track_caller]
    fn check_told(&self, slot: usize, sent: &Frame, output: &Output) {
        let segment = &sent.segment;
        assert!(!segment.is(bit::RST), "reset: {sent:?} {self:?}");
        let speaks = output.verdict == Verdict::ToClient && !segment.is(bit::FIN | bit::SYN);
        assert!(
            !speaks || slot == usize::from(self.flow.flow.active),
            "a mirror answers: {sent:?} {self:?}"
        );
        for (other, replica) in self.replicas.iter().enumerate() {
            let counts = self.flow.replica(other as u8).state == slot::WARM
                && self.conditions.is_alive(other as u8);
            let told = segment.ack.wrapping_sub(self.client.isn).wrapping_sub(1) as i32;
            assert!(
                !counts || told <= replica.taken_in() as i32,
                "told {told}, but replica {other} has {}: {self:?}",
                replica.taken_in()
            );
        }
    }

    /// What the client received is a prefix of the one true answer.
    #[track_caller]
    fn check_client(&mut self) {
        assert_ne!(self.client.state, State::Reset, "{self:?}");
        let received = &self.client.received;
        assert!(received.len() <= self.truth.len(), "{self:?}");
        assert_eq!(
            received[self.checked..],
            self.truth[self.checked..received.len()],
            "altered bytes: {self:?}"
        );
        self.checked = received.len();
        assert!(
            !self.client.peer_closed || self.is_answered(),
            "closed too early at {}: {self:?}",
            received.len()
        );
    }

    /// Whether the client has the whole answer, and the server has nothing to add.
    pub(super) fn is_answered(&self) -> bool {
        let last = self.client.closed || self.client.written.len() >= self.quota;
        last && self.client.received.len() == self.truth.len()
    }
}

impl core::fmt::Debug for World {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        writeln!(f, "\n{:?}", self.flow.flow)?;
        let TcpFlow { sync, .. } = &self.flow;
        writeln!(
            f,
            "told {} edge {} client_nxt {} client_ack {} sent {}",
            sync.told_ack.wrapping_sub(self.client.isn).wrapping_sub(1),
            sync.told_edge.wrapping_sub(self.client.isn).wrapping_sub(1),
            sync.client_nxt
                .wrapping_sub(self.client.isn)
                .wrapping_sub(1),
            sync.client_ack.wrapping_sub(sync.isn).wrapping_sub(1),
            sync.sent.wrapping_sub(sync.isn).wrapping_sub(1),
        )?;
        let brief = |f: &mut core::fmt::Formatter<'_>, name: &str, end: &Endpoint| {
            writeln!(
                f,
                "{name}: {:?} written {} closed {} all acknowledged {} received {} read {} \
                 peer closed {}",
                end.state,
                end.written.len(),
                end.closed,
                end.is_all_acknowledged(),
                end.received.len(),
                end.read,
                end.peer_closed,
            )
        };
        brief(f, "client", &self.client)?;
        for (slot, end) in self.replicas.iter().enumerate() {
            brief(f, "replica", end)?;
            let known = self.flow.replica(slot as u8);
            writeln!(
                f,
                "  instance {} cut off {} killed {} state {} cold {} snd_nxt {} rcv_nxt {} fin {}",
                self.conditions.state[slot],
                self.cut_off[slot],
                self.killed[slot],
                known.state,
                known.cold,
                known.snd_nxt.wrapping_sub(known.isn).wrapping_sub(1),
                known.rcv_nxt.wrapping_sub(self.client.isn).wrapping_sub(1),
                known.flags & 2 != 0,
            )?;
        }
        Ok(())
    }
}
