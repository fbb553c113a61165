//! Rows to learn from, and a model of them, whether they were simulated or recorded. Trees are fitted to one part,
//! probabilities to another, and a third, which neither has seen, shows how good they are. Pure.

use crate::health::{
    learning::drift::Reference,
    predict::{
        calibrate::Calibration,
        engine::Fleet,
        features::{self, Row, WIDTH},
        metrics::{Series, curve},
        model::{Card, HORIZONS_S, Hazard, Model},
        signal::Reading,
        train::{Boosting, Table, TrainError, boost},
    },
    sim::label,
};

/// Of the rows on which nothing comes, every so many is learned from; their weight makes up for the others.
const QUIET_STRIDE: usize = 12;
/// A row counts as quiet if nothing comes for twice the longest horizon.
const SOON_S: u32 = 2 * HORIZONS_S[HORIZONS_S.len() - 1];
/// Which horizon the calibration plot is of.
const PLOTTED: usize = 2;

/// How much is learned from what there is.
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
}

/// One row, and in how many seconds its instance fails.
#[derive(Clone, Debug)]
pub struct Lesson {
    /// The features.
    pub row: Row,
    /// Seconds to the onset; none: nothing comes for longer than any horizon.
    pub seconds_to: Option<u32>,
    /// How many rows it stands for.
    pub weight: f32,
}

/// Rows of one part.
#[derive(Clone, Debug, Default)]
pub struct Lessons {
    rows: Vec<Lesson>,
}

/// What was measured of an instance by second, and what became of it.
#[derive(Clone, Copy, Debug)]
pub struct Course<'a> {
    /// What was measured.
    pub readings: &'a [Reading],
    /// When it began to fail.
    pub onsets: &'a [usize],
}

/// Plays the readings of instances, each other's peers, to a fleet. Who was not heard in a second is not changed by it.
pub fn replay<'a>(
    mut fleet: Fleet,
    names: &'a [&'a str],
    readings: &[&'a [Reading]],
    mut each: impl FnMut(usize, &Fleet),
) {
    let seconds = readings.first().map_or(0, |readings| readings.len());
    for second in 0..seconds {
        let now = names.iter().zip(readings);
        let now = now.map(|(name, readings)| (*name, &readings[second]));
        fleet.tick(now.filter(|(_, reading)| reading.present() != 0));
        each(second, &fleet);
    }
}

