//! Probes: TCP connections that must succeed. The counting is pure; the connecting is a task per
//! instance.

use std::time::Duration;

use tokio::{net::TcpStream, sync::mpsc, task::JoinHandle, time};

use crate::config;

/// Successes and failures in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    run: u32,
    last: Option<bool>,
    verdict: Option<bool>,
}

impl Tally {
    /// Counts a try; a verdict when it is a new one.
    pub fn count(&mut self, ok: bool, fall: u32, rise: u32) -> Option<bool> {
        self.run = match self.last {
            Some(last) if last == ok => self.run.saturating_add(1),
            _ => 1,
        };
        self.last = Some(ok);
        let needed = if ok { rise } else { fall };
        if self.run < needed || self.verdict == Some(ok) {
            return None;
        }
        self.verdict = Some(ok);
        Some(ok)
    }

    /// The verdict so far.
    pub fn verdict(&self) -> Option<bool> {
        self.verdict
    }

    /// Asks for new proof.
    pub fn reset(&mut self) {
        *self = Self::default();
    }
}

/// Probes an instance until the task is aborted or nobody listens.
pub fn start(
    instance: String,
    probe: config::Probe,
    results: mpsc::Sender<(String, bool)>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut ticks = time::interval(Duration::from_millis(probe.interval_ms.into()));
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        let limit = Duration::from_millis(probe.timeout_ms.into());
        loop {
            ticks.tick().await;
            let tried = time::timeout(limit, TcpStream::connect(probe.tcp)).await;
            let ok = matches!(tried, Ok(Ok(_)));
            if results.send((instance.clone(), ok)).await.is_err() {
                return;
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_need_several_in_a_row() {
        let mut tally = Tally::default();
        let tries = [
            true, true, true, false, true, false, false, false, true, true, true,
        ];
        let verdicts: Vec<_> = tries.map(|ok| tally.count(ok, 2, 3)).into();
        let mut expected = vec![None; 11];
        expected[2] = Some(true);
        expected[6] = Some(false);
        expected[10] = Some(true);
        assert_eq!(verdicts, expected);
        tally.reset();
        assert_eq!(tally.verdict(), None);
    }
}
