//! The benches by name, and how much of one is measured.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::report::Results;
use crate::{
    PEERS, changes, cloning, failure, latency, operate, prediction, scale, steering, throughput,
};

/// A bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Name {
    /// Cost of a packet in each program
    Steering,
    /// Packets per second with copies
    Cloning,
    /// Request and response
    Latency,
    /// Bytes per second
    Throughput,
    /// Connections and requests when an instance fails
    Failure,
    /// Memory and time with a million flows
    Scale,
    /// What an operator waits for with a million flows
    Operate,
    /// Frames and connections while the agent is changed
    Changes,
    /// Features and inference
    Prediction,
}

impl Name {
    pub(crate) const ALL: &'static [Self] = &[
        Self::Steering,
        Self::Cloning,
        Self::Latency,
        Self::Throughput,
        Self::Failure,
        Self::Scale,
        Self::Operate,
        Self::Changes,
        Self::Prediction,
    ];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Steering => "steering",
            Self::Cloning => "cloning",
            Self::Latency => "latency",
            Self::Throughput => "throughput",
            Self::Failure => "failure",
            Self::Scale => "scale",
            Self::Operate => "operate",
            Self::Changes => "changes",
            Self::Prediction => "prediction",
        }
    }

    pub(crate) fn about(self) -> &'static str {
        match self {
            Self::Steering => "ns per packet in each program, on 1 to a million flows",
            Self::Cloning => "packets/s with 0 to 3 mirrors; tc mirred, nftables dup, TEE",
            Self::Latency => "request and response; direct veth, nftables DNAT, HAProxy",
            Self::Throughput => {
                "1 and 64 streams, both directions, processor time per byte; the same"
            }
            Self::Failure => {
                "connections kept, requests failed; HAProxy, nftables DNAT, a moved address"
            }
            Self::Scale => "a million flows: memory, look-up, takeover; steering tables",
            Self::Operate => "a million flows: what an operator waits for, under traffic",
            Self::Changes => {
                "frames lost by reload, upgrade, restart and kill -9 of the agent under full load"
            }
            Self::Prediction => "a tick of 1,000 and of 10,000 instances: features, model, layer A",
        }
    }

    /// How long it takes on a quiet machine.
    pub(crate) fn duration(self) -> &'static str {
        match self {
            Self::Failure => "5 minutes",
            Self::Cloning | Self::Changes => "2 minutes",
            _ => "1 minute",
        }
    }

    pub(crate) fn run(self, effort: &Effort) -> Result<Results> {
        match self {
            Self::Steering => steering::run(effort),
            Self::Cloning => cloning::run(effort),
            Self::Latency => latency::run(effort),
            Self::Throughput => throughput::run(effort),
            Self::Failure => failure::run(effort),
            Self::Scale => scale::run(effort),
            Self::Operate => operate::run(effort),
            Self::Changes => changes::run(effort),
            Self::Prediction => prediction::run(effort),
        }
    }

    /// What its peers call themselves, of those that are there.
    pub(crate) fn peers(self) -> Vec<String> {
        const HAPROXY: (&str, &[&str]) = ("haproxy", &["-v"]);
        const NFT: (&str, &[&str]) = ("nft", &["--version"]);
        const TC: (&str, &[&str]) = ("tc", &["-V"]);
        const IPTABLES: (&str, &[&str]) = ("xtables-nft-multi", &["iptables", "--version"]);
        let peers: &[(&str, &[&str])] = match self {
            Self::Steering | Self::Scale | Self::Operate | Self::Changes | Self::Prediction => &[],
            Self::Cloning => &[TC, NFT, IPTABLES],
            Self::Latency | Self::Throughput | Self::Failure => &[NFT, HAPROXY],
        };
        let version = |(name, arguments): &(&str, &[&str])| {
            let peer = PEERS.find(&[name]).ok()?;
            peer.first_line(arguments).ok()
        };
        peers.iter().filter_map(version).collect()
    }
}

/// How much is measured.
#[derive(Debug)]
pub(crate) struct Effort {
    /// Pairs.
    pub(crate) rounds: usize,
    /// Packets of one side of a pair.
    pub(crate) packets: u32,
    bench: Name,
    /// What the names of cases contain that are measured.
    case: Option<String>,
    start: Instant,
}

impl Effort {
    pub(crate) fn new(bench: Name, quick: bool, case: Option<String>) -> Self {
        let (rounds, packets) = if quick { (3, 20_000) } else { (15, 100_000) };
        Self {
            rounds,
            packets,
            bench,
            case,
            start: Instant::now(),
        }
    }

    /// Whether a case is to be measured.
    pub(crate) fn wants(&self, case: &str) -> bool {
        self.case.as_deref().is_none_or(|text| case.contains(text))
    }

    /// Tells who waits what is being measured.
    pub(crate) fn progress(&self, what: &str) {
        let seconds = self.elapsed().as_secs();
        eprintln!("{} {seconds:>4} s: {what}", self.bench.label());
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}
