//! `health train`.

use std::{fs, path::Path};

use anyhow::{Context, Result};

use super::{Train, report};
use crate::health::{
    predict::{
        model::Model,
        model_file::{self, FILE_BYTES_MAX},
    },
    sim::teach::{Effort, train},
};

pub(super) fn run(args: &Train) -> Result<()> {
    let effort = Effort {
        runs: args.runs,
        trees: args.trees,
        seed: args.seed,
    };
    let bar = report::bar(effort.steps(), "training");
    let model = train(&effort, || bar.inc(1))?;
    bar.finish_and_clear();
    let file = model_file::encode(&model)?;
    replace(&args.model, &file)?;
    report::write(&args.model.with_extension("json"), &model.card)?;
    let card = &model.card;
    println!("{}: {} bytes", args.model.display(), file.len());
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
