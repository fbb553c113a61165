//! How much each of many connections does, so that a small machine bears all of them.

use std::time::Duration;

use crate::traffic::{Mix, Profile};

/// So many connections may do what connections do: together about 15 MB/s, each byte made and checked by programs that share
/// two small processors with three servers' kernels. More, and what is measured is the scheduler.
const FULL: usize = 600;
const THINK: Duration = Duration::from_millis(100);
/// Pauses of up to one and a half of it end within the time in which waits count as the fault's.
const THINK_MAX: Duration = Duration::from_millis(450);
/// Of a hundred connections.
const STREAMS: u32 = 15;
const HUNDRED: u32 = 100;
const DOWNLOAD_BYTES_S: u32 = 64_000;
const UPLOAD_BYTES_S: u32 = 48_000;

/// What the connections of a scenario do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Load {
    connections: usize,
    mix: Mix,
    think: Duration,
}

impl Load {
    /// Of so many connections: beyond [`FULL`] requests come more seldom, and there are no more downloads and uploads.
    pub(super) fn of(connections: usize) -> Self {
        let times = connections.max(FULL) as f64 / FULL as f64;
        let streams = ((f64::from(STREAMS) / times).round() as u32).max(1);
        // Of the others as many ask as do of the usual mix: four of seven.
        let others = HUNDRED - 2 * streams;
        let requests = others * 4 / 7;
        let mix = Mix::of([
            (Profile::Request, requests),
            (Profile::Download, streams),
            (Profile::Upload, streams),
            (Profile::Idle, others - requests),
        ]);
        Self {
            connections,
            mix,
            think: THINK.mul_f64(times).min(THINK_MAX),
        }
    }

    /// As arguments of `traffic client`.
    pub(super) fn arguments(&self) -> Vec<String> {
        let values = [
            ("--connections", self.connections.to_string()),
            ("--mix", self.mix.to_string()),
            ("--think", self.think.as_millis().to_string()),
            ("--download-rate", DOWNLOAD_BYTES_S.to_string()),
            ("--upload-rate", UPLOAD_BYTES_S.to_string()),
        ];
        values
            .into_iter()
            .flat_map(|(name, value)| [name.to_owned(), value])
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(connections: usize, mix: &str, think_ms: u64) {
        let load = Load::of(connections);
        let expected = (mix.parse(), Duration::from_millis(think_ms));
        assert_eq!((Ok(load.mix), load.think), expected);
    }

    #[test]
    fn many_connections_do_less_each() {
        check(3, &Mix::default().to_string(), 100);
        check(600, &Mix::default().to_string(), 100);
        check(1_200, "request=48,download=8,upload=8,idle=36", 200);
        check(3_000, "request=53,download=3,upload=3,idle=41", 450);
        check(300_000, "request=56,download=1,upload=1,idle=42", 450);
    }
}
