//! The sum of a part of a frame: what a segment's checksum does not give away.

use aya_ebpf::{
    bindings::xdp_md,
    helpers::{bpf_csum_diff, bpf_xdp_load_bytes},
    programs::XdpContext,
};
use mirror_common::{checksum::fold, limits::PART_BLOCKS};

use super::size;
use crate::maps::BLOCK;

/// Bytes that are summed up at once: older kernels take no more (`bpf_csum_diff`, net/core/filter.c, Linux 6.12).
pub(crate) const BLOCK_BYTES: u32 = 512;
/// Says that a sum is known.
const KNOWN: u64 = 1 << 16;

/// Ones'-complement sum of so many bytes at an offset of the frame, as they lie in memory (RFC 1071). `None`: more than
/// [`PART_BLOCKS`] take, or than there are.
#[inline(always)]
pub(crate) fn sum(ctx: &XdpContext, offset: u32, length: u32) -> Option<u16> {
    let sum = sum_of_part(ctx.ctx, offset, length);
    (sum & KNOWN != 0).then_some(sum as u16)
}

/// By itself, for the verifier: it walks a global function once, whatever the caller knows. The frame is copied, because
/// the helper takes only whole words, and a part ends anywhere.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn sum_of_part(ctx: *mut xdp_md, offset: u32, length: u32) -> u64 {
    let Some(block) = BLOCK.get_ptr_mut(0) else {
        return 0;
    };
    let mut sum = 0;
    let mut done = 0;
    for _ in 0..PART_BLOCKS {
        let left = length.wrapping_sub(done);
        if left == 0 || left > length {
            break;
        }
        let bytes = size::<BLOCK_BYTES>(left);
        // SAFETY: the block is this CPU's own and as large as `bytes` can be, the last word begins in front of that; the helpers read and
        // write no more than that of it, and refuse what is not in the frame.
        unsafe {
            let last = ((bytes - 1) / 4) as usize;
            let words = block.cast::<u32>();
            words.add(last).write(0);
            if bpf_xdp_load_bytes(ctx, offset.wrapping_add(done), words.cast(), bytes) != 0 {
                return 0;
            }
            let whole = (last as u32 + 1) * 4;
            sum = bpf_csum_diff(core::ptr::null_mut(), 0, words, whole, sum) as u32;
        }
        done = done.wrapping_add(bytes);
    }
    if done != length {
        return 0;
    }
    KNOWN | u64::from(fold(sum))
}
