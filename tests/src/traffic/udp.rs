//! Datagrams: an answer is a pure function of the datagram it answers.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};
use xxhash_rust::xxh3::xxh3_64;

use super::client::link::Totals;
use super::client::meter::Meter;
use super::stream::Stream;
use crate::clock::monotonic_ns;

/// The number of a datagram, then bytes of the stream that the number seeds.
const NUMBER_LENGTH: usize = 8;
const LENGTH: usize = 200;
const DATAGRAM_MAX: usize = 2048;
/// Bytes of a socket's receive buffer. The usual 208 KiB hold some 270 short
/// datagrams: a program that gets no processor for as long as those take loses
/// the next, which would be taken for a loss on the way.
const RECEIVE_BUFFER: usize = 8 << 20;
/// How often one who waits for answers looks whether it is to stop.
const STOP_LOOK: Duration = Duration::from_millis(20);
/// How long the last answers are waited for.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);

/// What became of the datagrams of one socket.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Sent by the client.
    pub sent: u64,
    /// Answered rightly, for the first time.
    pub answered: u64,
    /// Answered again: with more than one server in step, a mirror has spoken.
    pub duplicates: u64,
    /// Answered wrongly.
    pub altered: u64,
}

/// A socket at `address` that loses nothing while its program waits for a
/// processor. Needs the right to exceed the system's bound, as all of this does.
pub(super) async fn bind(address: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}"))?;
    setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)
        .context("cannot enlarge a receive buffer")?;
    Ok(socket)
}

/// Answers each datagram with its number and bytes that depend on all of it.
pub(super) async fn answer(socket: UdpSocket) {
    let mut datagram = [0; DATAGRAM_MAX];
    loop {
        // An error here is an ICMP error about an earlier answer.
        let Ok((length, from)) = socket.recv_from(&mut datagram).await else {
            continue;
        };
        if length >= NUMBER_LENGTH {
            let _ = socket.send_to(&expected(&datagram[..length]), from).await;
        }
    }
}

fn expected(datagram: &[u8]) -> Vec<u8> {
    let mut answer = datagram.to_vec();
    Stream::new(xxh3_64(datagram)).fill(&mut answer[NUMBER_LENGTH..]);
    answer
}

fn datagram(number: u64, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; LENGTH];
    bytes[..NUMBER_LENGTH].copy_from_slice(&number.to_be_bytes());
    Stream::new(seed ^ number).fill(&mut bytes[NUMBER_LENGTH..]);
    bytes
}

/// When the next datagram is sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    /// One in each interval.
    Every(Duration),
    /// As soon as fewer than so many are unanswered: what carries them sets the pace, and no queue on the way ever
    /// holds more of a socket's than these.
    Ahead(u32),
}

/// One socket's questions.
pub(super) struct Questions<'a> {
    pub(super) socket: UdpSocket,
    pub(super) seed: u64,
    pub(super) pace: Pace,
    pub(super) meter: &'a mut Meter,
    pub(super) totals: &'a Totals,
    tally: Tally,
    /// By number: when it was sent, and whether it was answered.
    sent: Vec<(u64, bool)>,
}

impl<'a> Questions<'a> {
    pub(super) fn new(
        socket: UdpSocket,
        seed: u64,
        pace: Pace,
        meter: &'a mut Meter,
        totals: &'a Totals,
    ) -> Self {
        Self {
            socket,
            seed,
            pace,
            meter,
            totals,
            tally: Tally::default(),
            sent: Vec::new(),
        }
    }

    /// Sends datagrams until `stopped`, matches the answers, and
    /// meters the time from each question to its answer. A datagram may be lost,
    /// as datagrams may; it then counts as unanswered and not as a stall.
    pub(super) async fn ask(
        mut self,
        server: SocketAddr,
        stopped: impl Fn() -> bool,
    ) -> Result<(Tally, UdpSocket)> {
        self.socket
            .connect(server)
            .await
            .with_context(|| format!("cannot reach {server}"))?;
        while !stopped() {
            let next = match self.pace {
                Pace::Every(interval) => {
                    let next = Instant::now() + interval;
                    self.send().await;
                    next
                }
                Pace::Ahead(most) => {
                    while self.unanswered() < u64::from(most) {
                        self.send().await;
                    }
                    Instant::now() + STOP_LOOK
                }
            };
            self.receive_until(next).await;
        }
        // Answers to the last ones are waited for before the end.
        let end = Instant::now() + ANSWER_LIMIT;
        while self.unanswered() > 0 && Instant::now() < end {
            self.receive_until((Instant::now() + STOP_LOOK).min(end))
                .await;
        }
        // A late duplicate would be a mirror's: listen a little longer.
        let late = match self.pace {
            Pace::Every(interval) => interval * 4,
            Pace::Ahead(_) => STOP_LOOK,
        };
        self.receive_until(Instant::now() + late).await;
        Ok((self.tally, self.socket))
    }

    fn unanswered(&self) -> u64 {
        self.tally.sent - self.tally.answered
    }

    async fn send(&mut self) {
        let number = self.tally.sent;
        self.sent.push((monotonic_ns(), false));
        self.tally.sent += 1;
        // An error is an ICMP error about an earlier one: that one is lost.
        let _ = self.socket.send(&datagram(number, self.seed)).await;
    }

    /// Counts answers for so long or, where each makes room for a question, until there was one.
    async fn receive_until(&mut self, end: Instant) {
        let mut bytes = [0; DATAGRAM_MAX];
        while let Ok(received) = timeout_at(end, self.socket.recv(&mut bytes)).await {
            // An error is an ICMP error.
            let Ok(length) = received else { continue };
            self.count(&bytes[..length]);
            if matches!(self.pace, Pace::Ahead(_)) {
                return;
            }
        }
    }

    fn count(&mut self, answer: &[u8]) {
        let number = answer
            .first_chunk()
            .map_or(u64::MAX, |bytes| u64::from_be_bytes(*bytes));
        let known = usize::try_from(number)
            .ok()
            .and_then(|number| self.sent.get_mut(number));
        match known {
            Some((since, answered)) if answer == expected(&datagram(number, self.seed)) => {
                if std::mem::replace(answered, true) {
                    self.tally.duplicates += 1;
                } else {
                    self.tally.answered += 1;
                    self.meter.waited(*since, monotonic_ns());
                    self.totals.update(|sums| sums.replies += 1);
                }
            }
            _ => self.tally.altered += 1,
        }
    }
}
