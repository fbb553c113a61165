//! From the corpus to a model, and to a judgement of it.
//!
//! Trees are fitted to one part, probabilities to another, and a third is held out; a row's outcome is the onset of
//! failing within each stretch of time, given that it has not come before.

use serde::Serialize;

use super::{
    corpus::{INSTANCES, Life, Part, SECONDS, runs, simulate},
    fault::{Family, Fault},
    label,
};
use crate::health::predict::{
    calibrate::Calibration,
    engine::{Fleet, Outlook},
    features::{self, Row, WIDTH},
    metrics::{Alarms, Figures, Series, caught_at, curve, judge, threshold},
    model::{Card, HORIZONS_S, Hazard, Model},
    signal::Reading,
    train::{Boosting, Table, TrainError, boost},
};

/// Seconds at the start of a run in which nothing has settled.
const WARM_UP_S: usize = 60;
/// At the end of a run it is not known what comes.
const END_S: usize = SECONDS - ALARM_WINDOW_S as usize;
/// Of the rows on which nothing comes, every so many is learned from; their weight makes up for the others.
const QUIET_STRIDE: usize = 12;
/// Which of the horizons is judged by rows: long enough to act, short enough to be told from noise.
const JUDGED: usize = 2;

const NAMES: [&str; INSTANCES] = ["a", "b", "c", "d"];

/// How large a corpus, and how long to learn.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Runs of each family, of the training part; the others have half as many and as many.
    pub runs: usize,
    /// Trees of each hazard.
    pub trees: usize,
    /// Where chance begins.
    pub seed: u64,
}

impl Default for Effort {
    fn default() -> Self {
        Self {
            runs: 60,
            trees: 60,
            seed: 1,
        }
    }
}

impl Effort {
    fn boosting(&self, hazard: usize) -> Boosting {
        Boosting {
            rounds: self.trees,
            depth: 5,
            leaf_rows: 30,
            rate: 0.2,
            rows: 0.4,
            columns: 0.35,
            seed: self.seed + hazard as u64,
        }
    }

    /// Steps of work that [`train`] reports.
    #[must_use]
    pub fn steps(&self) -> u64 {
        let lives = runs(Part::Train, self.runs, self.seed).len()
            + runs(Part::Calibrate, self.runs.div_ceil(2), self.seed).len();
        (lives + self.trees * HORIZONS_S.len()) as u64
    }
}

/// A model from the corpus. `tick` is called after every step of work.
pub fn train(effort: &Effort, mut tick: impl FnMut()) -> Result<Model, TrainError> {
    let learned = Lessons::of(Part::Train, effort.runs, effort.seed, &mut tick);
    let checked = Lessons::of(
        Part::Calibrate,
        effort.runs.div_ceil(2),
        effort.seed,
        &mut tick,
    );
    let mut hazards = Vec::new();
    let mut positives = [0; HORIZONS_S.len()];
    for (number, positive) in positives.iter_mut().enumerate() {
        let table = learned.table(number);
        *positive = table.outcomes.iter().filter(|outcome| **outcome).count();
        let (forest, bias) = boost(&table, &effort.boosting(number), &mut tick)?;
        let mut hazard = Hazard {
            forest,
            bias,
            calibration: Calibration::fit(&[], &[]),
        };
        hazard.calibration = checked.calibrate(&hazard, number);
        hazards.push(hazard);
    }
    let hazards: [Hazard; HORIZONS_S.len()] = match hazards.try_into() {
        Ok(hazards) => hazards,
        Err(_) => unreachable!("one is made for each horizon"),
    };
    let card = Card {
        corpus: format!("simulated, {} runs of each family", effort.runs),
        data_hash: format!("{:08x}", learned.hash()),
        seed: effort.seed,
        rows: learned.rows.len(),
        positives,
        features: features::names(),
        most_used: most_used(&hazards),
    };
    Ok(Model { hazards, card })
}

