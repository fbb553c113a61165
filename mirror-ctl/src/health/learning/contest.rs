//! Champion and challenger side by side: both foresee the same seconds of the same instances, and what came of them is held
//! against both. Pure.

use std::collections::{HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::onsets::{Past, Second, Tracker};
use crate::health::predict::model::{Chances, HORIZONS_S};

/// Which horizon is judged: long enough to act, short enough to be told from noise, and known soon.
const JUDGED: usize = 2;
const AHEAD_S: usize = HORIZONS_S[JUDGED] as usize;
/// A probability above this is an alarm,
const ALARM: f32 = 0.5;
/// and another one is not raised for so long.
const QUIET_S: u32 = 60;
/// No prediction is held to have been more certain.
const CERTAIN: f64 = 1e-6;
/// How far back is looked.
pub const WINDOW_HOURS: usize = 7 * 24;

/// What both said of one second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Forecast {
    /// The probability of failing within 30 s, by the champion.
    pub champion: f32,
    /// The same by the challenger; none: there is none.
    pub challenger: Option<f32>,
}

impl Forecast {
    /// Of the probabilities of both.
    #[must_use]
    pub fn of(champion: Chances, challenger: Option<Chances>) -> Self {
        Self {
            champion: champion[JUDGED],
            challenger: challenger.map(|chances| chances[JUDGED]),
        }
    }

    fn sides(&self) -> [Option<f32>; 2] {
        [Some(self.champion), self.challenger]
    }
}

/// How one side did: sums over rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// −ln of the probability given to what came.
    pub log_loss: f64,
    /// Square of the distance from what came.
    pub brier: f64,
    /// Alarms that nothing came of.
    pub false_alarms: u64,
    /// Failures with an alarm in the 30 s before them.
    pub caught: u64,
}

/// What an hour held, or several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The hour, since 1970.
    pub hour: u64,
    /// Seconds of instances that were judged.
    pub rows: u64,
    /// Failures.
    pub failures: u64,
    /// Those of them that the challenger foresaw better: by log-loss over the 30 s before.
    pub wins: u64,
    /// Champion and challenger.
    pub sides: [Side; 2],
}

impl Score {
    fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.failures += other.failures;
        self.wins += other.wins;
        for (side, other) in self.sides.iter_mut().zip(&other.sides) {
            side.log_loss += other.log_loss;
            side.brier += other.brier;
            side.false_alarms += other.false_alarms;
            side.caught += other.caught;
        }
    }

    /// Mean log-loss of a side; none without rows.
    #[must_use]
    pub fn log_loss(&self, side: usize) -> Option<f64> {
        (self.rows > 0).then(|| self.sides[side].log_loss / self.rows as f64)
    }

    /// Mean Brier score of a side; none without rows.
    #[must_use]
    pub fn brier(&self, side: usize) -> Option<f64> {
        (self.rows > 0).then(|| self.sides[side].brier / self.rows as f64)
    }
}

/// Scores by hour, of the last [`WINDOW_HOURS`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Window(VecDeque<Score>);

impl Window {
    fn now(&mut self, hour: u64) -> &mut Score {
        // A clock that was set back does not divide an hour.
        if self.0.back().is_none_or(|last| last.hour < hour) {
            self.0.push_back(Score {
                hour,
                ..Score::default()
            });
        }
        while self.0.len() > 1 && self.0[0].hour + WINDOW_HOURS as u64 <= hour {
            self.0.pop_front();
        }
        let last = self.0.len() - 1;
        &mut self.0[last]
    }

    /// All hours together.
    #[must_use]
    pub fn total(&self) -> Score {
        let mut total = Score::default();
        self.0.iter().for_each(|score| total.add(score));
        total
    }
}

/// One instance: seconds whose outcome is awaited, and the failure that the last ones may lead to.
#[derive(Clone, Debug, Default)]
struct Course {
    tracker: Tracker,
    /// Forecasts that the tracker is behind with.
    fresh: VecDeque<Option<Forecast>>,
    waiting: VecDeque<(Option<Forecast>, Past)>,
    before: Before,
    quiet_s: [u32; 2],
}

/// Rows before a failure.
#[derive(Clone, Copy, Debug, Default)]
struct Before {
    rows: u32,
    log_loss: [f64; 2],
    alarmed: [bool; 2],
}

