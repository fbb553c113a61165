//! What can go wrong between the agent and the kernel, each with what to do about it.

use std::{io, path::PathBuf};

use aya::{EbpfError, maps::MapError};

/// Lines of the verifier's log that a message shows: the end says why.
const LOG_LINES: usize = 20;

/// Why the dataplane could not do something.
#[derive(Debug, thiserror::Error)]
pub enum DataplaneError {
    /// A capability is missing.
    #[error(
        "missing {capabilities}: run as root (`{}`), or with these capabilities \
         (e.g. AmbientCapabilities= of the service)",
        with_sudo()
    )]
    Capabilities {
        /// Names of those that are missing.
        capabilities: String,
    },
    /// The kernel cannot run the programs.
    #[error(
        "Linux {found} is too old: {needed} or later is needed, which brought {feature}; boot a \
         newer kernel"
    )]
    Kernel {
        /// The running version.
        found: String,
        /// The first version that will do.
        needed: String,
        /// What it brought.
        feature: &'static str,
    },
    /// The kernel has no type information.
    #[error(
        "{path} is missing: the kernel must be built with CONFIG_DEBUG_INFO_BTF=y \
         (all current distributions' are); boot one that is"
    )]
    NoBtf {
        /// Where it should be.
        path: &'static str,
    },
    /// bpffs could not be mounted.
    #[error(
        "{} is not on a bpffs and it could not be mounted: {source} \
         (`mount -t bpf bpf /sys/fs/bpf` by hand, or name a pin_dir on a bpffs)", path.display()
    )]
    Mount {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another agent works on the same pins.
    #[error("{}: another mirror-ctl works on it (an agent is running?)", pin_dir.display())]
    Locked {
        /// Which pins.
        pin_dir: PathBuf,
    },
    /// The pins are root's.
    #[error("{}: permission denied; type `{}`", path.display(), with_sudo())]
    Permission {
        /// Which pins.
        path: PathBuf,
    },
    /// Nothing is pinned.
    #[error("nothing is loaded: no pinned dataplane in {}", pin_dir.display())]
    NotLoaded {
        /// Where it was looked for.
        pin_dir: PathBuf,
    },
    /// What is pinned was made by another version.
    #[error(
        "the dataplane pinned in {} has {difference}: take it off with the version that made it, \
         or with `mirror-ctl unload --pin-dir {}` (established connections lose their state)",
        pin_dir.display(), pin_dir.display()
    )]
    Layout {
        /// Which pins.
        pin_dir: PathBuf,
        /// How it differs.
        difference: String,
    },
    /// What runs was made by another version, and this one is to be in its place.
    #[error(
        "the dataplane pinned in {} has {difference}: this version cannot go on with its connections; with \
         `mirror-ctl upgrade --drain` they stay with the version before until they end",
        pin_dir.display()
    )]
    NotAdoptable {
        /// Which pins.
        pin_dir: PathBuf,
        /// How it differs.
        difference: String,
    },
    /// What is pinned can be adopted, and so need not end.
    #[error(
        "the running dataplane has this version's layout: `mirror-ctl upgrade` keeps all connections, and nothing has \
         to end"
    )]
    SameLayout,
    /// A version before lets its flows end already.
    #[error(
        "{}: the version before still lets its connections end, and there can be one such only: see \
         `mirror-ctl status`",
        pin_dir.display()
    )]
    Draining {
        /// Which pins.
        pin_dir: PathBuf,
    },
    /// The object cannot be loaded.
    #[error("the eBPF object cannot be loaded: {}", chain(source))]
    Object {
        /// Why.
        source: Box<EbpfError>,
    },
    /// A program is refused.
    #[error("the kernel refuses program {program}: {reason}")]
    Program {
        /// Which.
        program: &'static str,
        /// Why, with the end of the verifier's log.
        reason: String,
    },
    /// There is no such interface.
    #[error(
        "there is no interface {name:?} in this network namespace (`ip link` lists those there are)"
    )]
    UnknownInterface {
        /// Its name.
        name: String,
    },
    /// Another XDP program is there.
    #[error(
        "interface {interface}: another XDP program{} is attached; take it off first with \
         `ip link set dev {interface} xdp off` (or, if a bpf_link holds it, by ending what \
         attached it: `bpftool link show`)",
        program.map(|id| format!(" (id {id}, see `bpftool prog show id {id}`)")).unwrap_or_default()
    )]
    Occupied {
        /// Where.
        interface: String,
        /// Its id, if known.
        program: Option<u32>,
    },
    /// A program cannot be attached.
    #[error(
        "interface {interface}: XDP cannot be attached ({mode}): {source}{}",
        native_remedy(mode)
    )]
    Attach {
        /// Where.
        interface: String,
        /// In which mode it was tried last.
        mode: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Copies of a VNI's packets would share their data.
    #[error(
        "vni {vni:?}: interface {interface} has generic XDP, in which Linux {release} cannot clone: it gives \
         every copy the first one's address (mended in 6.12.97, 6.18.44 and 7.2); boot a newer kernel, use an \
         interface with native XDP, or set `mirrors = 0`"
    )]
    SharedCopies {
        /// The VNI, which has mirrors.
        vni: String,
        /// Its interface.
        interface: String,
        /// The kernel's version.
        release: String,
    },
    /// A map operation failed.
    #[error("map {map}: {operation}: {}", chain(source))]
    Map {
        /// Which map.
        map: &'static str,
        /// What was tried.
        operation: &'static str,
        /// Why.
        source: Box<MapError>,
    },
    /// Something on the file system failed.
    #[error("{operation} {}: {source}", path.display())]
    Path {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Every number of a kind is taken.
    #[error("no room for another {what}: the dataplane holds at most {limit}")]
    Full {
        /// Of what.
        what: &'static str,
        /// How many there can be.
        limit: u32,
    },
}

fn native_remedy(mode: &str) -> &'static str {
    match mode {
        "native" => "; its driver may have no XDP: `mode = \"generic\"` or `\"auto\"` needs none",
        _ => "",
    }
}

/// The command that was typed, as it is to be typed by who is not root.
pub fn with_sudo() -> String {
    std::iter::once("sudo".to_owned())
        .chain(std::env::args())
        .collect::<Vec<_>>()
        .join(" ")
}

/// An error with all its causes, none of them twice: some errors name their cause themselves.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

/// The end of a verifier's log, which is where it says why.
pub(super) fn log_tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    let tail = &lines[lines.len().saturating_sub(LOG_LINES)..];
    tail.iter().map(|line| format!("\n  {line}")).collect()
}

/// Adds the map and the operation to an error.
pub(super) trait MapContext<T> {
    fn on_map(self, map: &'static str, operation: &'static str) -> Result<T, DataplaneError>;
}

impl<T, E: Into<MapError>> MapContext<T> for Result<T, E> {
    fn on_map(self, map: &'static str, operation: &'static str) -> Result<T, DataplaneError> {
        self.map_err(|error| DataplaneError::Map {
            map,
            operation,
            source: Box::new(error.into()),
        })
    }
}

/// Adds the path and the operation to an error.
pub(super) trait PathContext<T> {
    fn path(self, operation: &'static str, path: impl Into<PathBuf>) -> Result<T, DataplaneError>;
}

impl<T, E: Into<io::Error>> PathContext<T> for Result<T, E> {
    fn path(self, operation: &'static str, path: impl Into<PathBuf>) -> Result<T, DataplaneError> {
        self.map_err(|error| DataplaneError::Path {
            operation,
            path: path.into(),
            source: error.into(),
        })
    }
}
