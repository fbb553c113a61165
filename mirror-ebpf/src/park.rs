//! Keeps what a mirror said last ahead of the active replica; why is told in
//! `mirror_common::parked`.

use aya_ebpf::{helpers::bpf_xdp_load_bytes, programs::XdpContext};
use mirror_common::{
    flow::FlowKey,
    parked::{FRAME_MAX, Parked, places},
    steering,
};

use crate::{
    maps::PARKED,
    packet::{length, size},
    report::Now,
};

/// Keeps the frame at hand. Not under the flow's lock, since it calls helpers: a frame that two
/// CPUs write at once fails its checksum when it is read.
#[inline(always)]
pub(crate) fn keep(ctx: &XdpContext, key: &FlowKey, slot: u8, end: u32, now: Now) {
    let length = length(ctx) as u32;
    if length == 0 || length > FRAME_MAX as u32 {
        return;
    }
    let (first, second) = places(steering::hash(key), slot);
    let (Some(first), Some(second)) = (PARKED.get_ptr_mut(first), PARKED.get_ptr_mut(second))
    else {
        return;
    };
    let place = choose(first, second, key, slot, now);
    // SAFETY: the pointer is to a live map value; other CPUs may write it too, see above.
    unsafe {
        (*place).length = 0;
        (*place).key = *key;
        (*place).slot = slot;
        (*place).end = end;
        (*place).parked_ms = now.ms();
        let frame = core::ptr::addr_of_mut!((*place).frame).cast();
        if bpf_xdp_load_bytes(ctx.ctx, 0, frame, size::<{ FRAME_MAX as u32 }>(length)) == 0 {
            (*place).length = length as u16;
        }
    }
}

/// The place of the slot's own last segment, or else that of the older one.
#[inline(always)]
fn choose(
    first: *mut Parked,
    second: *mut Parked,
    key: &FlowKey,
    slot: u8,
    now: Now,
) -> *mut Parked {
    // SAFETY: both point to live map values, of which single words are read.
    unsafe {
        let age = |place: *mut Parked| now.ms().wrapping_sub((*place).parked_ms);
        if (*first).is_of(key, slot) {
            first
        } else if (*second).is_of(key, slot) || age(second) > age(first) {
            second
        } else {
            first
        }
    }
}
