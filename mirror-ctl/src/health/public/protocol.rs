//! What is to be predicted, and who may learn from whom.

use serde::Serialize;

/// What is predicted of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Task {
    /// A failure begins within the horizon. Rows of a failure are not judged.
    Onset,
    /// It is failing, or will within the horizon.
    Soon,
}

/// How learning and judging are kept apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Split {
    /// The first 60 % of each server's test half are learned from, the rest is judged.
    Time,
    /// Servers in four folds; each is judged by what was learned from the other folds.
    Group,
}

/// Folds of a group split.
pub const FOLDS: usize = 4;
/// Share of a time split that is learned from.
pub const LEARNED_SHARE: f64 = 0.6;

/// All that an evaluation is told.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// What is predicted.
    pub task: Task,
    /// How far ahead, in rows.
    pub horizon: usize,
    /// How learning and judging are kept apart.
    pub split: Split,
    /// Rows a day.
    pub day: usize,
}

/// Failures: first row and the one after the last.
#[must_use]
pub fn events(failing: &[bool]) -> Vec<(usize, usize)> {
    let mut events = Vec::new();
    let mut start = None;
    for (row, failing) in failing.iter().chain([&false]).enumerate() {
        match (failing, start) {
            (true, None) => start = Some(row),
            (false, Some(first)) => {
                events.push((first, row));
                start = None;
            }
            _ => {}
        }
    }
    events
}

/// What is to be predicted of each row, and whether the row counts.
#[must_use]
pub fn targets(failing: &[bool], task: Task, horizon: usize) -> (Vec<bool>, Vec<bool>) {
    let rows = failing.len();
    let mut target = vec![false; rows];
    for (start, end) in events(failing) {
        let until = match task {
            Task::Onset => start,
            Task::Soon => end,
        };
        target[start.saturating_sub(horizon)..until].fill(true);
    }
    let counts = match task {
        Task::Onset => failing.iter().map(|failing| !failing).collect(),
        Task::Soon => vec![true; rows],
    };
    if task == Task::Onset {
        // A failure shorter than the horizon before another: its own rows are not judged.
        for (target, failing) in target.iter_mut().zip(failing) {
            *target &= !failing;
        }
    }
    (target, counts)
}

/// Rows of some servers' test halves: server number, row.
pub type Rows = Vec<(usize, Vec<usize>)>;

/// One fold: whom to learn from, whom to judge.
#[derive(Clone, Debug, PartialEq)]
pub struct Fold {
    /// Rows to learn from.
    pub learn: Rows,
    /// Rows to judge.
    pub judge: Rows,
}

/// The folds of a split. `counted`: by server, whether a row counts.
#[must_use]
pub fn folds(counted: &[Vec<bool>], settings: &Settings) -> Vec<Fold> {
    let rows = |server: usize, from: usize, to: usize| {
        let counts = &counted[server];
        let rows = (from..to.min(counts.len())).filter(|row| counts[*row]);
        (server, rows.collect::<Vec<_>>())
    };
    let all = |server: usize| rows(server, 0, usize::MAX);
    let servers = 0..counted.len();
    match settings.split {
        Split::Time => {
            let cut = |server: usize| (counted[server].len() as f64 * LEARNED_SHARE) as usize;
            // A row's target looks ahead by the horizon: so many rows before the cut would tell of those behind it.
            let learn = servers
                .clone()
                .map(|s| rows(s, 0, cut(s).saturating_sub(settings.horizon)));
            let judge = servers.clone().map(|s| rows(s, cut(s), usize::MAX));
            vec![Fold {
                learn: learn.collect(),
                judge: judge.collect(),
            }]
        }
        Split::Group => (0..FOLDS.min(counted.len()))
            .map(|fold| {
                let (judge, learn) = servers.clone().partition(|server| server % FOLDS == fold);
                let (judge, learn): (Vec<_>, Vec<_>) = (judge, learn);
                Fold {
                    learn: learn.into_iter().map(all).collect(),
                    judge: judge.into_iter().map(all).collect(),
                }
            })
            .collect(),
    }
}

