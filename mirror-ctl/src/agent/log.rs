//! What happened, kept in memory for whoever asks: bounded, numbered, oldest out first.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use utoipa::ToSchema;

use crate::metrics::Metrics;

/// Entries that are kept.
pub const ENTRIES_MAX: usize = 65_536;

/// Every kind of entry.
pub const KINDS: [&str; 13] = [
    "flow-opened",
    "flow-warm",
    "flow-cold",
    "takeover",
    "flow-closed",
    "partial-checksum",
    "instance-state",
    "interface",
    "configuration",
    "order",
    "prediction",
    "zone",
    super::predecessor::KIND,
];

/// One entry.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct LogEntry {
    /// Its number, from 1; later ones have greater numbers.
    pub seq: u64,
    /// When, `CLOCK_MONOTONIC`.
    pub time_ns: u64,
    /// One of [`KINDS`].
    pub kind: String,
    /// The flow's client.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub client: Option<String>,
    /// The flow's VNI.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub vni: Option<String>,
    /// The VNI's address and port in the flow: with the client's and the protocol it tells flows apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The flow's protocol: `tcp`, `udp` or `icmp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// The instance whose state changed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub instance: Option<String>,
    /// What or who it was.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub from: Option<String>,
    /// What or who it is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub to: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cause: Option<String>,
    /// Who ordered it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub by: Option<String>,
}

/// The log.
#[derive(Debug, Default)]
pub struct EventLog {
    entries: Mutex<Entries>,
    /// The last number, for those who wait for the next.
    last: watch::Sender<u64>,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Entries {
    last: u64,
    entries: VecDeque<LogEntry>,
}

impl EventLog {
    /// An empty log; what is added is counted in `metrics` too.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            ..Self::default()
        }
    }

    /// Adds entries; their numbers are given here.
    pub fn add(&self, entries: impl IntoIterator<Item = LogEntry>) {
        let mut log = self.lock();
        for mut entry in entries {
            log.last += 1;
            entry.seq = log.last;
            self.metrics.happened(&entry);
            if log.entries.len() == ENTRIES_MAX {
                log.entries.pop_front();
            }
            log.entries.push_back(entry);
        }
        let last = log.last;
        drop(log);
        self.last.send_replace(last);
    }

    /// The number of the last entry, and a way to wait for later ones.
    pub fn last(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }

    /// The next entries after `seq`, at most `limit`, and how many have been forgotten before them.
    pub fn next(&self, seq: u64, limit: usize) -> (u64, Vec<LogEntry>) {
        let log = self.lock();
        let start = log.entries.partition_point(|entry| entry.seq <= seq);
        let entries: Vec<_> = log.entries.range(start..).take(limit).cloned().collect();
        let forgotten = entries.first().map_or(0, |first| first.seq - seq - 1);
        (forgotten, entries)
    }

    /// Entries with numbers above `since`, the newest `limit` of them.
    pub fn since(&self, since: u64, limit: usize) -> Vec<LogEntry> {
        let log = self.lock();
        let start = log.entries.partition_point(|entry| entry.seq <= since);
        let start = start.max(log.entries.len().saturating_sub(limit));
        log.entries.range(start..).cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        // A panic while it was held cannot have left it half written in a way that matters.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_first() {
        let log = EventLog::default();
        log.add((0..ENTRIES_MAX + 10).map(|_| LogEntry::default()));
        let all = log.since(0, usize::MAX);
        assert_eq!(all.len(), ENTRIES_MAX);
        assert_eq!(all[0].seq, 11);
        let last = ENTRIES_MAX as u64 + 10;
        assert_eq!(log.since(last - 2, usize::MAX).len(), 2);
        assert_eq!(log.since(last, usize::MAX).len(), 0);
        assert_eq!(log.since(0, 3)[0].seq, last - 2);
        let (forgotten, next) = log.next(4, 2);
        assert_eq!((forgotten, next[0].seq, next.len()), (6, 11, 2));
        assert_eq!(log.next(11, 1).1[0].seq, 12);
        assert_eq!(log.next(last, 1), (0, Vec::new()));
        assert_eq!(*log.last().borrow(), last);
    }
}
