//! The evaluation itself: features, folds, trees by smartcore, stack, figures.

use serde::Serialize;

use super::{
    data::{Grid, Server},
    features::Features,
    protocol::{Fold, Rows, Settings, Split, Task, events, folds, inner_folds, targets},
    series::median,
    stack::{INPUTS, Prior, Stack},
};
use crate::health::predict::{
    calibrate::logit,
    forest::Forest,
    metrics::{Alarms, Figures, Series, judge, rank},
    train::{Scattering, Table, TrainError, scatter},
};

/// Rows that trees are fitted to, at most about so many: neighbouring rows say the same.
const ROWS_MAX: usize = 8_000;
const SEED: u64 = 1;
const TREES: Scattering = Scattering {
    trees: 150,
    depth: 8,
    leaf_rows: 20,
    columns: 0.3,
    seed: SEED,
};
/// Log-odds of what trees say are kept within this: they have seen too little for more.
const CHANCE_MIN: f32 = 1e-4;

/// What is believed of evidence, season and trees, and the constant that is added to the log-odds. Chosen on the first
/// 60 % of the test halves of the servers that came with the project, in folds; see docs/prediction.md.
///
/// Two, from which [`learn`] chooses on what it may learn from: whether the trees are listened to.
fn priors(settings: &Settings) -> ([Prior; 2], f32) {
    let (mean, deviation) = match settings.task {
        Task::Soon => ([1.0, 0.1, 0.5], [0.02, 0.02, 0.4]),
        Task::Onset => ([0.1, 1.0, 0.5], [0.1, 0.3, 0.4]),
    };
    // Between servers classes are weighed alike, and the rate is put back as a constant: the rate of a few other
    // servers says nothing of this one's, and would rank servers by who was left out.
    let (intercept, strength, rate) = match (settings.split, settings.task) {
        (Split::Group, Task::Soon) => ((-2.0, 0.02), 0.03, Some(0.05)),
        (Split::Group, Task::Onset) => ((-2.0, 0.02), 0.03, Some(0.007)),
        (Split::Time, _) => ((-5.0, 0.3), 0.003, None),
    };
    const DEAF: f64 = 1e-6;
    let listening = |trees: bool| {
        let mut beliefs = [0, 1, 2].map(|n| (mean[n], deviation[n]));
        if !trees {
            beliefs[2] = (0.0, DEAF);
        }
        let [a, b, c] = beliefs;
        let beliefs = [a, b, c, intercept];
        Prior {
            mean: beliefs.map(|belief| belief.0),
            deviation: beliefs.map(|belief| belief.1),
            strength,
        }
    };
    let priors = [false, true].map(listening);
    (priors, rate.map_or(0.0, logit))
}

/// What an evaluation found.
#[derive(Clone, Debug, Serialize)]
pub struct Evaluation {
    /// Servers judged.
    pub servers: usize,
    /// Rows judged.
    pub rows: usize,
    /// Failures judged.
    pub events: usize,
    /// All figures.
    #[serde(skip)]
    pub figures: Figures,
    /// Layer A alone, in the same protocol.
    #[serde(skip)]
    pub baseline: Figures,
    /// By fold, what evidence, season and trees came to count, and the intercept.
    pub weights: Vec<[f64; INPUTS + 1]>,
}

/// One server, ready to learn from and to judge.
struct Subject {
    features: Features,
    target: Vec<bool>,
    failing: Vec<bool>,
}

