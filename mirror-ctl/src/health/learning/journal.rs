//! The recording that the agent keeps of what it judges: written by a thread of its own behind a queue with an end, so that a
//! slow or full disk costs moments of the recording and never the agent's time. Each moment is one write: an agent that is
//! killed leaves at worst half a frame, which its successor cuts off.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::UNIX_EPOCH,
};

use tracing::{info, warn};

use super::rotation::{self, Segment};
use crate::{
    dataplane::chain,
    health::recording::{Moment, Recorder, RecordingError},
};

/// Moments that may wait for the disk: some seconds of some VNIs.
const WAITING_MAX: usize = 256;

/// What became of the moments.
#[derive(Debug, Default)]
pub struct Tally {
    written: AtomicU64,
    lost: AtomicU64,
    complaint: Mutex<Option<String>>,
}

impl Tally {
    /// Moments written.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Moments that were not, because the disk was too slow or refused them.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Why the last moment could not be written; none: it could.
    pub fn complaint(&self) -> Option<String> {
        let complaint = self.complaint.lock();
        complaint.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn complain(&self, complaint: Option<String>) -> bool {
        let mut now = self
            .complaint
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let is_new = *now != complaint;
        *now = complaint;
        is_new
    }
}

/// Takes moments; ends with its last clone.
#[derive(Clone, Debug)]
pub struct Journal {
    sender: SyncSender<(String, Moment)>,
    limits: Arc<Mutex<Limits>>,
    tally: Arc<Tally>,
}

/// How much is kept.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// Bytes of the folder at most.
    pub bytes_max: u64,
    /// Whose recordings are written.
    pub vnis: Vec<String>,
}

impl Journal {
    /// Begins to write below `folder`. One thread a folder: two would spoil each other's files.
    pub fn start(folder: &Path, limits: Limits) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let limits = Arc::new(Mutex::new(limits));
        let (sender, moments) = sync_channel(WAITING_MAX);
        let tally = Arc::new(Tally::default());
        let mut writer = Writer {
            folder: folder.to_owned(),
            limits: Arc::clone(&limits),
            open: HashMap::new(),
        };
        let shared = Arc::clone(&tally);
        thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || writer.run(&moments, &shared))?;
        Ok(Self {
            sender,
            limits,
            tally,
        })
    }

    /// Other limits from now on.
    pub fn limit(&self, limits: Limits) {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    /// Hands a moment over; one for which there is no room is lost, and counted.
    pub fn offer(&self, vni: &str, moment: Moment) {
        if self.sender.try_send((vni.to_owned(), moment)).is_err() {
            self.tally.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What became of the moments.
    pub fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.tally)
    }
}

/// The thread's side.
struct Writer {
    folder: PathBuf,
    limits: Arc<Mutex<Limits>>,
    open: HashMap<String, (Recorder, u64)>,
}

impl Writer {
    fn run(&mut self, moments: &Receiver<(String, Moment)>, tally: &Tally) {
        while let Ok((vni, moment)) = moments.recv() {
            let complaint = match self.write(&vni, &moment) {
                Ok(()) => {
                    tally.written.fetch_add(1, Ordering::Relaxed);
                    None
                }
                Err(error) => {
                    tally.lost.fetch_add(1, Ordering::Relaxed);
                    // Where it stopped is not known: the next one finds out.
                    self.open.remove(&vni);
                    Some(format!("{}: {}", self.folder.display(), chain(&error)))
                }
            };
            if tally.complain(complaint.clone()) {
                match complaint {
                    Some(complaint) => warn!("what is judged is not recorded: {complaint}"),
                    None => info!("what is judged is recorded again"),
                }
            }
        }
    }

    fn write(&mut self, vni: &str, moment: &Moment) -> Result<(), RecordingError> {
        if !self.open.contains_key(vni) {
            let segments = self.segments()?;
            let last = segments.iter().filter(|s| s.vni == vni);
            let last = last.map(|s| s.number).max();
            let opened = self.open(vni, last)?;
            self.open.insert(vni.to_owned(), opened);
        }
        let limits = self.limits();
        let full = rotation::segment_bytes(limits.bytes_max, limits.vnis.len());
        if let Some((recorder, number)) = self.open.get_mut(vni) {
            recorder.push(moment)?;
            if recorder.bytes() >= full {
                let next = *number + 1;
                let begun = (Recorder::open(&self.path(vni, next))?.0, next);
                self.open.insert(vni.to_owned(), begun);
                self.make_room(&limits)?;
            }
        }
        Ok(())
    }