/// All instances, and the score.
#[derive(Clone, Debug, Default)]
pub struct Contest {
    courses: HashMap<(String, String), Course>,
    window: Window,
}

impl Contest {
    /// Goes on with a score.
    #[must_use]
    pub fn resumed(window: Window) -> Self {
        Self {
            window,
            ..Self::default()
        }
    }

    /// The score.
    #[must_use]
    pub fn window(&self) -> &Window {
        &self.window
    }

    /// Another score begins; what became of instances is still known.
    pub fn restart(&mut self, window: Window) {
        self.window = window;
        for course in self.courses.values_mut() {
            course
                .fresh
                .iter_mut()
                .for_each(|forecast| *forecast = None);
            course
                .waiting
                .iter_mut()
                .for_each(|(forecast, _)| *forecast = None);
            course.before = Before::default();
        }
    }

    /// Forgets instances that are not there any more.
    pub fn retain(&mut self, is_there: impl Fn(&str, &str) -> bool) {
        self.courses
            .retain(|(vni, instance), _| is_there(vni, instance));
    }

    /// One second of one instance: what was foreseen of what comes after it, and what was seen in it.
    pub fn second(
        &mut self,
        (vni, instance): (&str, &str),
        hour: u64,
        forecast: Option<Forecast>,
        seen: &Second,
    ) {
        let key = (vni.to_owned(), instance.to_owned());
        let course = self.courses.entry(key).or_default();
        course.fresh.push_back(forecast);
        let Some(past) = course.tracker.push(seen) else {
            return;
        };
        let forecast = course.fresh.pop_front().flatten();
        course.waiting.push_back((forecast, past));
        if course.waiting.len() > AHEAD_S
            && let Some((forecast, past)) = course.waiting.pop_front()
        {
            course.judge(forecast, past, self.window.now(hour));
        }
    }
}

