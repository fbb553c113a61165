//! One version's dataplane beside that of the version before, whose maps have another layout. Under the pin directory the new
//! one is made as `next`; then what is there moves to `draining`, where a keeper looks after its flows until they have ended,
//! and the new one takes its place. Links stay where they are: their programs are replaced last.
//!
//! Each step is a renaming or can be done again, so that whoever comes after one that was cut off goes on from there. (A
//! bpffs renames directories: `bpf_dir_iops`, kernel/bpf/inode.c.)

use std::{fs, io, path::Path};

use aya::{
    maps::{Array, MapData, ProgramArray},
    programs::Xdp,
};
use aya_obj::programs::XdpAttachType;
use mirror_common::{LAYOUT_VERSION, predecessor};

use super::{
    Dataplane, DataplaneError, Layout, Register, attached,
    error::{MapContext, PathContext},
    host::{self, Pins},
    layout, maps,
    object::{self, INSTANCE_RETURN, Shapes, VNI_INGRESS, refused},
    programs,
};

const MAP: &str = "PREDECESSOR";
const DRAINS: &str = "DRAINS";
/// Its programs, by their numbers.
const PROGRAMS: [(u32, &str); predecessor::PROGRAMS as usize] = [
    (predecessor::VNI_INGRESS, VNI_INGRESS),
    (predecessor::INSTANCE_RETURN, INSTANCE_RETURN),
];
/// Made last in what is prepared: there are no files on a bpffs.
const COMPLETE: &str = "complete";

impl Pins {
    /// Those of the version before.
    pub(super) fn draining(&self) -> Self {
        Self::new(&self.dir.join("draining"))
    }

    /// Those of the version that comes.
    fn next(&self) -> Self {
        Self::new(&self.dir.join("next"))
    }

    fn complete(&self) -> std::path::PathBuf {
        self.dir.join(COMPLETE)
    }

