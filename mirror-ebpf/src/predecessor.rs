//! Packets of flows that this version knows nothing of: while the version before lets its flows end (`mirror-ctl upgrade
//! --drain`), they may be known there.

use aya_ebpf::programs::XdpContext;
use mirror_common::predecessor::{INSTANCE_RETURN, VNI_INGRESS};

use crate::maps::{DRAINS, PREDECESSOR};

/// Hands a client's packet, which must be as it came, to the version before. Comes back when there is none.
///
/// A packet of a known flow does not come here. For another one it costs nothing while there is no predecessor: the number
/// is a constant, so that the processor's code has a jump here that the kernel puts in only with an entry
/// (`prog_array_map_poke_run`, kernel/bpf/arraymap.c, Linux 5.5).
#[inline(always)]
pub(crate) fn take_from_client(ctx: &XdpContext) {
    // SAFETY: nothing is held here that would have to be dropped; the context is the one the kernel gave us.
    unsafe { PREDECESSOR.tail_call(ctx, VNI_INGRESS) };
}

/// The same with an instance's packet.
#[inline(always)]
pub(crate) fn take_from_instance(ctx: &XdpContext) {
    // SAFETY: as in `take_from_client`.
    unsafe { PREDECESSOR.tail_call(ctx, INSTANCE_RETURN) };
}

/// Whether there is a version before.
#[inline(always)]
pub(crate) fn is_there() -> bool {
    matches!(DRAINS.get(0), Some(&drains) if drains != 0)
}
