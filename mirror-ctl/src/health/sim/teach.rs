//! From the corpus to lessons ([`crate::health::learning::lessons`]), and to a judgement of what was learned.

use serde::Serialize;

use super::{
    corpus::{INSTANCES, Life, Part, SECONDS, runs, simulate},
    fault::{Family, Fault},
    label,
};
use crate::health::{
    learning::lessons::{self, Course, Effort, Lessons, Parts},
    predict::{
        engine::{Fleet, Outlook},
        metrics::{Alarms, Figures, Series, caught_at, curve, judge, threshold},
        model::{HORIZONS_S, Model},
    },
};

/// Seconds at the start of a run in which nothing has settled.
const WARM_UP_S: usize = 60;
/// At the end of a run it is not known what comes.
const END_S: usize = SECONDS - ALARM_WINDOW_S as usize;
/// Which of the horizons is judged by rows: long enough to act, short enough to be told from noise.
const JUDGED: usize = 2;

const NAMES: [&str; INSTANCES] = ["a", "b", "c", "d"];

/// The part that is only looked at needs fewer runs than the one that trees are fitted to.
fn scales(runs: usize) -> [(Part, usize); 3] {
    [
        (Part::Train, runs),
        (Part::Calibrate, runs.div_ceil(2)),
        (Part::HeldOut, runs.div_ceil(4)),
    ]
}

/// Runs that [`parts`] lives through.
#[must_use]
pub fn lives(effort: &Effort) -> usize {
    let lives = |(part, scale)| runs(part, scale, effort.seed).len();
    scales(effort.runs).into_iter().map(lives).sum()
}

/// The corpus as lessons. `tick` is called after every run.
pub fn parts(effort: &Effort, mut tick: impl FnMut()) -> Parts {
    let [learned, checked, held_out] = scales(effort.runs).map(|(part, scale)| {
        let mut taught = Lessons::default();
        for (number, run) in runs(part, scale, effort.seed).iter().enumerate() {
            teach(number, &simulate(run), &mut taught);
            tick();
        }
        taught
    });
    Parts {
        learned,
        checked,
        held_out,
    }
}

/// What the model card says of the corpus.
#[must_use]
pub fn corpus(effort: &Effort) -> String {
    format!("simulated, {} runs of each family", effort.runs)
}

fn teach(number: usize, lives: &[Life], taught: &mut Lessons) {
    let courses: Vec<_> = lives
        .iter()
        .map(|life| Course {
            readings: &life.readings,
            onsets: &life.onsets,
        })
        .collect();
    lessons::lessons(
        number,
        &NAMES,
        &courses,
        |instance, second| judged(second) && !lives[instance].failing[second],
        |_, lesson| taught.push(lesson),
    );
}

fn judged(second: usize) -> bool {
    (WARM_UP_S..END_S).contains(&second)
}

/// Plays a run's readings to a fleet.
fn replay(lives: &[Life], model: Option<&std::sync::Arc<Model>>, each: impl FnMut(usize, &Fleet)) {
    let readings: Vec<_> = lives.iter().map(|life| &life.readings[..]).collect();
    lessons::replay(Fleet::new(model.cloned()), &NAMES, &readings, each);
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
        let parts = parts(&effort, || steps += 1);
        assert_eq!(steps, lives(&effort));
        let model = lessons::train(&parts, &effort, corpus(&effort), || {}).unwrap();
        assert!(model.card.calibration.len() > 1 && model.card.positives[0] > 0);
        let found = evaluate(&model, 1, 1, || {});
        assert!(found.gradual.auc.value > 0.75, "{:?}", found.gradual);
        assert!(found.horizons.iter().all(|f| f.ece.value < 0.2));
    }
}
