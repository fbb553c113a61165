//! `health record` and `health simulate`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use futures_util::future::join_all;
use tokio::time::{MissedTickBehavior, interval};

use super::{Record, Simulate};
use crate::health::{
    Cause,
    collect::source::Source,
    learning::fate::{Fate, Seen},
    recording::{Moment, Recorder},
    sim::corpus,
};

/// `NAME=WHERE`.
pub(super) fn source(text: &str) -> Result<Source, String> {
    let (name, place) = text.split_once('=').ok_or("NAME=WHERE is needed")?;
    Ok(Source::new(name.to_owned(), place.parse()?))
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
        let mut sources = args.sources.clone();
        for _ in 0..args.count.unwrap_or(u64::MAX) {
            ticks.tick().await;
            let readings = join_all(sources.iter_mut().map(Source::read)).await;
            let time_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64;
            let named = sources.iter().zip(readings);
            let named = named.map(|(s, reading)| (s.name.clone(), reading.unwrap_or_default()));
            recorder.push(&Moment {
                time_ms,
                readings: named.collect(),
                ..Moment::default()
            })?;
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
        let named = named.map(|(n, life)| (format!("web-{}", n + 1), life));
        let failing = named.clone().filter(|(_, life)| life.failing[second]);
        let failed = Seen {
            fate: Fate::Failed,
            cause: Cause::None,
        };
        recorder.push(&Moment {
            time_ms: second as u64 * 1_000,
            readings: named.map(|(n, life)| (n, life.readings[second])).collect(),
            fates: failing.map(|(name, _)| (name, failed)).collect(),
        })?;
    }
    match lives[0].onsets.first() {
        Some(onset) => println!("web-1 begins to fail at {onset} s"),
        None => println!("nobody fails"),
    }
    Ok(())
}
