//! One end of a connection: a `smoltcp` socket behind an interface of its own, and what other stacks
//! have and `smoltcp` lacks: initial sequence numbers of our choice, protection against wrapped
//! sequence numbers by timestamps, resets by a socket that nobody owns any more.

mod silence;

use std::{cell::Cell, collections::VecDeque};

use mirror_common::tcp::{option, segment::bit, seq};
use smoltcp::{
    iface::{Config, Interface, SocketHandle, SocketSet},
    socket::tcp::{Socket, SocketBuffer, State},
    time::{Duration, Instant},
    wire::{HardwareAddress, IpAddress, IpCidr, Ipv4Address},
};

use super::{
    application::{Direction, byte_at},
    frame::{Bare, Frame, Parsed, bare},
    scenario::HostPlan,
    wire::Wire,
};

/// Virtual time, microseconds.
pub type Time = u64;

/// The address that clients use.
pub const VNI: [u8; 4] = [10, 77, 0, 100];
/// The client's address.
pub const CLIENT: [u8; 4] = [10, 77, 0, 2];
/// The port that is served.
pub const PORT: u16 = 80;

/// More than any two clocks of a run drift apart, in their unit.
const DRIFT_MAX: u32 = 20_000;

thread_local! {
    /// `smoltcp` asks a plain function for timestamps: the clock of the endpoint at hand.
    static CLOCK: Cell<u32> = const { Cell::new(0) };
}

/// What is true of an endpoint, for the checks: seen on its wire, whatever the protocol believes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Truth {
    /// The sequence number of its SYN.
    pub isn: u32,
    /// It has sent its SYN.
    pub spoke: bool,
    /// One beyond the highest byte that it has sent.
    pub snd_max: u32,
    /// The first number that its peer has not acknowledged.
    pub una: u32,
    /// The highest right window edge that it offered.
    pub edge: u32,
    /// The window scale that it announced.
    scale: u8,
    /// The peer's initial sequence number.
    pub peer_isn: u32,
    /// Its highest acknowledgement.
    pub acknowledged: u32,
    /// It has acknowledged something.
    answered: bool,
    /// The sequence number of its FIN, once it has sent one.
    fin: Option<u32>,
    /// It has sent a reset.
    pub reset: bool,
    /// It has taken in the peer's FIN.
    pub fin_taken: bool,
}

/// One end of a connection.
pub struct Endpoint {
    interface: Interface,
    wire: Wire,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    plan: HostPlan,
    /// What is true of it.
    pub truth: Truth,
    /// Which of the scenario's connections.
    pub number: usize,
    /// Bytes that the application took.
    pub read: usize,
    /// Its process is gone; the kernel goes on with the socket.
    pub orphan: bool,
    /// Its machine lost power before: the VNI host may take it for what it was.
    pub anew: bool,
    /// It had stopped of its own accord when it was reset.
    pub was_stuck: bool,
    ts_first: Option<u32>,
    ts_recent: Option<u32>,
    /// Segments dropped because their timestamp was old.
    pub paws_drops: u32,
    /// When it last said what the peer had yet to acknowledge, or the peer acknowledged something.
    repeated: Time,
}

/// Why a segment is not fed to the socket.
enum Refusal {
    /// As a stack with timestamps does.
    Old,
    /// The rule that was broken.
    Wrong(String),
}

impl Endpoint {
    /// A socket on the address for a connection, in the closed state. Its first SYN has the number `isn`.
    pub fn new(address: [u8; 4], number: usize, plan: &HostPlan, isn: u32, now: Time) -> Self {
        let mut wire = Wire {
            mtu: plan.mtu,
            arrived: None,
            out: VecDeque::new(),
        };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed_for(isn);
        let mut interface = Interface::new(config, &mut wire, instant(now));
        let address = IpAddress::Ipv4(Ipv4Address::from(address));
        interface.update_ip_addrs(|addresses| {
            // There is room for one at least.
            let _ = addresses.push(IpCidr::new(address, 0));
        });
        let mut socket = Socket::new(
            SocketBuffer::new(vec![0; plan.receive]),
            SocketBuffer::new(vec![0; plan.send]),
        );
        if plan.timestamps {
            socket.set_tsval_generator(Some(|| CLOCK.get()));
        }
        socket.set_nagle_enabled(plan.nagle);
        socket.set_ack_delay(plan.ack_delay.map(Duration::from_micros));
        socket.set_keep_alive(plan.keep_alive.map(Duration::from_micros));
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        Self {
            interface,
            wire,
            sockets,
            handle,
            plan: plan.clone(),
            truth: Truth::default(),
            number,
            read: 0,
            orphan: false,
            anew: false,
            was_stuck: false,
            ts_first: None,
            ts_recent: None,
            paws_drops: 0,
            repeated: now,
        }
    }