/// Judges the method on these servers. `tick` is called with the part done, 0 to 1.
pub fn evaluate(
    servers: Vec<Server>,
    settings: &Settings,
    mut tick: impl FnMut(f64),
) -> Result<Evaluation, TrainError> {
    let count = servers.len();
    let mut counted = Vec::new();
    let mut subjects = Vec::new();
    for mut server in servers {
        let (target, counts) = targets(&server.failing, settings.task, settings.horizon);
        let features = Features::of(&server, settings);
        // The features are all that is needed from here on.
        server.grid = Grid::default();
        counted.push(counts);
        subjects.push(Subject {
            features,
            target,
            failing: server.failing,
        });
        tick(0.5 * subjects.len() as f64 / count as f64);
    }
    let folds = folds(&counted, settings);
    let (mut fused, mut alone, mut weights) = (Vec::new(), Vec::new(), Vec::new());
    for (number, fold) in folds.iter().enumerate() {
        let stack = learn(&subjects, fold, settings)?;
        weights.push(stack.stack.0);
        for (server, rows) in &fold.judge {
            let said = stack.trees.say(&subjects[*server], rows);
            let of = |score: &dyn Fn(usize, usize) -> f32| {
                series(&subjects[*server], rows, settings, score)
            };
            let subject = &subjects[*server];
            fused.push(of(&|place, row| {
                stack
                    .stack
                    .chance(&subject.inputs(row, said[place]), stack.shift)
            }));
            alone.push(of(&|_, row| subject.features.evidence[row]));
        }
        tick(0.5 + 0.5 * (number + 1) as f64 / folds.len() as f64);
    }
    let alarms = alarms(settings);
    Ok(Evaluation {
        servers: fused.len(),
        rows: fused.iter().flat_map(|s| &s.judged).filter(|j| **j).count(),
        events: fused.iter().map(|series| series.events.len()).sum(),
        figures: judge(&fused, &alarms, settings.day, SEED),
        baseline: judge(&alone, &alarms, settings.day, SEED),
        weights,
    })
}

impl Subject {
    fn inputs(&self, row: usize, said: f32) -> [f32; INPUTS] {
        [self.features.evidence[row], self.features.season[row], said]
    }

    fn outcomes(&self, rows: &[usize]) -> impl Iterator<Item = bool> {
        rows.iter().map(|row| self.target[*row])
    }
}

fn alarms(settings: &Settings) -> Alarms {
    Alarms {
        window: settings.horizon,
        quiet: settings.horizon,
        late: settings.task == Task::Soon,
        unit_rows: settings.day as f64,
        budgets: [1.0, 6.0],
    }
}

/// What was learned of one fold.
struct Learned {
    trees: Trees,
    stack: Stack,
    shift: f32,
}

/// Trees on all that may be learned from; the stack on what trees that had not seen a row said of it.
fn learn(subjects: &[Subject], fold: &Fold, settings: &Settings) -> Result<Learned, TrainError> {
    let mut unseen = Vec::new();
    let (mut inputs, mut outcomes, mut weights) = (Vec::new(), Vec::new(), Vec::new());
    for inner in inner_folds(&fold.learn, settings) {
        let trees = Trees::fit(subjects, &inner.learn, settings)?;
        for (server, rows) in inner.judge {
            let subject = &subjects[server];
            let said = trees.say(subject, &rows);
            let positions = rows.iter().zip(&said);
            inputs.extend(positions.map(|(row, said)| subject.inputs(*row, *said)));
            outcomes.extend(subject.outcomes(&rows));
            weights.extend(row_weights(subject, &rows, settings));
            unseen.push((server, rows, said));
        }
    }
    // Weights of the prior are in servers: so much do the rows weigh together.
    let all: f32 = weights.iter().sum();
    let scale = fold.learn.len() as f32 / all.max(f32::MIN_POSITIVE);
    weights.iter_mut().for_each(|weight| *weight *= scale);
    let (priors, shift) = priors(settings);
    let ranked = priors.map(|prior| {
        let stack = Stack::fit(&inputs, &outcomes, &weights, &prior);
        let series: Vec<Series> = unseen
            .iter()
            .map(|(server, rows, said)| {
                let subject = &subjects[*server];
                series(subject, rows, settings, &|place, row| {
                    stack.sum(&subject.inputs(row, said[place])) as f32
                })
            })
            .collect();
        let (auc, recall) = rank(&series, &alarms(settings), settings.day);
        (stack, auc, recall)
    });
    Ok(Learned {
        trees: Trees::fit(subjects, &fold.learn, settings)?,
        stack: choose(&ranked),
        shift,
    })
}

