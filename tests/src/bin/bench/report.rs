//! Results, as a table for people and as JSON.

use std::borrow::Cow;

use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

use crate::stats::Spread;

/// One bench's results.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) bench: Cow<'static, str>,
    /// What the figures are of, and how they came about.
    pub(crate) method: Cow<'static, str>,
    pub(crate) rows: Vec<Row>,
    /// Peers that are not in the results, with why.
    pub(crate) missing: Vec<String>,
    /// Versions of the peers that are.
    #[serde(default)]
    pub(crate) peers: Vec<String>,
    /// The machine's load averages before and after.
    pub(crate) load: [f64; 2],
}

/// One line.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) what: String,
    /// What is drawn in one frame, on one scale, with the rows of the same; by default those of the same unit.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) panel: String,
    /// Against what the ratio is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) against: Option<String>,
    /// Of each measurement to the one of `against` in the same round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ratio: Option<Spread>,
    pub(crate) value: Spread,
    pub(crate) unit: Cow<'static, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) goal: Option<Goal>,
    /// What else is to be known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) note: String,
}

/// What a row is to reach.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Goal {
    pub(crate) text: String,
    pub(crate) met: bool,
}

impl Goal {
    pub(crate) fn at_most(value: f64, limit: f64, unit: &str) -> Self {
        Self {
            text: format!("<= {limit} {unit}"),
            met: value <= limit,
        }
    }

    pub(crate) fn at_least(value: f64, limit: f64, unit: &str) -> Self {
        Self {
            text: format!(">= {limit} {unit}"),
            met: value >= limit,
        }
    }
}

impl Results {
    pub(crate) fn new(bench: &'static str, method: &'static str) -> Self {
        Self {
            bench: bench.into(),
            method: method.into(),
            ..Self::default()
        }
    }

    /// For people: ratios first.
    pub(crate) fn print(&self) {
        println!("\n{}: {}", self.bench, self.method);
        let [before, after] = self.load;
        println!("load average {before:.1} before, {after:.1} after\n");
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(COLUMNS);
        for row in &self.rows {
            table.add_row(row.cells());
        }
        for column in [1, 3, 4, 5, 6] {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        println!("{table}");
        for missing in &self.missing {
            println!("not measured: {missing}");
        }
    }
}

/// Headings of [`Row::cells`].
pub(crate) const COLUMNS: [&str; 10] = [
    "what", "ratio", "to", "median", "min", "IQR", "max", "unit", "goal", "note",
];

impl Row {
    /// A panel that is no panel.
    pub(crate) const NOT_DRAWN: &str = "-";

    pub(crate) fn cells(&self) -> [String; 10] {
        let ratio = self.ratio.map(|ratio| format!("{:.2}", ratio.median));
        let goal = self.goal.as_ref().map(|goal| {
            let met = if goal.met { "met" } else { "MISSED" };
            format!("{} {met}", goal.text)
        });
        let value = &self.value;
        [
            self.what.clone(),
            ratio.unwrap_or_default(),
            self.against.clone().unwrap_or_default(),
            number(value.median),
            number(value.min),
            number(value.interquartile_range()),
            number(value.max),
            self.unit.clone().into_owned(),
            goal.unwrap_or_default(),
            self.note.clone(),
        ]
    }
}

/// With as many digits as it is worth.
pub(crate) fn number(value: f64) -> String {
    let decimals = match value.abs() {
        1000.0.. => 0,
        100.0.. => 1,
        _ => 2,
    };
    format!("{value:.decimals$}")
}
