//! The lock around a flow's protocol state.
//!
//! The replicas' packets of one flow arrive on different devices and so on different CPUs, and
//! what the client may be told depends on all of them: without a lock two acknowledgements can
//! each find the other missing, and both be held for good. Locks are shared by hash, apart from
//! the flows, so that flow values can be copied from one map to another.

use aya_ebpf::{
    bindings::bpf_spin_lock,
    helpers::{bpf_spin_lock, bpf_spin_unlock},
};
use mirror_common::limits::FLOW_LOCKS;

use crate::maps::LOCKS;

/// A held lock. No helper may be called, and nothing that is not inlined, while it lives.
#[must_use]
pub(crate) struct Held(*mut bpf_spin_lock);

/// Takes the lock of a flow's hash. `None` when there is no lock, which the array's size rules
/// out.
#[inline(always)]
pub(crate) fn take(hash: u32) -> Option<Held> {
    let lock: *mut bpf_spin_lock = LOCKS.get_ptr_mut(hash & (FLOW_LOCKS - 1))?.cast();
    // SAFETY: the pointer is to a map value of the array above and stays valid.
    unsafe { bpf_spin_lock(lock) };
    Some(Held(lock))
}

impl Drop for Held {
    #[inline(always)]
    fn drop(&mut self) {
        // SAFETY: `take` took this lock, and nothing else releases it.
        unsafe { bpf_spin_unlock(self.0) };
    }
}
