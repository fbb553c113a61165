//! Recordings of what was measured: the file that `health record` writes and that replaying and training read.
//!
//! Append-only frames of a length (u16), a CRC-32 of the content and the content, after 8 bytes of magic and a version.
//! A writer that is killed leaves at worst half a frame: the reader recognises it, says where the good part ends,
//! and a writer that goes on cuts it there. Values that have not changed cost nothing.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
};

use super::{
    Cause,
    learning::fate::{Fate, Seen},
    predict::signal::{Reading, Signal},
};

const MAGIC: [u8; 8] = *b"MIRRREC\0";
/// Of the layout. Raised by any change of it, and of the signals' numbers. Version 1 had no fates, and is read as well.
pub const VERSION: u32 = 2;
const VERSION_MIN: u32 = 1;
const HEADER: usize = 12;
const FRAME_HEADER: usize = 6;
/// A frame names an instance or holds one reading: never more.
const FRAME_BYTES_MAX: usize = 512;
/// A recording is read as a whole.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// First byte of a frame's content.
mod kind {
    pub(super) const NAME: u8 = 1;
    pub(super) const TIME: u8 = 2;
    pub(super) const READING: u8 = 3;
    /// How an instance fares from here on.
    pub(super) const FATE: u8 = 4;
}

/// Why a recording cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// Reading or writing failed.
    #[error("recording")]
    Io(#[from] io::Error),
    /// It begins with something else.
    #[error("not a recording")]
    Magic,
    /// Another release wrote it.
    #[error("recording version {0}, but this program reads versions {VERSION_MIN} to {VERSION}")]
    Version(u32),
    /// It is larger than any recording.
    #[error("recording is too large: {0} bytes")]
    TooLarge(u64),
    /// More instances than numbers.
    #[error("too many instances for one recording")]
    Crowded,
}

/// One moment: what was measured of whom.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moment {
    /// When, in ms since 1970.
    pub time_ms: u64,
    /// Instance and reading.
    pub readings: Vec<(String, Reading)>,
    /// Of those, the instances that do not simply serve, and how they fare.
    pub fates: Vec<(String, Seen)>,
}

/// A recording as read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recording {
    /// In the order they were written.
    pub moments: Vec<Moment>,
    /// Bytes after the last whole frame: a torn tail.
    pub torn: usize,
    good: usize,
}

impl Recording {
    /// Reads a file.
    pub fn load(path: &Path) -> Result<Self, RecordingError> {
        let mut file = File::open(path)?;
        let length = file.metadata()?.len();
        if length > FILE_BYTES_MAX {
            return Err(RecordingError::TooLarge(length));
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Self::parse(&bytes)
    }

    /// Reads bytes. A torn or damaged frame ends the recording: what follows cannot be trusted to be in step.
    pub fn parse(bytes: &[u8]) -> Result<Self, RecordingError> {
        let Some((magic, rest)) = bytes.split_first_chunk::<8>() else {
            return Err(RecordingError::Magic);
        };
        if *magic != MAGIC {
            return Err(RecordingError::Magic);
        }
        let Some((version, mut rest)) = rest.split_first_chunk::<4>() else {
            return Err(RecordingError::Magic);
        };
        let version = u32::from_le_bytes(*version);
        if !(VERSION_MIN..=VERSION).contains(&version) {
            return Err(RecordingError::Version(version));
        }
        let mut recording = Self::default();
        let mut known = Known::default();
        while let Some((content, after)) = frame(rest) {
            if known.take(content, &mut recording.moments).is_none() {
                break;
            }
            rest = after;
        }
        recording.torn = rest.len();
        recording.good = bytes.len() - rest.len();
        Ok(recording)
    }
}

/// A whole frame's content, and what follows it.
fn frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (header, rest) = bytes.split_first_chunk::<FRAME_HEADER>()?;
    let length = u16::from_le_bytes([header[0], header[1]]) as usize;
    let sum = u32::from_le_bytes([header[2], header[3], header[4], header[5]]);
    let (content, rest) = rest.split_at_checked(length)?;
    (length <= FRAME_BYTES_MAX && crc32fast::hash(content) == sum).then_some((content, rest))
}

/// What earlier frames have told.
#[derive(Default)]
struct Known {
    instances: HashMap<u16, Named>,
}

#[derive(Default)]
struct Named {
    name: String,
    last: Reading,
    seen: Seen,
}