/// The lessons of one run, the `number`th. `give` is asked by instance and second whether a row is of use, and takes it.
pub fn lessons(
    number: usize,
    names: &[&str],
    courses: &[Course<'_>],
    is_of_use: impl Fn(usize, usize) -> bool,
    mut give: impl FnMut(usize, Lesson),
) {
    let readings: Vec<_> = courses.iter().map(|course| course.readings).collect();
    let seconds: Vec<_> = courses
        .iter()
        .map(|course| label::seconds_to(course.onsets, course.readings.len()))
        .collect();
    replay(Fleet::new(None), names, &readings, |second, fleet| {
        for (instance, name) in names.iter().enumerate() {
            let seconds_to = seconds[instance][second];
            let soon = seconds_to.is_some_and(|s| s <= SOON_S);
            // A different second in each instance: together they see all of the run.
            let taken = soon || (second + number + 3 * instance).is_multiple_of(QUIET_STRIDE);
            if !taken || !is_of_use(instance, second) {
                continue;
            }
            if let Some((row, _)) = fleet.row(name) {
                let weight = if soon { 1.0 } else { QUIET_STRIDE as f32 };
                let lesson = Lesson {
                    row,
                    seconds_to,
                    weight,
                };
                give(second, lesson);
            }
        }
    });
}

impl Lessons {
    /// Adds one.
    pub fn push(&mut self, lesson: Lesson) {
        self.rows.push(lesson);
    }

    /// Adds those of another.
    pub fn extend(&mut self, other: Self) {
        self.rows.extend(other.rows);
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Rows before a failure, within the longest horizon.
    #[must_use]
    pub fn positives(&self) -> usize {
        let longest = HORIZONS_S[HORIZONS_S.len() - 1];
        let positive = |lesson: &&Lesson| lesson.seconds_to.is_some_and(|s| s <= longest);
        self.rows.iter().filter(positive).count()
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

    /// Mean log-loss of the probability of failing within 30 s; none without rows.
    #[must_use]
    pub fn log_loss(&self, model: &Model) -> Option<f64> {
        let (mut sum, mut rows) = (0.0, 0.0);
        for lesson in &self.rows {
            let p = f64::from(model.predict(&lesson.row)[PLOTTED]);
            let came = lesson.seconds_to.is_some_and(|s| s <= HORIZONS_S[PLOTTED]);
            let of_what_came = if came { p } else { 1.0 - p };
            let weight = f64::from(lesson.weight);
            sum -= weight * of_what_came.ln();
            rows += weight;
        }
        (rows > 0.0).then(|| sum / rows)
    }

    /// Mean prediction of failing within 30 s, rate and rows.
    #[must_use]
    pub fn curve(&self, model: &Model) -> Vec<(f64, f64, u64)> {
        let mut series = Series::default();
        for lesson in &self.rows {
            let predicted = model.predict(&lesson.row)[PLOTTED];
            let came = lesson.seconds_to.is_some_and(|s| s <= HORIZONS_S[PLOTTED]);
            for _ in 0..lesson.weight as usize {
                series.predicted.push(predicted);
                series.target.push(came);
                series.judged.push(true);
            }
        }
        curve(&[series])
    }
}

/// What a model is made of.
#[derive(Clone, Debug, Default)]
pub struct Parts {
    /// Trees are fitted to it.
    pub learned: Lessons,
    /// Probabilities are fitted to it.
    pub checked: Lessons,
    /// How good they are is seen on it.
    pub held_out: Lessons,
}

impl Parts {
    /// Adds those of another.
    pub fn extend(&mut self, other: Self) {
        self.learned.extend(other.learned);
        self.checked.extend(other.checked);
        self.held_out.extend(other.held_out);
    }
}

/// A model. `corpus` says of what; `tick` is called after every tree.
pub fn train(
    parts: &Parts,
    effort: &Effort,
    corpus: String,
    mut tick: impl FnMut(),
) -> Result<Model, TrainError> {
    let mut hazards = Vec::new();
    let mut positives = [0; HORIZONS_S.len()];
    for (number, positive) in positives.iter_mut().enumerate() {
        let table = parts.learned.table(number);
        *positive = table.outcomes.iter().filter(|outcome| **outcome).count();
        let (forest, bias) = boost(&table, &effort.boosting(number), &mut tick)?;
        let mut hazard = Hazard {
            forest,
            bias,
            calibration: Calibration::fit(&[], &[]),
        };
        hazard.calibration = parts.checked.calibrate(&hazard, number);
        hazards.push(hazard);
    }
    let hazards: [Hazard; HORIZONS_S.len()] = match hazards.try_into() {
        Ok(hazards) => hazards,
        Err(_) => unreachable!("one is made for each horizon"),
    };
    let card = Card {
        corpus,
        data_hash: format!("{:08x}", parts.learned.hash()),
        seed: effort.seed,
        rows: parts.learned.len(),
        positives,
        features: features::names(),
        ..Card::default()
    };
    let rows: Vec<_> = parts
        .learned
        .rows
        .iter()
        .map(|l| (&l.row, l.weight))
        .collect();
    let mut model = Model {
        hazards,
        card,
        reference: Some(Reference::of(&rows)),
    };
    model.card.most_used = most_used(&model);
    model.card.calibration = parts.held_out.curve(&model);
    model.card.log_loss = parts.held_out.log_loss(&model);
    Ok(model)
}

/// The features that trees split by most often.
fn most_used(model: &Model) -> Vec<(String, f32)> {
    let named = features::names().into_iter().zip(model.usage());
    let mut used: Vec<_> = named.collect();
    used.sort_by(|a, b| b.1.total_cmp(&a.1));
    used.truncate(10);
    used
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::predict::signal::Signal;

    fn reading(value: f32) -> Reading {
        let mut reading = Reading::default();
        reading.set(Signal::Memory, value);
        reading
    }

    /// By hand: two instances for 150 s, the first fails at 140; rows from 60 s on are of use.
    #[test]
    fn which_rows_are_lessons() {
        let readings = vec![reading(0.5); 150];
        let course = |onsets| Course {
            readings: &readings,
            onsets,
        };
        let mut given = Vec::new();
        lessons(
            0,
            &["a", "b"],
            &[course(&[140]), course(&[])],
            |_, second| second >= 60,
            |second, lesson| given.push((second, lesson.seconds_to, lesson.weight)),
        );
        let soon = given.iter().filter(|(.., weight)| *weight == 1.0);
        let soon: Vec<_> = soon.map(|(second, to, _)| (*second, *to)).collect();
        // Twice the longest horizon is all of it, up to the onset itself.
        let expected: Vec<_> = (60..140).map(|s| (s, Some(140 - s as u32))).collect();
        assert_eq!(soon, expected);
        let quiet = given.iter().filter(|(.., weight)| *weight == 12.0);
        let quiet: Vec<_> = quiet.map(|(second, to, _)| (*second, *to)).collect();
        // Every twelfth second: of the first after its onset (none is due), of the second from 69 on.
        let of_b = (60..150).filter(|s| (s + 3) % 12 == 0);
        let mut expected: Vec<_> = of_b.chain([144]).map(|s| (s, None)).collect();
        expected.sort();
        assert_eq!(quiet, expected);
    }

    #[test]
    fn a_hazard_sees_only_what_has_reached_it() {
        let mut lessons = Lessons::default();
        for seconds_to in [Some(3), Some(10), Some(15), Some(40), None] {
            lessons.push(Lesson {
                row: [0.0; WIDTH],
                seconds_to,
                weight: 1.0,
            });
        }
        let outcomes =
            |hazard| -> Vec<bool> { lessons.of_hazard(hazard).map(|(_, o)| o).collect() };
        assert_eq!(outcomes(0), [true, false, false, false, false]);
        assert_eq!(outcomes(1), [true, true, false, false]);
        assert_eq!(outcomes(2), [false, false]);
        assert_eq!(outcomes(3), [true, false]);
        assert_eq!(lessons.positives(), 4);
    }
}
