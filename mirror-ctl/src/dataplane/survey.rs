//! What can be found out of this machine and of a pinned dataplane without changing anything, for `doctor`.

use std::{
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use aya::programs::loaded_programs;
use mirror_common::{LAYOUT_VERSION, plan::Plan};

use super::{DataplaneError, Layout, error::chain, host, host::Pins, layout, sys, version};

/// The largest frame that is cloned: headroom, frame, metadata and the end of the buffer are one page
/// (`CLONE_FRAME_MAX` in mirror-ebpf/src/steer.rs).
pub const CLONE_FRAME_MAX: usize = 4096 - 256 - 320 - size_of::<Plan>() - 40;

/// What is pinned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pinned {
    /// Whether there is a dataplane that this program can adopt.
    pub adoptable: bool,
    /// What keeps it from being adopted.
    pub complaint: Option<String>,
    /// Pinned links whose interface is gone.
    pub gone: Vec<PathBuf>,
    /// Ids of the programs on interfaces.
    pub programs: Vec<u32>,
}

/// What the agent asks of a machine, by name, with why it is not so.
pub fn requirements() -> Vec<(&'static str, Option<String>)> {
    let complaint = |result: Result<(), DataplaneError>| result.err().map(|error| chain(&error));
    let checks = host::checks().into_iter();
    checks
        .map(|(name, result)| (name, complaint(result)))
        .collect()
}

/// What is pinned in a directory.
pub fn pinned(pin_dir: &Path) -> Pinned {
    let pins = Pins::new(pin_dir);
    let mut pinned = Pinned::default();
    for ifindex in pins.linked() {
        let path = pins.link(ifindex);
        let info = sys::open_pin(&path).and_then(|link| sys::link_info(link.as_fd()));
        match info {
            Ok(info) if info.ifindex == 0 => pinned.gone.push(path),
            Ok(info) => pinned.programs.push(info.program),
            Err(error) => pinned.complaint = Some(format!("{}: {error}", path.display())),
        }
    }
    match layout(&pins) {
        Layout::None => {}
        Layout::Version(LAYOUT_VERSION) => pinned.adoptable = true,
        Layout::Version(other) => pinned.complaint = Some(version(other)),
    }
    pinned
}

/// Removes the pin of a link whose interface is gone.
pub fn remove_pin(path: &Path) -> io::Result<()> {
    std::fs::remove_file(path)
}

/// Whether a path is, or would be, on a bpffs.
pub fn on_bpffs(path: &Path) -> bool {
    host::on_bpffs(path)
}

/// Mounts a bpffs at its usual place.
pub fn mount_bpffs(pin_dir: &Path) -> Result<(), DataplaneError> {
    host::mount_bpffs(pin_dir)
}

/// The name of a loaded program.
pub fn program_name(id: u32) -> Option<String> {
    let mut programs = loaded_programs().filter_map(Result::ok);
    let program = programs.find(|program| program.id() == id)?;
    let name = program.name_as_str()?;
    (!name.is_empty()).then(|| name.to_owned())
}
