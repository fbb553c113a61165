//! Recordings with the truth, as files: `NAME.rec.gz` and `NAME.json` beside it.

use std::{
    fs, io,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};

use super::label::{Label, Told};
use crate::health::{
    predict::signal::{Reading, Signal},
    recording::{Recorder, Recording, RecordingError},
};

/// A compressed recording may not grow beyond this.
const BYTES_MAX: u64 = 256 << 20;
const SUFFIX: &str = ".rec.gz";

/// Why recordings cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Reading or writing failed.
    #[error("{0}")]
    Io(PathBuf, #[source] io::Error),
    /// It is no recording.
    #[error("{0}")]
    Recording(PathBuf, #[source] RecordingError),
    /// What is told of it makes no sense.
    #[error("{0}")]
    Label(PathBuf, #[source] serde_json::Error),
    /// There is none.
    #[error("no {SUFFIX} in {0} or in the folders in it")]
    None(PathBuf),
}

/// A recording and what is known of it.
#[derive(Clone, Debug)]
pub struct Labelled {
    /// The file's name.
    pub name: String,
    /// What was measured.
    pub recording: Recording,
    /// What is known.
    pub label: Label,
}

/// Whether there is a recording with the truth in a folder or in the folders in it.
#[must_use]
pub fn is_in(folder: &Path) -> bool {
    files(folder).is_ok()
}

/// Reads every recording of a folder and of the folders in it, in the order of their names.
pub fn load(folder: &Path) -> Result<Vec<Labelled>, StoreError> {
    files(folder)?.iter().map(|file| read(file)).collect()
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let mut files = Vec::new();
    let io = |error| StoreError::Io(folder.to_owned(), error);
    for entry in fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        match path.is_dir() {
            true => files.extend(recordings(&path)?),
            false => files.push(path),
        }
    }
    files.retain(|file| file.to_string_lossy().ends_with(SUFFIX));
    files.sort();
    if files.is_empty() {
        return Err(StoreError::None(folder.to_owned()));
    }
    Ok(files)
}

fn recordings(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let io = |error| StoreError::Io(folder.to_owned(), error);
    let entries = fs::read_dir(folder).map_err(io)?;
    entries.map(|entry| Ok(entry.map_err(io)?.path())).collect()
}

fn read(file: &Path) -> Result<Labelled, StoreError> {
    let io = |error| StoreError::Io(file.to_owned(), error);
    let mut bytes = Vec::new();
    GzDecoder::new(fs::File::open(file).map_err(io)?)
        .take(BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    let recording =
        Recording::parse(&bytes).map_err(|error| StoreError::Recording(file.to_owned(), error))?;
    let beside = beside(file);
    let text =
        fs::read_to_string(&beside).map_err(|error| StoreError::Io(beside.clone(), error))?;
    let label = serde_json::from_str(&text).map_err(|error| StoreError::Label(beside, error))?;
    let name = file.file_name().unwrap_or_default();
    Ok(Labelled {
        name: name.to_string_lossy().trim_end_matches(SUFFIX).to_owned(),
        recording,
        label,
    })
}

/// Where the label of a recording is.
fn beside(file: &Path) -> PathBuf {
    let text = file.to_string_lossy();
    PathBuf::from(format!("{}.json", text.trim_end_matches(SUFFIX)))
}

/// Writes the part of a recording that is told of, compressed, and its label beside it. Values keep three digits: more
/// would be noise that does not compress.
pub fn write(recording: &Path, told: &Path, out: &Path) -> Result<Label, StoreError> {
    let text = fs::read_to_string(told).map_err(|error| StoreError::Io(told.to_owned(), error))?;
    let told: Told =
        serde_json::from_str(&text).map_err(|error| StoreError::Label(told.to_owned(), error))?;
    let label = Label::of(&told);
    let whole = Recording::load(recording)
        .map_err(|error| StoreError::Recording(recording.to_owned(), error))?;
    let io = |error| StoreError::Io(out.to_owned(), error);
    let of_recording = |error| StoreError::Recording(out.to_owned(), error);
    let plain = out.with_extension("plain");
    // One that is there already would be gone on with.
    let _ = fs::remove_file(&plain);
    let (mut recorder, _) = Recorder::open(&plain).map_err(of_recording)?;
    let until_ms = label.from_ms + label.seconds as u64 * 1_000;
    for moment in &whole.moments {
        if (label.from_ms..until_ms).contains(&moment.time_ms) {
            let mut moment = moment.clone();
            for (_, reading) in &mut moment.readings {
                *reading = coarse(reading);
            }
            recorder.push(&moment).map_err(of_recording)?;
        }
    }
    let bytes = fs::read(&plain).map_err(io)?;
    fs::remove_file(&plain).map_err(io)?;
    let mut encoder = GzEncoder::new(fs::File::create(out).map_err(io)?, Compression::best());
    encoder.write_all(&bytes).map_err(io)?;
    encoder.finish().map_err(io)?;
    let json = serde_json::to_string_pretty(&label).unwrap_or_default() + "\n";
    fs::write(beside(out), json).map_err(io)?;
    Ok(label)
}

/// Bits of a float's mantissa that are left out, of 23.
const CUT_BITS: u32 = 13;

fn coarse(reading: &Reading) -> Reading {
    let mut coarse = Reading::default();
    for signal in Signal::ALL {
        if let Some(value) = reading.get(signal) {
            let half = 1 << (CUT_BITS - 1);
            let bits = value.to_bits().saturating_add(half) >> CUT_BITS << CUT_BITS;
            coarse.set(signal, f32::from_bits(bits));
        }
    }
    coarse
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::recording::Moment;

    #[test]
    fn what_was_written_is_read_with_its_label() {
        let folder = tempfile::tempdir().unwrap();
        let plain = folder.path().join("r");
        let (mut recorder, _) = Recorder::open(&plain).unwrap();
        for second in 0..20u64 {
            let mut reading = Reading::default();
            reading.set(Signal::Memory, 0.123_456_7);
            recorder
                .push(&Moment {
                    time_ms: 1_000 * second,
                    readings: vec![("a".to_owned(), reading)],
                    ..Moment::default()
                })
                .unwrap();
        }
        let told = folder.path().join("told");
        let second = r#"{"success":1.0,"refused":0.0,"latency_ms":2.0}"#;
        let seconds = [second; 10].join(",");
        fs::write(
            &told,
            format!(r#"{{"part":"tuning","seed":3,"from_ms":5000,"episodes":[],"served":{{"a":[{seconds}]}}}}"#),
        )
        .unwrap();
        let inner = folder.path().join("tuning");
        fs::create_dir(&inner).unwrap();
        let label = write(&plain, &told, &inner.join("one.rec.gz")).unwrap();
        let found = load(folder.path()).unwrap();
        assert_eq!((found.len(), found[0].name.as_str()), (1, "one"));
        assert_eq!(found[0].label, label);
        let moments = &found[0].recording.moments;
        assert_eq!((moments.len(), moments[0].time_ms), (10, 5_000));
        let value = moments[0].readings[0].1.get(Signal::Memory).unwrap();
        assert!((value / 0.123_456_7 - 1.0).abs() < 6e-4, "{value}");
        assert!(matches!(
            load(&folder.path().join("tuning/no")),
            Err(StoreError::Io(..))
        ));
    }
}
