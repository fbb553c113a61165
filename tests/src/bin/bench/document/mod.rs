//! `docs/benchmarks.md`: written from the last results of every bench, which are kept beside it as JSON, and never by hand.

mod plot;
mod prose;

use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::Name;
use crate::machine::Machine;
use crate::report::{COLUMNS, Results, Row, number};

const RESULTS: &str = "benchmarks.json";
const DOCUMENT: &str = "benchmarks.md";
/// Of plots.
const PLOTS: &str = "benchmarks";

/// The last results of every bench.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) benches: Vec<Section>,
}

/// One bench's last run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Section {
    pub(crate) machine: Machine,
    pub(crate) version: String,
    /// Of the sources, as git names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) revision: Option<String>,
    pub(crate) date: String,
    pub(crate) command: String,
    /// How long it took.
    pub(crate) seconds: u64,
    pub(crate) results: Results,
}

/// Puts a bench's results in the place of its last ones and writes the document anew. `dir` is the folder of documents.
pub(crate) fn keep(dir: &Path, section: Section) -> Result<()> {
    let mut record = read(dir)?;
    let name = section.results.bench.clone();
    let last = (record.benches.iter_mut()).find(|other| other.results.bench == name);
    match last {
        Some(last) => *last = section,
        None => record.benches.push(section),
    }
    let text = serde_json::to_string_pretty(&record).context("results")?;
    write(dir, Path::new(RESULTS), &(text + "\n"))?;
    render(dir)
}

/// Writes the document and its plots from the results that are there.
pub(crate) fn render(dir: &Path) -> Result<()> {
    for (path, text) in files(&read(dir)?)? {
        write(dir, &path, &text)?;
    }
    Ok(())
}

/// The last results; none where there is no file.
fn read(dir: &Path) -> Result<Record> {
    let path = dir.join(RESULTS);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Record::default()),
        text => text.with_context(|| format!("read {}", path.display()))?,
    };
    serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))
}

/// Writes a file that belongs to whom the folder belongs to, whoever measured.
fn write(dir: &Path, inside: &Path, text: &str) -> Result<()> {
    let path = dir.join(inside);
    let context = || format!("write {}", path.display());
    let owner = fs::metadata(dir).with_context(context)?;
    let owner = (Some(owner.uid()), Some(owner.gid()));
    let folder = path.parent().with_context(context)?;
    if !folder.is_dir() {
        fs::create_dir_all(folder).with_context(context)?;
        chown(folder, owner.0, owner.1).with_context(context)?;
    }
    fs::write(&path, text).with_context(context)?;
    chown(&path, owner.0, owner.1).with_context(context)
}

/// All files that follow from the results, by their paths in the folder of documents.
fn files(record: &Record) -> Result<Vec<(PathBuf, String)>> {
    let mut text = prose::beginning();
    let mut files = Vec::new();
    text += &summary(record);
    for name in Name::ALL {
        let label = name.label();
        let section = record
            .benches
            .iter()
            .find(|section| section.results.bench == label);
        write!(text, "\n## {label}\n\n{}\n", prose::about(*name))?;
        let Some(section) = section else {
            text += "\nNot measured yet.\n";
            continue;
        };
        text += &section.text();
        if let Some(plot) = plot::bars(&section.results)? {
            let path = PathBuf::from(format!("{PLOTS}/{label}.svg"));
            write!(text, "\n![{label}]({})\n", path.display())?;
            files.push((path, plot));
        }
        text += &table(&section.results.rows);
        for missing in &section.results.missing {
            write!(text, "\nNot measured: {missing}\n")?;
        }
    }
    text += prose::END;
    files.push((DOCUMENT.into(), text));
    Ok(files)
}

/// How the goals stand, bench by bench.
fn summary(record: &Record) -> String {
    let mut text =
        String::from("\n## Goals\n\n| bench | goals | reached | missed |\n|---|---:|---:|---|\n");
    for name in Name::ALL {
        let label = name.label();
        let Some(section) = record
            .benches
            .iter()
            .find(|section| section.results.bench == label)
        else {
            continue;
        };
        let goals = section.goals();
        let missed: Vec<&str> = goals
            .iter()
            .filter(|(_, met)| !met)
            .map(|(row, _)| row.what.as_str())
            .collect();
        let (all, reached) = (goals.len(), goals.len() - missed.len());
        text += &format!(
            "| [{label}](#{label}) | {all} | {reached} | {} |\n",
            missed.join("; ")
        );
    }
    text
}

