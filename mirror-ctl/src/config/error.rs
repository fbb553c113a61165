//! What can be wrong with a configuration file.

use std::{fmt, io, path::PathBuf};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Line of the file, from 1.
    pub line: usize,
    /// What is wrong.
    pub reason: String,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: {source}", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Everything that is wrong with the file, one line each.
    #[error("{}", Lines(file, findings))]
    Invalid {
        /// Which.
        file: PathBuf,
        /// In the order of their lines.
        findings: Vec<Finding>,
    },
}

struct Lines<'a>(&'a PathBuf, &'a [Finding]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, finding) in self.1.iter().enumerate() {
            if place > 0 {
                writeln!(f)?;
            }
            write!(
                f,
                "{}:{}: {}",
                self.0.display(),
                finding.line,
                finding.reason
            )?;
        }
        Ok(())
    }
}
