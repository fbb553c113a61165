//! New requests, one after the other, each over a connection of its own.

use std::net::SocketAddr;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use testbed::clock::{monotonic_ns, ms};
use testbed::netns::Namespace;

use crate::echo::{self, MESSAGE, Use};

/// Where the probed server listens.
pub(crate) const PORT: u16 = 7001;
/// Between the end of a request and the next one.
const PAUSE: Duration = Duration::from_millis(5);
/// A request that takes longer has failed.
const PATIENCE: Duration = Duration::from_millis(500);

/// What became of the requests from a time on.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Probes {
    pub(crate) requests: usize,
    pub(crate) failed: usize,
    /// The longest time between the ends of two successful ones.
    pub(crate) gap_ms: f64,
}

impl Probes {
    pub(crate) fn failed_percent(&self) -> f64 {
        100.0 * self.failed as f64 / self.requests.max(1) as f64
    }
}

/// A request's end, and whether it succeeded.
type Request = (u64, bool);

/// A running prober.
pub(crate) struct Prober {
    stop: Sender<()>,
    thread: JoinHandle<Result<Vec<Request>>>,
}

/// Starts to send requests from a namespace.
pub(crate) fn start(client: &Namespace, server: SocketAddr) -> Result<Prober> {
    let (stop, stopped) = channel();
    // A thread stays in the namespace in which it was started.
    let thread = client.run(|| {
        thread::spawn(move || {
            let mut requests = Vec::new();
            loop {
                let succeeded = request(server).is_ok();
                requests.push((monotonic_ns(), succeeded));
                match stopped.recv_timeout(PAUSE) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Ok(()) | Err(RecvTimeoutError::Disconnected) => return Ok(requests),
                }
            }
        })
    })?;
    Ok(Prober { stop, thread })
}

impl Prober {
    /// Stops, and sums up what ended after a time.
    pub(crate) fn finish(self, from_ns: u64) -> Result<Probes> {
        self.stop.send(()).context("the prober has ended")?;
        let requests = self.thread.join();
        let requests = requests.map_err(|_| anyhow!("the prober panicked"))??;
        Ok(sum_up(&requests, from_ns))
    }
}

fn request(server: SocketAddr) -> Result<()> {
    let mut stream = echo::connect_within(server, Use::Exchange, PATIENCE)?;
    echo::exchange(&mut stream, &mut [7; MESSAGE])
}

fn sum_up(requests: &[Request], from_ns: u64) -> Probes {
    let later = || requests.iter().filter(|(end_ns, _)| *end_ns >= from_ns);
    let mut last_ns = from_ns;
    let mut gap_ns = 0;
    for (end_ns, succeeded) in later() {
        gap_ns = gap_ns.max(end_ns - last_ns);
        if *succeeded {
            last_ns = *end_ns;
        }
    }
    Probes {
        requests: later().count(),
        failed: later().filter(|(_, succeeded)| !succeeded).count(),
        gap_ms: ms(gap_ns),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_lasts_from_success_to_success() {
        let second = 1_000_000_000;
        let requests = [
            (second, false),
            (2 * second, true),
            (3 * second, false),
            (5 * second, true),
        ];
        let expected = Probes {
            requests: 3,
            failed: 1,
            gap_ms: 3_000.0,
        };
        assert_eq!(sum_up(&requests, 2 * second), expected);
    }
}
