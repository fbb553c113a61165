//! The eBPF objects in this binary, and what their maps look like.

use std::{collections::BTreeMap, path::PathBuf};

use aya::{
    Ebpf, EbpfLoader, maps::MapInfo, programs::ProgramError, programs::ProgramFd,
    programs::ProgramInfo, programs::Xdp,
};
use aya_obj::{Object, programs::XdpAttachType};
use mirror_common::counts;

use super::{
    DataplaneError,
    error::{PathContext, log_tail},
    host::Pins,
    sys,
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/mirror-ebpf"));

/// The same programs, which tell of each packet of a flow.
static TRACED_OBJECT: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/mirror-ebpf.traced"));

/// The program for client traffic.
pub(super) const VNI_INGRESS: &str = "vni_ingress";

/// The program for replies.
pub(super) const INSTANCE_RETURN: &str = "instance_return";

/// Maps that belong to one load of the programs, not to the dataplane's state.
const NOT_PINNED: [&str; 1] = ["AYA_LOGS"];

/// A map's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) map_type: u32,
    pub(super) key_size: u32,
    pub(super) value_size: u32,
    pub(super) max_entries: u32,
    pub(super) flags: u32,
}

impl Shape {
    fn of(map: &aya_obj::Map) -> Self {
        Self {
            map_type: map.map_type(),
            key_size: map.key_size(),
            value_size: map.value_size(),
            max_entries: map.max_entries(),
            flags: map.map_flags(),
        }
    }

    /// A map of this shape, to be created.
    pub(super) fn definition(&self) -> aya_obj::Map {
        aya_obj::Map::new_from_params(
            self.map_type,
            self.key_size,
            self.value_size,
            self.max_entries,
            self.flags,
        )
    }
}

/// The map whose size depends on how many VNIs there are.
const COUNTERS: &str = "COUNTERS";

/// The maps of the object that are the dataplane's state, and the shape of their inner maps.
pub(super) struct Shapes {
    pub(super) maps: BTreeMap<String, Shape>,
    pub(super) inner: BTreeMap<String, Shape>,
}

impl Shapes {
    pub(super) fn of_object() -> Result<Self, DataplaneError> {
        let object = Object::parse(OBJECT).map_err(|error| DataplaneError::Object {
            source: Box::new(error.into()),
        })?;
        let state = |name: &str| !name.starts_with('.') && !NOT_PINNED.contains(&name);
        let maps = object.maps.iter().filter(|(name, _)| state(name));
        let inner = maps
            .clone()
            .filter_map(|(name, map)| Some((name.clone(), Shape::of(&map.inner()?))))
            .collect();
        Ok(Self {
            maps: maps
                .map(|(name, map)| (name.clone(), Shape::of(map)))
                .collect(),
            inner,
        })
    }

    /// Has new maps made with room for so many VNIs.
    pub(super) fn make_room(&mut self, vnis: u32) {
        if let Some(shape) = self.maps.get_mut(COUNTERS) {
            shape.max_entries = counts::rows(vnis);
        }
    }

    /// How pinned maps differ from the object's, if they do.
    pub(super) fn difference(&self, pins: &Pins) -> Option<String> {
        for (name, shape) in &self.maps {
            let Ok(info) = MapInfo::from_pin(pins.map(name)) else {
                return Some(format!("no map {name}"));
            };
            let found = (info.key_size(), info.value_size());
            // The kernel rounds neither; a devmap's value may be shorter on old kernels.
            if found != (shape.key_size, shape.value_size) && shape.value_size != 0 {
                return Some(format!(
                    "a map {name} with keys and values of {found:?} bytes instead of {:?}",
                    (shape.key_size, shape.value_size)
                ));
            }
        }
        None
    }
}

/// The programs, loaded.
pub(super) struct Programs {
    pub(super) vni_ingress: ProgramFd,
    pub(super) instance_return: ProgramFd,
    pub(super) clone: ProgramFd,
}

