//! `doctor`: whether a machine, a configuration and what is pinned fit together. `look` gathers facts, `judge`
//! makes findings of them and knows no kernel, `repair` does what a finding proposes.

mod facts;
#[cfg(test)]
mod interface_tests;
mod interfaces;
mod judge;
mod look;
mod repair;
#[cfg(test)]
mod tests;

use serde::Serialize;
use utoipa::ToSchema;

pub use facts::Facts;
pub use judge::judge;
pub use look::look;
pub use repair::Repair;

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
#[schema(as = doctor::Severity)]
pub enum Severity {
    /// Nothing can work like this.
    Error,
    /// It works worse than it could, or will fail some day.
    Warning,
    /// Good to know.
    Note,
    /// As it should be.
    Fine,
}

impl Severity {
    /// The severity's name in tables and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
            Self::Fine => "fine",
        }
    }
}

/// What was found out, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was looked at.
    pub check: &'static str,
    /// Of which interface, instance or path.
    pub subject: Option<String>,
    /// What is so.
    pub what: String,
    /// What to do.
    pub advice: Option<String>,
    /// What `--fix` does.
    pub repair: Option<Repair>,
}

impl Finding {
    fn new(severity: Severity, check: &'static str, what: impl Into<String>) -> Self {
        Self {
            severity,
            check,
            subject: None,
            what: what.into(),
            advice: None,
            repair: None,
        }
    }

    fn on(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// What can be repaired is advised as the command that does the same.
    fn repair(mut self, repair: Repair) -> Self {
        self.advice = Some(repair.command());
        self.repair = Some(repair);
        self
    }
}

/// What `doctor --json` prints.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = doctor::Report)]
pub struct Report {
    /// Everything that was looked at, the worst first.
    pub findings: Vec<Row>,
    /// What `--fix` did.
    pub repairs: Vec<Done>,
}

/// A finding as it is printed.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = doctor::Finding)]
pub struct Row {
    /// How bad it is.
    pub severity: Severity,
    /// What was looked at.
    pub check: &'static str,
    /// Of which interface, instance or path.
    pub subject: Option<String>,
    /// What is so.
    pub finding: String,
    /// What to do.
    pub advice: Option<String>,
    /// Whether `--fix` does it.
    pub fixable: bool,
}

/// A repair as it is printed.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = doctor::Repair)]
pub struct Done {
    /// The command that does the same.
    pub command: String,
    /// Why it did not work.
    pub error: Option<String>,
}

impl Report {
    /// Puts findings in order.
    pub fn new(mut findings: Vec<Finding>, repairs: Vec<Done>) -> Self {
        findings.sort_by_key(|finding| finding.severity);
        let row = |finding: Finding| Row {
            severity: finding.severity,
            check: finding.check,
            subject: finding.subject,
            finding: finding.what,
            advice: finding.advice,
            fixable: finding.repair.is_some(),
        };
        Self {
            findings: findings.into_iter().map(row).collect(),
            repairs,
        }
    }

    /// How many findings are so bad.
    pub fn count(&self, severity: Severity) -> usize {
        let rows = self.findings.iter();
        rows.filter(|row| row.severity == severity).count()
    }

    /// Whether nothing has to be done.
    pub fn is_well(&self) -> bool {
        self.count(Severity::Error) + self.count(Severity::Warning) == 0
    }
}
