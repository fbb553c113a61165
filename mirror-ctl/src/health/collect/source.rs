//! Where an instance's own signals are, and what they were there at two moments.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr, time::Instant};

use hyper::Uri;
use serde::{Serialize, Serializer};

use super::{Usage, cgroup, exporter, fetch::fetch};
use crate::health::predict::signal::Reading;

/// Where an instance's own signals are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A Prometheus node exporter.
    Exporter(SocketAddr, Uri),
    /// A cgroup of this host: its folders, several where each controller has its own.
    Cgroup(Vec<PathBuf>),
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with('/') {
            let folders: Vec<PathBuf> = text.split(':').map(PathBuf::from).collect();
            return match folders.iter().all(|folder| folder.is_absolute()) {
                true => Ok(Self::Cgroup(folders)),
                false => Err(format!("{text:?} is not /FOLDER or /FOLDER:/FOLDER")),
            };
        }
        let Some(rest) = text.strip_prefix("http://") else {
            return Err(format!(
                "{text:?} is neither http://ADDRESS:PORT/metrics nor a folder"
            ));
        };
        let (address, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/metrics"),
        };
        // A look-up of a name could block, and could change whom a score is about.
        let address = address
            .parse()
            .map_err(|_| format!("{address:?} is not ADDRESS:PORT (names are not looked up)"))?;
        let path = path
            .parse()
            .map_err(|_| format!("{path:?} is not a path"))?;
        Ok(Self::Exporter(address, path))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exporter(address, path) => write!(f, "http://{address}{path}"),
            Self::Cgroup(folders) => {
                let shown: Vec<_> = folders
                    .iter()
                    .map(|folder| folder.display().to_string())
                    .collect();
                f.write_str(&shown.join(":"))
            }
        }
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// An instance's source, and what it said last.
#[derive(Clone, Debug)]
pub struct Source {
    /// The instance.
    pub name: String,
    place: Place,
    before: Option<(Usage, Instant)>,
}

impl Source {
    /// Of an instance.
    #[must_use]
    pub fn new(name: String, place: Place) -> Self {
        Self {
            name,
            place,
            before: None,
        }
    }

    /// What happened since the last reading; none while it does not answer, or has answered only once.
    pub async fn read(&mut self) -> Option<Reading> {
        let usage = match &self.place {
            Place::Exporter(address, path) => fetch(*address, path)
                .await
                .ok()
                .map(|text| exporter::parse(&text)),
            Place::Cgroup(folders) => Some(cgroup::read(folders)),
        };
        // What says nothing of use is no answer, however politely it was given.
        let usage = usage.filter(|usage| *usage != Usage::default());
        let now = usage.map(|usage| (usage, Instant::now()));
        let before = std::mem::replace(&mut self.before, now);
        let ((usage, at), (earlier, then)) = now.zip(before)?;
        Some(usage.since(&earlier, at.duration_since(then).as_secs_f64()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_and_shown() {
        for (text, shown) in [
            ("http://10.0.0.1:9100", "http://10.0.0.1:9100/metrics"),
            ("http://[2001:db8::1]:9100/m", "http://[2001:db8::1]:9100/m"),
            ("/sys/fs/cgroup/a", "/sys/fs/cgroup/a"),
            ("/cpu/a:/memory/a", "/cpu/a:/memory/a"),
        ] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), shown);
        }
        for wrong in [
            "",
            "a",
            "http://host:9100/metrics",
            "http://10.0.0.1",
            "ftp://x",
            "/cpu/a:memory/a",
        ] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }
}
