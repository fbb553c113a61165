//! Figures as a table and as JSON.

use std::{fs::File, io::BufWriter, path::Path};

use anyhow::{Context, Result};
use comfy_table::{Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::health::predict::metrics::{Figure, Figures};

/// What the two recalls are called, and how a lead's rows are.
pub(super) struct Names {
    pub(super) recall: [&'static str; 2],
    pub(super) lead: &'static str,
}

/// The figures by name, in order.
pub(super) fn named(figures: &Figures, names: &Names) -> Vec<(&'static str, Figure)> {
    vec![
        ("auc", figures.auc),
        ("ap", figures.ap),
        ("bss", figures.bss),
        ("ece", figures.ece),
        (names.recall[0], figures.recall[0]),
        (names.recall[1], figures.recall[1]),
        (names.lead, figures.lead_rows),
    ]
}

/// Prints figures side by side.
pub(super) fn print(columns: &[(&str, &Figures)], names: &Names) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let titles = columns.iter().map(|(title, _)| (*title).to_owned());
    table.set_header(std::iter::once("metric (90 % interval)".to_owned()).chain(titles));
    let of: Vec<_> = columns.iter().map(|(_, f)| named(f, names)).collect();
    for row in 0..of.first().map_or(0, Vec::len) {
        let cell = |figures: &Vec<(&str, Figure)>| {
            let figure = figures[row].1;
            format!(
                "{:.3}  ({:.3} to {:.3})",
                figure.value, figure.low, figure.high
            )
        };
        let cells = of.iter().map(cell);
        table.add_row(std::iter::once(of[0][row].0.to_owned()).chain(cells));
    }
    println!("{table}");
}

/// Writes JSON.
pub(super) fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let file = File::create(path).with_context(|| path.display().to_string())?;
    serde_json::to_writer_pretty(BufWriter::new(file), value)?;
    Ok(())
}

/// A bar for work whose length is known.
pub(super) fn bar(length: u64, what: &'static str) -> ProgressBar {
    let style = "{msg} [{bar:30}] {percent} %, {eta} left";
    let style =
        ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length)
        .with_style(style)
        .with_message(what)
}
