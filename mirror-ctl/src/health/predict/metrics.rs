//! How good predictions are: whether they rank, whether they are true as probabilities, how many failures an alarm
//! catches at a given number of false ones; each with an interval.
//!
//! Intervals are by bootstrap over blocks of time (Künsch 1989): neighbouring rows are one and the same situation, and
//! an interval that took them for independent would be far too narrow.

use serde::Serialize;

/// Resamples of the bootstrap.
const RESAMPLES: usize = 300;
/// Thresholds that alarms are tried at.
const THRESHOLDS: usize = 240;
/// Bins of the calibration curve.
pub const BINS: usize = 10;

/// The predictions for one instance, and what came of them.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// Predicted, by row.
    pub predicted: Vec<f32>,
    /// What was to be predicted.
    pub target: Vec<bool>,
    /// Whether the row is judged at all.
    pub judged: Vec<bool>,
    /// Failures: first row and the one after the last.
    pub events: Vec<(usize, usize)>,
}

/// When an alarm is right, and how often it may be wrong.
#[derive(Clone, Copy, Debug)]
pub struct Alarms {
    /// An alarm may come so many rows before the failure. The series' targets are to look as far.
    pub window: usize,
    /// After an alarm another one is not raised for so many rows.
    pub quiet: usize,
    /// Whether an alarm during the failure still catches it.
    pub late: bool,
    /// Rows of a unit of the budgets: a day or an hour.
    pub unit_rows: f64,
    /// False alarms per unit.
    pub budgets: [f64; 2],
}

/// A figure and the interval that 90 % of the resamples fall into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Figure {
    /// The figure.
    pub value: f64,
    /// 5th percentile.
    pub low: f64,
    /// 95th percentile.
    pub high: f64,
}

/// All figures of one evaluation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    /// Area under the receiver's curve.
    pub auc: Figure,
    /// Average precision.
    pub ap: Figure,
    /// Brier skill against the base rate.
    pub bss: Figure,
    /// Expected calibration error.
    pub ece: Figure,
    /// Share of failures caught within the first budget.
    pub recall: [Figure; 2],
    /// Median rows from alarm to failure, at the first budget.
    pub lead_rows: Figure,
}

/// Judges predictions; `block_rows` rows are resampled together.
#[must_use]
pub fn judge(all: &[Series], alarms: &Alarms, block_rows: usize, seed: u64) -> Figures {
    let rows = Ranked::of(all, block_rows);
    let caught = Caught::of(all, alarms, block_rows);
    let blocks = rows.blocks.max(1);
    let figures = |copies: &[u32]| {
        let at = caught.best(copies, alarms);
        let [auc, ap, bss, ece] = rows.figures(copies);
        [auc, ap, bss, ece, at[0].recall, at[1].recall, at[0].lead]
    };
    let values = figures(&vec![1; blocks]);
    let mut chance = fastrand::Rng::with_seed(seed);
    let mut resampled: [Vec<f64>; 7] = Default::default();
    for _ in 0..RESAMPLES {
        let mut copies = vec![0; blocks];
        for _ in 0..blocks {
            copies[chance.usize(..blocks)] += 1;
        }
        for (kept, value) in resampled.iter_mut().zip(figures(&copies)) {
            if value.is_finite() {
                kept.push(value);
            }
        }
    }
    let mut figure = |number: usize| interval(values[number], &mut resampled[number]);
    Figures {
        auc: figure(0),
        ap: figure(1),
        bss: figure(2),
        ece: figure(3),
        recall: [figure(4), figure(5)],
        lead_rows: figure(6),
    }
}

/// Area under the curve and recall at the first budget, without intervals: what choices are made by.
#[must_use]
pub fn rank(all: &[Series], alarms: &Alarms, block_rows: usize) -> (f64, f64) {
    let rows = Ranked::of(all, block_rows);
    let copies = vec![1; rows.blocks.max(1)];
    let [auc, ..] = rows.figures(&copies);
    let [best, _] = Caught::of(all, alarms, block_rows).best(&copies, alarms);
    (auc, best.recall)
}

/// The threshold that [`judge`]'s recall at the first budget is at.
#[must_use]
pub fn threshold(all: &[Series], alarms: &Alarms, block_rows: usize) -> f32 {
    let caught = Caught::of(all, alarms, block_rows);
    let blocks = caught.units.len();
    let [best, _] = caught.best(&vec![1; blocks], alarms);
    best.threshold
}

