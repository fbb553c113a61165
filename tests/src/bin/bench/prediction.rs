//! What the Health Prediction Engine costs a tick, by `mirror-ctl health bench`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use testbed::agent;

use crate::Effort;
use crate::report::{Goal, Results, Row};
use crate::stats::Spread;

const METHOD: &str = "processor time of one thread for a tick, median of each run of `mirror-ctl health bench`, runs in turns";
/// Runs of each family that the model is trained on; it has as many trees as one of all.
const TRAINED_RUNS: &str = "8";

/// What is measured: instances, ticks of a run, whether with a model, what a tick may take in ms and an instance in µs.
struct Case {
    what: &'static str,
    instances: u32,
    ticks: u32,
    modelled: bool,
    limits: Option<(f64, f64)>,
}

const CASES: [Case; 3] = [
    Case {
        what: "1000 instances, features and a model",
        instances: 1_000,
        ticks: 100,
        modelled: true,
        limits: Some((10.0, 7.0)),
    },
    Case {
        what: "1000 instances, layer A alone",
        instances: 1_000,
        ticks: 100,
        modelled: false,
        limits: None,
    },
    Case {
        what: "10000 instances, features and a model",
        instances: 10_000,
        ticks: 40,
        modelled: true,
        limits: Some((100.0, 10.0)),
    },
];

/// `health bench --json`
#[derive(Deserialize)]
struct Cost {
    tick_ms: Percentiles,
}

#[derive(Deserialize)]
struct Percentiles {
    median: f64,
}

pub(crate) fn run(effort: &Effort) -> Result<Results> {
    let dir = tempfile::tempdir()?;
    let model = dir.path().join("bench.model");
    effort.progress("training a model");
    health(&["train", &text(&model), "--runs", TRAINED_RUNS])?;
    let cases: Vec<&Case> = CASES.iter().filter(|c| effort.wants(c.what)).collect();
    let mut samples = vec![Vec::new(); cases.len()];
    for round in 0..=effort.rounds {
        effort.progress(&format!("round {round} of {}", effort.rounds));
        for (case, samples) in cases.iter().zip(&mut samples) {
            let cost = measure(case, &model, dir.path())?;
            // One round more, which is not kept.
            if round > 0 {
                samples.push(cost);
            }
        }
    }
    let mut results = Results::new("prediction", METHOD);
    for (case, samples) in cases.iter().zip(&samples) {
        let (tick_ms, us) = case.limits.unzip();
        let what = format!("a tick of {}", case.what);
        results.rows.push(row(what, samples, "ms", tick_ms));
        let per_instance: Vec<f64> = samples
            .iter()
            .map(|ms| ms * 1e3 / f64::from(case.instances))
            .collect();
        let what = format!("an instance of {}", case.what);
        results.rows.push(row(what, &per_instance, "µs", us));
    }
    Ok(results)
}

fn row(what: String, samples: &[f64], unit: &'static str, limit: Option<f64>) -> Row {
    let value = Spread::of(samples);
    Row {
        what,
        value,
        unit: unit.into(),
        goal: limit.map(|limit| Goal::at_most(value.median, limit, unit)),
        ..Row::default()
    }
}

/// The median tick of a run, ms.
fn measure(case: &Case, model: &Path, dir: &Path) -> Result<f64> {
    let json = dir.join("cost.json");
    let (instances, ticks) = (case.instances.to_string(), case.ticks.to_string());
    let (json_text, model) = (text(&json), text(model));
    let mut arguments = vec!["bench", "--instances", &instances, "--ticks", &ticks];
    arguments.extend(["--json", &json_text]);
    if case.modelled {
        arguments.extend(["--model", &model]);
    }
    health(&arguments)?;
    let cost: Cost = serde_json::from_str(&std::fs::read_to_string(&json)?)?;
    Ok(cost.tick_ms.median)
}

fn health(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(agent::program()?);
    command.arg("health").args(arguments);
    let output = command.output().context("mirror-ctl health")?;
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
