//! A simple but honest TCP: byte streams in order, cumulative acknowledgements, retransmission
//! when told that time has passed. It is strict where stacks are: it drops, data and all, what
//! acknowledges bytes it has not sent, what is outside its window and what has an old timestamp.

use crate::tcp::{Segment, option, segment::bit, seq};

pub(super) const MSS: usize = 100;
/// Receive buffer, bytes.
const BUFFER: usize = 1_600;

/// A segment with its payload.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) segment: Segment,
    pub(super) payload: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Listen,
    SynSent,
    SynReceived,
    Established,
    /// The process is gone and its socket with it: everything is answered with a reset.
    Gone,
    /// Reset by the peer.
    Reset,
}

#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    pub(super) state: State,
    pub(super) isn: u32,
    peer_isn: u32,
    clock_base: u32,
    /// When the world began.
    pub(super) epoch_ms: u32,
    /// Its clock gains one tick in so many; 0: it keeps time.
    drift: i32,
    scale: u8,
    peer_scale: u8,
    /// What the application wrote.
    pub(super) written: Vec<u8>,
    pub(super) closed: bool,
    /// Offsets in the stream; the FIN counts as one.
    una: usize,
    nxt: usize,
    peer_window: u32,
    pub(super) received: Vec<u8>,
    pub(super) peer_closed: bool,
    /// How much of it the application has read.
    pub(super) read: usize,
    ts_recent: u32,
    /// Nobody owns the socket any more.
    orphan: bool,
    pub(super) out: Vec<Frame>,
}

impl Endpoint {
    pub(super) fn new(isn: u32, clock_base: u32, drift: i32, scale: u8) -> Self {
        Self {
            state: State::Listen,
            isn,
            peer_isn: 0,
            clock_base,
            epoch_ms: 0,
            drift,
            scale,
            peer_scale: 0,
            written: Vec::new(),
            closed: false,
            una: 0,
            nxt: 0,
            peer_window: 0,
            received: Vec::new(),
            peer_closed: false,
            read: 0,
            ts_recent: 0,
            orphan: false,
            out: Vec::new(),
        }
    }

    pub(super) fn clock(&self, now_ms: u32) -> u32 {
        let elapsed = now_ms.wrapping_sub(self.epoch_ms);
        let gain = (elapsed as i32).checked_div(self.drift).unwrap_or(0);
        self.clock_base
            .wrapping_add(elapsed)
            .wrapping_add_signed(gain)
    }

    /// Bytes and FIN that it has taken in: what it would acknowledge.
    pub(super) fn taken_in(&self) -> usize {
        self.received.len() + usize::from(self.peer_closed)
    }

    /// Bytes and FIN that it has to get across.
    fn total(&self) -> usize {
        self.written.len() + usize::from(self.closed)
    }

    pub(super) fn is_all_acknowledged(&self) -> bool {
        self.una == self.total()
    }

    fn window(&self) -> u32 {
        (BUFFER - (self.received.len() - self.read)) as u32 >> self.scale
    }

    fn segment(&self, now_ms: u32, flags: u8, offset: usize, payload: u32) -> Segment {
        let synchronised = self.peer_isn != 0 || self.state != State::SynSent;
        Segment {
            seq: self.isn.wrapping_add(1).wrapping_add(offset as u32),
            ack: if synchronised {
                self.peer_isn
                    .wrapping_add(1)
                    .wrapping_add(self.taken_in() as u32)
            } else {
                0
            },
            ts_val: self.clock(now_ms),
            ts_ecr: self.ts_recent,
            payload,
            window: self.window() as u16,
            flags,
            options: option::TIMESTAMP,
            ..Segment::default()
        }
    }

    fn send(&mut self, segment: Segment, payload: &[u8]) {
        self.out.push(Frame {
            segment,
            payload: payload.to_vec(),
        });
    }

    /// Sends SYN or SYN-ACK.
    fn synchronise(&mut self, now_ms: u32) {
        let mut segment = self.segment(now_ms, bit::SYN, 0, 0);
        segment.seq = self.isn;
        segment.options = option::TIMESTAMP | option::SACK | option::WINDOW_SCALE;
        segment.window_scale = self.scale;
        segment.window = BUFFER as u16;
        if self.state == State::SynReceived {
            segment.flags |= bit::ACK;
        }
        self.send(segment, &[]);
    }

    pub(super) fn connect(&mut self, now_ms: u32) {
        self.state = State::SynSent;
        self.synchronise(now_ms);
    }

    pub(super) fn acknowledge(&mut self, now_ms: u32, gap: bool) {
        let mut segment = self.segment(now_ms, bit::ACK, self.nxt, 0);
        if gap {
            segment.options |= option::SACK;
        }
        self.send(segment, &[]);
    }

    /// Sends what the peer's window admits.
    pub(super) fn transmit(&mut self, now_ms: u32) {
        if self.state != State::Established {
            return;
        }
        while self.nxt < self.total() && self.nxt < self.una + self.peer_window as usize {
            let room = self.una + self.peer_window as usize - self.nxt;
            self.nxt += self.send_from(now_ms, self.nxt, room);
        }
    }

    /// Sends one segment; returns how much of the stream is in it.
    fn send_from(&mut self, now_ms: u32, from: usize, room: usize) -> usize {
        let end = self.written.len().min(from + MSS.min(room));
        let payload = self.written[from.min(end)..end].to_vec();
        let mut flags = bit::ACK;
        let with_fin = self.closed && end == self.written.len() && room > payload.len();
        if with_fin {
            flags |= bit::FIN;
        }
        let segment = self.segment(now_ms, flags, from, payload.len() as u32);
        self.send(segment, &payload);
        payload.len() + usize::from(with_fin)
    }

