//! What both ends of a run of traffic counted, by what nobody of this project writes: the kernel's own counters of each
//! host, beside those of the traffic programs and of the dataplane.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::agent::Agent;
use crate::clock::wait_until;
use crate::net::timers;
use crate::netns::Namespace;
use crate::topology::Topology;

/// Late segments of connections that have closed come within this.
const QUIET_LIMIT: Duration = Duration::from_secs(60);
/// So many looks in a row that see the same are quiet.
const QUIET_LOOKS: usize = 40;
/// What became of a frame that one of the host's programs was given: each gets exactly one of these.
const VERDICTS: [&str; 27] = [
    "not_vni",
    "steered",
    "cloned",
    "delivered",
    "ack_raised",
    "mirror_suppressed",
    "turned_round",
    "cold_reset",
    "ack_held",
    "syn_ack_held",
    "fin_held",
    "reset_held",
    "no_replica_set",
    "no_replica",
    "return_without_flow",
    "not_replica",
    "bad_handshake_ack",
    "malformed",
    "fragment",
    "fragment_unknown",
    "unknown_protocol",
    "partial_checksum",
    "too_large_to_clone",
    "icmp_error",
    "no_port",
    "packet_too_big",
    "not_fragmented",
];
/// Those of them, and of copies, that lose what somebody wanted to get.
const LOSSES: [&str; 11] = [
    "no_replica_set",
    "no_replica",
    "no_port",
    "malformed",
    "too_large_to_clone",
    "partial_checksum",
    "clone_lost",
    "clone_unwanted",
    "flow_table_full",
    "not_replica",
    "not_fragmented",
];

/// A host's counters since it exists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Host {
    /// Frames that its interfaces received.
    frames: u64,
    /// Frames that they lost, either way.
    dropped: u64,
    datagrams_in: u64,
    datagrams_out: u64,
    /// For want of room in a socket.
    datagrams_lost: u64,
    retransmissions: u64,
    /// Retransmission timers that have fired.
    timers: u64,
}

impl Host {
    fn read(namespace: &Namespace) -> Result<Self> {
        // That of a thread: plain /proc/net is the process's, which is elsewhere.
        let read = |file: &str| fs::read_to_string(format!("/proc/thread-self/net/{file}"));
        let read = || -> Result<_> { Ok((read("dev")?, read("snmp")?, read("snmp6")?)) };
        let (dev, snmp, snmp6) = namespace.run(read)??;
        let mut host = Self::default();
        for (name, counts) in dev.lines().filter_map(|line| line.split_once(':')) {
            let counts: Vec<u64> = numbers(counts);
            if name.trim() != "lo" && counts.len() >= 12 {
                host.frames += counts[1];
                host.dropped += counts[2] + counts[3] + counts[10] + counts[11];
            }
        }
        let udp = |name: &str| -> Result<u64> {
            Ok(ipv4(&snmp, "Udp:", name)? + ipv6(&snmp6, &format!("Udp6{name}"))?)
        };
        host.datagrams_in = udp("InDatagrams")?;
        host.datagrams_out = udp("OutDatagrams")?;
        host.datagrams_lost = udp("RcvbufErrors")? + udp("InErrors")?;
        host.retransmissions = ipv4(&snmp, "Tcp:", "RetransSegs")?;
        host.timers = timers::fired(namespace)?;
        Ok(host)
    }

    fn since(&self, before: &Self) -> Self {
        Self {
            frames: self.frames - before.frames,
            dropped: self.dropped - before.dropped,
            datagrams_in: self.datagrams_in - before.datagrams_in,
            datagrams_out: self.datagrams_out - before.datagrams_out,
            datagrams_lost: self.datagrams_lost - before.datagrams_lost,
            retransmissions: self.retransmissions - before.retransmissions,
            timers: self.timers - before.timers,
        }
    }
}

/// What became of frames, in the dataplane of the version before too while that one drains: each frame is in one of them.
fn counters(agent: &Agent<'_>) -> Result<BTreeMap<String, u64>> {
    let status = agent.status()?;
    let mut counters = status.counters;
    if let Some(before) = status.draining {
        for (reason, count) in agent.status_on(&before.socket)?.counters {
            *counters.entry(reason).or_default() += count;
        }
    }
    Ok(counters)
}

/// Two lines of a protocol: names, and what they count.
fn ipv4(snmp: &str, protocol: &str, name: &str) -> Result<u64> {
    let mut lines = snmp.lines().filter(|line| line.starts_with(protocol));
    let (names, counts) = lines.next().zip(lines.next()).context("no such protocol")?;
    let place = names.split_whitespace().position(|n| n == name);
    let count = place.and_then(|place| counts.split_whitespace().nth(place)?.parse().ok());
    count.with_context(|| format!("no {protocol} {name}"))
}

