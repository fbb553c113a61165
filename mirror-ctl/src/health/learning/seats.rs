//! Who is champion and who is challenger, in files: the champion is always what the configured model's file holds, so that a
//! restart finds it there. One that is promoted takes that file's place by a rename, and the one before is kept beside it
//! (`.before`) for as long as it may have to come back. What both scored is kept there too (`.contest`).

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::contest::Window;
use crate::{
    dataplane::chain,
    health::predict::{
        model::Model,
        model_file::{self, FILE_BYTES_MAX},
    },
};

/// A model, and where it is from.
#[derive(Clone, Debug)]
pub struct Seat {
    /// CRC-32 of its file, by which it is known again.
    pub id: String,
    /// The file.
    pub file: PathBuf,
    /// The model.
    pub model: Arc<Model>,
}

impl Seat {
    /// Reads a file.
    ///
    /// # Errors
    /// Why it is no model that can be used.
    pub fn load(file: &Path) -> Result<Self, String> {
        Self::read(file).map_err(|error| format!("{}: {}", file.display(), chain(&*error)))
    }

    fn read(file: &Path) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let length = fs::metadata(file)?.len();
        if length > FILE_BYTES_MAX as u64 {
            return Err(model_file::ModelError::TooLarge(length).into());
        }
        let bytes = fs::read(file)?;
        Ok(Self {
            id: format!("{:08x}", crc32fast::hash(&bytes)),
            file: file.to_owned(),
            model: Arc::new(model_file::decode(&bytes)?),
        })
    }
}

/// What is between champion and challenger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// The challenger is in shadow.
    #[default]
    Shadow,
    /// The challenger was promoted; the champion before is in shadow.
    Probation,
}

impl Stage {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Shadow => "shadow",
            Self::Probation => "probation",
        }
    }
}

/// What a restart has to know.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Kept {
    champion: String,
    challenger: String,
    stage: Stage,
    /// Who was rolled back, and is not to be promoted again by itself.
    rejected: Option<String>,
    window: Window,
}

/// Champion and challenger.
#[derive(Clone, Debug, Default)]
pub struct Seats {
    /// In force; none: layer A alone.
    pub champion: Option<Seat>,
    /// In shadow.
    pub challenger: Option<Seat>,
    /// What is between them.
    pub stage: Stage,
    /// What they scored when they were seated.
    pub window: Window,
    rejected: Option<String>,
    model: Option<PathBuf>,
    configured: Option<PathBuf>,
}

/// What of the files is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unseated {
    /// The model; the one before stays.
    Model(String),
    /// The challenger; there is none then.
    Challenger(String),
}

impl Seats {
    /// Seats those that a configuration names. Who is there already goes on with what was scored.
    pub fn follow(&mut self, model: Option<&Path>, challenger: Option<&Path>) -> Vec<Unseated> {
        let mut unseated = Vec::new();
        let champion = match model.map(Seat::load).transpose() {
            Ok(champion) => champion,
            Err(reason) => {
                unseated.push(Unseated::Model(reason));
                self.champion.take()
            }
        };
        self.model = model.map(Path::to_owned);
        self.configured = challenger.map(Path::to_owned);
        let kept = self.kept();
        let is_kept = |champion: &Seat, challenger: &Seat| {
            kept.champion == champion.id && kept.challenger == challenger.id
        };
        let before = model.and_then(|model| Seat::load(&beside(model, ".before")).ok());
        self.rejected.clone_from(&kept.rejected);
        self.stage = Stage::Shadow;
        self.window = Window::default();
        self.challenger = None;
        if let (Some(champion), Some(before)) = (&champion, before)
            && kept.stage == Stage::Probation
            && is_kept(champion, &before)
        {
            (self.stage, self.challenger) = (Stage::Probation, Some(before));
        } else {
            let wanted = challenger.map(Seat::load).transpose();
            let wanted = wanted.unwrap_or_else(|reason| {
                unseated.push(Unseated::Challenger(reason));
                None
            });
            let is_other = |seat: &Seat| {
                Some(&seat.id) != self.rejected.as_ref()
                    && champion
                        .as_ref()
                        .is_some_and(|champion| champion.id != seat.id)
            };
            self.challenger = wanted.filter(is_other);
        }
        if let Some(champion) = &champion {
            let alone = self.challenger.is_none()
                && kept.champion == champion.id
                && kept.challenger.is_empty();
            let same = self
                .challenger
                .as_ref()
                .is_some_and(|c| is_kept(champion, c));
            if alone || same {
                self.window = kept.window;
            }
        }
        self.champion = champion;
        unseated
    }