    /// The socket.
    pub fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    /// The socket's state.
    pub fn state(&self) -> State {
        self.sockets.get::<Socket<'_>>(self.handle).state()
    }

    /// Waits for a connection.
    pub fn listen(&mut self) {
        // A fresh socket can always listen.
        let _ = self.socket().listen(PORT);
    }

    /// Opens a connection to the VNI.
    pub fn connect(&mut self, port: u16) {
        let remote = (IpAddress::Ipv4(Ipv4Address::from(VNI)), PORT);
        let socket = self.sockets.get_mut::<Socket<'_>>(self.handle);
        // A fresh socket can always connect.
        let _ = socket.connect(self.interface.context(), remote, port);
    }

    /// Its clock in the unit of timestamps.
    pub fn clock(&self, now: Time) -> u32 {
        let ms = (now / 1_000) as i64;
        let gain = ms.checked_div(self.plan.drift.into()).unwrap_or(0);
        self.plan.clock.wrapping_add((ms + gain) as u32)
    }

    /// Bytes and FIN that it has taken in.
    pub fn taken_in(&self) -> u32 {
        let queued = self.sockets.get::<Socket<'_>>(self.handle).recv_queue();
        (self.read + queued) as u32 + u32::from(self.truth.fin_taken)
    }

    /// When it wants to be polled without a packet.
    pub fn poll_at(&mut self, now: Time) -> Option<Time> {
        // `smoltcp` 0.14 stops its timer when duplicates ask for a FIN that alone is outstanding, and would never
        // send it again: a keep-alive wakes it.
        if self.has_stopped(now) && self.socket().send_queue() == 0 {
            self.socket().set_keep_alive(Some(Duration::from_secs(1)));
            self.poll(now);
            let usual = self.plan.keep_alive.map(Duration::from_micros);
            self.socket().set_keep_alive(usual);
        }
        let at = self.interface.poll_at(instant(now), &self.sockets)?;
        Some(at.total_micros().max(0) as Time)
    }

    /// Feeds a frame. An error is a broken rule.
    pub fn feed(&mut self, now: Time, frame: Frame, parsed: &Parsed) -> Result<(), String> {
        if frame.is_intact() {
            if self.challenge(now, parsed) {
                return Ok(());
            }
            match self.admit(now, &frame, parsed) {
                Err(Refusal::Wrong(why)) => return Err(why),
                Err(Refusal::Old) => {
                    self.paws_drops += 1;
                    return Ok(());
                }
                Ok(()) => {}
            }
            let segment = &parsed.segment;
            self.was_stuck |= segment.is(bit::RST) && self.is_stuck(now);
            if segment.is(bit::SYN) {
                self.truth.peer_isn = segment.seq;
            }
            let (una, snd_max) = (self.truth.una, self.truth.snd_max);
            let is_news = seq::after(segment.ack, una) && !seq::after(segment.ack, snd_max);
            if segment.is(bit::ACK) && is_news {
                self.truth.una = segment.ack;
                self.repeated = now;
            }
            // Nobody will read it: Linux resets and does not acknowledge (net/ipv4/tcp_input.c,
            // tcp_rcv_state_process).
            let fresh = seq::after(segment.end(), self.expected());
            let open = self.state() != State::Closed;
            if self.orphan && open && segment.payload > 0 && fresh {
                self.socket().abort();
                self.poll(now);
                return Ok(());
            }
        }
        self.wire.arrived = Some(frame.bytes);
        self.poll(now);
        Ok(())
    }

    /// The next sequence number of the peer.
    fn expected(&self) -> u32 {
        self.truth
            .peer_isn
            .wrapping_add(1)
            .wrapping_add(self.taken_in())
    }