/// A line of a name and a count.
fn ipv6(snmp6: &str, name: &str) -> Result<u64> {
    let mut lines = snmp6.lines().map(str::split_whitespace);
    let count =
        lines.find_map(|mut words| (words.next()? == name).then(|| words.next()?.parse().ok())?);
    count.with_context(|| format!("no {name}"))
}

fn numbers(text: &str) -> Vec<u64> {
    text.split_whitespace()
        .map_while(|word| word.parse().ok())
        .collect()
}

/// All hosts' and the dataplane's counters, at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    client: Host,
    host: Host,
    instances: Vec<Host>,
    dataplane: BTreeMap<String, u64>,
}

/// What was counted between two moments at which nothing was under way.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// Datagrams that the client's kernel sent, and answers that it handed to the program.
    pub client_datagrams: (u64, u64),
    /// Datagrams that the instances' kernels handed to their servers, and answers that they sent.
    pub instance_datagrams: (u64, u64),
    /// Frames that the VNI host's interfaces received, and those that its programs gave a verdict.
    pub host_frames: (u64, u64),
    /// Copies that the replica sets of broadcast frames make, and copies that were sent, or not, for a counted reason.
    pub copies: (u64, u64),
    /// Frames that any interface of any host lost, and datagrams for which a socket had no room.
    pub dropped: u64,
    /// Segments that any host's TCP sent again.
    pub retransmissions: u64,
    /// Retransmission timers that fired at any host.
    pub timers: u64,
    /// By reason: frames that the dataplane kept from somebody who was to get them.
    pub losses: BTreeMap<String, u64>,
}

impl Ends {
    fn read(topology: &Topology, agent: &Agent<'_>) -> Result<Self> {
        let instances = topology.instances.iter();
        Ok(Self {
            client: Host::read(&topology.client)?,
            host: Host::read(&topology.host)?,
            instances: instances
                .map(|instance| Host::read(&instance.namespace))
                .collect::<Result<_>>()?,
            dataplane: counters(agent)?,
        })
    }

    /// When nothing is under way any more.
    pub(super) fn quiet(topology: &Topology, agent: &Agent<'_>) -> Result<Self> {
        let mut last = Self::read(topology, agent)?;
        let mut same = 0;
        wait_until("quiet on every interface", QUIET_LIMIT, || {
            let now = Self::read(topology, agent)?;
            same = if now == last { same + 1 } else { 0 };
            last = now;
            Ok((same >= QUIET_LOOKS).then(|| last.clone()))
        })
    }

    /// `copies_each`: members of a replica set.
    pub(super) fn since(&self, before: &Self, copies_each: u64) -> Counted {
        let client = self.client.since(&before.client);
        let host = self.host.since(&before.host);
        let pairs = self.instances.iter().zip(&before.instances);
        let instances: Vec<Host> = pairs.map(|(now, then)| now.since(then)).collect();
        let all = || instances.iter().chain([&client, &host]);
        let reason = |name: &str| {
            let count = |ends: &Self| ends.dataplane.get(name).copied().unwrap_or_default();
            count(self) - count(before)
        };
        let sum = |names: &[&str]| names.iter().map(|name| reason(name)).sum();
        let lost = LOSSES.iter().map(|name| ((*name).to_owned(), reason(name)));
        Counted {
            client_datagrams: (client.datagrams_out, client.datagrams_in),
            instance_datagrams: (
                instances.iter().map(|host| host.datagrams_in).sum(),
                instances.iter().map(|host| host.datagrams_out).sum(),
            ),
            host_frames: (host.frames, sum(&VERDICTS)),
            copies: (
                copies_each * reason("cloned"),
                sum(&["clone_sent", "clone_unwanted", "clone_lost"]),
            ),
            dropped: all().map(|host| host.dropped + host.datagrams_lost).sum(),
            retransmissions: all().map(|host| host.retransmissions).sum(),
            timers: all().map(|host| host.timers).sum(),
            losses: lost.filter(|(_, count)| *count > 0).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SNMP: &str = "Tcp: RtoMin RetransSegs\nTcp: 200 7\nUdp: InDatagrams\nUdp: 12\n";

    #[test]
    fn counts_are_found_by_name() {
        assert_eq!(ipv4(SNMP, "Tcp:", "RetransSegs").unwrap(), 7);
        assert_eq!(ipv4(SNMP, "Udp:", "InDatagrams").unwrap(), 12);
        assert!(ipv4(SNMP, "Udp:", "OutDatagrams").is_err());
        let snmp6 = "Ip6InReceives 1\nUdp6InDatagrams                 \t3\n";
        assert_eq!(ipv6(snmp6, "Udp6InDatagrams").unwrap(), 3);
        assert!(ipv6(snmp6, "Udp6").is_err());
    }

    #[test]
    fn this_hosts_own_counters_are_there() {
        let text = fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
        assert!(ipv4(&text, "Udp:", "RcvbufErrors").is_ok());
    }
}
