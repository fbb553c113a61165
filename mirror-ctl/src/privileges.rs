//! Rights that are given up: the agent keeps the capabilities that its work needs, and the thread that answers requests
//! keeps none.
//!
//! Capabilities are a thread's own, and threads begin with those of the thread that starts them.

use std::collections::HashSet;

use caps::{CapSet, Capability, errors::CapsError};

/// What the agent works with, and what it may get back when it becomes another version of itself
/// (systemd's unit gives it no others).
const KEPT: [Capability; 6] = [
    // Maps and programs are loaded while it runs, too: steering tables, interfaces that come.
    Capability::CAP_BPF,
    Capability::CAP_PERFMON,
    // Links, addresses, neighbours.
    Capability::CAP_NET_ADMIN,
    // Frames that prompt the flows of a lost instance.
    Capability::CAP_NET_RAW,
    // The socket's group.
    Capability::CAP_CHOWN,
    // The loop's priority.
    Capability::CAP_SYS_NICE,
];

/// Kept too by an agent that root starts by hand: its configuration may be in a folder of somebody else's, and is read
/// and written again at reloads.
const FILES: Capability = Capability::CAP_DAC_OVERRIDE;

/// Gives up whatever the agent does not need, for the calling thread, those that it starts, and what it becomes by exec.
/// To be called before there are other threads.
pub fn narrow() -> Result<(), CapsError> {
    let kept: HashSet<_> = KEPT.into_iter().chain([FILES]).collect();
    let permitted = caps::read(None, CapSet::Permitted)?;
    // Only who has this may lower the limit; for who has not, it was lowered before.
    if permitted.contains(&Capability::CAP_SETPCAP) {
        for other in caps::read(None, CapSet::Bounding)?.difference(&kept) {
            caps::drop(None, CapSet::Bounding, *other)?;
        }
    }
    keep(&permitted.intersection(&kept).copied().collect())
}

/// Gives up every right of the calling thread, and of those that it will start. What it has open stays usable.
pub fn renounce() -> Result<(), CapsError> {
    keep(&HashSet::new())
}

fn keep(kept: &HashSet<Capability>) -> Result<(), CapsError> {
    // In this order: no set may hold what the permitted one has not.
    let ambient = caps::read(None, CapSet::Ambient)?;
    for other in ambient.difference(kept) {
        caps::drop(None, CapSet::Ambient, *other)?;
    }
    for set in [CapSet::Effective, CapSet::Inheritable, CapSet::Permitted] {
        let has = caps::read(None, set)?;
        caps::set(None, set, &has.intersection(kept).copied().collect())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Runs in a thread of its own, which alone loses its rights.
    fn apart<T: Send>(act: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| scope.spawn(act).join().unwrap())
    }

    #[test]
    fn what_is_renounced_is_gone_and_does_not_come_back() {
        apart(|| {
            renounce().unwrap();
            for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
                assert_eq!(caps::read(None, set).unwrap(), HashSet::new());
            }
            assert!(caps::raise(None, CapSet::Effective, Capability::CAP_BPF).is_err());
            // Again, without any: nothing to do.
            renounce().unwrap();
        });
    }

    #[test]
    fn nothing_is_gained_by_narrowing() {
        let before = caps::read(None, CapSet::Permitted).unwrap();
        let (permitted, bounding) = apart(|| {
            narrow().unwrap();
            (
                caps::read(None, CapSet::Permitted).unwrap(),
                caps::read(None, CapSet::Bounding).unwrap(),
            )
        });
        let kept: HashSet<_> = KEPT.into_iter().chain([FILES]).collect();
        assert!(permitted.is_subset(&before) && permitted.is_subset(&kept));
        if before.contains(&Capability::CAP_SETPCAP) {
            assert!(bounding.is_subset(&kept));
        }
    }
}
