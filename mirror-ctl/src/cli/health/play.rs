//! `health replay` and `health explain`: a recording played to the engine again.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use anyhow::{Result, bail};
use serde_json::json;

use super::{Explain, Play, train};
use crate::health::{
    learning::fate::Seen,
    predict::{
        engine::{Fleet, Outlook},
        explain::Reason,
        policy::{Healths, Known, Policy},
    },
    recording::{Moment, Recording},
};

/// Seconds from the start, what is known then.
type Played<'a> = &'a mut dyn FnMut(f64, &Fleet, &Moment);

/// Plays a recording, moment by moment.
fn play(args: &Play, each: Played<'_>) -> Result<()> {
    let recording = Recording::load(&args.file)?;
    if recording.torn > 0 {
        eprintln!(
            "{}: {} bytes of a torn tail passed over",
            args.file.display(),
            recording.torn
        );
    }
    let model = args.model.as_deref().map(train::load).transpose()?;
    let mut fleet = Fleet::new(model.map(Arc::new));
    let start_ms = recording.moments.first().map_or(0, |moment| moment.time_ms);
    for moment in &recording.moments {
        let readings = moment.readings.iter();
        fleet.tick(readings.map(|(name, reading)| (name.as_str(), reading)));
        let at_s = moment.time_ms.saturating_sub(start_ms) as f64 / 1_000.0;
        each(at_s, &fleet, moment);
    }
    Ok(())
}

pub(super) fn replay(args: &Play) -> Result<()> {
    let policy = Policy::default();
    let mut healths = Healths::default();
    let mut before: BTreeMap<String, (bool, bool)> = BTreeMap::new();
    println!(
        "{:>8}  {:16} {:>5}  {:23}  what",
        "s", "instance", "score", "failing within 5/15/30/60 s"
    );
    let mut fared: BTreeMap<String, Seen> = BTreeMap::new();
    play(args, &mut |at_s, fleet, moment| {
        for (name, _) in &moment.readings {
            let now = moment.fates.iter().find(|(of, _)| of == name);
            let now = now.map_or(Seen::WELL, |(_, seen)| *seen);
            if fared.insert(name.clone(), now).unwrap_or_default() != now {
                println!("{at_s:8.1}  {name:16} {:5}  {:23}  {now}", "", "");
            }
        }
        let known: Vec<Known<'_>> = moment
            .readings
            .iter()
            .map(|(name, reading)| Known {
                name,
                capacity: 1.0,
                // A moment in which nothing was measured says nothing.
                outlook: (reading.present() != 0)
                    .then(|| fleet.outlook(name))
                    .flatten(),
                out: false,
            })
            .collect();
        for (decision, known) in healths.update(&policy, &known).into_iter().zip(&known) {
            let now = (decision.evacuate, decision.score < 0.8);
            let was = before
                .insert(decision.name.clone(), now)
                .unwrap_or_default();
            let what = match (was, now) {
                ((false, _), (true, _)) => "established flows move to their mirrors",
                ((true, _), (false, _)) => "returns, slowly",
                ((_, false), (false, true)) => "gets fewer new flows",
                ((_, true), (false, false)) => "well again",
                _ => continue,
            };
            let chances = known.outlook.and_then(|outlook| outlook.chances);
            let chances = chances.map_or_else(String::new, |chances| {
                chances.map(|p| format!("{:5.1}%", p * 100.0)).concat()
            });
            println!(
                "{at_s:8.1}  {:16} {:5.2}  {chances:23}  {what}",
                decision.name, decision.score
            );
        }
    })
}

pub(super) fn explain(args: &Explain, file: &Path) -> Result<()> {
    let mut found: Option<(f64, Vec<Reason>, Outlook)> = None;
    let recording = Play {
        file: file.to_owned(),
        model: args.model.clone(),
    };
    play(&recording, &mut |at_s, fleet, _| {
        let Some(outlook) = fleet.outlook(&args.instance) else {
            return;
        };
        let wanted = match args.at {
            Some(at) => at_s <= at,
            None => found
                .as_ref()
                .is_none_or(|(.., most)| outlook.risk() > most.risk()),
        };
        if wanted {
            found = Some((at_s, fleet.explain(&args.instance), outlook));
        }
    })?;
    let Some((at_s, reasons, outlook)) = found else {
        bail!("{} is not in the recording", args.instance);
    };
    if args.json {
        let value = json!({
            "instance": args.instance,
            "at_s": at_s,
            "score": outlook.score,
            "chances": outlook.chances,
            "layer_a_risk": outlook.baseline,
            "reasons": reasons,
        });
        println!("{value:#}");
        return Ok(());
    }
    println!(
        "{} at {at_s:.1} s: score {:.2}",
        args.instance, outlook.score
    );
    if let Some([p5, p15, p30, p60]) = outlook.chances {
        println!("fails within 5 s {p5:.3}, 15 s {p15:.3}, 30 s {p30:.3}, 60 s {p60:.3}");
    }
    println!("layer A's risk {:.3}\n", outlook.baseline);
    println!(
        "{:24} {:>6}  {:>8}  {:>8}",
        "signal", "risk", "own", "peers"
    );
    for reason in reasons.iter().take(8) {
        println!(
            "{:24} {:6.3}  {:+8.1}  {:+8.1}",
            reason.signal, reason.risk, reason.level, reason.peers
        );
    }
    Ok(())
}
