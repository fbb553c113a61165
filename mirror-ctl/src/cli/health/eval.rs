//! `health eval`.

use std::path::Path;

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::{
    Eval, chart, real,
    report::{self, Names},
    train,
};
use crate::health::{
    predict::{metrics::Figures, model::HORIZONS_S},
    public::{self, Evaluation, Settings, data::Server},
    sim::{
        corpus::{Part, runs},
        teach::{self, BUDGETS, Judgement},
    },
};

const SECONDS_A_DAY: u32 = 86_400;
const NAMES: Names = Names {
    recall: ["recall_at_1", "recall_at_6"],
    lead: "lead_rows",
};

const CORPUS_NAMES: Names = Names {
    recall: ["recall_at_0.1_per_hour", "recall_at_0.5_per_hour"],
    lead: "lead_s",
};

pub(super) fn run(args: &Eval) -> Result<()> {
    match (&args.data, &args.recordings, &args.model) {
        (Some(folder), _, _) => on_public_data(args, folder),
        (None, Some(folder), _) => real::run(args, folder),
        (None, None, Some(model)) => on_corpus(args, model),
        (None, None, None) => anyhow::bail!("one of --model and --data is needed"),
    }
}

fn on_corpus(args: &Eval, model: &Path) -> Result<()> {
    let model = train::load(model)?;
    let bar = report::bar(
        runs(Part::HeldOut, args.runs, args.seed).len() as u64,
        "evaluating",
    );
    let found = teach::evaluate(&model, args.runs, args.seed, || bar.inc(1));
    bar.finish_and_clear();
    println!(
        "held-out part: {:.0} instance-hours, {} failures of gradual faults; rows by P30, alarms by the fused risk\n",
        found.hours, found.events
    );
    let columns = [
        ("fused", &found.gradual),
        ("layer A alone", &found.baseline),
    ];
    report::print(&columns, &CORPUS_NAMES);
    println!();
    for family in &found.families {
        println!(
            "{:17} {:3} failures, {:3.0} % caught, median lead {:4.1} s",
            family.family,
            family.events,
            family.caught * 100.0,
            family.lead_s
        );
    }
    for (seconds, share) in &found.crashes {
        println!(
            "crashes detected within {seconds} s: {:.0} %",
            share * 100.0
        );
    }
    if let Some(path) = &args.svg {
        chart::calibration(path, &found.curve)?;
    }
    if let Some(path) = &args.json {
        report::write(path, &corpus_json(&found))?;
    }
    Ok(())
}

fn corpus_json(found: &Judgement) -> Value {
    let metrics = |figures: &Figures| -> Map<String, Value> {
        let named = report::named(figures, &CORPUS_NAMES).into_iter();
        named
            .map(|(name, figure)| (name.to_owned(), json!(figure)))
            .collect()
    };
    let by_horizon = HORIZONS_S.iter().zip(&found.horizons);
    json!({
        "instance_hours": found.hours,
        "events": found.events,
        "false_alarms_per_instance_hour": BUDGETS,
        "metrics": metrics(&found.gradual),
        "layer_a": metrics(&found.baseline),
        "horizons": by_horizon
            .map(|(s, f)| json!({"s": s, "auc": f.auc, "ap": f.ap, "bss": f.bss, "ece": f.ece}))
            .collect::<Vec<_>>(),
        "families": found.families,
        "crashes_detected_within_s": found.crashes,
        "calibration": found.curve,
    })
}

fn on_public_data(args: &Eval, folder: &Path) -> Result<()> {
    let mut servers = public::data::load(folder)?;
    servers.iter_mut().for_each(|server| server.cut(args.first));
    let row_s = args.row_s.unwrap_or_else(|| usual_row_s(&servers)).max(1);
    let settings = Settings {
        task: args.task,
        horizon: args.horizon,
        split: args.split,
        day: (SECONDS_A_DAY / row_s).max(1) as usize,
    };
    let bar = report::bar(1_000, "evaluating");
    let found = public::evaluate(servers, &settings, |part| {
        bar.set_position((part * 1_000.0) as u64);
    })?;
    bar.finish_and_clear();
    println!(
        "{} servers, {} rows, {} failures; {row_s} s a row; recall at 1 and at 6 false alarms a day\n",
        found.servers, found.rows, found.events
    );
    let columns = [
        ("fused", &found.figures),
        ("layer A alone", &found.baseline),
    ];
    report::print(&columns, &NAMES);
    if let Some(path) = &args.json {
        report::write(path, &as_json(args, row_s, &found))?;
    }
    Ok(())
}

/// The published sets do not say how long a row is; it is known of them.
fn usual_row_s(servers: &[Server]) -> u32 {
    match servers.iter().all(|server| server.name.starts_with("omi-")) {
        true => 300,
        false => 60,
    }
}

fn as_json(args: &Eval, row_s: u32, found: &Evaluation) -> Value {
    let metrics = |figures: &Figures| -> Map<String, Value> {
        let named = report::named(figures, &NAMES).into_iter();
        named
            .map(|(name, figure)| (name.to_owned(), json!(figure)))
            .collect()
    };
    json!({
        "task": args.task,
        "split": args.split,
        "horizon_rows": args.horizon,
        "row_s": row_s,
        "first": args.first,
        "servers": found.servers,
        "rows": found.rows,
        "events": found.events,
        "weights": found.weights,
        "metrics": metrics(&found.figures),
        "layer_a": metrics(&found.baseline),
    })
}
