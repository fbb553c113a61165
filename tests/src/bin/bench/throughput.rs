//! Bytes per second through every way, and what each costs in processor time.

use std::fs;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use testbed::agent::Agent;
use testbed::clock::wait_until;
use testbed::netns::Namespace;

use crate::echo::{self, Use};
use crate::report::{Goal, Results, Row};
use crate::stats::Spread;
use crate::ways::{Ours, Theirs, Way};
use crate::{Effort, machine};

const METHOD: &str = "payload over all streams; the processor time is that of client, servers and proxy, with what the \
    kernel does for packets meanwhile; ratio: to a direct veth in the same round";
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const STREAMS: [usize; 2] = [1, 64];
/// Bytes of a round, over all streams, for each packet of the other benches.
const PER_PACKET: u64 = 320;
/// Of the frequency in which the kernel counts processes' times, which is fixed (`USER_HZ`).
const TICK: Duration = Duration::from_millis(10);
const UNMIRRORED: &str = "VNI, unmirrored";
const MIRRORED: &str = "VNI, 1 mirror, semi-sync";

/// One way's rounds in one situation.
#[derive(Default)]
struct Measured {
    gbit_s: Vec<f64>,
    processor: Duration,
    bytes: u64,
}

pub(crate) fn run(effort: &Effort) -> Result<Results> {
    let mut results = Results::new("throughput", METHOD);
    machine::use_others()?;
    let theirs = Theirs::set_up()?;
    let ours = Ours::set_up()?;
    let mut agent = Agent::start(&ours.topology, &ours.config)?;
    machine::pin()?;
    results.missing.clone_from(&theirs.missing);
    let every: Vec<&Way> = theirs.ways.iter().chain(&ours.ways).collect();
    let mut pids = theirs.pids();
    pids.extend(ours.pids());
    for streams in STREAMS {
        let bytes = u64::from(effort.packets) * PER_PACKET / streams as u64;
        for what in [Use::Upload(bytes), Use::Download(bytes)] {
            let situation = situation(what, streams);
            // What others are compared with is always measured.
            let wanted = |place: usize, way: &Way| {
                let base = place == 0 || way.name == UNMIRRORED;
                base || effort.wants(&format!("{situation}, {}", way.name))
            };
            if !every
                .iter()
                .any(|way| effort.wants(&format!("{situation}, {}", way.name)))
            {
                continue;
            }
            let ways = every.iter().copied().enumerate();
            let ways = ways.filter(|(place, way)| wanted(*place, way));
            let ways: Vec<&Way> = ways.map(|(_, way)| way).collect();
            effort.progress(&situation);
            let mut all: Vec<Measured> = ways.iter().map(|_| Measured::default()).collect();
            // One round more, which is not kept.
            for round in 0..=effort.rounds.div_ceil(3) {
                for (way, measured) in ways.iter().zip(&mut all) {
                    let client = match way.ours {
                        true => &ours.topology.client,
                        false => &theirs.topology.client,
                    };
                    agent.check_alive()?;
                    let connections = connect(client, way, what, streams)?;
                    let before = processor_time(&pids)?;
                    let elapsed = transfer(connections, what).context(way.name)?;
                    let spent = processor_time(&pids)?.saturating_sub(before);
                    if round > 0 {
                        let total = bytes * streams as u64;
                        let gbit = total as f64 * 8.0 / 1e9;
                        measured.gbit_s.push(gbit / elapsed.as_secs_f64());
                        measured.processor += spent;
                        measured.bytes += total;
                    }
                }
            }
            results.rows.extend(rows(&ways, &all, what, streams));
        }
    }
    Ok(results)
}

/// What is transferred.
fn situation(what: Use, streams: usize) -> String {
    let direction = match what {
        Use::Upload(_) => "up",
        _ => "down",
    };
    format!("{streams} stream(s) {direction}")
}

fn rows(ways: &[&Way], all: &[Measured], what: Use, streams: usize) -> Vec<Row> {
    let situation = situation(what, streams);
    let ratio = |measured: &Measured, base: &Measured| {
        let pairs = measured.gbit_s.iter().copied();
        Spread::of_ratios(pairs.zip(base.gbit_s.iter().copied()))
    };
    let direct = &all[0];
    let unmirrored = ways.iter().position(|way| way.name == UNMIRRORED);
    let row = |(place, (way, measured)): (usize, (&&Way, &Measured))| {
        let per_byte = measured.processor.as_secs_f64() * 1e9 / measured.bytes.max(1) as f64;
        let goal = unmirrored
            .filter(|_| way.name == MIRRORED && streams == 1)
            .map(|base| {
                let kept = ratio(measured, &all[base]).median;
                Goal::at_least(kept, 0.8, "x unmirrored")
            });
        Row {
            what: format!("{situation}, {}", way.name),
            panel: situation.clone(),
            against: (place > 0).then(|| "direct veth".into()),
            ratio: (place > 0).then(|| ratio(measured, direct)),
            value: Spread::of(&measured.gbit_s),
            unit: "Gbit/s".into(),
            goal,
            note: format!("{per_byte:.2} ns of processor a byte"),
        }
    };
    ways.iter().zip(all).enumerate().map(row).collect()
}

fn connect(client: &Namespace, way: &Way, what: Use, streams: usize) -> Result<Vec<TcpStream>> {
    let connect = |_| {
        // A server or proxy that has just started may not listen yet.
        wait_until(way.name, CONNECT_LIMIT, || {
            Ok(echo::connect(way.server, what).ok())
        })
    };
    client.run(|| (0..streams).map(connect).collect())?
}

/// Carries out all streams at once.
fn transfer(connections: Vec<TcpStream>, what: Use) -> Result<Duration> {
    let start = Instant::now();
    let streams = connections
        .into_iter()
        .map(|mut stream| thread::spawn(move || echo::transfer(&mut stream, what)));
    for stream in streams.collect::<Vec<_>>() {
        stream
            .join()
            .map_err(|_| anyhow!("a stream's thread panicked"))??;
    }
    Ok(start.elapsed())
}

/// Of this process and others so far.
fn processor_time(pids: &[u32]) -> Result<Duration> {
    let own = getrusage(UsageWho::RUSAGE_SELF).context("own usage")?;
    let own = own.user_time() + own.system_time();
    let mut total = Duration::from_micros(own.num_microseconds().unsigned_abs());
    for &pid in pids {
        total += spent(pid)?;
    }
    Ok(total)
}

/// Of a process so far.
pub(crate) fn spent(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).context(path)?;
    Ok(TICK * ticks(&stat).context("a process's times")?)
}

/// User and system time from `/proc/PID/stat`: fields 14 and 15, of which the second is a name in parentheses.
fn ticks(stat: &str) -> Option<u32> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let (user, system): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_found_behind_any_name() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 0 1 2 3 4 50 60 7 8";
        assert_eq!(ticks(stat), Some(110));
    }
}