/// The features that trees split by most often.
fn most_used(hazards: &[Hazard]) -> Vec<(String, f32)> {
    let mut counts = vec![0u32; WIDTH];
    let nodes = hazards.iter().flat_map(|hazard| hazard.forest.nodes());
    for node in nodes.filter(|node| !node.is_leaf()) {
        counts[node.feature as usize] += 1;
    }
    let all = counts.iter().sum::<u32>().max(1) as f32;
    let named = features::names().into_iter().zip(counts);
    let mut used: Vec<_> = named.map(|(name, n)| (name, n as f32 / all)).collect();
    used.sort_by(|a, b| b.1.total_cmp(&a.1));
    used.truncate(10);
    used
}

/// Rows with the seconds to the next onset.
struct Lessons {
    rows: Vec<Lesson>,
}

struct Lesson {
    row: Row,
    seconds_to: Option<u32>,
    weight: f32,
}

impl Lessons {
    fn of(part: Part, scale: usize, seed: u64, tick: &mut impl FnMut()) -> Self {
        let mut rows = Vec::new();
        for (number, run) in runs(part, scale, seed).iter().enumerate() {
            let lives = simulate(run);
            let seconds: Vec<_> = lives
                .iter()
                .map(|l| label::seconds_to(&l.onsets, SECONDS))
                .collect();
            replay(&lives, None, |second, fleet| {
                for (instance, life) in lives.iter().enumerate() {
                    let seconds_to = seconds[instance][second];
                    let soon = seconds_to.is_some_and(|s| s <= 2 * HORIZONS_S[3]);
                    // A different second in each instance: together they see all of the run.
                    let taken = soon || (second + number + 3 * instance) % QUIET_STRIDE == 0;
                    if life.failing[second] || !taken || !judged(second) {
                        continue;
                    }
                    if let Some((row, _)) = fleet.row(NAMES[instance]) {
                        let weight = if soon { 1.0 } else { QUIET_STRIDE as f32 };
                        rows.push(Lesson {
                            row,
                            seconds_to,
                            weight,
                        });
                    }
                }
            });
            tick();
        }
        Self { rows }
    }

    /// Rows on which a hazard's stretch of time is reached, with whether the failure falls into it.
    fn of_hazard(&self, hazard: usize) -> impl Iterator<Item = (&Lesson, bool)> {
        let from = hazard.checked_sub(1).map_or(0, |before| HORIZONS_S[before]);
        let to = HORIZONS_S[hazard];
        let reached = move |lesson: &&Lesson| lesson.seconds_to.is_none_or(|s| s > from);
        self.rows
            .iter()
            .filter(reached)
            .map(move |lesson| (lesson, lesson.seconds_to.is_some_and(|s| s <= to)))
    }

    fn table(&self, hazard: usize) -> Table {
        let mut table = Table::new(WIDTH);
        for (lesson, outcome) in self.of_hazard(hazard) {
            table.push(&lesson.row, outcome, lesson.weight);
        }
        table
    }

    fn calibrate(&self, hazard: &Hazard, number: usize) -> Calibration {
        let (mut scores, mut outcomes) = (Vec::new(), Vec::new());
        for (lesson, outcome) in self.of_hazard(number) {
            // A row that stands for several counts as several.
            for _ in 0..lesson.weight as usize {
                scores.push(hazard.raw(&lesson.row));
                outcomes.push(outcome);
            }
        }
        Calibration::fit(&scores, &outcomes)
    }

    fn hash(&self) -> u32 {
        let mut hash = crc32fast::Hasher::new();
        for lesson in &self.rows {
            for value in &lesson.row {
                hash.update(&value.to_le_bytes());
            }
            hash.update(&lesson.seconds_to.unwrap_or(u32::MAX).to_le_bytes());
        }
        hash.finalize()
    }
}

