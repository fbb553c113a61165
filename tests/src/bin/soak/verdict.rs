//! A run's figures, and whether they are as they must be.

use std::collections::BTreeMap;

use serde::Serialize;
use testbed::traffic::report::Percentiles;

use crate::client::Harm;
use crate::ledger::Judgement;

/// How many harms are told in words.
const TOLD_MAX: usize = 20;

/// What `--json` writes.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Verdict {
    pub(crate) seed: u64,
    pub(crate) seconds: u64,
    /// Connections made.
    pub(crate) connections: u64,
    /// The most that there were at once.
    pub(crate) connections_at_once: u64,
    pub(crate) exchanges: u64,
    pub(crate) bytes: u64,
    /// Connections that a mirror went on with.
    pub(crate) takeovers: u64,
    pub(crate) takeovers_by_cause: BTreeMap<String, u64>,
    /// Faults, by kind; `lossy`: those with loss on the links.
    pub(crate) faults: BTreeMap<&'static str, u64>,
    /// Connections cut although a mirror was warm, or for a reason that has no cause.
    pub(crate) resets: u64,
    /// Bytes that such connections were owed.
    pub(crate) bytes_lost: u64,
    /// Bytes altered, of any connection.
    pub(crate) bytes_altered: u64,
    /// Mirrors that went cold, by reason.
    pub(crate) cold: BTreeMap<String, u64>,
    /// Connections that ended because nobody warm was left, by reason.
    pub(crate) ended_cold: BTreeMap<String, u64>,
    /// Connections that could not be made, by what the client was told.
    pub(crate) refused: BTreeMap<String, u64>,
    /// How long clients waited for what they had asked for.
    pub(crate) wait_ms: Percentiles,
    #[serde(skip)]
    pub(crate) told: Vec<String>,
}

impl Verdict {
    /// Counts a harm.
    pub(crate) fn harm(&mut self, who: &str, harm: &Harm, judgement: &Judgement) {
        if let Harm::Altered { bytes } = harm {
            self.bytes_altered += *bytes as u64;
        } else if let Judgement::Cold(reason) = judgement {
            *self.ended_cold.entry(reason.clone()).or_default() += 1;
            return;
        }
        match harm {
            Harm::Cut { owed, .. } => {
                self.resets += 1;
                self.bytes_lost += *owed as u64;
            }
            // At least the close, which is as good as a byte.
            Harm::Stalled { owed } => self.bytes_lost += (*owed as u64).max(1),
            Harm::Altered { .. } => {}
        }
        if self.told.len() < TOLD_MAX {
            let (Judgement::Wrong(why) | Judgement::Cold(why)) = judgement;
            self.told.push(format!("{who}: {harm}; {why}"));
        }
    }

    /// What is not as it must be, in words.
    pub(crate) fn misses(&self) -> Vec<String> {
        let figures = [
            (self.resets, "resets of warm connections"),
            (self.bytes_lost, "bytes lost"),
            (self.bytes_altered, "bytes altered"),
            (
                self.cold.get("diverged").copied().unwrap_or(0),
                "mirrors said to differ",
            ),
        ];
        let mut misses: Vec<String> = figures
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, of)| format!("{count} {of}"))
            .collect();
        if self.takeovers == 0 {
            misses.push("no takeover: nothing was shown".into());
        }
        misses.extend(self.told.iter().cloned());
        misses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_harm_counts_unless_nobody_was_left() {
        let wrong = Judgement::Wrong("b was warm".into());
        let cold = Judgement::Cold("reset".into());
        let cut = Harm::Cut {
            error: "reset".into(),
            owed: 7,
        };
        let rows: [(&Harm, &Judgement, [u64; 3]); 5] = [
            (&cut, &wrong, [1, 7, 0]),
            (&cut, &cold, [0, 0, 0]),
            (&Harm::Stalled { owed: 0 }, &wrong, [0, 1, 0]),
            (&Harm::Altered { bytes: 3 }, &wrong, [0, 0, 3]),
            (&Harm::Altered { bytes: 3 }, &cold, [0, 0, 3]),
        ];
        for (harm, judgement, expected) in rows {
            let mut verdict = Verdict {
                takeovers: 1,
                ..Verdict::default()
            };
            verdict.harm("x", harm, judgement);
            let found = [verdict.resets, verdict.bytes_lost, verdict.bytes_altered];
            assert_eq!(found, expected, "{harm:?} {judgement:?}");
            assert_eq!(verdict.misses().is_empty(), expected == [0; 3]);
        }
        assert!(!Verdict::default().misses().is_empty(), "nothing happened");
    }
}
