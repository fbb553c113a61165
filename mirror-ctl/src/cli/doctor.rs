//! `doctor`: looks, repairs if it is told to, and looks again.

use std::path::Path;

use anyhow::Result;

use super::{
    Ended, apply,
    args::Doctor,
    ask::{Asker, small_runtime},
    look::{Look, Rows},
    run::is_not_running,
};
use crate::{
    DEFAULT_PIN_DIR,
    config::Config,
    doctor::{Done, Report, Severity, judge, look},
};

/// It found something.
const FINDINGS: u8 = 1;
/// It could not look.
const BLIND: u8 = 2;

pub(super) fn run(asker: &Asker<'_>, doctor: &Doctor) -> Result<()> {
    let config = match &doctor.config {
        Some(file) => Some(Config::load(file)?),
        None => match apply::running(asker) {
            Ok(config) => Some(config),
            Err(error) if is_not_running(&error) => None,
            Err(error) => return Err(blind(error)),
        },
    };
    let report = small_runtime()?.block_on(examine(asker.socket, config.as_ref(), doctor));
    let report = report.map_err(blind)?;
    asker.print(&report, table)?;
    match report.is_well() {
        true => Ok(()),
        false => Err(ended(FINDINGS, None)),
    }
}

async fn examine(socket: &Path, config: Option<&Config>, doctor: &Doctor) -> Result<Report> {
    let (socket, pin_dir) = match config {
        // A file names its own agent's socket.
        Some(config) if doctor.config.is_some() => (&*config.agent.socket, &*config.agent.pin_dir),
        Some(config) => (socket, &*config.agent.pin_dir),
        None => (
            socket,
            doctor
                .pin_dir
                .as_deref()
                .unwrap_or(Path::new(DEFAULT_PIN_DIR)),
        ),
    };
    let mut findings = judge(&look(config, socket, pin_dir).await?);
    let mut repairs = Vec::new();
    if doctor.fix {
        for repair in findings
            .iter()
            .filter_map(|finding| finding.repair.as_ref())
        {
            let command = repair.command();
            if repairs.iter().any(|done: &Done| done.command == command) {
                continue;
            }
            let error = repair.run().await.err().map(|error| format!("{error:#}"));
            repairs.push(Done { command, error });
        }
        findings = judge(&look(config, socket, pin_dir).await?);
    }
    Ok(Report::new(findings, repairs))
}

fn blind(error: anyhow::Error) -> anyhow::Error {
    ended(BLIND, Some(format!("cannot look: {error:#}")))
}

fn ended(code: u8, said: Option<String>) -> anyhow::Error {
    Ended { code, said }.into()
}

fn table(report: &Report, look: Look) -> String {
    let mut text = String::new();
    for done in &report.repairs {
        text.push_str(&match &done.error {
            None => format!("done: {}\n", done.command),
            Some(error) => format!("not done: {}: {error}\n", done.command),
        });
    }
    if !text.is_empty() {
        text.push('\n');
    }
    let mut rows = Rows::new(look, &["severity", "check", "on", "finding", "what to do"]);
    for row in &report.findings {
        rows.add([
            row.severity.name().to_owned(),
            row.check.to_owned(),
            row.subject.clone().unwrap_or_else(|| "-".to_owned()),
            row.finding.clone(),
            row.advice.clone().unwrap_or_default(),
        ]);
    }
    text.push_str(&rows.text());
    let count = |severity| report.count(severity);
    text.push_str(&format!(
        "\n{} errors, {} warnings, {} notes, {} fine\n",
        count(Severity::Error),
        count(Severity::Warning),
        count(Severity::Note),
        count(Severity::Fine)
    ));
    if report.findings.iter().any(|row| row.fixable) {
        text.push_str("`mirror-ctl doctor --fix` does what can be done from here\n");
    }
    text
}