/// Failures, the share of them that alarms at a threshold catch, and the median rows from alarm to failure.
#[must_use]
pub fn caught_at(all: &[Series], alarms: &Alarms, threshold: f32) -> (u32, f64, f64) {
    let counts = all
        .iter()
        .flat_map(|series| count(series, threshold, alarms, usize::MAX));
    let (mut events, mut leads) = (0, Vec::new());
    for block in counts {
        events += block.events;
        leads.extend(block.leads);
    }
    leads.sort_by(f32::total_cmp);
    let lead = leads.get(leads.len() / 2).copied().unwrap_or(0.0);
    let share = leads.len() as f64 / f64::from(events.max(1));
    (events, share, f64::from(lead))
}

/// For every threshold, false alarms per unit and the share of failures caught: what a budget buys.
#[must_use]
pub fn trade(all: &[Series], alarms: &Alarms) -> Vec<(f64, f64)> {
    let caught = Caught::of(all, alarms, usize::MAX);
    let units: f64 = caught.units.iter().sum();
    let of = |blocks: &[BlockCount]| {
        let sum = |of: fn(&BlockCount) -> u32| blocks.iter().map(of).sum::<u32>();
        let leads: usize = blocks.iter().map(|block| block.leads.len()).sum();
        let share = leads as f64 / f64::from(sum(|b| b.events).max(1));
        (f64::from(sum(|b| b.false_alarms)) / units, share)
    };
    caught.counts.iter().map(|(_, blocks)| of(blocks)).collect()
}

fn interval(value: f64, resampled: &mut [f64]) -> Figure {
    resampled.sort_by(f64::total_cmp);
    let at = |share: f64| match resampled.len() {
        0 => value,
        n => resampled[((n - 1) as f64 * share).round() as usize],
    };
    Figure {
        value,
        low: at(0.05),
        high: at(0.95),
    }
}

/// Judged rows by falling prediction, each with the block it belongs to.
struct Ranked {
    rows: Vec<(f32, bool, u32)>,
    blocks: usize,
}

impl Ranked {
    fn of(all: &[Series], block_rows: usize) -> Self {
        let (mut rows, mut blocks) = (Vec::new(), 0);
        for series in all {
            let (first, judged) = (blocks, series.judged.iter().enumerate());
            for (row, _) in judged.filter(|(_, judged)| **judged) {
                let block = (first + row / block_rows) as u32;
                rows.push((series.predicted[row], series.target[row], block));
            }
            blocks += series.predicted.len().div_ceil(block_rows);
        }
        rows.sort_by(|a, b| b.0.total_cmp(&a.0));
        Self { rows, blocks }
    }

    /// AUC, average precision, Brier skill, calibration error with each block counted `copies` times.
    fn figures(&self, copies: &[u32]) -> [f64; 4] {
        let (mut positives, mut negatives) = (0.0, 0.0);
        // Pairs won, average precision's sum, squared error.
        let (mut won, mut precision, mut squared) = (0.0, 0.0, 0.0);
        let mut bins = [(0.0, 0.0, 0.0); BINS];
        for tied in self.rows.chunk_by(|a, b| a.0 == b.0) {
            let (mut up, mut down) = (0.0, 0.0);
            for (_, target, block) in tied {
                let n = f64::from(copies[*block as usize]);
                if *target {
                    up += n;
                } else {
                    down += n;
                }
            }
            won += down * (positives + up / 2.0);
            positives += up;
            negatives += down;
            if positives + negatives > 0.0 {
                precision += up * positives / (positives + negatives);
            }
            let p = f64::from(tied[0].0).clamp(0.0, 1.0);
            squared += up * (1.0 - p).powi(2) + down * p * p;
            let bin = &mut bins[((p * BINS as f64) as usize).min(BINS - 1)];
            bin.0 += up + down;
            bin.1 += p * (up + down);
            bin.2 += up;
        }
        let n = positives + negatives;
        let rate = positives / n;
        let ece: f64 = bins.iter().map(|bin| (bin.1 - bin.2).abs()).sum();
        [
            won / (positives * negatives),
            precision / positives,
            1.0 - squared / (n * rate * (1.0 - rate)),
            ece / n,
        ]
    }
}

/// What alarms at each threshold would have caught, by block.
struct Caught {
    /// By threshold, by block.
    counts: Vec<(f32, Vec<BlockCount>)>,
    units: Vec<f64>,
}

/// What a budget allows.
#[derive(Clone, Copy, Debug, Default)]
struct Best {
    recall: f64,
    lead: f64,
    threshold: f32,
}

#[derive(Clone, Debug, Default)]
struct BlockCount {
    false_alarms: u32,
    events: u32,
    /// Rows from alarm to failure, one entry a failure caught.
    leads: Vec<f32>,
}