impl Known {
    /// Takes in a frame; none if it makes no sense.
    fn take(&mut self, content: &[u8], moments: &mut Vec<Moment>) -> Option<()> {
        let (kind, rest) = content.split_first()?;
        match *kind {
            kind::NAME => {
                let (number, name) = rest.split_first_chunk::<2>()?;
                let named = Named {
                    name: String::from_utf8(name.to_vec()).ok()?,
                    ..Named::default()
                };
                self.instances.insert(u16::from_le_bytes(*number), named);
            }
            kind::TIME => moments.push(Moment {
                time_ms: u64::from_le_bytes(rest.try_into().ok()?),
                ..Moment::default()
            }),
            kind::FATE => {
                let (number, rest) = rest.split_first_chunk::<2>()?;
                let [fate, cause] = rest.try_into().ok()?;
                let named = self.instances.get_mut(&u16::from_le_bytes(*number))?;
                named.seen = Seen {
                    fate: Fate::from_number(fate)?,
                    cause: Cause::from_number(cause),
                };
            }
            kind::READING => {
                let (number, rest) = rest.split_first_chunk::<2>()?;
                let (present, rest) = rest.split_first_chunk::<4>()?;
                let (changed, rest) = rest.split_first_chunk::<4>()?;
                let number = u16::from_le_bytes(*number);
                let present = u32::from_le_bytes(*present);
                let changed = u32::from_le_bytes(*changed);
                let Named { name, last, seen } = self.instances.get_mut(&number)?;
                let mut values = rest.chunks_exact(4);
                let mut reading = Reading::default();
                for signal in Signal::ALL {
                    let has = |bits: u32| bits >> signal as u32 & 1 == 1;
                    if has(changed) {
                        let value = values.next()?.try_into().ok()?;
                        last.set(signal, f32::from_le_bytes(value));
                    }
                    if has(present) {
                        reading.set(signal, last.get(signal).unwrap_or(0.0));
                    }
                }
                let moment = moments.last_mut()?;
                moment.readings.push((name.clone(), reading));
                if seen.fate != Fate::Serving {
                    moment.fates.push((name.clone(), *seen));
                }
            }
            _ => return None,
        }
        Some(())
    }
}

/// Appends to a recording.
#[derive(Debug)]
pub struct Recorder {
    file: File,
    bytes: u64,
    numbers: HashMap<String, (u16, Reading, Seen)>,
}

impl Recorder {
    /// Begins a recording, or goes on with one: a torn tail is cut off. The second: bytes cut.
    pub fn open(path: &Path) -> Result<(Self, usize), RecordingError> {
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .open(path)?;
        let (mut torn, mut bytes) = (0, HEADER as u64);
        // Killed while it wrote the header: nothing is lost by beginning anew.
        if file.metadata()?.len() < HEADER as u64 {
            file.set_len(0)?;
            let mut header = MAGIC.to_vec();
            header.extend(VERSION.to_le_bytes());
            file.write_all(&header)?;
        } else {
            let recording = Recording::load(path)?;
            (torn, bytes) = (recording.torn, recording.good as u64);
            file.set_len(bytes)?;
            // An older version's frames are this one's too.
            file.seek(SeekFrom::Start(MAGIC.len() as u64))?;
            file.write_all(&VERSION.to_le_bytes())?;
            file.seek(SeekFrom::End(0))?;
        }
        // What earlier frames told is not built upon: names and values are written anew.
        let recorder = Self {
            file,
            bytes,
            numbers: HashMap::new(),
        };
        Ok((recorder, torn))
    }