impl Section {
    /// Rows that have a goal, with whether it was reached.
    fn goals(&self) -> Vec<(&Row, bool)> {
        let goal = |row: &Row| row.goal.as_ref().map(|goal| goal.met);
        let rows = self.results.rows.iter();
        rows.filter_map(|row| Some((row, goal(row)?))).collect()
    }

    /// What the figures are of, and what became of the goals.
    fn text(&self) -> String {
        let Machine { kernel, cpu, cpus } = &self.machine;
        let [before, after] = self.results.load;
        let revision = self.revision.as_deref().unwrap_or("an unknown revision");
        let mut text = format!(
            "\nMeasured: {}.\n\n    {}\n\n{}, version {} ({revision}), Linux {kernel}, {cpus} x {cpu}; {} s; load average \
             {before:.1} before, {after:.1} after.",
            self.results.method, self.command, self.date, self.version, self.seconds
        );
        if before.max(after) > f64::from(u16::try_from(*cpus).unwrap_or(u16::MAX)) / 2.0 {
            text += " **Other work ran meanwhile: only ratios are worth a look.**";
        }
        if !self.results.peers.is_empty() {
            text += &format!(" Peers: {}.", self.results.peers.join("; "));
        }
        text.push('\n');
        let goals = self.goals();
        let missed = goals.iter().filter(|(_, met)| !met).map(|(row, _)| row);
        let missed: Vec<String> = missed.map(|row| said(row)).collect();
        match (goals.len(), missed.len()) {
            (0, _) => text += "\nNo goal was set.\n",
            (all, 0) => text += &format!("\nAll {all} goals were reached.\n"),
            (all, _) => {
                text += &format!("\nOf {all} goals {} were **missed**:\n\n", missed.len());
                for row in missed {
                    text += &format!("* {row}\n");
                }
            }
        }
        text
    }
}

/// A row with a goal in words.
fn said(row: &Row) -> String {
    let goal = row.goal.as_ref().map_or("", |goal| goal.text.as_str());
    let value = format!("{} {}", number(row.value.median), row.unit);
    let ratio = match (&row.ratio, &row.against) {
        (Some(ratio), Some(against)) => format!(", {} x {against}", number(ratio.median)),
        _ => String::new(),
    };
    let note = match row.note.as_str() {
        "" => String::new(),
        note => format!("; {note}"),
    };
    format!("{}: {value}{ratio}{note} (goal {goal})", row.what)
}

fn table(rows: &[Row]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut text = format!("\n| {} |\n", COLUMNS.join(" | "));
    text += "|---|---:|---|---:|---:|---:|---:|---|---|---|\n";
    for row in rows {
        text += &line(&row.cells().map(|cell| cell.replace('|', "\\|")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Goal;
    use crate::stats::Spread;

    fn docs() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
    }

    #[test]
    fn the_document_is_what_its_results_say() {
        for (path, text) in files(&read(&docs()).unwrap()).unwrap() {
            let kept = fs::read_to_string(docs().join(&path)).unwrap_or_default();
            assert!(
                kept == text,
                "docs/{} is not what docs/{RESULTS} says: `cargo xtask bench --render` writes it",
                path.display()
            );
        }
    }

    fn section(bench: &str, median: f64) -> Section {
        let mut results = Results::new("steering", "by hand");
        results.bench = bench.to_owned().into();
        results.rows.push(Row {
            what: "a | b".into(),
            value: Spread::of(&[median]),
            unit: "ns".into(),
            goal: Some(Goal::at_most(median, 60.0, "ns")),
            ..Row::default()
        });
        Section {
            machine: Machine::detect(),
            version: "1".into(),
            revision: None,
            date: "2026-11-29".into(),
            command: "cargo xtask bench".into(),
            seconds: 1,
            results,
        }
    }

    #[test]
    fn one_bench_replaces_its_own_section_only_and_a_missed_goal_is_said() {
        let dir = tempfile::tempdir().unwrap();
        for (bench, median) in [("steering", 50.0), ("scale", 51.0), ("steering", 70.0)] {
            keep(dir.path(), section(bench, median)).unwrap();
        }
        let text = fs::read_to_string(dir.path().join(DOCUMENT)).unwrap();
        assert!(text.contains("* a | b: 70.00 ns (goal <= 60 ns)"), "{text}");
        assert!(text.contains("All 1 goals were reached."), "{text}");
        assert!(text.contains("a \\| b"), "{text}");
        assert!(!text.contains("50.00"), "{text}");
        assert!(dir.path().join("benchmarks/scale.svg").exists());
    }
}
