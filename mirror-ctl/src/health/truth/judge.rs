//! How a model does on recorded faults: its risk, second by second, against who really failed when. Pure.

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;

use super::{
    label::{Episode, Failure, Kind, Label},
    store::Labelled,
};
use crate::health::{
    learning::fate::Fate,
    predict::{
        engine::Fleet,
        metrics::{Alarms, Figures, Series, caught_at, judge, threshold, trade},
        model::{HORIZONS_S, Model},
        signal::Reading,
    },
    sim::teach::BUDGETS,
};

/// Seconds at the start of a recording in which nothing has settled.
const WARM_UP_S: usize = 60;
/// At its end, where no fault grows any more, it is not known for so long what comes.
const END_S: usize = 60;
/// An alarm is right if the instance fails within so long.
const WINDOW_S: usize = 120;
/// Longer than any fault grows.
const GROWTH_S: usize = 900;
/// Rows that are resampled together.
const BLOCK_S: usize = 300;
/// Which of the horizons rows are judged by, as on the simulated corpus.
const JUDGED: usize = 2;
/// A crash that is not told within so long is not told.
const DETECTION_S: usize = 30;
/// The risk that tells it.
const DETECTED_RISK: f32 = 0.5;

const STRICT: Alarms = Alarms {
    window: WINDOW_S,
    quiet: HORIZONS_S[3] as usize,
    late: false,
    unit_rows: 3_600.0,
    budgets: BUDGETS,
};
const GROWING: Alarms = Alarms {
    window: GROWTH_S,
    ..STRICT
};

/// The figures of one view of the risk.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct View {
    /// An alarm is right if the instance fails within 120 s.
    pub within_120_s: Figures,
    /// Or if a fault is growing in it by which it fails in the end, however slowly.
    pub while_growing: Figures,
}

/// How one family's failures were caught.
#[derive(Clone, Debug, Serialize)]
pub struct FamilyFigure {
    /// Its name.
    pub family: String,
    /// Faults.
    pub episodes: usize,
    /// Failures by them.
    pub failures: u32,
    /// Share caught at the first budget, alarms while it grows being right.
    pub caught: f64,
    /// Median seconds from alarm to failure.
    pub lead_s: f64,
}

/// How abrupt failures were detected.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Detection {
    /// How many there were.
    pub failures: usize,
    /// Share told of within half a minute: by a risk above one half, or because the agent took it for dead.
    pub detected: f64,
    /// Median seconds from the first bad second.
    pub p50_s: Option<usize>,
    /// 95th percentile.
    pub p95_s: Option<usize>,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Judgement {
    /// Recordings.
    pub recordings: usize,
    /// Instance-hours judged.
    pub instance_hours: f64,
    /// Failures by gradual faults that are judged.
    pub failures: usize,
    /// Failures for which none of the faults is the reason: neither they nor the time around them is judged.
    pub unexplained: usize,
    /// False alarms per instance-hour that recall is given at.
    pub false_alarms_per_instance_hour: [f64; 2],
    /// Both layers; rows by the fused risk.
    pub fused: View,
    /// Layer A alone.
    pub layer_a: View,
    /// Rows by the probability of failing within 30 s; none without a model.
    pub p30: Option<Figures>,
    /// By family, fused.
    pub families: Vec<FamilyFigure>,
    /// Crashes, freezes and flapping.
    pub abrupt: Detection,
    /// False alarms per instance-hour and share caught, by threshold, fused and layer A alone; alarms while it grows are right.
    #[serde(skip)]
    pub trades: [Vec<(f64, f64)>; 2],
}

/// One instance of one recording.
struct Life<'a> {
    name: &'a str,
    failures: Vec<(&'a Failure, Option<&'a Episode>)>,
    risks: Risks,
}

#[derive(Clone, Default)]
struct Risks {
    fused: Vec<f32>,
    alone: Vec<f32>,
    p30: Vec<f32>,
    /// Whether the agent took it for dead, or suspected it.
    dead: Vec<bool>,
}

