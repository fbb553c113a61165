//! `health eval --recordings`: a model on recordings of real faults.

use std::{path::Path, sync::Arc};

use anyhow::Result;
use serde_json::json;

use super::{
    Eval, chart,
    report::{self, Names},
    train,
};
use crate::health::truth::{
    judge::{self, Judgement},
    store,
};

const NAMES: Names = Names {
    recall: ["recall_at_0.1_per_hour", "recall_at_0.5_per_hour"],
    lead: "lead_s",
};

pub(super) fn run(args: &Eval, folder: &Path) -> Result<()> {
    let recordings = store::load(folder)?;
    let model = args.model.as_deref().map(train::load).transpose()?;
    let found = judge::evaluate(&recordings, model.map(Arc::new).as_ref(), args.seed);
    print(&found);
    if let Some(path) = &args.svg {
        let [fused, alone] = &found.trades;
        chart::trade(path, &[("fused", fused), ("layer A alone", alone)])?;
    }
    if let Some(path) = &args.json {
        let files: Vec<&str> = recordings.iter().map(|r| r.name.as_str()).collect();
        report::write(path, &json!({"files": files, "found": found}))?;
    }
    Ok(())
}

fn print(found: &Judgement) {
    println!(
        "{} recordings, {:.1} instance-hours, {} failures of gradual faults; {} failures that no fault is the reason of",
        found.recordings, found.instance_hours, found.failures, found.unexplained
    );
    println!("\nalarms are right if the instance fails within 120 s:");
    let (fused, alone) = (&found.fused, &found.layer_a);
    let columns = [
        ("fused", &fused.within_120_s),
        ("layer A alone", &alone.within_120_s),
    ];
    report::print(&columns, &NAMES);
    println!("\nor if a fault grows by which it fails in the end:");
    let columns = [
        ("fused", &fused.while_growing),
        ("layer A alone", &alone.while_growing),
    ];
    report::print(&columns, &NAMES);
    if let Some(p30) = &found.p30 {
        println!(
            "\nP30 by rows: AUC {:.3}, AP {:.3}",
            p30.auc.value, p30.ap.value
        );
    }
    println!();
    for family in &found.families {
        println!(
            "{:17} {:2} faults, {:2} failures, {:3.0} % caught, median lead {:4.1} s",
            family.family,
            family.episodes,
            family.failures,
            family.caught * 100.0,
            family.lead_s
        );
    }
    let abrupt = &found.abrupt;
    let seconds = |s: Option<usize>| s.map_or("never".to_owned(), |s| format!("{s} s"));
    println!(
        "abrupt failures: {}, {:.0} % detected within half a minute, p50 {}, p95 {}",
        abrupt.failures,
        abrupt.detected * 100.0,
        seconds(abrupt.p50_s),
        seconds(abrupt.p95_s)
    );
}