    /// Appends one moment, with one write.
    pub fn push(&mut self, moment: &Moment) -> Result<(), RecordingError> {
        let mut bytes = Vec::new();
        let mut time = vec![kind::TIME];
        time.extend(moment.time_ms.to_le_bytes());
        put(&mut bytes, &time);
        for (name, reading) in &moment.readings {
            if !self.numbers.contains_key(name) {
                let number =
                    u16::try_from(self.numbers.len()).map_err(|_| RecordingError::Crowded)?;
                let mut named = vec![kind::NAME];
                named.extend(number.to_le_bytes());
                named.extend(name.bytes().take(FRAME_BYTES_MAX - 3));
                put(&mut bytes, &named);
                let nothing = (number, Reading::default(), Seen::WELL);
                self.numbers.insert(name.clone(), nothing);
            }
            if let Some((number, last, seen)) = self.numbers.get_mut(name) {
                let fate = moment.fates.iter().find(|(of, _)| of == name);
                let now = fate.map_or(Seen::WELL, |(_, seen)| *seen);
                if *seen != now {
                    *seen = now;
                    let [low, high] = number.to_le_bytes();
                    put(
                        &mut bytes,
                        &[kind::FATE, low, high, now.fate as u8, now.cause as u8],
                    );
                }
                put(&mut bytes, &content(*number, last, reading));
            }
        }
        self.file.write_all(&bytes)?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// How large the file is.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// A reading by what has changed since the last one, which it becomes.
fn content(number: u16, last: &mut Reading, reading: &Reading) -> Vec<u8> {
    let mut changed = 0u32;
    let mut values = Vec::new();
    for signal in Signal::ALL {
        if let Some(value) = reading.get(signal)
            && last.get(signal) != Some(value)
        {
            changed |= 1 << signal as u32;
            values.extend(value.to_le_bytes());
            last.set(signal, value);
        }
    }
    let mut content = vec![kind::READING];
    content.extend(number.to_le_bytes());
    content.extend(reading.present().to_le_bytes());
    content.extend(changed.to_le_bytes());
    content.extend(values);
    content
}

fn put(bytes: &mut Vec<u8>, content: &[u8]) {
    bytes.extend((content.len() as u16).to_le_bytes());
    bytes.extend(crc32fast::hash(content).to_le_bytes());
    bytes.extend(content);
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn moment(n: u64) -> Moment {
        let (mut readings, mut fates) = (Vec::new(), Vec::new());
        if n % 4 == 3 {
            let seen = Seen {
                fate: Fate::Failed,
                cause: Cause::Silent,
            };
            fates.push(("web-2".to_owned(), seen));
        }
        for name in ["web-1", "web-2"] {
            let mut reading = Reading::default();
            reading.set(Signal::Cpu, 0.25);
            if n.is_multiple_of(2) {
                reading.set(Signal::Memory, n as f32 / 100.0);
            }
            readings.push((name.to_owned(), reading));
        }
        Moment {
            time_ms: 1_000 * n,
            readings,
            fates,
        }
    }

    fn record(path: &Path, numbers: std::ops::Range<u64>) -> usize {
        let (mut recorder, torn) = Recorder::open(path).unwrap();
        for n in numbers {
            recorder.push(&moment(n)).unwrap();
        }
        torn
    }

    #[test]
    fn what_was_written_is_read_also_after_going_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r");
        record(&path, 0..5);
        assert_eq!(record(&path, 5..9), 0);
        let recording = Recording::load(&path).unwrap();
        let expected: Vec<_> = (0..9).map(moment).collect();
        assert_eq!((recording.moments, recording.torn), (expected, 0));
    }

    #[test]
    fn an_older_one_is_read_and_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r");
        record(&path, 0..3);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[8] = 1;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(Recording::load(&path).unwrap().moments.len(), 3);
        record(&path, 3..4);
        assert_eq!(std::fs::read(&path).unwrap()[8], VERSION as u8);
        assert_eq!(Recording::load(&path).unwrap().moments[3], moment(3));
    }

    #[test]
    fn a_torn_tail_is_recognised_and_cut() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r");
        record(&path, 0..4);
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            if length >= HEADER {
                let recording = Recording::load(&path).unwrap();
                assert!(recording.moments.len() <= 4);
                assert_eq!(recording.good + recording.torn, length);
            }
            record(&path, 7..8);
            let recording = Recording::load(&path).unwrap();
            assert_eq!(recording.torn, 0, "cut at {length}");
            assert_eq!(recording.moments.last(), Some(&moment(7)));
        }
    }

    #[test]
    fn damage_ends_it_and_other_files_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r");
        record(&path, 0..4);
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        let recording = Recording::parse(&bytes).unwrap();
        assert!(recording.torn > 0 && recording.moments.len() < 4);
        bytes[8] = 7;
        assert!(matches!(
            Recording::parse(&bytes),
            Err(RecordingError::Version(7))
        ));
        bytes[0] = b'x';
        assert!(matches!(
            Recording::parse(&bytes),
            Err(RecordingError::Magic)
        ));
        assert!(matches!(Recording::parse(b""), Err(RecordingError::Magic)));
    }

    proptest! {
        /// Frames with a right checksum may say anything.
        #[test]
        fn rightly_sealed_frames_of_any_bytes_do_no_harm(contents in vec(vec(any::<u8>(), 0..80), 0..8)) {
            let mut bytes = [&MAGIC[..], &VERSION.to_le_bytes()].concat();
            for content in &contents {
                bytes.extend((content.len() as u16).to_le_bytes());
                bytes.extend(crc32fast::hash(content).to_le_bytes());
                bytes.extend(content);
            }
            let recording = Recording::parse(&bytes).unwrap();
            prop_assert!(recording.moments.len() <= contents.len());
            prop_assert!(recording.torn < bytes.len());
        }
    }
}
