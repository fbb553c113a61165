//! From recordings to lessons: readings by second, what became of each instance, and which part each minute is for. Pure.

use std::{collections::BTreeMap, ops::Range};

use super::{
    fate::{Fate, Seen},
    lessons::{Course, Lessons, Parts, lessons},
    onsets::{Second, onsets},
};
use crate::health::{
    predict::{
        model::HORIZONS_S,
        signal::{Reading, Signal},
    },
    recording::Moment,
};

/// A recording that pauses for longer is begun anew: what is usual may be another.
const PAUSE_MS: u64 = 3_500;
/// Models learn from readings a second apart; a recording with rarer ones has not what they need.
const EVERY_MS_MAX: u64 = 1_500;
/// Seconds at the start of a stretch in which nothing has settled.
const WARM_UP_S: usize = 60;
/// The longest horizon: how far ahead it must be known what came.
const AHEAD_S: usize = HORIZONS_S[HORIZONS_S.len() - 1] as usize;
/// A part gets at least so many seconds on end.
const CHUNK_S: usize = 600;

/// Why nothing can be learned from recordings.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Unfit {
    /// Its readings are too rare.
    #[error("it has a reading every {0} ms, and a model learns from readings every second")]
    Rare(u64),
    /// There is nothing that ends badly.
    #[error(
        "{found} failures in {hours:.1} instance-hours of recordings, and at least {needed} are needed, more than ten \
         minutes apart: record for longer, or learn from the simulated corpus as well"
    )]
    Failures {
        /// Parts with a failure that there are.
        found: usize,
        /// That there have to be.
        needed: usize,
        /// How long was recorded.
        hours: f64,
    },
}

/// Instances, each other's peers, recorded without a pause.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stretch {
    /// When its first second is, ms since 1970.
    pub from_ms: u64,
    /// Their names.
    pub names: Vec<String>,
    /// By instance and second.
    pub seconds: Vec<Vec<Second>>,
    /// By instance, what became of it.
    fared: Vec<Fared>,
}

/// What became of an instance: by second whether it was failing or had not recovered, and when it began to.
type Fared = (Vec<bool>, Vec<usize>);

impl Stretch {
    /// Takes who failed when, name and ms since 1970, from somebody who knows it better than the agent: the clients.
    pub fn tell(&mut self, failures: &[(&str, Range<u64>)]) {
        for (name, (failing, onsets)) in self.names.iter().zip(&mut self.fared) {
            failing.fill(false);
            onsets.clear();
            for (_, time_ms) in failures.iter().filter(|(of, _)| of == name) {
                let second = |ms: u64| (ms.saturating_sub(self.from_ms) + 500) / 1_000;
                let [from, until] =
                    [time_ms.start, time_ms.end].map(|ms| (second(ms) as usize).min(failing.len()));
                if from < until && time_ms.start >= self.from_ms {
                    onsets.push(from);
                }
                failing[from..until].fill(true);
            }
        }
    }
}

/// Cuts recordings of one VNI, one after the other in time, into stretches of readings a second apart.
pub fn stretches(moments: &[Moment]) -> Result<Vec<Stretch>, Unfit> {
    let mut stretches = Vec::new();
    let mut from = 0;
    for at in 1..=moments.len() {
        let goes_on = moments.get(at).is_some_and(|now| {
            let passed_ms = now.time_ms.checked_sub(moments[at - 1].time_ms);
            passed_ms.is_some_and(|ms| ms <= PAUSE_MS)
        });
        if !goes_on {
            stretches.push(stretch(&moments[from..at])?);
            from = at;
        }
    }
    Ok(stretches)
}

fn stretch(moments: &[Moment]) -> Result<Stretch, Unfit> {
    let (Some(first), Some(last)) = (moments.first(), moments.last()) else {
        return Ok(Stretch::default());
    };
    let length_ms = last.time_ms - first.time_ms;
    if let Some(every_ms) = length_ms.checked_div(moments.len() as u64 - 1)
        && every_ms > EVERY_MS_MAX
    {
        return Err(Unfit::Rare(every_ms));
    }
    let mut heard: BTreeMap<&str, Vec<Heard>> = BTreeMap::new();
    let length = (length_ms + 500) as usize / 1_000 + 1;
    for moment in moments {
        let second = (moment.time_ms - first.time_ms + 500) as usize / 1_000;
        for (name, reading) in &moment.readings {
            let fate = moment.fates.iter().find(|(of, _)| of == name);
            let of_it = heard
                .entry(name)
                .or_insert_with(|| vec![Heard::default(); length]);
            of_it[second].add(reading, fate.map_or(Seen::WELL, |(_, seen)| *seen));
        }
    }
    let mut stretch = Stretch {
        from_ms: first.time_ms,
        ..Stretch::default()
    };
    for (name, heard) in heard {
        let seconds = by_second(&heard);
        stretch.names.push(name.to_owned());
        stretch.fared.push(onsets(&seconds));
        stretch.seconds.push(seconds);
    }
    Ok(stretch)
}

/// What was measured of an instance within a second.
#[derive(Clone, Default)]
struct Heard {
    sums: [f32; Signal::ALL.len()],
    counts: [u16; Signal::ALL.len()],
    times: u16,
    seen: Seen,
}

