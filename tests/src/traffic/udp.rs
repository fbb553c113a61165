//! Datagrams: an answer is a pure function of the datagram it answers.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout, timeout_at};
use xxhash_rust::xxh3::xxh3_64;

use super::client::meter::Meter;
use super::stream::Stream;
use crate::clock::monotonic_ns;

/// The number of a datagram, then bytes of the stream that the number seeds.
const NUMBER_LENGTH: usize = 8;
const LENGTH: usize = 200;
const DATAGRAM_MAX: usize = 2048;

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

/// Sends a datagram each interval until `stopped`, matches the answers, and
/// meters the time from each question to its answer. A datagram may be lost,
/// as datagrams may; it then counts as unanswered and not as a stall.
pub(super) async fn ask(
    socket: &UdpSocket,
    server: SocketAddr,
    seed: u64,
    interval: Duration,
    meter: &mut Meter,
    stopped: impl Fn() -> bool,
) -> Result<Tally> {
    socket
        .connect(server)
        .await
        .with_context(|| format!("cannot reach {server}"))?;
    let mut tally = Tally::default();
    let mut answered = Vec::<bool>::new();
    let mut started = Vec::<u64>::new();
    let mut last = None;
    while last.is_none_or(|last| Instant::now() < last) {
        let next = Instant::now() + interval;
        if last.is_none() {
            let number = tally.sent;
            started.push(monotonic_ns());
            answered.push(false);
            tally.sent += 1;
            // An error is an ICMP error about an earlier one: that one is lost.
            let _ = socket.send(&datagram(number, seed)).await;
            // Answers to the last ones are waited for before the end.
            last = stopped().then(|| Instant::now() + Duration::from_secs(1));
        }
        let mut bytes = [0; DATAGRAM_MAX];
        while let Ok(received) = timeout_at(next, socket.recv(&mut bytes)).await {
            let Ok(length) = received else { continue };
            count(
                &bytes[..length],
                seed,
                &mut tally,
                &mut answered,
                &started,
                meter,
            );
        }
        if answered.iter().all(|answered| *answered) && last.is_some() {
            // A late duplicate would be a mirror's: listen a little longer.
            let _ = timeout(interval * 4, async {
                while let Ok(length) = socket.recv(&mut bytes).await {
                    count(
                        &bytes[..length],
                        seed,
                        &mut tally,
                        &mut answered,
                        &started,
                        meter,
                    );
                }
            })
            .await;
            break;
        }
    }
    Ok(tally)
}

fn count(
    answer: &[u8],
    seed: u64,
    tally: &mut Tally,
    answered: &mut [bool],
    started: &[u64],
    meter: &mut Meter,
) {
    let number = answer
        .first_chunk()
        .map_or(u64::MAX, |bytes| u64::from_be_bytes(*bytes));
    let known = usize::try_from(number)
        .ok()
        .filter(|number| *number < answered.len());
    match known {
        Some(index) if answer == expected(&datagram(number, seed)) => {
            if std::mem::replace(&mut answered[index], true) {
                tally.duplicates += 1;
            } else {
                tally.answered += 1;
                meter.waited(started[index], monotonic_ns());
            }
        }
        _ => tally.altered += 1,
    }
}