/// Judges a model, or layer A alone, on recordings.
#[must_use]
pub fn evaluate(recordings: &[Labelled], model: Option<&Arc<Model>>, seed: u64) -> Judgement {
    let mut sets = Sets::default();
    let mut families: BTreeMap<&str, (usize, Vec<Series>)> = BTreeMap::new();
    let mut delays = Vec::new();
    for of in recordings {
        for episode in &of.label.episodes {
            families.entry(&episode.family).or_default().0 += 1;
        }
        for life in lives(of, model) {
            delays.extend(life.delays());
            sets.add(&life, &of.label);
            for (family, (_, series)) in &mut families {
                let of_family = |episode: &Episode| episode.family == *family;
                series.push(life.series(&of.label, &life.risks.fused, Rule::Growing, of_family));
            }
        }
    }
    let view = |strict: &[Series], growing: &[Series]| View {
        within_120_s: judge(strict, &STRICT, BLOCK_S, seed),
        while_growing: judge(growing, &GROWING, BLOCK_S, seed),
    };
    let limit = threshold(&sets.fused.1, &GROWING, BLOCK_S);
    let judged = sets.fused.1.iter().flat_map(|s| &s.judged);
    Judgement {
        recordings: recordings.len(),
        instance_hours: judged.filter(|judged| **judged).count() as f64 / STRICT.unit_rows,
        failures: sets.fused.1.iter().map(|s| s.events.len()).sum(),
        unexplained: sets.unexplained,
        false_alarms_per_instance_hour: BUDGETS,
        fused: view(&sets.fused.0, &sets.fused.1),
        layer_a: view(&sets.alone.0, &sets.alone.1),
        p30: model.map(|_| judge(&sets.p30, &STRICT, BLOCK_S, seed)),
        families: families
            .iter()
            .map(|(family, (episodes, series))| {
                let (failures, caught, lead_s) = caught_at(series, &GROWING, limit);
                FamilyFigure {
                    family: (*family).to_owned(),
                    episodes: *episodes,
                    failures,
                    caught,
                    lead_s,
                }
            })
            .collect(),
        abrupt: Detection::of(delays),
        trades: [&sets.fused.1, &sets.alone.1].map(|series| trade(series, &GROWING)),
    }
}

/// The series of all instances, by view and by rule of what a right alarm is.
#[derive(Default)]
struct Sets {
    fused: (Vec<Series>, Vec<Series>),
    alone: (Vec<Series>, Vec<Series>),
    p30: Vec<Series>,
    unexplained: usize,
}

impl Sets {
    fn add(&mut self, life: &Life<'_>, label: &Label) {
        let gradual = |episode: &Episode| episode.kind() != Kind::Abrupt;
        let series = |risks, rule| life.series(label, risks, rule, gradual);
        for (sets, risks) in [
            (&mut self.fused, &life.risks.fused),
            (&mut self.alone, &life.risks.alone),
        ] {
            sets.0.push(series(risks, Rule::Within(WINDOW_S)));
            sets.1.push(series(risks, Rule::Growing));
        }
        let horizon = HORIZONS_S[JUDGED] as usize;
        self.p30
            .push(series(&life.risks.p30, Rule::Within(horizon)));
        self.unexplained += life.failures.iter().filter(|f| f.1.is_none()).count();
    }
}

/// Which rows count as rightly predicted.
#[derive(Clone, Copy)]
enum Rule {
    /// The instance fails within so many seconds.
    Within(usize),
    /// The same as within [`WINDOW_S`], or a fault grows by which it fails.
    Growing,
}