impl Course {
    /// The outcome of a second is known.
    fn judge(&mut self, forecast: Option<Forecast>, past: Past, score: &mut Score) {
        self.quiet_s = self.quiet_s.map(|quiet_s| quiet_s.saturating_sub(1));
        if past.failing {
            if self.before.rows > 0 {
                let Before {
                    log_loss, alarmed, ..
                } = std::mem::take(&mut self.before);
                score.failures += 1;
                score.wins += u64::from(log_loss[1] < log_loss[0]);
                for (side, alarmed) in score.sides.iter_mut().zip(alarmed) {
                    side.caught += u64::from(alarmed);
                }
            }
            return;
        }
        let ahead = || self.waiting.iter().map(|(_, past)| past);
        let fails = ahead().any(|past| past.onset);
        let is_known = fails || !(past.uncertain || ahead().any(|past| past.uncertain));
        let Some(forecast) = forecast.filter(|_| is_known) else {
            return;
        };
        score.rows += 1;
        self.before.rows += u32::from(fails);
        for (number, chance) in forecast.sides().into_iter().enumerate() {
            let Some(chance) = chance else { continue };
            let side = &mut score.sides[number];
            let p = f64::from(chance).clamp(CERTAIN, 1.0 - CERTAIN);
            let of_what_came = if fails { p } else { 1.0 - p };
            side.log_loss -= of_what_came.ln();
            side.brier += (1.0 - of_what_came).powi(2);
            let alarm = chance > ALARM;
            if fails {
                self.before.log_loss[number] -= of_what_came.ln();
                self.before.alarmed[number] |= alarm;
            }
            if alarm && self.quiet_s[number] == 0 {
                self.quiet_s[number] = QUIET_S;
                side.false_alarms += u64::from(!fails);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{
        Cause,
        learning::fate::{Fate, Seen},
    };

    const A: (&str, &str) = ("web", "a");

    fn second(fate: Fate) -> Second {
        Second {
            seen: Seen {
                fate,
                cause: Cause::Silent,
            },
            ..Second::default()
        }
    }

    /// Plays 300 seconds; `fails` says when it is failed, `chances` what both foresee.
    fn play(fate: impl Fn(usize) -> Fate, chances: impl Fn(usize) -> (f32, f32)) -> Score {
        let mut contest = Contest::default();
        for at in 0..300 {
            let (champion, challenger) = chances(at);
            let forecast = Forecast {
                champion,
                challenger: Some(challenger),
            };
            contest.second(A, 7, Some(forecast), &second(fate(at)));
        }
        contest.window().total()
    }

    /// It fails from 100 to 109; it is well again 30 s after the last bad second, in 140.
    fn once(at: usize) -> Fate {
        match at {
            100..110 => Fate::Failed,
            _ => Fate::Serving,
        }
    }

    #[test]
    fn scores_worked_by_hand() {
        let score = play(once, |at| match at {
            70..100 => (0.25, 0.75),
            200 => (0.25, 0.75),
            _ => (0.25, 0.25),
        });
        // 100 before the failure. After it and after two more seconds that count as bad, 30 good ones pass; what is known
        // at 300 is what is older than 30 s and the 4 that a failure takes to be one.
        let after = 300 - 4 - 30 - (112 + 30);
        assert_eq!(
            (score.rows, score.failures, score.wins),
            (100 + after, 1, 1)
        );
        assert_eq!(score.sides[0].caught, 0);
        // Its alarm at 70 is right; the one at 200 is false.
        assert_eq!((score.sides[1].caught, score.sides[1].false_alarms), (1, 1));
        let quiet = (score.rows - 30) as f64;
        let champion = quiet * -(0.75f64.ln()) + 30.0 * -(0.25f64.ln());
        let challenger = (quiet - 1.0) * -(0.75f64.ln()) + 30.0 * -(0.75f64.ln()) - 0.25f64.ln();
        assert!((score.sides[0].log_loss - champion).abs() < 1e-6);
        assert!((score.sides[1].log_loss - challenger).abs() < 1e-6);
        let brier = quiet * 0.0625 + 30.0 * 0.5625;
        assert!((score.sides[0].brier - brier).abs() < 1e-6);
        assert!((score.brier(0).unwrap() - brier / score.rows as f64).abs() < 1e-9);
    }

    #[test]
    fn an_alarm_is_raised_once_a_minute() {
        let score = play(
            |_| Fate::Serving,
            |at| (if at >= 100 { 0.9 } else { 0.1 }, 0.1),
        );
        // At 100, 160 and 220.
        assert_eq!(
            (score.sides[0].false_alarms, score.sides[1].false_alarms),
            (3, 0)
        );
    }

    #[test]
    fn what_nobody_knows_is_not_judged() {
        let all = play(|_| Fate::Serving, |_| (0.1, 0.1)).rows;
        assert_eq!(all, 300 - 4 - 30);
        let left = |at| {
            if (100..120).contains(&at) {
                Fate::Uncertain
            } else {
                Fate::Serving
            }
        };
        // Neither those seconds nor the 30 before them.
        assert_eq!(play(left, |_| (0.1, 0.1)).rows, all - 50);
        // It failed all the same: the 30 before that are known. Before them, those that saw only that it was out are not;
        // after it, those until it is well.
        let failed = |at| if at == 119 { Fate::Failed } else { left(at) };
        let score = play(failed, |_| (0.1, 0.1));
        assert_eq!(
            (score.failures, score.rows),
            (1, all - (89 - 70) - (122 + 30 - 119))
        );
    }

    #[test]
    fn a_new_score_forgets_what_others_foresaw() {
        let mut contest = Contest::default();
        let forecast = |p| {
            Some(Forecast {
                champion: p,
                challenger: None,
            })
        };
        for _ in 0..50 {
            contest.second(A, 1, forecast(0.9), &second(Fate::Serving));
        }
        contest.restart(Window::default());
        for _ in 0..50 {
            contest.second(A, 1, forecast(0.1), &second(Fate::Serving));
        }
        let score = contest.window().total();
        assert_eq!(score.rows, 50 - 4 - 30);
        assert!((score.log_loss(0).unwrap() + 0.9f64.ln()).abs() < 1e-6);
        assert_eq!(score.sides[1], Side::default());
        contest.retain(|_, instance| instance != "a");
        assert!(contest.courses.is_empty());
    }

    #[test]
    fn old_hours_are_forgotten() {
        let mut window = Window::default();
        for hour in [10, 11, 9, 10 + WINDOW_HOURS as u64] {
            window.now(hour).rows += 1;
        }
        // The clock that was set back counts for hour 11; hour 10 is too old.
        assert_eq!(window.total().rows, 3);
        let text = serde_json::to_string(&window).unwrap();
        assert_eq!(serde_json::from_str::<Window>(&text).unwrap(), window);
    }
}