    /// Removes everything, with the directory.
    fn remove_all(&self) -> Result<(), DataplaneError> {
        self.remove()?;
        for dir in [self.complete(), self.dir.clone()] {
            absent_is_fine(fs::remove_dir(&dir)).path("remove", &dir)?;
        }
        Ok(())
    }
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Whether a version before this one is pinned, whose flows are to end.
pub fn is_draining(pin_dir: &Path) -> bool {
    Pins::new(pin_dir).draining().dir.exists()
}

/// Whether another version is prepared to take the place of what is pinned.
pub fn is_prepared(pin_dir: &Path) -> bool {
    Pins::new(pin_dir).next().complete().exists()
}

/// Whether this version is what interfaces run, and has maps of its own layout.
pub fn is_in_place(pin_dir: &Path) -> bool {
    super::check_upgrade(pin_dir).is_ok() && super::outdated(pin_dir).is_empty()
}

/// Whether another version is pinned, and none is about to come.
pub fn is_refused(pin_dir: &Path) -> bool {
    let is_other = matches!(
        super::check_upgrade(pin_dir),
        Err(DataplaneError::Layout { .. })
    );
    is_other && !is_draining(pin_dir) && !is_prepared(pin_dir)
}

/// Checks that this version differs from what is pinned, which therefore has to be drained, and that it can be.
pub fn check_drain(pin_dir: &Path) -> Result<(), DataplaneError> {
    host::check()?;
    host::check_permitted(pin_dir)?;
    let pins = Pins::new(pin_dir);
    if is_draining(pin_dir) {
        return Err(DataplaneError::Draining {
            pin_dir: pin_dir.to_owned(),
        });
    }
    match layout(&pins) {
        Layout::None => Err(DataplaneError::NotLoaded {
            pin_dir: pin_dir.to_owned(),
        }),
        Layout::Version(LAYOUT_VERSION) if Shapes::of_object()?.difference(&pins).is_none() => {
            Err(DataplaneError::SameLayout)
        }
        Layout::Version(_) => Ok(()),
    }
}

/// Has the kernel verify this version's programs on maps of their own, beside what is pinned, which works on. They know the
/// programs that they will hand packets of unknown flows to.
pub fn prepare_beside(pin_dir: &Path) -> Result<(), DataplaneError> {
    check_drain(pin_dir)?;
    let pins = Pins::new(pin_dir);
    let next = pins.next();
    // Of an attempt that came to nothing.
    next.remove_all()?;
    let prepared = prepare(&pins, &next);
    if prepared.is_err() {
        next.remove_all()?;
    }
    prepared
}

fn prepare(pins: &Pins, next: &Pins) -> Result<(), DataplaneError> {
    let mut shapes = Shapes::of_object()?;
    shapes.make_room(Register::open(pins)?.vnis()?.len() as u32);
    next.create()?;
    Register::create(next)?;
    programs(next, &shapes, 0)?;
    know_predecessor(next, pins)?;
    Register::open(next)?.set_succeeds(true)?;
    let mut layout: Array<MapData, u32> = maps::open_map(next, "LAYOUT")?;
    layout.set(0, LAYOUT_VERSION, 0).on_map("LAYOUT", "write")?;
    fs::create_dir(next.complete()).path("create", next.complete())
}

/// Forgets what was prepared.
pub fn abandon(pin_dir: &Path) -> Result<(), DataplaneError> {
    Pins::new(pin_dir).next().remove_all()
}

/// Makes what is pinned the predecessor. Interfaces run its programs as before.
pub fn set_aside(pin_dir: &Path) -> Result<(), DataplaneError> {
    let pins = Pins::new(pin_dir);
    let draining = pins.draining();
    fs::create_dir_all(&draining.dir).path("create", &draining.dir)?;
    move_over(&pins, &draining)
}

/// Undoes [`set_aside`], and forgets what was prepared.
pub fn take_back(pin_dir: &Path) -> Result<(), DataplaneError> {
    let pins = Pins::new(pin_dir);
    move_over(&pins.draining(), &pins)?;
    pins.draining().remove_all()?;
    pins.next().remove_all()
}

/// Moves maps and programs, as far as they are not there yet.
fn move_over(from: &Pins, to: &Pins) -> Result<(), DataplaneError> {
    for (old, new) in [(from.maps(), to.maps()), (from.programs(), to.programs())] {
        if !new.exists() {
            absent_is_fine(fs::rename(&old, &new)).path("rename", &old)?;
        }
    }
    Ok(())
}

/// Has what was prepared take the place of what was set aside. What was prepared for nothing is removed.
pub(super) fn move_in(pins: &Pins) -> Result<(), DataplaneError> {
    let next = pins.next();
    if !next.dir.exists() {
        return Ok(());
    }
    if is_draining(&pins.dir) && next.complete().exists() {
        set_aside(&pins.dir)?;
        move_over(&next, pins)?;
    }
    next.remove_all()
}

/// Has the programs of `pins` hand what they do not know to those of `before`.
fn know_predecessor(pins: &Pins, before: &Pins) -> Result<(), DataplaneError> {
    let mut map: ProgramArray<MapData> = maps::open_map(pins, MAP)?;
    for (number, name) in PROGRAMS {
        let path = before.programs().join(name);
        let program = Xdp::from_pin(path, XdpAttachType::Interface);
        let program = program.map_err(|error| refused(name, error.to_string()))?;
        let fd = program
            .fd()
            .map_err(|error| refused(name, error.to_string()))?;
        // The kernel compares both programs' kinds (`bpf_prog_map_compatible`, kernel/bpf/core.c).
        map.set(number, fd, 0).on_map(MAP, "put a program into")?;
    }
    set_drains(pins, 1)
}

/// Says whether there is a predecessor.
fn set_drains(pins: &Pins, drains: u32) -> Result<(), DataplaneError> {
    let mut map: Array<MapData, u32> = maps::open_map(pins, DRAINS)?;
    map.set(0, drains, 0).on_map(DRAINS, "write")
}

/// Whether interfaces still run the programs that are pinned in a directory `draining`.
pub fn serves_new_flows(draining: &Path) -> bool {
    let Some(pin_dir) = draining.parent() else {
        return false;
    };
    let own = object::pinned_ids(&Pins::new(draining));
    let mut links = attached(pin_dir).into_iter();
    links.any(|(_, program)| own.contains(&program))
}

/// Whether a predecessor's pins are there: who removes them wants it to end.
pub fn is_kept(draining: &Path) -> bool {
    Pins::new(draining).maps().exists()
}

/// Removes the pins of a predecessor. What still hands packets to its programs keeps them, and their maps.
pub fn remove_drained(draining: &Path) -> Result<(), DataplaneError> {
    Pins::new(draining).remove_all()
}

/// Removes what is pinned of versions before and after.
pub(super) fn remove_others(pins: &Pins) -> Result<(), DataplaneError> {
    pins.draining().remove_all()?;
    pins.next().remove_all()
}

impl Dataplane {
    /// Whether the version before has the interfaces, and is to be succeeded.
    pub fn succeeds(&self) -> bool {
        self.succeeds
    }