impl Caught {
    fn of(all: &[Series], alarms: &Alarms, block_rows: usize) -> Self {
        let mut predicted: Vec<f32> = all
            .iter()
            .flat_map(|series| series.predicted.iter().zip(&series.judged))
            .filter(|(_, judged)| **judged)
            .map(|(predicted, _)| *predicted)
            .collect();
        predicted.sort_by(|a, b| b.total_cmp(a));
        let mut thresholds: Vec<f32> = (0..THRESHOLDS)
            .filter_map(|n| {
                // From the very top down to half of the rows, evenly in the logarithm.
                let rank = 0.5f64.powf((THRESHOLDS - 1 - n) as f64 / 14.0) * 0.5;
                predicted.get((rank * predicted.len() as f64) as usize)
            })
            .copied()
            .collect();
        thresholds.dedup();
        let counts = thresholds
            .iter()
            .map(|threshold| {
                let blocks = all
                    .iter()
                    .flat_map(|series| count(series, *threshold, alarms, block_rows));
                (*threshold, blocks.collect())
            })
            .collect();
        let units = all
            .iter()
            .flat_map(|series| series.judged.chunks(block_rows))
            .map(|block| block.iter().filter(|j| **j).count() as f64 / alarms.unit_rows)
            .collect();
        Self { counts, units }
    }

    /// For each budget, the greatest share caught and the median lead there.
    fn best(&self, copies: &[u32], alarms: &Alarms) -> [Best; 2] {
        let units: f64 = self
            .units
            .iter()
            .zip(copies)
            .map(|(u, n)| u * f64::from(*n))
            .sum();
        let mut best = [Best::default(); 2];
        for (threshold, blocks) in &self.counts {
            let (mut wrong, mut events, mut leads) = (0, 0, Vec::new());
            for (block, n) in blocks.iter().zip(copies) {
                wrong += block.false_alarms * n;
                events += block.events * n;
                for lead in &block.leads {
                    leads.extend(std::iter::repeat_n(*lead, *n as usize));
                }
            }
            for (best, budget) in best.iter_mut().zip(alarms.budgets) {
                let recall = leads.len() as f64 / f64::from(events.max(1));
                // As many caught by a lower threshold are caught earlier, and that is within the budget too.
                let better = recall >= best.recall && !leads.is_empty();
                if f64::from(wrong) <= budget * units && better {
                    leads.sort_by(f32::total_cmp);
                    *best = Best {
                        recall,
                        lead: f64::from(leads[leads.len() / 2]),
                        threshold: *threshold,
                    };
                }
            }
        }
        best
    }
}

/// False alarms and failures caught of one series, by block. A failure belongs to the block it begins in.
fn count(series: &Series, threshold: f32, alarms: &Alarms, block_rows: usize) -> Vec<BlockCount> {
    let rows = series.predicted.len();
    let mut blocks = vec![BlockCount::default(); rows.div_ceil(block_rows)];
    let mut raised = Vec::new();
    let mut quiet_until = 0;
    for row in 0..rows {
        if row < quiet_until || !series.judged[row] || series.predicted[row] < threshold {
            continue;
        }
        raised.push(row);
        quiet_until = row + alarms.quiet;
        if !series.target[row] {
            blocks[row / block_rows].false_alarms += 1;
        }
    }
    for &(start, end) in &series.events {
        let block = &mut blocks[start / block_rows];
        block.events += 1;
        let until = if alarms.late { end } else { start };
        let window = start.saturating_sub(alarms.window)..until;
        // One that was false is no less so for coming before a failure.
        let right = |row: usize| series.target[row] || row >= start;
        if let Some(row) = raised
            .iter()
            .find(|row| window.contains(row) && right(**row))
        {
            block.leads.push(start as f32 - *row as f32);
        }
    }
    blocks
}

/// Mean prediction, rate and rows of each bin: the calibration curve.
#[must_use]
pub fn curve(all: &[Series]) -> Vec<(f64, f64, u64)> {
    let mut bins = [(0.0, 0.0, 0u64); BINS];
    for series in all {
        for row in 0..series.predicted.len() {
            if !series.judged[row] {
                continue;
            }
            let p = f64::from(series.predicted[row]).clamp(0.0, 1.0);
            let bin = &mut bins[((p * BINS as f64) as usize).min(BINS - 1)];
            bin.0 += p;
            bin.1 += f64::from(u8::from(series.target[row]));
            bin.2 += 1;
        }
    }
    bins.into_iter()
        .filter(|bin| bin.2 > 0)
        .map(|(p, rate, n)| (p / n as f64, rate / n as f64, n))
        .collect()
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
