//! The kernel's side: loads, attaches, pins and adopts the XDP programs, and reads and writes
//! their maps. The only module that knows aya, and the only one with unsafe code.
//!
//! State lives in pinned maps, so that it outlives the agent. Under the pin directory:
//! `maps/NAME`, with the inner ones in `maps/sets` and `maps/tables`, `programs/NAME` and `links/IFINDEX`; in `draining` the version
//! before, while its flows end.

mod attach;
mod debug;
mod error;
pub mod ethtool;
mod events;
mod flows;
mod host;
mod inject;
mod maps;
mod object;
mod publish;
mod register;
mod succession;
pub mod survey;
mod sys;
mod traced;

use std::{collections::HashMap, fs::File, os::fd::AsFd, path::Path};

use aya::maps::{Array, MapData};
use mirror_common::LAYOUT_VERSION;
use nix::fcntl::{Flock, FlockArg};
use tracing::{info, warn};

pub use attach::{Port, XdpMode};
pub use debug::ProgramLog;
pub use error::{DataplaneError, chain, with_sudo};
pub use events::Events;
pub use flows::{Entry, FlowTable};
pub use host::has_private_copies;
pub use inject::Injector;
pub use maps::{Maps, address_from, address_to};
pub use publish::{PublishedSet, SourcePrefix};
pub use register::{Announced, InstanceRecord, Register};
pub use succession::{
    abandon, check_drain, is_draining, is_in_place, is_kept, is_prepared, is_refused,
    prepare_beside, remove_drained, serves_new_flows, set_aside, take_back,
};
pub use traced::{RecordMaps, Records, Told, Traced, load_traced};

use error::{MapContext, PathContext};
use host::Pins;
use object::{Programs, Shape, Shapes};

/// The loaded programs and their maps. One at a time per pin directory.
pub struct Dataplane {
    pins: Pins,
    shapes: Shapes,
    programs: Programs,
    /// The normal programs while traced ones are attached.
    normal: Option<Programs>,
    /// All maps.
    pub maps: Maps,
    adopted: bool,
    /// Whether interfaces still run the version before.
    succeeds: bool,
    /// Whether nothing is to be attached.
    keeps: bool,
    modes: HashMap<u32, XdpMode>,
    _lock: Flock<File>,
}

impl Dataplane {
    /// Loads the programs, on a host that is prepared ([`prepare_host`]): on the maps that are pinned, or on new ones that are pinned then.
    /// Nothing is attached yet, and what is attached runs on until it is replaced. `log_level`: of
    /// the programs' own log, 0 (off) to 5 (trace). `vnis`: how many VNIs new maps are to have room for, and then some.
    pub fn open(pin_dir: &Path, log_level: u8, vnis: u32) -> Result<Self, DataplaneError> {
        let lock = lock(pin_dir)?;
        let pins = Pins::new(pin_dir);
        succession::move_in(&pins)?;
        let mut shapes = Shapes::of_object()?;
        shapes.make_room(vnis);
        let adopted = match layout(&pins) {
            Layout::None => {
                // Maps of a start that was cut off before they meant anything.
                pins.remove()?;
                false
            }
            Layout::Version(LAYOUT_VERSION) => match shapes.difference(&pins) {
                None => true,
                Some(difference) => return Err(mismatch(pin_dir, difference)),
            },
            Layout::Version(other) => return Err(mismatch(pin_dir, version(other))),
        };
        pins.create()?;
        Register::create(&pins)?;
        let programs = programs(&pins, &shapes, log_level)?;
        let mut opened = Self::of(pins, shapes, programs, lock)?;
        opened.adopted = adopted;
        if !adopted {
            let mut layout: Array<MapData, u32> = maps::open_map(&opened.pins, "LAYOUT")?;
            layout.set(0, LAYOUT_VERSION, 0).on_map("LAYOUT", "write")?;
        }
        opened.find_predecessor()?;
        info!(pin_dir = %pin_dir.display(), adopted, succeeds = opened.succeeds, "dataplane opened");
        Ok(opened)
    }

    /// Opens what is pinned of a version whose flows are to end, by a program of that version.
    pub fn keep(draining: &Path) -> Result<Self, DataplaneError> {
        let lock = lock(draining)?;
        let (pins, shapes) = adoptable(draining)?;
        let programs = Programs::pinned(&pins).ok_or_else(|| DataplaneError::NotLoaded {
            pin_dir: draining.to_owned(),
        })?;
        let mut opened = Self::of(pins, shapes, programs, lock)?;
        opened.keeps = true;
        info!(pins = %draining.display(), "dataplane kept");
        Ok(opened)
    }