    /// Time has passed: what is not acknowledged is sent again, a shut window probed.
    pub(super) fn timeout(&mut self, now_ms: u32) {
        match self.state {
            State::SynSent | State::SynReceived => self.synchronise(now_ms),
            State::Established if self.una < self.nxt => {
                let room = self.nxt - self.una;
                self.send_from(now_ms, self.una, room);
            }
            State::Established if self.una < self.total() => {
                let mut probe = self.segment(now_ms, bit::ACK, self.una, 0);
                probe.seq = probe.seq.wrapping_sub(1);
                self.send(probe, &[]);
            }
            _ => {}
        }
    }

    /// The process is killed: the kernel closes its socket, or resets the connection when bytes
    /// are unread.
    pub(super) fn kill(&mut self, now_ms: u32) {
        if self.read < self.received.len() || self.state != State::Established {
            let reset = self.segment(now_ms, bit::RST | bit::ACK, self.nxt, 0);
            self.send(reset, &[]);
            self.state = State::Gone;
        } else {
            self.orphan = true;
            self.closed = true;
            self.transmit(now_ms);
        }
    }

    pub(super) fn handle(&mut self, now_ms: u32, frame: &Frame) {
        let segment = &frame.segment;
        match self.state {
            State::Listen if segment.is(bit::SYN) => self.accept(now_ms, segment),
            State::SynSent if segment.is(bit::SYN) => self.connected(now_ms, segment),
            State::SynReceived if segment.is(bit::SYN) => self.synchronise(now_ms),
            State::SynReceived if self.completes(segment) => {
                self.state = State::Established;
                self.take(now_ms, frame);
            }
            State::Established => self.take(now_ms, frame),
            State::Gone if !segment.is(bit::RST) => {
                let mut reset = self.segment(now_ms, bit::RST, 0, 0);
                reset.seq = segment.ack;
                self.send(reset, &[]);
            }
            _ => {}
        }
    }

    fn accept(&mut self, now_ms: u32, syn: &Segment) {
        self.state = State::SynReceived;
        self.learn_peer(syn);
        self.synchronise(now_ms);
    }

    fn connected(&mut self, now_ms: u32, syn_ack: &Segment) {
        assert_eq!(syn_ack.ack, self.isn.wrapping_add(1), "client's number");
        self.check_echo(now_ms, syn_ack);
        self.state = State::Established;
        self.learn_peer(syn_ack);
        self.acknowledge(now_ms, false);
    }

    fn learn_peer(&mut self, segment: &Segment) {
        self.peer_isn = segment.seq;
        self.peer_scale = segment.window_scale;
        self.peer_window = u32::from(segment.window);
        self.ts_recent = segment.ts_val;
    }

    fn completes(&self, segment: &Segment) -> bool {
        segment.is(bit::ACK) && segment.ack == self.isn.wrapping_add(1)
    }

    /// Nobody may be told a timestamp that it has not sent; 0 means that there is none to tell.
    #[track_caller]
    fn check_echo(&self, now_ms: u32, segment: &Segment) {
        assert!(
            segment.ts_ecr == 0 || !seq::after(segment.ts_ecr, self.clock(now_ms)),
            "echo of the future: {segment:?}"
        );
    }

    /// The stream offset of a sequence number of the peer, relative to the next expected.
    fn distance(&self, number: u32) -> i32 {
        let next = self
            .peer_isn
            .wrapping_add(1)
            .wrapping_add(self.taken_in() as u32);
        number.wrapping_sub(next) as i32
    }

    fn take(&mut self, now_ms: u32, frame: &Frame) {
        let segment = &frame.segment;
        if segment.is(bit::SYN) {
            self.acknowledge(now_ms, false);
            return;
        }
        let from = self.distance(segment.seq);
        let end = self.distance(segment.end());
        if segment.is(bit::RST) {
            if from == 0 {
                self.state = State::Reset;
            }
            return;
        }
        if seq::before(segment.ts_val, self.ts_recent) || end < 0 || from > BUFFER as i32 {
            // A probe, or old data: says where it is. (Else two could answer each other for ever.)
            if segment.length() > 0 || end == -1 {
                self.acknowledge(now_ms, false);
            }
            return;
        }
        let acknowledged = segment.ack.wrapping_sub(self.isn).wrapping_sub(1) as i32;
        if acknowledged > self.nxt as i32 {
            self.acknowledge(now_ms, false);
            return;
        }
        self.check_echo(now_ms, segment);
        if from <= 0 {
            self.ts_recent = segment.ts_val;
        }
        if acknowledged >= self.una as i32 {
            self.una = acknowledged as usize;
            self.peer_window = u32::from(segment.window) << self.peer_scale;
        }
        if segment.length() > 0 {
            self.take_data(now_ms, frame, from, end);
        }
        self.transmit(now_ms);
    }

    fn take_data(&mut self, now_ms: u32, frame: &Frame, from: i32, end: i32) {
        if self.orphan && end > 0 {
            let mut reset = self.segment(now_ms, bit::RST, 0, 0);
            reset.seq = frame.segment.ack;
            self.send(reset, &[]);
            self.state = State::Gone;
            return;
        }
        let gap = from > 0;
        if !gap && end > 0 && !self.peer_closed {
            let fresh = &frame.payload[frame.payload.len().min(-from as usize)..];
            let room = BUFFER - (self.received.len() - self.read);
            self.received
                .extend_from_slice(&fresh[..fresh.len().min(room)]);
            self.peer_closed = frame.segment.is(bit::FIN) && fresh.len() <= room;
        }
        self.acknowledge(now_ms, gap);
    }
}
