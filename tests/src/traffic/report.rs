//! What the client says, as lines of JSON on its standard output.

use serde::{Deserialize, Serialize};

use super::Profile;

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Report {
    /// All connections were tried; traffic runs on those that were made.
    Running(Running),
    /// How it goes; several times a second.
    Progress(Progress),
    /// The answer to `mark`.
    Marked {
        /// From when on stalls count.
        time_ns: u64,
    },
    /// One connection's end.
    Connection(Connection),
    /// The end of all of them; the last line.
    Summary(Summary),
}

/// The start of traffic.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Running {
    /// Connections made.
    pub connections: usize,
    /// Connections that could not be made.
    pub failed: usize,
    /// The longest time that making one took.
    pub connect_ms_max: f64,
}

/// Sums over all connections so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Connections that are in use.
    pub open: u64,
    /// Bytes received and found right.
    pub bytes_received: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Replies received whole.
    pub replies: u64,
    /// Connections that have failed.
    pub failed: u64,
}

/// What became of one connection. For UDP, `bytes` are datagrams.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Connection {
    /// Its port at the client.
    pub local_port: u16,
    /// How it was used.
    pub profile: Profile,
    /// 1 when it was reset or closed by the other side.
    pub resets: u64,
    /// Bytes that were owed, either way, when it ended.
    pub bytes_lost: u64,
    /// Bytes that were not what the other end sent, either way.
    pub bytes_altered: u64,
    /// Datagrams that came twice.
    pub duplicates: u64,
    /// Bytes received and found right.
    pub bytes_received: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// The longest wait of the time from the mark on.
    pub stall_ms: f64,
    /// The longest wait that ended before it.
    pub baseline_ms: f64,
    /// What went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Connection {
    /// Whether every byte came, unaltered.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.resets == 0 && self.bytes_lost == 0 && self.bytes_altered == 0 && self.error.is_none()
    }
}

/// Sums and percentiles of all connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How many there were.
    pub connections: usize,
    /// Those that could not be made.
    pub failed_connects: usize,
    /// Reset or closed by the other side.
    pub resets: u64,
    /// Bytes owed at the end.
    pub bytes_lost: u64,
    /// Bytes altered.
    pub bytes_altered: u64,
    /// Datagrams that came twice.
    pub duplicates: u64,
    /// Bytes received and found right.
    pub bytes_received: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// The connections' longest waits after the mark.
    pub stall_ms: Percentiles,
    /// The connections' longest waits before the mark.
    pub baseline_ms: Percentiles,
}

impl Summary {
    /// Of the connections' reports.
    #[must_use]
    pub fn of<'a>(
        connections: impl Iterator<Item = &'a Connection> + Clone,
        failed_connects: usize,
    ) -> Self {
        let sum = |field: fn(&Connection) -> u64| connections.clone().map(field).sum();
        Self {
            connections: connections.clone().count(),
            failed_connects,
            resets: sum(|connection| connection.resets),
            bytes_lost: sum(|connection| connection.bytes_lost),
            bytes_altered: sum(|connection| connection.bytes_altered),
            duplicates: sum(|connection| connection.duplicates),
            bytes_received: sum(|connection| connection.bytes_received),
            bytes_sent: sum(|connection| connection.bytes_sent),
            stall_ms: Percentiles::of(connections.clone().map(|connection| connection.stall_ms)),
            baseline_ms: Percentiles::of(connections.map(|connection| connection.baseline_ms)),
        }
    }
}

/// Of a set of durations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// The median.
    pub p50: f64,
    /// 99 of 100 are no longer.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

impl Percentiles {
    /// By nearest rank, to a microsecond; all 0 of nothing.
    #[must_use]
    pub fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let rank = |percent: usize| {
            let rank = (values.len() * percent).div_ceil(100);
            let value = values
                .get(rank.saturating_sub(1))
                .copied()
                .unwrap_or_default();
            (value * 1e3).round() / 1e3
        };
        Self {
            p50: rank(50),
            p99: rank(99),
            max: rank(100),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_members_of_the_set() {
        let of = |values: &[f64]| Percentiles::of(values.iter().copied());
        assert_eq!(of(&[]), Percentiles::default());
        assert_eq!(
            of(&[3.0]),
            Percentiles {
                p50: 3.0,
                p99: 3.0,
                max: 3.0
            }
        );
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(
            of(&hundred),
            Percentiles {
                p50: 50.0,
                p99: 99.0,
                max: 100.0
            }
        );
    }
}