/// Tells one object, loaded with one log level, from another: FNV-1a, 64 bits.
pub(super) fn identity(log_level: u8) -> u64 {
    let bytes = OBJECT.iter().chain([&log_level]);
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

impl Programs {
    /// Takes the pinned programs as they are. The verifier takes seconds for new ones, and for
    /// so long a restarted agent would be blind.
    pub(super) fn pinned(pins: &Pins) -> Option<Self> {
        let open = |name: &str, attach_type| {
            let program = Xdp::from_pin(pins.programs().join(name), attach_type).ok()?;
            program.fd().ok()?.try_clone().ok()
        };
        Some(Self {
            vni_ingress: open(VNI_INGRESS, XdpAttachType::Interface)?,
            instance_return: open(INSTANCE_RETURN, XdpAttachType::Interface)?,
            clone: open("clone", XdpAttachType::DevMap)?,
        })
    }

    /// Loads the programs on the maps that are pinned, or on new ones that are then pinned.
    pub(super) fn load(
        pins: &Pins,
        shapes: &Shapes,
        log_level: u8,
    ) -> Result<Self, DataplaneError> {
        let mut ebpf = open(OBJECT, pins, shapes, log_level)?;
        Ok(Self {
            vni_ingress: program(&mut ebpf, pins, VNI_INGRESS)?,
            instance_return: program(&mut ebpf, pins, INSTANCE_RETURN)?,
            clone: program(&mut ebpf, pins, "clone")?,
        })
    }

    /// Loads the traced programs on the maps that are pinned. They are not pinned themselves.
    pub(super) fn traced(pins: &Pins, shapes: &Shapes) -> Result<(Self, Ebpf), DataplaneError> {
        let mut ebpf = open(TRACED_OBJECT, pins, shapes, 0)?;
        let programs = Self {
            vni_ingress: verified(&mut ebpf, VNI_INGRESS)?,
            instance_return: verified(&mut ebpf, INSTANCE_RETURN)?,
            clone: verified(&mut ebpf, "clone")?,
        };
        Ok((programs, ebpf))
    }
}

/// Opens an object on the maps that are pinned, or on new ones that are then pinned.
fn open(
    object: &[u8],
    pins: &Pins,
    shapes: &Shapes,
    log_level: u8,
) -> Result<Ebpf, DataplaneError> {
    let mut loader = EbpfLoader::new();
    for (name, shape) in &shapes.maps {
        loader.map_pin_path(name, pins.map(name));
        loader.map_max_entries(name, shape.max_entries);
    }
    loader.override_global("AYA_LOG_LEVEL", &log_level, false);
    loader.load(object).map_err(|error| DataplaneError::Object {
        source: Box::new(error),
    })
}

/// The kernel's numbers of the pinned programs that interfaces carry.
pub(super) fn pinned_ids(pins: &Pins) -> Vec<u32> {
    let names = [VNI_INGRESS, INSTANCE_RETURN].into_iter();
    let id = |name: &str| {
        let info = ProgramInfo::from_pin(pins.programs().join(name));
        Some(info.ok()?.id())
    };
    names.filter_map(id).collect()
}

pub(super) fn refused(program: &'static str, reason: String) -> DataplaneError {
    DataplaneError::Program { program, reason }
}

/// Loads one program and pins it in the place of the one that was there.
fn program(ebpf: &mut Ebpf, pins: &Pins, name: &'static str) -> Result<ProgramFd, DataplaneError> {
    let fd = verified(ebpf, name)?;
    let path = pins.programs().join(name);
    let next: PathBuf = pins.programs().join(format!("{name}-next"));
    // A leftover of a start that was cut off.
    let _ = std::fs::remove_file(&next);
    sys::pin(std::os::fd::AsFd::as_fd(&fd), &next).path("pin", &next)?;
    std::fs::rename(&next, &path).path("rename", &next)?;
    Ok(fd)
}

/// Loads one program.
fn verified(ebpf: &mut Ebpf, name: &'static str) -> Result<ProgramFd, DataplaneError> {
    let refused = |reason: String| refused(name, reason);
    let describe = |error: ProgramError| match &error {
        ProgramError::LoadError {
            io_error,
            verifier_log,
        } => refused(format!("{io_error}{}", log_tail(&verifier_log.to_string()))),
        other => refused(other.to_string()),
    };
    let program = ebpf
        .program_mut(name)
        .ok_or_else(|| refused("it is not in the object".to_owned()))?;
    let program: &mut Xdp = program.try_into().map_err(describe)?;
    program.load().map_err(describe)?;
    let fd = program.fd().map_err(describe)?;
    fd.try_clone().map_err(|error| refused(error.to_string()))
}