    /// The last file, or the next one if that cannot be gone on with: of another version, or damaged where it begins.
    fn open(&self, vni: &str, last: Option<u64>) -> Result<(Recorder, u64), RecordingError> {
        if let Some(number) = last {
            match Recorder::open(&self.path(vni, number)) {
                Err(error @ RecordingError::Io(_)) => return Err(error),
                Err(error) => warn!("{}: {error}", self.path(vni, number).display()),
                Ok((recorder, _)) => return Ok((recorder, number)),
            }
        }
        let number = last.map_or(1, |last| last + 1);
        Ok((Recorder::open(&self.path(vni, number))?.0, number))
    }

    fn path(&self, vni: &str, number: u64) -> PathBuf {
        self.folder.join(rotation::file_name(vni, number))
    }

    fn segments(&self) -> io::Result<Vec<Segment>> {
        let mut segments = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some((vni, number)) = name.to_str().and_then(rotation::parse) else {
                continue;
            };
            let about = entry.metadata()?;
            let written = about.modified()?.duration_since(UNIX_EPOCH);
            segments.push(Segment {
                vni: vni.to_owned(),
                number,
                bytes: about.len(),
                written_ms: written.unwrap_or_default().as_millis() as u64,
            });
        }
        Ok(segments)
    }

    fn limits(&self) -> Limits {
        let limits = self.limits.lock();
        limits.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn make_room(&self, limits: &Limits) -> io::Result<()> {
        let segments = self.segments()?;
        for gone in rotation::superfluous(&segments, &limits.vnis, limits.bytes_max) {
            fs::remove_file(self.path(&gone.vni, gone.number))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{
        predict::signal::{Reading, Signal},
        recording::Recording,
    };

    fn writer(folder: &Path, bytes_max: u64) -> Writer {
        let limits = Limits {
            bytes_max,
            vnis: vec!["web".to_owned()],
        };
        Writer {
            folder: folder.to_owned(),
            limits: Arc::new(Mutex::new(limits)),
            open: HashMap::new(),
        }
    }

    fn moment(n: u64) -> Moment {
        let mut reading = Reading::default();
        reading.set(Signal::Cpu, n as f32 / 1_000.0);
        Moment {
            time_ms: n * 1_000,
            readings: vec![("a".to_owned(), reading)],
            ..Moment::default()
        }
    }

    fn kept(writer: &Writer) -> Vec<u64> {
        let mut segments = writer.segments().unwrap();
        segments.sort_by_key(|s| s.number);
        let load = |s: &Segment| Recording::load(&writer.path("web", s.number)).unwrap();
        let moments = segments.iter().flat_map(|s| load(s).moments);
        moments.map(|moment| moment.time_ms / 1_000).collect()
    }

    #[test]
    fn it_is_bounded_and_the_newest_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = writer(folder.path(), 4_000);
        for n in 0..1_000 {
            writer.write("web", &moment(n)).unwrap();
            let bytes: u64 = writer.segments().unwrap().iter().map(|s| s.bytes).sum();
            assert!(bytes <= 5_100, "{bytes} after {n}");
        }
        let kept = kept(&writer);
        assert!(kept.len() > 30 && kept.is_sorted(), "{kept:?}");
        assert_eq!(kept.last(), Some(&999));
    }

    #[test]
    fn a_successor_goes_on_and_leaves_what_it_cannot_read() {
        let folder = tempfile::tempdir().unwrap();
        for n in 0..4 {
            // Each of them is killed after one moment, in the middle of the next one.
            writer(folder.path(), 1 << 20)
                .write("web", &moment(n))
                .unwrap();
            let path = writer(folder.path(), 0).path("web", 1);
            let mut bytes = fs::read(&path).unwrap();
            bytes.extend([9, 0, 1]);
            fs::write(&path, bytes).unwrap();
        }
        let mut writer = writer(folder.path(), 1 << 20);
        writer.write("web", &moment(4)).unwrap();
        assert_eq!(kept(&writer), [0, 1, 2, 3, 4]);
        fs::write(writer.path("web", 2), b"MIRRREC\0\x63\0\0\0").unwrap();
        writer.open.clear();
        writer.write("web", &moment(5)).unwrap();
        assert!(fs::exists(writer.path("web", 3)).unwrap());
        assert_eq!(fs::metadata(writer.path("web", 2)).unwrap().len(), 12);
    }

    #[test]
    fn a_full_queue_loses_moments_and_no_time() {
        let (sender, _moments) = sync_channel(1);
        let journal = Journal {
            sender,
            limits: Arc::default(),
            tally: Arc::default(),
        };
        for n in 0..3 {
            journal.offer("web", moment(n));
        }
        assert_eq!(journal.tally().lost(), 2);
    }
}
