//! How often a host's TCP has lost patience: it tells a packet that was lost from a machine that was busy.

use std::fs;

use anyhow::{Context, Result};

use crate::netns::Namespace;

/// How many retransmission timers have fired on a host since it exists, those of SYNs too (`TCPTimeouts`, net/ipv4/tcp_timer.c).
/// A program that waits for a processor fires none: the kernels at both ends go on.
pub fn fired(host: &Namespace) -> Result<u64> {
    // That of a thread: plain /proc/net is the process's, which is elsewhere.
    let text = host.run(|| fs::read_to_string("/proc/thread-self/net/netstat"))??;
    parse(&text)
}

/// A line of names, and one of what they count.
fn parse(netstat: &str) -> Result<u64> {
    let mut lines = netstat.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, counts) = lines.next().zip(lines.next()).context("no TcpExt")?;
    let mut pairs = names.split_whitespace().zip(counts.split_whitespace());
    let found = pairs.find(|(name, _)| *name == "TCPTimeouts");
    let (_, count) = found.context("no TCPTimeouts")?;
    count.parse().context("TCPTimeouts")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_found_by_its_name() {
        let text =
            "TcpExt: SyncookiesSent TCPTimeouts\nTcpExt: 3 17\nIpExt: InNoRoutes\nIpExt: 5\n";
        assert_eq!(parse(text).unwrap(), 17);
        assert!(parse("TcpExt: SyncookiesSent\nTcpExt: 3\n").is_err());
        assert!(parse("").is_err());
    }

    #[test]
    fn this_hosts_own_is_there() {
        parse(&fs::read_to_string("/proc/thread-self/net/netstat").unwrap()).unwrap();
    }
}