    fn of(
        pins: Pins,
        shapes: Shapes,
        programs: Programs,
        lock: Flock<File>,
    ) -> Result<Self, DataplaneError> {
        Ok(Self {
            maps: Maps::open(&pins)?,
            pins,
            shapes,
            programs,
            normal: None,
            adopted: true,
            succeeds: false,
            keeps: false,
            modes: HashMap::new(),
            _lock: lock,
        })
    }

    /// Whether the maps were there before.
    pub fn adopted(&self) -> bool {
        self.adopted
    }

    /// More handles of the maps, for another thread.
    pub fn reader(&self) -> Result<Maps, DataplaneError> {
        Maps::open(&self.pins)
    }

    /// What sends single frames.
    pub fn injector(&self) -> Result<Injector, DataplaneError> {
        Injector::open(&self.pins)
    }

    /// What the programs report.
    pub fn events(&self) -> Result<Events, DataplaneError> {
        Events::open(&self.pins)
    }

    /// What the programs say for debugging.
    pub fn program_log(&self) -> Result<ProgramLog, DataplaneError> {
        ProgramLog::open(&self.pins)
    }

    fn inner(&self, map: &'static str) -> Result<&Shape, DataplaneError> {
        self.shapes
            .inner
            .get(map)
            .ok_or(aya::maps::MapError::KeyNotFound)
            .on_map(map, "find the inner map of")
    }
}

/// The programs: those that are pinned if they are of this object, else new ones.
fn programs(pins: &Pins, shapes: &Shapes, log_level: u8) -> Result<Programs, DataplaneError> {
    let mut register = Register::open(pins)?;
    let identity = object::identity(log_level);
    if register.programs()? == Some(identity)
        && let Some(programs) = Programs::pinned(pins)
    {
        return Ok(programs);
    }
    info!("loading programs");
    register.set_programs(None)?;
    let programs = Programs::load(pins, shapes, log_level)?;
    register.set_programs(Some(identity))?;
    Ok(programs)
}

/// Checks that this version's programs would go on with what is pinned.
pub fn check_upgrade(pin_dir: &Path) -> Result<(), DataplaneError> {
    adoptable(pin_dir).map(drop)
}

/// Has the kernel verify this version's programs on the maps that are pinned, and leaves them where the next agent finds
/// them. What is attached stays as it is. Fails when the maps are of another layout.
pub fn prepare(pin_dir: &Path) -> Result<(), DataplaneError> {
    let (pins, shapes) = adoptable(pin_dir)?;
    programs(&pins, &shapes, 0).map(drop)
}

fn adoptable(pin_dir: &Path) -> Result<(Pins, Shapes), DataplaneError> {
    host::check()?;
    let pins = Pins::new(pin_dir);
    host::check_permitted(pin_dir)?;
    check_layout(&pins)?;
    let shapes = Shapes::of_object()?;
    match shapes.difference(&pins) {
        None => Ok((pins, shapes)),
        Some(difference) => Err(mismatch(pin_dir, difference)),
    }
}

/// The interfaces that do not run the programs that are pinned now.
pub fn outdated(pin_dir: &Path) -> Vec<u32> {
    let pinned = object::pinned_ids(&Pins::new(pin_dir));
    let links = attached(pin_dir).into_iter();
    links
        .filter(|(_, program)| !pinned.contains(program))
        .map(|(ifindex, _)| ifindex)
        .collect()
}

/// Opens the maps of a dataplane that is pinned, whoever keeps it.
pub fn read(pin_dir: &Path) -> Result<Maps, DataplaneError> {
    let pins = Pins::new(pin_dir);
    host::check_permitted(pin_dir)?;
    check_layout(&pins)?;
    Maps::open(&pins)
}

/// The interfaces that carry programs of a pinned dataplane, with the programs' ids.
pub fn attached(pin_dir: &Path) -> Vec<(u32, u32)> {
    let pins = Pins::new(pin_dir);
    let program = |ifindex: u32| {
        let link = sys::open_pin(&pins.link(ifindex)).ok()?;
        let info = sys::link_info(link.as_fd()).ok()?;
        Some((ifindex, info.program))
    };
    pins.linked().into_iter().filter_map(program).collect()
}

/// Checks that this process and this machine can run the programs, raises limits, and makes the pin directory, on a
/// bpffs that is mounted if need be. Nothing later needs more rights than [`crate::privileges`] leaves.
pub fn prepare_host(pin_dir: &Path) -> Result<(), DataplaneError> {
    host::check()?;
    host::raise_limits();
    host::prepare_pin_dir(pin_dir)
}

