//! `health record` and `health simulate`.

use std::{
    net::SocketAddr,
    path::PathBuf,
    str::FromStr,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, anyhow};
use hyper::Uri;
use tokio::time::{MissedTickBehavior, interval};

use super::{Record, Simulate};
use crate::health::{
    collect::{Usage, cgroup, exporter, fetch::fetch},
    predict::signal::Reading,
    recording::{Moment, Recorder},
    sim::corpus,
};

/// An instance and where its signals are.
#[derive(Clone, Debug)]
pub(super) struct Source {
    name: String,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    Exporter(SocketAddr, Uri),
    Cgroup(PathBuf),
}

impl FromStr for Source {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, place) = text.split_once('=').context("NAME=WHERE is needed")?;
        let place = match place.strip_prefix("http://") {
            Some(rest) => {
                let (address, path) = match rest.find('/') {
                    Some(at) => rest.split_at(at),
                    None => (rest, "/metrics"),
                };
                let address = address.parse().with_context(|| {
                    format!("{address:?} is not ADDRESS:PORT (names are not looked up)")
                })?;
                Place::Exporter(address, path.parse()?)
            }
            None if place.starts_with('/') => Place::Cgroup(place.into()),
            None => return Err(anyhow!("{place:?} is neither http://... nor a folder")),
        };
        Ok(Self {
            name: name.to_owned(),
            place,
        })
    }
}

impl Source {
    /// What it tells now, and when that was; nothing if it does not answer.
    async fn usage(&self) -> Option<(Usage, Instant)> {
        let usage = match &self.place {
            Place::Exporter(address, path) => exporter::parse(&fetch(*address, path).await.ok()?),
            Place::Cgroup(folder) => cgroup::read(folder),
        };
        Some((usage, Instant::now()))
    }
}

pub(super) fn run(args: &Record) -> Result<()> {
    let (mut recorder, torn) = Recorder::open(&args.file)?;
    if torn > 0 {
        eprintln!(
            "{}: cut off {torn} bytes of a torn tail",
            args.file.display()
        );
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut ticks = interval(Duration::from_millis(args.every_ms.max(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut before: Vec<Option<(Usage, Instant)>> = vec![None; args.sources.len()];
        for _ in 0..args.count.unwrap_or(u64::MAX) {
            ticks.tick().await;
            let asked = args.sources.iter().map(Source::usage);
            let now = futures_util::future::join_all(asked).await;
            let time_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64;
            let readings = args.sources.iter().zip(&before).zip(&now);
            let readings = readings.map(|((source, before), now)| {
                let reading = match (before, now) {
                    (Some((before, then)), Some((usage, at))) => {
                        usage.since(before, at.duration_since(*then).as_secs_f64())
                    }
                    _ => Reading::default(),
                };
                (source.name.clone(), reading)
            });
            recorder.push(&Moment {
                time_ms,
                readings: readings.collect(),
            })?;
            before = now;
        }
        Ok(())
    })
}

pub(super) fn simulate(args: &Simulate) -> Result<()> {
    let lives = corpus::simulate(&corpus::Run {
        fault: corpus::example(args.family),
        seed: args.seed,
    });
    let (mut recorder, _) = Recorder::open(&args.file)?;
    for second in 0..corpus::SECONDS {
        let named = lives.iter().enumerate();
        recorder.push(&Moment {
            time_ms: second as u64 * 1_000,
            readings: named
                .map(|(n, life)| (format!("web-{}", n + 1), life.readings[second]))
                .collect(),
        })?;
    }
    match lives[0].onsets.first() {
        Some(onset) => println!("web-1 begins to fail at {onset} s"),
        None => println!("nobody fails"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_read() {
        let source: Source = "a=http://10.0.0.1:9100".parse().unwrap();
        assert!(matches!(source.place, Place::Exporter(_, path) if path == "/metrics"));
        let source: Source = "a=/sys/fs/cgroup/a".parse().unwrap();
        assert!(matches!(source.place, Place::Cgroup(_)));
        for wrong in [
            "a",
            "a=b",
            "a=http://host:9100/metrics",
            "a=http://10.0.0.1",
        ] {
            assert!(wrong.parse::<Source>().is_err(), "{wrong}");
        }
    }
}