fn judged(second: usize) -> bool {
    (WARM_UP_S..END_S).contains(&second)
}

/// Plays a run's readings to a fleet.
fn replay(
    lives: &[Life],
    model: Option<&std::sync::Arc<Model>>,
    mut each: impl FnMut(usize, &Fleet),
) {
    let mut fleet = Fleet::new(model.cloned());
    for second in 0..SECONDS {
        let now: Vec<(&str, &Reading)> = NAMES
            .iter()
            .zip(lives)
            .map(|(name, life)| (*name, &life.readings[second]))
            .collect();
        fleet.tick(now);
        each(second, &fleet);
    }
}

/// How good a model was found.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// On gradual faults and on what is no fault: P30 by rows, alarms by the fused risk.
    pub gradual: Figures,
    /// Layer A alone, the same alarms.
    pub baseline: Figures,
    /// By horizon, by rows.
    pub horizons: [Figures; HORIZONS_S.len()],
    /// By gradual family: failures, and the share caught at the first budget of all.
    pub families: Vec<FamilyFigure>,
    /// Of crashes: share whose risk was above one half within so many seconds of the first failed one.
    pub crashes: Vec<(usize, f64)>,
    /// Mean prediction, rate and rows of P30.
    pub curve: Vec<(f64, f64, u64)>,
    /// Instance-hours judged.
    pub hours: f64,
    /// Failures judged.
    pub events: usize,
}

/// How one family's failures were caught, at the threshold that the first budget allows over all.
#[derive(Clone, Debug, Serialize)]
pub struct FamilyFigure {
    /// Its name.
    pub family: &'static str,
    /// Failures.
    pub events: u32,
    /// Share caught.
    pub caught: f64,
    /// Median seconds from alarm to failure.
    pub lead_s: f64,
}

/// False alarms per instance-hour that recall is given at.
pub const BUDGETS: [f64; 2] = [0.1, 0.5];

/// An alarm is right if the instance fails within so long: a fault that grows for minutes is no false alarm because it
/// was seen two minutes ahead.
const ALARM_WINDOW_S: u32 = 120;

const ALARMS: Alarms = Alarms {
    window: ALARM_WINDOW_S as usize,
    quiet: HORIZONS_S[3] as usize,
    late: false,
    unit_rows: 3_600.0,
    budgets: BUDGETS,
};

/// All instances of one run, each predicted by one view.
struct Played {
    family: Family,
    fused: Vec<Series>,
    alone: Vec<Series>,
    horizons: [Vec<Series>; HORIZONS_S.len()],
}

/// Judges a model on the held-out part. `tick` is called after every run.
#[must_use]
pub fn evaluate(model: &Model, scale: usize, seed: u64, mut tick: impl FnMut()) -> Judgement {
    let model = std::sync::Arc::new(model.clone());
    let (mut played, mut delays) = (Vec::new(), Vec::new());
    for run in runs(Part::HeldOut, scale, seed) {
        let lives = simulate(&run);
        match Family::ABRUPT.contains(&run.fault.family) {
            true => delays.extend(delay(&run.fault, &lives, &model)),
            false => played.push(play(run.fault.family, &lives, &model)),
        }
        tick();
    }
    let of = |view: &dyn Fn(&Played) -> &Vec<Series>, family: Option<Family>| -> Vec<Series> {
        let wanted = played
            .iter()
            .filter(|p| family.is_none_or(|f| p.family == f));
        wanted.flat_map(|played| view(played).clone()).collect()
    };
    let judge = |series: &[Series]| judge(series, &ALARMS, SECONDS, seed);
    let fused = of(&|played| &played.fused, None);
    let by_rows = of(&|played| &played.horizons[JUDGED], None);
    let rows = fused.iter().flat_map(|s| &s.judged).filter(|j| **j).count();
    let horizons = std::array::from_fn(|n| judge(&of(&|played| &played.horizons[n], None)));
    let by_alarms = judge(&fused);
    let threshold = threshold(&fused, &ALARMS, SECONDS);
    Judgement {
        gradual: Figures {
            recall: by_alarms.recall,
            lead_rows: by_alarms.lead_rows,
            ..horizons[JUDGED]
        },
        baseline: judge(&of(&|played| &played.alone, None)),
        families: Family::GRADUAL
            .iter()
            .map(|family| {
                let series = of(&|played| &played.fused, Some(*family));
                let (events, caught, lead_s) = caught_at(&series, &ALARMS, threshold);
                FamilyFigure {
                    family: family.name(),
                    events,
                    caught,
                    lead_s,
                }
            })
            .collect(),
        crashes: [1, 2, 3, 5].map(|s| (s, share_within(&delays, s))).to_vec(),
        curve: curve(&by_rows),
        hours: rows as f64 / ALARMS.unit_rows,
        events: fused.iter().map(|s| s.events.len()).sum(),
        horizons,
    }
}