    /// The challenger becomes the champion: in the files first, so that a restart does not go back.
    ///
    /// # Errors
    /// Why it does not; then nothing has changed.
    pub fn promote(&mut self) -> Result<(), String> {
        let (Some(model), Some(champion)) = (&self.model, &self.champion) else {
            return Err("there is no model whose place could be taken".to_owned());
        };
        if self.stage == Stage::Probation {
            return Err("the champion was promoted and is on probation".to_owned());
        }
        let Some(configured) = &self.configured else {
            return Err("no challenger is configured".to_owned());
        };
        // Read anew: what is promoted is what is there now, and what was rolled back may be promoted by hand.
        let challenger = Seat::load(configured)?;
        if challenger.id == champion.id {
            return Err("the challenger is the champion already".to_owned());
        }
        copy(model, &beside(model, ".before"))?;
        copy(configured, model)?;
        let before = Seat {
            file: beside(model, ".before"),
            ..champion.clone()
        };
        self.champion = Some(Seat {
            file: model.clone(),
            ..challenger
        });
        self.seat(Some(before), Stage::Probation);
        self.rejected = None;
        self.save(&Window::default())
    }

    /// The champion before comes back; the one that goes is not promoted by itself again.
    ///
    /// # Errors
    /// Why it does not; then nothing has changed.
    pub fn roll_back(&mut self) -> Result<(), String> {
        let Some(model) = self.model.clone() else {
            return Err("there is no model".to_owned());
        };
        let file = beside(&model, ".before");
        if !file.exists() {
            return Err("there is no model to go back to".to_owned());
        }
        let before = Seat::load(&file)?;
        fs::rename(&file, &model).map_err(|error| format!("{}: {error}", model.display()))?;
        self.rejected = self.champion.take().map(|champion| champion.id);
        self.champion = Some(Seat {
            file: model,
            ..before
        });
        self.seat(None, Stage::Shadow);
        self.save(&Window::default())
    }

    /// The one that was promoted stays; the one before can still be gone back to by hand.
    ///
    /// # Errors
    /// Why that is not kept.
    pub fn confirm(&mut self) -> Result<(), String> {
        self.seat(None, Stage::Shadow);
        self.save(&Window::default())
    }

    fn seat(&mut self, challenger: Option<Seat>, stage: Stage) {
        self.challenger = challenger;
        self.stage = stage;
        self.window = Window::default();
    }

    /// What is to be kept of a score, and where; none: nothing.
    #[must_use]
    pub fn to_keep(&self, window: &Window) -> Option<(PathBuf, Vec<u8>)> {
        let (model, champion) = (self.model.as_ref()?, self.champion.as_ref()?);
        let challenger = self.challenger.as_ref();
        let kept = Kept {
            champion: champion.id.clone(),
            challenger: challenger.map(|c| c.id.clone()).unwrap_or_default(),
            stage: self.stage,
            rejected: self.rejected.clone(),
            window: window.clone(),
        };
        let text = serde_json::to_vec(&kept).ok()?;
        Some((beside(model, ".contest"), text))
    }

    fn save(&self, window: &Window) -> Result<(), String> {
        match self.to_keep(window) {
            Some((file, text)) => {
                replace(&file, &text).map_err(|error| format!("{}: {error}", file.display()))
            }
            None => Ok(()),
        }
    }

    /// What an agent before has kept; one that cannot be read is none.
    fn kept(&self) -> Kept {
        let kept = self.model.as_ref().and_then(|model| {
            let text = fs::read(beside(model, ".contest")).ok()?;
            serde_json::from_slice(&text).ok()
        });
        kept.unwrap_or_default()
    }
}

fn beside(file: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(file);
    name.push(end);
    name.into()
}

fn copy(from: &Path, to: &Path) -> Result<(), String> {
    let copied = fs::read(from).and_then(|bytes| replace(to, &bytes));
    copied.map_err(|error| format!("{}: {error}", to.display()))
}