/// What trees must add to the sum of area under the curve and recall before they are listened to. With a few servers to
/// choose on, less than that is luck, and layer A alone is the one that needs none.
const GAIN_MIN: f64 = 0.1;

/// The stack with trees, the second, if it is clearly better than the first and catches no less.
fn choose(ranked: &[(Stack, f64, f64); 2]) -> Stack {
    let [(alone, auc, recall), (with, auc_with, recall_with)] = *ranked;
    match recall_with >= recall && auc_with + recall_with > auc + recall + GAIN_MIN {
        true => with,
        false => alone,
    }
}

/// Between servers, each counts alike and so do its classes: or the one that fails most would be all that is learned.
fn row_weights(subject: &Subject, rows: &[usize], settings: &Settings) -> Vec<f32> {
    if settings.split == Split::Time {
        return vec![1.0; rows.len()];
    }
    let positives = subject.outcomes(rows).filter(|outcome| *outcome).count();
    let rate = (positives as f32 / rows.len().max(1) as f32).clamp(1e-3, 1.0 - 1e-3);
    let weigh = |outcome| match outcome {
        true => 0.5 / rate,
        false => 0.5 / (1.0 - rate),
    };
    let n = rows.len().max(1) as f32;
    subject
        .outcomes(rows)
        .map(|outcome| weigh(outcome) / n)
        .collect()
}

struct Trees(Forest);

impl Trees {
    fn fit(subjects: &[Subject], learn: &Rows, settings: &Settings) -> Result<Self, TrainError> {
        let all: usize = learn.iter().map(|(_, rows)| rows.len()).sum();
        let stride = all.div_ceil(ROWS_MAX).max(1);
        let width = subjects.first().map_or(0, |subject| subject.features.width);
        let mut table = Table::new(width);
        for (server, rows) in learn {
            let subject = &subjects[*server];
            let some: Vec<usize> = rows.iter().copied().step_by(stride).collect();
            for (row, weight) in some.iter().zip(row_weights(subject, &some, settings)) {
                table.push(subject.features.row(*row), subject.target[*row], weight);
            }
        }
        Ok(Self(scatter(&table, &TREES)?))
    }

    /// Log-odds of rows, less what is usual for the server.
    fn say(&self, subject: &Subject, rows: &[usize]) -> Vec<f32> {
        let odds = |row: &[f32]| logit(self.0.sum(row).clamp(CHANCE_MIN, 1.0 - CHANCE_MIN));
        let features = &subject.features;
        let own: Vec<f32> = features
            .own
            .chunks_exact(features.width)
            .map(odds)
            .collect();
        let usual = median(&own);
        rows.iter()
            .map(|row| odds(features.row(*row)) - usual)
            .collect()
    }
}

/// What was predicted of a server, from the first row judged to the last.
fn series(
    subject: &Subject,
    rows: &[usize],
    settings: &Settings,
    score: &dyn Fn(usize, usize) -> f32,
) -> Series {
    let (Some(&first), Some(&last)) = (rows.first(), rows.last()) else {
        return Series::default();
    };
    // A failure at the very end may have rows after the last one judged.
    let end = match settings.split {
        Split::Group => subject.failing.len(),
        Split::Time => subject.failing.len().max(last + 1),
    };
    let length = end - first;
    let mut series = Series {
        predicted: vec![0.0; length],
        target: subject.target[first..end].to_vec(),
        judged: vec![false; length],
        events: Vec::new(),
    };
    for (place, row) in rows.iter().enumerate() {
        series.predicted[row - first] = score(place, *row);
        series.judged[row - first] = true;
    }
    let events = events(&subject.failing).into_iter();
    series.events = events
        .filter(|(start, _)| *start >= first)
        .map(|(start, end)| (start - first, end - first))
        .collect();
    series
}

#[cfg(test)]
#[path = "evaluate_tests.rs"]
mod tests;