/// Whether something is pinned.
pub fn is_loaded(pin_dir: &Path) -> bool {
    Pins::new(pin_dir).map("LAYOUT").exists() || is_draining(pin_dir)
}

/// Takes everything off and forgets it. The caller removes announced addresses first:
/// `before` gets their list, when it can be read.
pub fn unload(pin_dir: &Path, before: impl FnOnce(&[Announced])) -> Result<(), DataplaneError> {
    let pins = Pins::new(pin_dir);
    host::check_permitted(pin_dir)?;
    if !pin_dir.exists() || !host::on_bpffs(pin_dir) {
        return Err(DataplaneError::NotLoaded {
            pin_dir: pin_dir.to_owned(),
        });
    }
    let lock = lock(pin_dir)?;
    for ifindex in pins.linked() {
        let path = pins.link(ifindex);
        let link = sys::open_pin(&path).path("open", &path)?;
        std::fs::remove_file(&path).path("remove", &path)?;
        // An interface that is gone has taken the program with it.
        let _ = sys::link_detach(link.as_fd());
    }
    if pins.map(register::MAP).exists() {
        match Register::open(&pins).and_then(|register| register.announced()) {
            Ok(announced) => before(&announced),
            Err(error) => warn!("announced addresses are unknown and stay: {error}"),
        }
    }
    succession::remove_others(&pins)?;
    pins.remove()?;
    drop(lock);
    std::fs::remove_dir(pin_dir).path("remove", pin_dir)
}

/// What is wrong with the far end of a veth, if it can be seen (is in this network namespace),
/// with what to do about it.
pub fn far_end_complaints(interface: &str) -> Vec<String> {
    let Ok(offloads) = ethtool::offloads(interface) else {
        // Not every driver answers.
        return Vec::new();
    };
    let mut complaints = Vec::new();
    if offloads.tx_checksum {
        complaints.push(format!(
            "transmit checksum offload is on at {interface}: packets arrive with checksums that \
             are only partly computed and are dropped; turn it off with `ethtool -K {interface} tx off`"
        ));
    }
    if !offloads.gro {
        complaints.push(format!(
            "GRO is off at {interface}, and without an XDP program there a veth takes no \
             redirected packet; turn it on with `ethtool -K {interface} gro on`"
        ));
    }
    complaints
}

/// Sets the priority of the calling thread, and of those it starts from now on. Here because it
/// takes an unsafe call.
pub fn set_nice(nice: i32) {
    if let Err(error) = sys::set_nice(nice) {
        warn!("priority {nice}: {error}");
    }
}

/// Gives SIGPIPE its default action back. Here because it takes an unsafe call.
pub fn default_sigpipe() {
    sys::default_sigpipe();
}

enum Layout {
    None,
    Version(u32),
}

fn layout(pins: &Pins) -> Layout {
    let version = maps::open_map::<Array<MapData, u32>>(pins, "LAYOUT")
        .ok()
        .and_then(|layout| layout.get(&0, 0).ok());
    match version {
        // Maps that no agent finished have no version; if programs run on them, they are not
        // ours to remove.
        None | Some(0) if pins.linked().is_empty() => Layout::None,
        version => Layout::Version(version.unwrap_or(0)),
    }
}

fn check_layout(pins: &Pins) -> Result<(), DataplaneError> {
    match layout(pins) {
        Layout::Version(LAYOUT_VERSION) => Ok(()),
        Layout::None => Err(DataplaneError::NotLoaded {
            pin_dir: pins.dir.clone(),
        }),
        Layout::Version(other) => Err(mismatch(&pins.dir, version(other))),
    }
}

fn version(found: u32) -> String {
    match found {
        0 => "no layout version".to_owned(),
        found => format!("layout version {found}, and this program has {LAYOUT_VERSION}"),
    }
}

fn mismatch(pin_dir: &Path, difference: String) -> DataplaneError {
    DataplaneError::Layout {
        pin_dir: pin_dir.to_owned(),
        difference,
    }
}

/// A lock on the directory itself: released by the kernel however the process ends.
fn lock(pin_dir: &Path) -> Result<Flock<File>, DataplaneError> {
    let dir = File::open(pin_dir).path("open", pin_dir)?;
    Flock::lock(dir, FlockArg::LockExclusiveNonblock).map_err(|_| DataplaneError::Locked {
        pin_dir: pin_dir.to_owned(),
    })
}