    /// Whether this is a predecessor's dataplane, which is only kept: nothing is attached.
    pub fn keeps(&self) -> bool {
        self.keeps
    }

    pub(super) fn find_predecessor(&mut self) -> Result<(), DataplaneError> {
        self.succeeds = self.maps.register.succeeds()?;
        if self.succeeds && is_draining(&self.pins.dir) {
            know_predecessor(&self.pins, &self.pins.draining())?;
        }
        Ok(())
    }

    /// Interfaces run this version's programs now.
    pub fn succeeded(&mut self) -> Result<(), DataplaneError> {
        self.succeeds = false;
        self.maps.register.set_succeeds(false)
    }

    /// Forgets the predecessor: what this version does not know nobody knows.
    pub fn end_draining(&mut self) -> Result<(), DataplaneError> {
        let mut map: ProgramArray<MapData> = maps::open_map(&self.pins, MAP)?;
        for (number, _) in PROGRAMS {
            maps::absent_is_fine(map.clear_index(&number)).on_map(MAP, "delete from")?;
        }
        set_drains(&self.pins, 0)?;
        self.pins.draining().remove_all()
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    /// A version that is pinned, another one that is prepared. (What is renamed need not be on a bpffs.)
    fn prepared() -> (TempDir, Pins) {
        let dir = tempfile::tempdir().unwrap();
        let pins = Pins::new(dir.path());
        for (pins, version) in [(&pins, "old"), (&pins.next(), "new")] {
            pins.create().unwrap();
            fs::write(pins.map("LAYOUT"), version).unwrap();
            fs::write(pins.programs().join(VNI_INGRESS), version).unwrap();
        }
        fs::create_dir(pins.next().complete()).unwrap();
        fs::write(pins.link(7), "link").unwrap();
        (dir, pins)
    }

    /// Which version is there as a whole.
    fn version(pins: &Pins) -> Option<String> {
        let map = fs::read_to_string(pins.map("LAYOUT")).ok()?;
        let program = fs::read_to_string(pins.programs().join(VNI_INGRESS)).ok()?;
        (map == program).then_some(map)
    }

    #[test]
    fn a_change_of_place_is_taken_up_wherever_it_was_cut_off() {
        type Step = fn(&Pins);
        let steps: [Step; 5] = [
            |pins| fs::create_dir(pins.draining().dir).unwrap(),
            |pins| fs::rename(pins.maps(), pins.draining().maps()).unwrap(),
            |pins| fs::rename(pins.programs(), pins.draining().programs()).unwrap(),
            |pins| fs::rename(pins.next().maps(), pins.maps()).unwrap(),
            |pins| fs::rename(pins.next().programs(), pins.programs()).unwrap(),
        ];
        for done in 1..=steps.len() {
            let (_dir, pins) = prepared();
            steps[..done].iter().for_each(|step| step(&pins));
            move_in(&pins).unwrap();
            assert_eq!(version(&pins).as_deref(), Some("new"), "{done} steps");
            assert_eq!(version(&pins.draining()).as_deref(), Some("old"));
            assert!(!pins.next().dir.exists());
            assert_eq!(pins.linked(), [7], "links stay");
            // Nothing is left to do.
            move_in(&pins).unwrap();
            assert_eq!(version(&pins).as_deref(), Some("new"));
            remove_drained(&pins.draining().dir).unwrap();
            assert!(!is_draining(&pins.dir));
        }
    }

    #[test]
    fn what_nobody_wanted_is_removed() {
        let (_dir, pins) = prepared();
        assert!(is_prepared(&pins.dir));
        move_in(&pins).unwrap();
        assert_eq!(version(&pins).as_deref(), Some("old"));
        assert!(!pins.next().dir.exists() && !is_draining(&pins.dir));
        // Nor does what was not finished come in.
        let (_dir, pins) = prepared();
        fs::remove_dir(pins.next().complete()).unwrap();
        fs::create_dir(pins.draining().dir).unwrap();
        move_in(&pins).unwrap();
        assert_eq!(version(&pins).as_deref(), Some("old"));
    }

    #[test]
    fn what_was_set_aside_comes_back() {
        let (_dir, pins) = prepared();
        set_aside(&pins.dir).unwrap();
        assert_eq!(version(&pins), None);
        assert!(is_kept(&pins.draining().dir));
        take_back(&pins.dir).unwrap();
        assert_eq!(version(&pins).as_deref(), Some("old"));
        assert!(!is_draining(&pins.dir) && !is_prepared(&pins.dir));
        remove_others(&pins).unwrap();
    }
}
