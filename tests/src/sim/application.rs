//! What the two ends of a connection say: a script of bytes that are known from their place in the stream, so
//! that every byte can be checked wherever it arrives.

use smoltcp::socket::tcp::State;

use super::endpoint::{Endpoint, Time};

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// One step of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage {
    /// It waits for so many bytes of the peer, from the beginning of the connection.
    pub need: usize,
    /// Then for so long.
    pub think: Time,
    /// Then it writes, up to this place of its own stream.
    pub upto: usize,
}

/// When an end closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Close {
    /// As soon as it has written everything: the other may go on.
    Sent,
    /// When it has also read everything.
    Exchanged,
    /// When it has also seen the other's FIN.
    Peer,
    /// Never in order: it resets when it has read so many bytes.
    Reset(usize),
}

/// What one end does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// In order.
    pub stages: Vec<Stage>,
    /// How it ends.
    pub close: Close,
    /// Where it stops reading, and for how long.
    pub pauses: Vec<(usize, Time)>,
}

impl Script {
    /// How many bytes it writes.
    pub fn total(&self) -> usize {
        self.stages.last().map_or(0, |stage| stage.upto)
    }
}

/// The byte at a place of a stream.
#[inline]
pub fn byte_at(flow: usize, direction: Direction, at: usize) -> u8 {
    let key = (flow as u32) << 8 | direction as u32 | 1 << 31;
    let mixed = (at as u32 ^ key.wrapping_mul(0x85eb_ca6b)).wrapping_mul(0x9e37_79b1);
    (mixed >> 24) as u8 ^ (mixed >> 13) as u8
}

/// A running script.
pub struct Application {
    flow: usize,
    direction: Direction,
    script: Script,
    /// How many bytes the other end will write.
    expected: usize,
    /// What its host takes for each step.
    service: Time,
    stage: usize,
    due: Option<Time>,
    limit: usize,
    /// Bytes that the socket took.
    pub written: usize,
    paused: usize,
    paused_until: Option<Time>,
    /// It has closed or reset.
    pub closed: bool,
}

impl Application {
    /// The end of flow number `flow` that writes in a direction.
    pub fn new(
        flow: usize,
        direction: Direction,
        script: &Script,
        expected: usize,
        service: Time,
    ) -> Self {
        Self {
            flow,
            direction,
            script: script.clone(),
            expected,
            service,
            stage: 0,
            due: None,
            limit: 0,
            written: 0,
            paused: 0,
            paused_until: None,
            closed: false,
        }
    }

    /// Does what can be done now. An error is a wrong byte.
    pub fn step(&mut self, end: &mut Endpoint, now: Time) -> Result<(), String> {
        if matches!(
            end.state(),
            State::Listen | State::SynSent | State::SynReceived
        ) {
            return Ok(());
        }
        self.read(end, now)?;
        while let Some(stage) = self.script.stages.get(self.stage) {
            if end.read < stage.need {
                break;
            }
            let due = *self.due.get_or_insert(now + stage.think + self.service);
            if due > now {
                break;
            }
            self.limit = stage.upto;
            self.stage += 1;
            self.due = None;
        }
        self.write(end);
        self.close(end);
        Ok(())
    }

    /// When it wants to go on without a packet.
    pub fn wake_at(&self) -> Option<Time> {
        self.due.into_iter().chain(self.paused_until).min()
    }

    /// Whether it has said and heard everything.
    pub fn is_satisfied(&self, end: &Endpoint) -> bool {
        self.closed && self.written == self.script.total() && end.read == self.expected
    }

    /// Whether it resets in place of closing.
    pub fn resets(&self) -> bool {
        matches!(self.script.close, Close::Reset(_))
    }

    fn read(&mut self, end: &mut Endpoint, now: Time) -> Result<(), String> {
        if self.paused_until.is_some_and(|until| until > now) {
            return Ok(());
        }
        self.paused_until = None;
        loop {
            let pause = self.script.pauses.get(self.paused);
            let room = pause.map_or(usize::MAX, |&(at, _)| at.saturating_sub(end.read));
            if room == 0 {
                self.paused += 1;
                self.paused_until = pause.map(|&(_, time)| now + time);
                return Ok(());
            }
            let from = end.read;
            let (flow, direction) = (self.flow, self.other());
            let taken = end.socket().recv(|bytes| {
                let count = bytes.len().min(room);
                let wrong = (0..count).find(|&at| bytes[at] != byte_at(flow, direction, from + at));
                (count, (count, wrong))
            });
            let Ok((count, wrong)) = taken else {
                return Ok(());
            };
            end.read += count;
            if let Some(at) = wrong {
                return Err(format!("byte {} is altered", from + at));
            }
            if end.read > self.expected {
                return Err(format!("{} bytes of {}", end.read, self.expected));
            }
            if count == 0 {
                return Ok(());
            }
        }
    }

    fn other(&self) -> Direction {
        match self.direction {
            Direction::Up => Direction::Down,
            Direction::Down => Direction::Up,
        }
    }

    fn write(&mut self, end: &mut Endpoint) {
        let (flow, direction) = (self.flow, self.direction);
        while self.written < self.limit && end.socket().can_send() {
            let (from, room) = (self.written, self.limit - self.written);
            let sent = end.socket().send(|space| {
                let count = space.len().min(room);
                for (at, byte) in space[..count].iter_mut().enumerate() {
                    *byte = byte_at(flow, direction, from + at);
                }
                (count, count)
            });
            match sent {
                Ok(count) if count > 0 => self.written += count,
                _ => return,
            }
        }
    }

    fn close(&mut self, end: &mut Endpoint) {
        let sent = self.written == self.script.total();
        let heard = end.read == self.expected;
        // Cut short: there is nothing to wait for.
        let short = end.truth.fin_taken && end.socket().recv_queue() == 0 && !heard;
        let ready = short
            || match self.script.close {
                Close::Sent => sent,
                Close::Exchanged => sent && heard,
                Close::Peer => sent && heard && end.truth.fin_taken,
                Close::Reset(at) => end.read >= at,
            };
        if self.closed || !ready {
            return;
        }
        self.closed = true;
        if self.resets() {
            end.socket().abort();
        } else {
            end.socket().close();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_flows_and_directions_differ() {
        let stream = |flow, direction| -> Vec<u8> {
            (0..4_096).map(|at| byte_at(flow, direction, at)).collect()
        };
        let own = stream(1, Direction::Up);
        for shift in 1..2_048 {
            assert_ne!(own[shift..shift + 64], own[..64], "shift {shift}");
        }
        assert_ne!(own, stream(2, Direction::Up));
        assert_ne!(own, stream(1, Direction::Down));
    }
}