/// Plays a recording.
fn lives<'a>(of: &'a Labelled, model: Option<&Arc<Model>>) -> Vec<Life<'a>> {
    let label = &of.label;
    let mut fleet = Fleet::new(model.cloned());
    let mut risks: BTreeMap<&str, Risks> = BTreeMap::new();
    let mut moments = of.recording.moments.iter().peekable();
    let mut dead: Vec<&str> = Vec::new();
    for second in 0..label.seconds {
        let end_ms = label.from_ms + (second as u64 + 1) * 1_000;
        while let Some(moment) = moments.next_if(|moment| moment.time_ms < end_ms) {
            let fates = moment.fates.iter();
            let died = fates.filter(|(_, seen)| seen.fate >= Fate::Suspect);
            dead = died.map(|(name, _)| name.as_str()).collect();
            // Whose source does not answer is not known, and stays as it was.
            let heard = moment
                .readings
                .iter()
                .filter(|(_, r)| *r != Reading::default());
            fleet.tick(heard.map(|(name, reading)| (name.as_str(), reading)));
        }
        for name in label.usual_latency_ms.keys() {
            let outlook = fleet.outlook(name).filter(|_| fleet.is_settled(name));
            let of = risks.entry(name).or_default();
            of.fused.push(outlook.map_or(0.0, |o| o.risk()));
            of.alone.push(outlook.map_or(0.0, |o| o.baseline));
            let chances = outlook.and_then(|o| o.chances);
            of.dead.push(dead.contains(&name.as_str()));
            of.p30.push(chances.map_or(0.0, |chances| chances[JUDGED]));
        }
    }
    let life = |(name, risks)| Life {
        name,
        failures: label
            .failures
            .iter()
            .filter(|failure| failure.instance == name)
            .map(|failure| (failure, label.cause(failure)))
            .collect(),
        risks,
    };
    risks.into_iter().map(life).collect()
}

impl Life<'_> {
    /// Predictions against failures by faults that are `wanted`; others, and the time around them, are not judged.
    fn series(
        &self,
        label: &Label,
        risks: &[f32],
        rule: Rule,
        wanted: impl Fn(&Episode) -> bool,
    ) -> Series {
        let seconds = label.seconds;
        let mut judged: Vec<bool> = (0..seconds)
            .map(|second| (WARM_UP_S..seconds.saturating_sub(END_S)).contains(&second))
            .collect();
        let (mut target, mut events) = (vec![false; seconds], Vec::new());
        let mark = |rows: &mut [bool], from: usize, to: usize, value: bool| {
            let to = to.min(rows.len());
            rows[from.min(to)..to].fill(value);
        };
        // While an abrupt fault lasts there is nothing to predict.
        let abrupt = label.episodes.iter().filter(|e| e.kind() == Kind::Abrupt);
        for episode in abrupt.filter(|e| e.instance == self.name) {
            mark(&mut judged, episode.begins_s, episode.ends_s + 1, false);
        }
        for (failure, cause) in &self.failures {
            mark(&mut judged, failure.from_s, failure.until_s, false);
            let Some(cause) = cause else {
                mark(
                    &mut judged,
                    failure.from_s.saturating_sub(WINDOW_S),
                    failure.from_s,
                    false,
                );
                continue;
            };
            if !wanted(cause) {
                continue;
            }
            let from = match rule {
                Rule::Within(window) => failure.from_s.saturating_sub(window),
                Rule::Growing => cause.begins_s.min(failure.from_s.saturating_sub(WINDOW_S)),
            };
            mark(&mut target, from, failure.from_s, true);
            if (WARM_UP_S..seconds.saturating_sub(END_S)).contains(&failure.from_s) {
                events.push((failure.from_s, failure.from_s + 1));
            }
        }
        Series {
            predicted: risks.to_vec(),
            target,
            judged,
            events,
        }
    }

    /// Seconds from each abrupt failure until the risk tells it, or the agent takes it for dead.
    fn delays(&self) -> Vec<usize> {
        let is_abrupt = |episode: &Episode| episode.kind() == Kind::Abrupt;
        let abrupt = self.failures.iter().filter(|f| f.1.is_some_and(is_abrupt));
        let delay = |from: usize| {
            let risks = self.risks.fused[from..]
                .iter()
                .zip(&self.risks.dead[from..]);
            let mut risks = risks.take(DETECTION_S);
            risks.position(|(risk, dead)| *dead || *risk > DETECTED_RISK)
        };
        abrupt
            .map(|(failure, _)| delay(failure.from_s).unwrap_or(usize::MAX))
            .collect()
    }
}

