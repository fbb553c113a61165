//! Champion and challenger in the running agent: what the referee says is done and told, and what an operator orders; and what
//! is shown of it.

use serde::{Deserialize, Serialize};
use tokio::task;
use tracing::{info, warn};
use utoipa::ToSchema;

use super::{Agent, log::LogEntry};
use crate::{
    clock,
    health::learning::{
        contest::Score,
        promotion::Next,
        referee::Standing,
        seats::{self, Seat},
    },
};

/// The score is kept every so many judgements.
const KEEP_EVERY: u32 = 60;

/// What may be done with models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelAct {
    /// The challenger becomes the champion.
    Promote,
    /// The champion before comes back.
    Rollback,
}

impl ModelAct {
    /// Its verb.
    #[must_use]
    pub const fn verb(self) -> &'static str {
        match self {
            Self::Promote => "promote",
            Self::Rollback => "rollback",
        }
    }

    /// The act of a verb.
    #[must_use]
    pub fn of_verb(verb: &str) -> Option<Self> {
        let all = [Self::Promote, Self::Rollback];
        all.into_iter().find(|act| act.verb() == verb)
    }
}

/// What the agent remembers of its models.
#[derive(Debug, Default)]
pub struct Models {
    standing: Option<Standing>,
    /// Judgements since the score was kept.
    unkept: u32,
    /// The term in which what follows could not be done: it is not tried every second.
    stuck: u64,
    drift_told: bool,
}

impl Agent {
    /// The referee has spoken.
    pub(super) fn learn(&mut self, standing: &Standing) {
        if standing.term != self.watch.term {
            // Of those that were seated before.
            return;
        }
        if standing.drifted != self.models.drift_told {
            self.models.drift_told = standing.drifted;
            let psi = standing.drift.as_ref().map_or(0.0, |drift| drift.psi);
            let most = standing.drift.iter().flat_map(|drift| &drift.most);
            let most: Vec<_> = most
                .map(|m| format!("{} {:.2}", m.feature, m.psi))
                .collect();
            let why = format!(
                "population stability index {psi:.2}; most: {}",
                most.join(", ")
            );
            let told = match standing.drifted {
                true => "model-drifted",
                false => "model-settled",
            };
            self.tell_of_models(told, why);
        }
        self.models.standing = Some(standing.clone());
        self.keep_score(standing);
        if self.models.stuck == self.watch.term {
            return;
        }
        let done = match standing.next {
            Next::Wait(_) => return,
            Next::Promote => self.change_models(ModelAct::Promote, &told(&standing.window.total())),
            Next::RollBack => {
                self.change_models(ModelAct::Rollback, &told(&standing.window.total()))
            }
            Next::Confirm => self.watch.seats.confirm().map(|()| {
                self.watch.reseat();
                self.tell_of_models("model-confirmed", told(&standing.window.total()));
            }),
        };
        if let Err(why) = done {
            self.models.stuck = self.watch.term;
            self.tell_of_models("model-stuck", why);
        }
    }

    /// Has one take the other's place: in the files, then in the engine at its next tick. That it was done is told with why.
    pub(super) fn change_models(&mut self, act: ModelAct, why: &str) -> Result<(), String> {
        let told = match act {
            ModelAct::Promote => self.watch.seats.promote().map(|()| "model-promoted"),
            ModelAct::Rollback => self.watch.seats.roll_back().map(|()| "model-rolled-back"),
        }?;
        self.watch.reseat();
        self.models.standing = None;
        let id = self.watch.seats.champion.as_ref().map(|c| c.id.clone());
        self.tell_of_models(told, format!("{}: {why}", id.unwrap_or_default()));
        self.show();
        Ok(())
    }

    /// Not in the loop: disks are slow.
    fn keep_score(&mut self, standing: &Standing) {
        self.models.unkept += 1;
        if self.models.unkept < KEEP_EVERY {
            return;
        }
        self.models.unkept = 0;
        if let Some((file, text)) = self.watch.seats.to_keep(&standing.window) {
            task::spawn_blocking(move || {
                if let Err(error) = seats::replace(&file, &text) {
                    warn!("{}: {error}", file.display());
                }
            });
        }
    }

    fn tell_of_models(&self, told: &str, why: String) {
        info!(told, why, "models");
        self.log.add([LogEntry {
            time_ns: clock::now_ns(),
            kind: "prediction".to_owned(),
            to: Some(told.to_owned()),
            cause: Some(why),
            ..LogEntry::default()
        }]);
    }

