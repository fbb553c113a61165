//! What can be typed of flows that are looked at packet by packet.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args as ClapArgs, value_parser};
use mirror_common::limits::TRACE_FRAME_MAX;

use super::whole;
use crate::{
    api::trace::{DURATION_S, DURATION_S_MAX},
    trace::capture::Side,
};

pub(super) const TRACE_HELP: &str = "\
Examples:
  mirror-ctl trace 10.0.0.9:40312                      until a minute is over, or Ctrl-C
  mirror-ctl trace 10.0.0.9:40312 --vni 10.0.0.100:80 --count 20
  mirror-ctl trace 10.0.0.9:40312 --json | jq 'select(.verdict == \"dropped\")'

The columns: seconds, which way (-> to and <- from the replica in a slot), flags, numbers (=> translated), payload, what became of
it, and the reasons that were counted. One trace or capture at a time.";

pub(super) const CAPTURE_HELP: &str = "\
Examples:
  mirror-ctl capture --flow 10.0.0.9:40312 -w flow.pcapng                    all sides, an interface for each
  mirror-ctl capture --flow 10.0.0.9:40312 --side replica:1 | tcpdump -n -r -
  mirror-ctl capture --flow 10.0.0.9:40312 --side client --count 100 -w client.pcapng

In Wireshark: frame.interface_name == \"replica:1\". What became of a packet is its comment. One trace or capture at a time.";

pub(super) const DIFF_HELP: &str = "\
Examples:
  mirror-ctl diff web                               for ten seconds
  mirror-ctl diff web --duration 60 --one-in 16     of sixteen flows one, where there is much traffic
  mirror-ctl diff web --json | jq '.mirrors[] | select(.rate > 0.01) | .instance'

Compared are TCP flows with mirrors, byte by byte, as far as both sides' bytes pass meanwhile. Of HTTP/1 answers the status lines are
shown too. One trace, capture or diff at a time.";

/// What `trace` and `capture` share.
#[derive(Debug, ClapArgs)]
pub struct Traced {
    /// The VNI's end of the flow, where the client talks to several VNIs or ports from its own.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub vni: Option<SocketAddr>,
    /// End after so many packets.
    #[arg(long, short, value_name = "N", value_parser = whole::<usize>, allow_hyphen_values = true)]
    pub count: Option<usize>,
    /// End after so many seconds, 3600 at most.
    #[arg(long, value_name = "SECONDS", default_value_t = DURATION_S, value_parser = trace_seconds)]
    pub duration: f64,
}

/// `trace`.
#[derive(Debug, ClapArgs)]
pub struct Trace {
    /// The client's end of the flow; of ICMP echo the identifier instead of the port.
    #[arg(value_name = "ADDRESS:PORT")]
    pub client: SocketAddr,
    /// The rest.
    #[command(flatten)]
    pub traced: Traced,
}

/// `capture`.
#[derive(Debug, ClapArgs)]
pub struct Capture {
    /// The client's end of the flow; of ICMP echo the identifier instead of the port.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub flow: SocketAddr,
    /// On which side: client, or replica:SLOT; again for more of them. All unless one is named.
    #[arg(long, value_name = "SIDE")]
    pub side: Vec<Side>,
    /// The file; - is standard output.
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    pub write: PathBuf,
    /// Bytes that are kept of a packet, 1 to 4096: whole ones of usual links.
    #[arg(long, short, value_name = "BYTES", default_value_t = TRACE_FRAME_MAX, value_parser = value_parser!(u32).range(1..=i64::from(TRACE_FRAME_MAX)))]
    pub snaplen: u32,
    /// The rest.
    #[command(flatten)]
    pub traced: Traced,
}

/// `diff`.
#[derive(Debug, ClapArgs)]
pub struct Diff {
    /// The VNI.
    pub vni: String,
    /// For so many seconds, 3600 at most.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0, value_parser = trace_seconds)]
    pub duration: f64,
    /// Of so many flows one: a power of two.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = power_of_two)]
    pub one_in: u16,
}

fn power_of_two(text: &str) -> Result<u16, String> {
    let number = text.parse::<u16>().ok().filter(|n| n.is_power_of_two());
    number.ok_or_else(|| "must be a power of two: 1, 2, 4 to 32768".to_owned())
}

/// How long a trace goes on.
fn trace_seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=DURATION_S_MAX).contains(&seconds) => Ok(seconds),
        _ => Err(format!("must be 0.1 to {DURATION_S_MAX} seconds")),
    }
}