impl Detection {
    fn of(mut delays: Vec<usize>) -> Self {
        delays.sort_unstable();
        let at = |share: f64| {
            let last = delays.len().checked_sub(1)?;
            let delay = delays[(last as f64 * share).ceil() as usize];
            (delay < usize::MAX).then_some(delay)
        };
        let detected = delays.iter().filter(|delay| **delay < usize::MAX).count();
        Self {
            failures: delays.len(),
            detected: detected as f64 / delays.len().max(1) as f64,
            p50_s: at(0.5),
            p95_s: at(0.95),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{
        predict::signal::Signal,
        recording::{Moment, Recording},
    };

    /// Four instances; the first leaks from 200 s on, slowly, and fails at 400 s; the second crashes at 500 s.
    fn leaking() -> Labelled {
        let names = ["a", "b", "c", "d"];
        let moments = (0..700u64).map(|second| {
            let readings = names.map(|name| {
                let mut reading = Reading::default();
                let leaked = match (name, second) {
                    ("a", 200..400) => (second - 200) as f32 / 200.0 * 0.75,
                    _ => 0.0,
                };
                reading.set(Signal::Memory, 0.2 + leaked);
                let dead = name == "b" && (501..520).contains(&second);
                reading.set(
                    Signal::Silence,
                    if dead {
                        (second - 499) as f32 * 1_000.0
                    } else {
                        // Answers that were owed came.
                        (second % 2) as f32
                    },
                );
                (name.to_owned(), reading)
            });
            Moment {
                time_ms: second * 1_000,
                readings: readings.to_vec(),
                ..Moment::default()
            }
        });
        let mut recording = Recording::default();
        recording.moments.extend(moments);
        let episode = |family: &str, instance: &str, begins_s, ends_s| Episode {
            family: family.to_owned(),
            instance: instance.to_owned(),
            begins_s,
            ends_s,
            ..Episode::default()
        };
        let failure = |instance: &str, from_s, until_s| Failure {
            instance: instance.to_owned(),
            from_s,
            until_s,
        };
        Labelled {
            name: "one".to_owned(),
            recording,
            label: Label {
                seconds: 700,
                episodes: vec![
                    episode("memory-leak", "a", 200, 405),
                    episode("crash", "b", 500, 520),
                ],
                failures: vec![
                    failure("a", 400, 440),
                    failure("b", 500, 550),
                    failure("c", 600, 640),
                ],
                usual_latency_ms: names.map(|name| (name.to_owned(), 1.0)).into(),
                ..Label::default()
            },
        }
    }

    #[test]
    fn a_leak_is_caught_a_crash_detected_and_the_rest_left_out() {
        let found = evaluate(&[leaking()], None, 1);
        assert_eq!((found.failures, found.unexplained), (1, 1));
        assert_eq!(found.layer_a.while_growing.recall[0].value, 1.0);
        assert_eq!(found.fused.within_120_s.recall[0].value, 1.0);
        let leak = found.families.iter().find(|f| f.family == "memory-leak");
        assert_eq!(
            leak.map(|f| (f.episodes, f.failures, f.caught)),
            Some((1, 1, 1.0))
        );
        assert_eq!((found.abrupt.failures, found.abrupt.detected), (1, 1.0));
        assert!(
            found.abrupt.p50_s.is_some_and(|s| (1..10).contains(&s)),
            "{:?}",
            found.abrupt
        );
        // 580 s each; less a's 40 s of failing, b's 50 s, c's 120 s before its failure and 40 s of it.
        let hours = (4.0 * 580.0 - 40.0 - 50.0 - 160.0) / 3_600.0;
        assert!(
            (found.instance_hours - hours).abs() < 2.0 / 3_600.0,
            "{}",
            found.instance_hours
        );
    }

    #[test]
    fn an_alarm_before_the_fault_is_false_by_either_rule() {
        let of = leaking();
        let life = lives(&of, None).into_iter().next().unwrap();
        let mut risks = vec![0.0; 700];
        // Before the leak; while it grows, too early for the strict rule.
        for (at, right) in [
            (190, [false, false]),
            (250, [false, true]),
            (300, [true, true]),
        ] {
            risks.fill(0.0);
            risks[at] = 1.0;
            let rules = [(Rule::Within(WINDOW_S), STRICT), (Rule::Growing, GROWING)];
            let caught = rules.map(|(rule, alarms)| {
                let series = life.series(&of.label, &risks, rule, |_| true);
                caught_at(&[series], &alarms, 0.5).1 == 1.0
            });
            assert_eq!(caught, right, "at {at} s");
        }
    }
}