impl Heard {
    fn add(&mut self, reading: &Reading, seen: Seen) {
        self.times += 1;
        self.seen = self.seen.worst(seen);
        for (number, signal) in Signal::ALL.into_iter().enumerate() {
            if let Some(value) = reading.get(signal) {
                self.sums[number] += value;
                self.counts[number] += 1;
            }
        }
    }

    fn second(&self) -> Second {
        let mut reading = Reading::default();
        for (number, signal) in Signal::ALL.into_iter().enumerate() {
            if self.counts[number] > 0 {
                reading.set(signal, self.sums[number] / f32::from(self.counts[number]));
            }
        }
        Second {
            reading,
            seen: self.seen,
        }
    }
}

/// One a second. A second that was only missed, because clocks are not exact, is like the one before.
fn by_second(heard: &[Heard]) -> Vec<Second> {
    let mut last = Second::default();
    let one = |heard: &Heard| {
        if heard.times > 0 {
            last = heard.second();
        }
        last
    };
    heard.iter().map(one).collect()
}

/// What the recordings were found to hold.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Found {
    /// Seconds of instances.
    pub seconds: u64,
    /// Failures.
    pub failures: usize,
}

impl Found {
    /// Hours of instances.
    #[must_use]
    pub fn hours(&self) -> f64 {
        self.seconds as f64 / 3_600.0
    }
}

/// Which part a chunk is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum For {
    Trees,
    Probabilities,
    Sight,
}

/// How chunks are dealt out, those with failures and those without each by themselves: three fifths, one and one. The first
/// two of each kind go to what a model cannot be made without.
const DEAL: [For; 5] = [
    For::Trees,
    For::Probabilities,
    For::Trees,
    For::Sight,
    For::Trees,
];
/// So many chunks with failures are needed if there is nothing else to learn from.
const CHUNKS_MIN: usize = 2;

/// All recordings as lessons. `alone`: nothing else is learned from. `tick` is called after every stretch.
pub fn parts(
    stretches: &[Stretch],
    alone: bool,
    mut tick: impl FnMut(),
) -> Result<(Parts, Found), Unfit> {
    let (mut parts, mut found) = (Parts::default(), Found::default());
    let mut dealt = [0; 2];
    for (number, stretch) in stretches.iter().enumerate() {
        teach(number, stretch, &mut dealt, &mut parts, &mut found);
        tick();
    }
    let [with_failure, _] = dealt;
    if alone && with_failure < CHUNKS_MIN {
        return Err(Unfit::Failures {
            found: with_failure,
            needed: CHUNKS_MIN,
            hours: found.hours(),
        });
    }
    Ok((parts, found))
}

fn teach(
    number: usize,
    stretch: &Stretch,
    dealt: &mut [usize; 2],
    to: &mut Parts,
    found: &mut Found,
) {
    let fared = &stretch.fared;
    let length = stretch.seconds.first().map_or(0, Vec::len);
    found.seconds += (length * stretch.names.len()) as u64;
    found.failures += fared.iter().map(|(_, onsets)| onsets.len()).sum::<usize>();
    // What is left over at the end is part of the last chunk.
    let chunks = (length / CHUNK_S).max(1);
    let chunk = |second: usize| (second / CHUNK_S).min(chunks - 1);
    let mut deal = Vec::new();
    for number in 0..chunks {
        let fails = fared
            .iter()
            .flat_map(|(_, onsets)| onsets)
            .any(|onset| chunk(*onset) == number && *onset >= WARM_UP_S);
        let kind = usize::from(!fails);
        deal.push(DEAL[dealt[kind] % DEAL.len()]);
        dealt[kind] += 1;
    }
    let readings: Vec<Vec<Reading>> = stretch
        .seconds
        .iter()
        .map(|seconds| seconds.iter().map(|second| second.reading).collect())
        .collect();
    let courses: Vec<_> = readings
        .iter()
        .zip(fared)
        .map(|(readings, (_, onsets))| Course { readings, onsets })
        .collect();
    let names: Vec<&str> = stretch.names.iter().map(String::as_str).collect();
    let is_of_use = |instance: usize, second: usize| {
        let seconds: &[Second] = &stretch.seconds[instance];
        let (failing, onsets) = &fared[instance];
        let is_apart = chunk(second) == chunk((second + AHEAD_S).min(length - 1));
        second >= WARM_UP_S
            && !failing[second]
            && seconds[second].reading.present() != 0
            && is_apart
            && is_known(seconds, onsets, second)
    };
    lessons(number, &names, &courses, is_of_use, |second, lesson| {
        let part: &mut Lessons = match deal[chunk(second)] {
            For::Trees => &mut to.learned,
            For::Probabilities => &mut to.checked,
            For::Sight => &mut to.held_out,
        };
        part.push(lesson);
    });
}

/// Whether it is known what came after a second: a failure, or a horizon in which it could be seen that none did.
fn is_known(seconds: &[Second], onsets: &[usize], second: usize) -> bool {
    let end = second + AHEAD_S;
    if onsets.iter().any(|onset| *onset > second && *onset <= end) {
        return true;
    }
    let ahead = seconds.get(second..=end);
    ahead.is_some_and(|ahead| ahead.iter().all(|s| s.seen.fate != Fate::Uncertain))
}

#[cfg(test)]
#[path = "recorded_tests.rs"]
mod tests;