fn play(family: Family, lives: &[Life], model: &std::sync::Arc<Model>) -> Played {
    let seconds: Vec<_> = lives
        .iter()
        .map(|l| label::seconds_to(&l.onsets, SECONDS))
        .collect();
    let view = |horizon: u32| -> Vec<Series> {
        let of = |(life, seconds): (&Life, &Vec<Option<u32>>)| Series {
            predicted: Vec::with_capacity(SECONDS),
            target: seconds
                .iter()
                .map(|s| s.is_some_and(|s| s <= horizon))
                .collect(),
            judged: (0..SECONDS)
                .map(|s| judged(s) && !life.failing[s])
                .collect(),
            events: life
                .onsets
                .iter()
                .filter(|s| judged(**s))
                .map(|s| (*s, s + 1))
                .collect(),
        };
        lives.iter().zip(&seconds).map(of).collect()
    };
    let mut played = Played {
        family,
        fused: view(ALARM_WINDOW_S),
        alone: view(ALARM_WINDOW_S),
        horizons: HORIZONS_S.map(view),
    };
    replay(lives, Some(model), |_, fleet| {
        for (instance, name) in NAMES.iter().enumerate() {
            let Some(outlook) = fleet.outlook(name) else {
                continue;
            };
            played.fused[instance].predicted.push(outlook.risk());
            played.alone[instance].predicted.push(outlook.baseline);
            for (horizon, series) in played.horizons.iter_mut().enumerate() {
                let chance = outlook.chances.map_or(0.0, |chances| chances[horizon]);
                series[instance].predicted.push(chance);
            }
        }
    });
    played
}

/// Seconds from a crash to the first risk above one half.
fn delay(fault: &Fault, lives: &[Life], model: &std::sync::Arc<Model>) -> Option<usize> {
    let onset = *lives[0].onsets.first()?;
    if fault.family != Family::Crash {
        return None;
    }
    let mut found = None;
    replay(lives, Some(model), |second, fleet| {
        let risky = |outlook: Outlook| outlook.risk() > 0.5;
        if second >= onset && found.is_none() && fleet.outlook(NAMES[0]).is_some_and(risky) {
            found = Some(second - onset);
        }
    });
    Some(found.unwrap_or(usize::MAX))
}

fn share_within(delays: &[usize], seconds: usize) -> f64 {
    let within = delays.iter().filter(|delay| **delay < seconds).count();
    within as f64 / delays.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_little_training_already_predicts() {
        let effort = Effort {
            runs: 1,
            trees: 12,
            seed: 1,
        };
        let mut steps = 0;
        let model = train(&effort, || steps += 1).unwrap();
        assert_eq!(steps, effort.steps());
        let found = evaluate(&model, 1, 1, || {});
        assert!(found.gradual.auc.value > 0.75, "{:?}", found.gradual);
        assert!(found.horizons.iter().all(|f| f.ece.value < 0.2));
    }
}
