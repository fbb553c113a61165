//! `health train`.

use std::{fs, path::Path};

use anyhow::{Context, Result};

use super::{Train, chart, recordings, report};
use crate::health::{
    learning::{
        lessons::{self, Effort, Parts},
        recorded,
    },
    predict::{
        model::{HORIZONS_S, Model},
        model_file::{self, FILE_BYTES_MAX},
    },
    sim::teach,
};

pub(super) fn run(args: &Train) -> Result<()> {
    let effort = Effort {
        runs: args.runs,
        trees: args.trees,
        seed: args.seed,
    };
    let recorded = recordings::load(&args.recordings)?;
    let is_recorded = !args.recordings.is_empty();
    let is_simulated = !is_recorded || args.with_simulated;
    let lives = if is_simulated {
        teach::lives(&effort)
    } else {
        0
    };
    let steps = lives + recorded.len() + effort.trees * HORIZONS_S.len();
    let bar = report::bar(steps as u64, "training");
    let mut parts = Parts::default();
    let mut corpus = Vec::new();
    if is_simulated {
        parts = teach::parts(&effort, || bar.inc(1));
        corpus.push(teach::corpus(&effort));
    }
    if is_recorded {
        let (taught, found) = recorded::parts(&recorded, !is_simulated, || bar.inc(1))?;
        parts.extend(taught);
        let of = format!(
            "{:.1} instance-hours with {} failures",
            found.hours(),
            found.failures
        );
        corpus.push(format!("recorded, {of}"));
    }
    let model = lessons::train(&parts, &effort, corpus.join("; "), || bar.inc(1))?;
    bar.finish_and_clear();
    let file = model_file::encode(&model)?;
    replace(&args.model, &file)?;
    report::write(&args.model.with_extension("json"), &model.card)?;
    chart::calibration(&args.model.with_extension("svg"), &model.card.calibration)?;
    let card = &model.card;
    println!(
        "{}: {} bytes; {}",
        args.model.display(),
        file.len(),
        card.corpus
    );
    println!(
        "trained on {} rows, data {}; positives",
        card.rows, card.data_hash
    );
    println!("by horizon: {:?}; most used features:", card.positives);
    for (name, share) in &card.most_used {
        println!("  {:4.1} %  {name}", share * 100.0);
    }
    Ok(())
}

/// A reader sees the old model or the new one, never half of one.
fn replace(path: &Path, file: &[u8]) -> Result<()> {
    let temporary = path.with_extension("new");
    fs::write(&temporary, file).with_context(|| temporary.display().to_string())?;
    fs::rename(&temporary, path).with_context(|| path.display().to_string())
}

/// Reads a model.
pub(super) fn load(path: &Path) -> Result<Model> {
    let what = || path.display().to_string();
    let length = fs::metadata(path).with_context(what)?.len();
    if length > FILE_BYTES_MAX as u64 {
        return Err(model_file::ModelError::TooLarge(length)).with_context(what);
    }
    let file = fs::read(path).with_context(what)?;
    model_file::decode(&file).with_context(what)
}