    /// What is shown of the models.
    pub(super) fn models_row(&self) -> ModelsRow {
        let seats = &self.watch.seats;
        let standing = self.models.standing.as_ref();
        let score = standing.map_or_else(|| seats.window.total(), |s| s.window.total());
        let row = |seat: &Option<Seat>, side| {
            let seat = seat.as_ref()?;
            Some(ModelRow::of(seat, &score, side))
        };
        let tally = self.watch.tally();
        ModelsRow {
            champion: row(&seats.champion, 0),
            challenger: row(&seats.challenger, 1),
            stage: match seats.challenger {
                Some(_) => seats.stage.name(),
                None => "none",
            }
            .to_owned(),
            verdict: standing.map_or_else(|| "nothing was judged yet".to_owned(), verdict),
            seconds: score.rows,
            failures: score.failures,
            wins: score.wins,
            drift: standing.and_then(|standing| {
                let drift = standing.drift.as_ref()?;
                let most = drift.most.iter().map(|m| FeatureRow {
                    feature: m.feature.clone(),
                    psi: m.psi.into(),
                });
                Some(DriftRow {
                    psi: drift.psi.into(),
                    drifted: standing.drifted,
                    most: most.collect(),
                })
            }),
            recording: tally.map(|tally| RecordingRow {
                written: tally.written(),
                lost: tally.lost(),
                complaint: tally.complaint(),
            }),
        }
    }
}

fn verdict(standing: &Standing) -> String {
    match standing.next {
        Next::Wait(why) => why.to_string(),
        Next::Promote => "the challenger is clearly better".to_owned(),
        Next::Confirm => "the champion has proved itself".to_owned(),
        Next::RollBack => "the champion is worse than the one before".to_owned(),
    }
}

/// A score in words.
fn told(score: &Score) -> String {
    let of = |side| score.log_loss(side).unwrap_or(0.0);
    format!(
        "log-loss {:.4}, the other's {:.4}, over {} s and {} failures, {} of them foreseen better by the other",
        of(0),
        of(1),
        score.rows,
        score.failures,
        score.wins
    )
}

/// `health models`: who judges, and how well.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ModelsRow {
    /// In force; none: layer A alone.
    pub champion: Option<ModelRow>,
    /// In shadow: the challenger, or on probation the champion before.
    pub challenger: Option<ModelRow>,
    /// `none`, `shadow` or `probation`.
    pub stage: String,
    /// What the scores mean.
    pub verdict: String,
    /// Seconds of instances that both were judged by.
    pub seconds: u64,
    /// Failures among them.
    pub failures: u64,
    /// Those that the challenger foresaw better.
    pub wins: u64,
    /// How far the champion's features are from what it was trained on; none while that is not known.
    pub drift: Option<DriftRow>,
    /// What became of what was to be recorded; none where nothing is.
    pub recording: Option<RecordingRow>,
}

/// One model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ModelRow {
    /// CRC-32 of its file.
    pub id: String,
    /// Its file.
    pub file: String,
    /// What it was trained on.
    pub corpus: String,
    /// Mean log-loss of the probability of failing within 30 s; none while nothing was judged.
    pub log_loss: Option<f64>,
    /// The same on what it was not trained on when it was made.
    pub trained_log_loss: Option<f64>,
    /// Mean Brier score of the same.
    pub brier: Option<f64>,
    /// Alarms that nothing came of.
    pub false_alarms: u64,
    /// Failures with an alarm before them.
    pub caught: u64,
}

impl ModelRow {
    fn of(seat: &Seat, score: &Score, side: usize) -> Self {
        Self {
            id: seat.id.clone(),
            file: seat.file.display().to_string(),
            corpus: seat.model.card.corpus.clone(),
            log_loss: score.log_loss(side),
            trained_log_loss: seat.model.card.log_loss,
            brier: score.brier(side),
            false_alarms: score.sides[side].false_alarms,
            caught: score.sides[side].caught,
        }
    }
}

/// Drift.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DriftRow {
    /// Population stability index, weighed by how much the model uses each feature.
    pub psi: f64,
    /// Whether it is another population.
    pub drifted: bool,
    /// The features that have moved most.
    pub most: Vec<FeatureRow>,
}

/// A feature's drift.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FeatureRow {
    /// The feature.
    pub feature: String,
    /// Its population stability index.
    pub psi: f64,
}

/// What became of what was to be recorded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct RecordingRow {
    /// Moments written.
    pub written: u64,
    /// Moments lost.
    pub lost: u64,
    /// Why the last one could not be written; none: it could.
    pub complaint: Option<String>,
}