    /// What stacks answer to segments of another connection than theirs, and `smoltcp` ignores: a SYN in the
    /// middle of a connection is challenged (RFC 5961, section 4.2), and what acknowledges another SYN than ours
    /// is reset (RFC 9293, section 3.10.7.3). Together they end what is left of a port's last use.
    fn challenge(&mut self, now: Time, parsed: &Parsed) -> bool {
        let segment = &parsed.segment;
        let other = segment.ack != self.truth.isn.wrapping_add(1);
        let opens = segment.flags & (bit::SYN | bit::ACK | bit::RST) == bit::SYN;
        let (numbers, flags) = match self.state() {
            State::SynSent if segment.is(bit::ACK) && !segment.is(bit::RST) && other => {
                ((segment.ack, 0), bit::RST)
            }
            State::Closed | State::Listen | State::SynSent => return false,
            _ if opens && segment.seq != self.truth.peer_isn => {
                ((self.truth.snd_max, self.expected()), bit::ACK)
            }
            _ => return false,
        };
        let (from, to) = (parsed.ports.1, parsed.ports.0);
        let addresses = if from == PORT {
            [VNI, CLIENT]
        } else {
            [CLIENT, VNI]
        };
        let stamped = self.ts_first.is_some() && flags == bit::ACK;
        self.wire.out.push_back(bare(&Bare {
            addresses,
            ports: (from, to),
            numbers,
            timestamps: stamped.then(|| (self.clock(now), self.ts_recent.unwrap_or(0))),
            flags,
            ..Bare::default()
        }));
        true
    }

    /// What every stack asks of a segment, and `smoltcp` does not.
    fn admit(&mut self, now: Time, frame: &Frame, parsed: &Parsed) -> Result<(), Refusal> {
        let segment = &parsed.segment;
        if segment.is(bit::RST) {
            return Ok(());
        }
        if !self.truth.spoke {
            self.ts_recent = Some(segment.ts_val);
            return Ok(());
        }
        let snd_max = self.truth.snd_max;
        let own = frame.of == Some(self.number);
        if own && segment.is(bit::ACK) && seq::after(segment.ack, snd_max) {
            let beyond = segment.ack.wrapping_sub(snd_max);
            return Err(Refusal::Wrong(format!(
                "acknowledges {beyond} bytes it has not sent"
            )));
        }
        if let Some((_, right)) = frame
            .sack_edges(parsed)
            .into_iter()
            .find(|&(left, right)| seq::after(right, snd_max) || seq::before(right, left))
            .filter(|_| own)
        {
            let beyond = right.wrapping_sub(snd_max);
            return Err(Refusal::Wrong(format!(
                "a SACK block ends {beyond} bytes beyond what it sent"
            )));
        }
        // `smoltcp` 0.14 takes a FIN behind bytes that it cut off because they are beyond its window.
        let bytes_end = segment.seq.wrapping_add(segment.payload);
        if segment.is(bit::FIN) && segment.payload > 0 && seq::after(bytes_end, self.truth.edge) {
            return Err(Refusal::Old);
        }
        let opening = self.state() == State::SynSent && !segment.is(bit::SYN);
        if segment.options & option::TIMESTAMP == 0 || opening {
            return Ok(());
        }
        // What acknowledges nothing of this stack is not taken in. It was meant for the machine as it was before it
        // began anew, as is the echo.
        let past = self.anew && !seq::after(segment.ack, self.truth.isn);
        let judged = own && !past && segment.ts_ecr != 0;
        if let Some(first) = self.ts_first.filter(|_| judged) {
            let clock = self.clock(now);
            // A clock that was anchored anew makes older echoes older still, by as much as it had drifted.
            let oldest = first.wrapping_sub(DRIFT_MAX);
            if seq::after(segment.ts_ecr, clock) || seq::before(segment.ts_ecr, oldest) {
                let ahead = segment.ts_ecr.wrapping_sub(clock) as i32;
                return Err(Refusal::Wrong(format!(
                    "an echo {ahead} ms from its clock of a timestamp it never sent"
                )));
            }
        }
        // RFC 7323, section 5.3; Linux has a tick of tolerance.
        let recent = self.ts_recent.unwrap_or(segment.ts_val);
        if seq::before(segment.ts_val.wrapping_add(1), recent) {
            return Err(Refusal::Old);
        }
        let expected = self.truth.acknowledged;
        let acceptable = seq::after(segment.end(), expected) || segment.seq == expected;
        if self.ts_recent.is_none() || acceptable && !seq::after(segment.seq, expected) {
            self.ts_recent = Some(seq::max(recent, segment.ts_val));
        }
        Ok(())
    }

    /// Lets the stack do what is due.
    pub fn poll(&mut self, now: Time) {
        CLOCK.set(self.clock(now));
        self.interface
            .poll(instant(now), &mut self.wire, &mut self.sockets);
        let fin = matches!(
            self.state(),
            State::CloseWait | State::LastAck | State::Closing | State::TimeWait
        );
        self.truth.fin_taken |= fin;
    }

    /// The next frame that it sends.
    pub fn take(&mut self, now: Time) -> Option<(Frame, Parsed)> {
        let frame = self.wire.out.pop_front()?;
        let parsed = frame.parse().unwrap_or_default();
        let (mut frame, parsed) = self.correct(frame, parsed);
        frame.of = Some(self.number);
        self.witness(&parsed);
        let segment = &parsed.segment;
        if segment.length() > 0 && !seq::after(segment.seq, self.truth.una) {
            self.repeated = now;
        }
        Some((frame, parsed))
    }

