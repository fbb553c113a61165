//! `health eval`.

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::{
    Eval,
    report::{self, Names},
};
use crate::health::{
    predict::metrics::Figures,
    public::{self, Evaluation, Settings, data::Server},
};

const SECONDS_A_DAY: u32 = 86_400;
const NAMES: Names = Names {
    recall: ["recall_at_1", "recall_at_6"],
    lead: "lead_rows",
};

pub(super) fn run(args: &Eval) -> Result<()> {
    let mut servers = public::data::load(&args.data)?;
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