/// How often what may be learned from is split again, to learn how far the learned can be trusted.
const INNER_FOLDS: usize = 4;

/// The folds within what may be learned from: by server, or by stretches of time with gaps.
#[must_use]
pub fn inner_folds(learn: &Rows, settings: &Settings) -> Vec<Fold> {
    let fold = |fold: usize| match settings.split {
        Split::Group => {
            let numbered = learn.iter().enumerate();
            let (judge, learn): (Vec<_>, Vec<_>) =
                numbered.partition(|(number, _)| number % INNER_FOLDS == fold);
            let rows = |part: Vec<(usize, &(usize, Vec<usize>))>| {
                part.into_iter().map(|(_, rows)| rows.clone()).collect()
            };
            Fold {
                learn: rows(learn),
                judge: rows(judge),
            }
        }
        Split::Time => {
            let (mut inside, mut outside) = (Vec::new(), Vec::new());
            for (server, rows) in learn {
                let from = rows.len() * fold / INNER_FOLDS;
                let to = rows.len() * (fold + 1) / INNER_FOLDS;
                let gap = settings.horizon;
                let mut others = rows[..from.saturating_sub(gap)].to_vec();
                others.extend(&rows[(to + gap).min(rows.len())..]);
                outside.push((*server, others));
                inside.push((*server, rows[from..to].to_vec()));
            }
            Fold {
                learn: outside,
                judge: inside,
            }
        }
    };
    let folds = (0..INNER_FOLDS).map(fold);
    folds
        .filter(|fold| !fold.learn.is_empty() && !fold.judge.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: Settings = Settings {
        task: Task::Onset,
        horizon: 2,
        split: Split::Time,
        day: 10,
    };

    #[track_caller]
    fn check(failing: &str, task: Task, target: &str, counted: &str) {
        let bits = |text: &str| text.chars().map(|c| c == '1').collect::<Vec<_>>();
        let found = targets(&bits(failing), task, 2);
        assert_eq!(found, (bits(target), bits(counted)));
    }

    #[test]
    fn targets_worked_by_hand() {
        check("00001100", Task::Onset, "00110000", "11110011");
        check("00001100", Task::Soon, "00111100", "11111111");
        check("10001011", Task::Onset, "00110100", "01110100");
        check("1000", Task::Soon, "1000", "1111");
    }

    #[test]
    fn events_have_starts_and_ends() {
        let failing = [true, false, false, true, true];
        assert_eq!(events(&failing), [(0, 1), (3, 5)]);
        assert_eq!(events(&[]), []);
    }

    #[test]
    fn nothing_that_is_judged_is_learned_from() {
        let counted = vec![vec![true; 40]; 6];
        for split in [Split::Time, Split::Group] {
            let settings = Settings { split, ..SETTINGS };
            let folds = folds(&counted, &settings);
            let judged: usize = folds.iter().flat_map(|f| &f.judge).map(|r| r.1.len()).sum();
            let expected = if split == Split::Time { 6 * 16 } else { 6 * 40 };
            assert_eq!(judged, expected);
            for fold in &folds {
                check_apart(fold, settings.horizon);
                let inner = inner_folds(&fold.learn, &settings);
                assert_eq!(inner.len(), 4);
                inner
                    .iter()
                    .for_each(|fold| check_apart(fold, settings.horizon));
            }
        }
    }

    #[track_caller]
    fn check_apart(fold: &Fold, gap: usize) {
        for (server, rows) in &fold.learn {
            let judged = fold.judge.iter().filter(|(other, _)| other == server);
            for (_, judged) in judged {
                for row in rows {
                    let near = judged.iter().any(|other| row.abs_diff(*other) < gap);
                    assert!(!near, "server {server}, row {row}");
                }
            }
        }
    }
}