    /// `smoltcp` 0.14 sends keep-alives, with a byte 0, also when the byte or the FIN at their place is outstanding,
    /// and would alter the stream of a peer that lacks it: then they are made what other stacks send again.
    fn correct(&mut self, frame: Frame, parsed: Parsed) -> (Frame, Parsed) {
        let segment = &parsed.segment;
        let last = self.truth.spoke && segment.seq == self.truth.snd_max.wrapping_sub(1);
        let keeps_alive = last && segment.payload == 1 && !segment.is(bit::SYN | bit::RST);
        let closing = self.truth.fin == Some(segment.seq);
        let queued = self.socket().send_queue() > 0;
        if !keeps_alive || !(closing || queued) {
            return (frame, parsed);
        }
        let mut frame = frame;
        if closing {
            frame = frame.replaced(&parsed, segment.flags | bit::FIN, &[]);
        } else {
            let direction = if parsed.ports.0 == PORT {
                Direction::Down
            } else {
                Direction::Up
            };
            let place = segment.seq.wrapping_sub(self.truth.isn).wrapping_sub(1);
            let byte = byte_at(self.number, direction, place as usize);
            frame = frame.replaced(&parsed, segment.flags, &[byte]);
        }
        let parsed = frame.parse().unwrap_or_default();
        (frame, parsed)
    }

    /// Notes what a frame says.
    fn witness(&mut self, parsed: &Parsed) {
        let segment = &parsed.segment;
        let truth = &mut self.truth;
        if segment.is(bit::RST) {
            truth.reset = true;
            return;
        }
        if segment.is(bit::SYN) {
            truth.isn = segment.seq;
            truth.una = segment.seq;
            truth.snd_max = segment.end();
            truth.spoke = true;
            truth.scale = segment.window_scale;
        }
        truth.snd_max = seq::max(truth.snd_max, segment.end());
        if segment.is(bit::FIN) {
            truth.fin = Some(segment.end().wrapping_sub(1));
        }
        if segment.is(bit::ACK) {
            let scale = if segment.is(bit::SYN) { 0 } else { truth.scale };
            let edge = segment.ack.wrapping_add(u32::from(segment.window) << scale);
            let first = !truth.answered;
            truth.answered = true;
            truth.edge = if first {
                edge
            } else {
                seq::max(truth.edge, edge)
            };
            truth.acknowledged = if first {
                segment.ack
            } else {
                seq::max(truth.acknowledged, segment.ack)
            };
        }
        if segment.options & option::TIMESTAMP != 0 && self.ts_first.is_none() {
            self.ts_first = Some(segment.ts_val);
        }
    }
}

fn instant(now: Time) -> Instant {
    Instant::from_micros(now as i64)
}

/// The seed with which an interface of `smoltcp` 0.14 chooses `isn` for its first connection. It takes numbers
/// from a permuted congruential generator, whose steps can be undone: the first one names IP packets, the second is the
/// sequence number.
fn seed_for(isn: u32) -> u64 {
    const MULTIPLIER: u64 = 0xbb2e_fcec_3c39_611d;
    const INCREMENT: u64 = 0x7590_ef39;
    // Newton's iteration: each step doubles the number of right bits, from three.
    let mut inverse = MULTIPLIER;
    for _ in 0..5 {
        inverse = inverse.wrapping_mul(2u64.wrapping_sub(MULTIPLIER.wrapping_mul(inverse)));
    }
    let back = |state: u64| state.wrapping_sub(INCREMENT).wrapping_mul(inverse);
    // The output is the state shifted by 29 where its three highest bits are zero. The lowest bits are free; with
    // some of them the number for packets is 0, and another one taken.
    let states = (1..).map(|free| back(u64::from(isn) << 29 | free));
    let named = states.filter(|&state| {
        let number = (state >> (29 - (state >> 61))) as u32;
        (number ^ number >> 16) as u16 != 0
    });
    back(named.take(1).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(isn: u32) {
        let mut end = Endpoint::new(CLIENT, 0, &HostPlan::plain(), isn, 0);
        end.connect(40_000);
        end.poll(0);
        let (_, parsed) = end.take(0).unwrap();
        assert_eq!(parsed.segment.seq, isn);
    }

    #[test]
    fn the_first_sequence_number_is_chosen() {
        for isn in [0, 1, 77, 0x7fff_fff0, 0x8000_0000, 0xffff_ff00, u32::MAX] {
            check(isn);
        }
    }
}