/// Whoever reads sees the old file or the new one, never half of one.
///
/// # Errors
/// What the file system says.
pub fn replace(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = beside(file, ".new");
    fs::write(&new, bytes)?;
    fs::rename(new, file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{
        learning::lessons::Effort,
        predict::{
            calibrate::Calibration,
            features,
            forest::Forest,
            model::{Card, Hazard},
        },
    };

    fn model(bias: f32) -> Vec<u8> {
        let hazard = Hazard {
            forest: Forest::default(),
            bias,
            calibration: Calibration::Platt {
                slope: 1.0,
                intercept: 0.0,
            },
        };
        let card = Card {
            features: features::names(),
            seed: Effort::default().seed,
            ..Card::default()
        };
        let model = Model {
            hazards: std::array::from_fn(|_| hazard.clone()),
            card,
            reference: None,
        };
        model_file::encode(&model).unwrap()
    }

    fn bias(seat: Option<&Seat>) -> f32 {
        seat.map_or(0.0, |seat| seat.model.hazards[0].bias)
    }

    /// A champion of bias −1 and a challenger of −2, in files.
    fn seated() -> (tempfile::TempDir, PathBuf, PathBuf, Seats) {
        let folder = tempfile::tempdir().unwrap();
        let files = (folder.path().join("m"), folder.path().join("c"));
        fs::write(&files.0, model(-1.0)).unwrap();
        fs::write(&files.1, model(-2.0)).unwrap();
        let mut seats = Seats::default();
        assert_eq!(seats.follow(Some(&files.0), Some(&files.1)), []);
        (folder, files.0, files.1, seats)
    }

    #[track_caller]
    fn check(seats: &Seats, champion: f32, challenger: f32, stage: Stage) {
        let found = (
            bias(seats.champion.as_ref()),
            bias(seats.challenger.as_ref()),
        );
        assert_eq!((found, seats.stage), ((champion, challenger), stage));
    }

    #[test]
    fn promotion_and_rollback_survive_a_restart() {
        let (_folder, file, challenger, mut seats) = seated();
        check(&seats, -1.0, -2.0, Stage::Shadow);
        assert!(seats.roll_back().unwrap_err().contains("go back to"));
        let restarted = || {
            let mut seats = Seats::default();
            assert_eq!(seats.follow(Some(&file), Some(&challenger)), []);
            seats
        };
        seats.promote().unwrap();
        for seats in [&seats, &restarted()] {
            check(seats, -2.0, -1.0, Stage::Probation);
        }
        assert!(seats.promote().unwrap_err().contains("on probation"));
        seats.roll_back().unwrap();
        // The challenger's file is still there, but was rejected: only by hand is it tried again.
        for seats in [&seats, &restarted()] {
            check(seats, -1.0, 0.0, Stage::Shadow);
        }
        seats.promote().unwrap();
        seats.confirm().unwrap();
        check(&seats, -2.0, 0.0, Stage::Shadow);
        let mut later = restarted();
        check(&later, -2.0, 0.0, Stage::Shadow);
        assert!(later.promote().unwrap_err().contains("already"));
        later.roll_back().unwrap();
        check(&later, -1.0, 0.0, Stage::Shadow);
    }

    #[test]
    fn what_is_bad_is_said_and_changes_nothing() {
        let (_folder, file, challenger, mut seats) = seated();
        let mut bytes = model(-2.0);
        bytes.truncate(40);
        fs::write(&challenger, &bytes).unwrap();
        let reason = seats.promote().unwrap_err();
        assert!(reason.contains("truncated"), "{reason}");
        check(&seats, -1.0, -2.0, Stage::Shadow);
        assert_eq!(fs::read(&file).unwrap(), model(-1.0));
        let unseated = seats.follow(Some(&file), Some(&challenger));
        assert!(matches!(&unseated[..], [Unseated::Challenger(why)] if why.contains("truncated")));
        check(&seats, -1.0, 0.0, Stage::Shadow);
        fs::write(&file, b"something else").unwrap();
        let unseated = seats.follow(Some(&file), None);
        assert!(
            matches!(&unseated[..], [Unseated::Model(why)] if why.contains("not a model file"))
        );
        check(&seats, -1.0, 0.0, Stage::Shadow);
    }

    #[test]
    fn a_score_is_kept_for_the_same_two_only() {
        let (_folder, file, challenger, seats) = seated();
        let scored: Window = serde_json::from_str(
            r#"[{"hour":5,"rows":7,"failures":1,"wins":1,"sides":[
                {"log_loss":1.0,"brier":0.5,"false_alarms":0,"caught":0},
                {"log_loss":0.5,"brier":0.2,"false_alarms":0,"caught":1}]}]"#,
        )
        .unwrap();
        let (place, text) = seats.to_keep(&scored).unwrap();
        replace(&place, &text).unwrap();
        let again = || {
            let mut seats = Seats::default();
            seats.follow(Some(&file), Some(&challenger));
            seats.window.total().rows
        };
        assert_eq!(again(), 7);
        fs::write(&challenger, model(-3.0)).unwrap();
        assert_eq!(again(), 0);
        fs::write(&place, b"{").unwrap();
        assert_eq!(again(), 0);
    }
}
