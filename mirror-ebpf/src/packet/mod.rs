//! Packet access: the only place that reads or writes bytes of a frame.

pub(crate) mod headers;
pub(crate) mod part;
pub(crate) mod rewrite;
pub(crate) mod tcp_header;
pub(crate) mod too_big;

use core::arch::asm;

use aya_ebpf::programs::XdpContext;

/// Address of `length` bytes at `offset` of the frame; `None` when the frame is shorter.
///
/// The verifier asks for a fresh comparison with `data_end` wherever the offset is not constant,
/// and after each helper that can move the frame.
#[inline(always)]
pub(crate) fn at(ctx: &XdpContext, offset: usize, length: usize) -> Option<Bytes> {
    let mut start = pointer(ctx.data());
    // The addition is kept from the optimiser, which would share it between checks and so leave
    // the verifier with pointers that no comparison covers.
    // SAFETY: arithmetic on registers only.
    unsafe {
        asm!("{s} += {o}", s = inout(reg) start, o = in(reg) offset,
            options(pure, nomem, nostack, preserves_flags));
    }
    if start + length > pointer(ctx.data_end()) {
        return None;
    }
    Some(Bytes(start))
}

/// Hides from the optimiser that the context's pointers are 32-bit loads: it would compute with
/// their lower halves, which the verifier prohibits.
#[inline(always)]
fn pointer(loaded: usize) -> usize {
    let address;
    // SAFETY: a move between registers.
    unsafe {
        asm!("{a} = {l}", a = out(reg) address, l = in(reg) loaded,
            options(pure, nomem, nostack, preserves_flags));
    }
    address
}

/// How many bytes a helper is to copy: the least of `bytes`, which is not 0, and `MAX`, in a form of which the verifier knows
/// that it is neither 0 nor more. Older kernels want both (`ARG_CONST_SIZE`, Linux 6.1).
#[inline(always)]
pub(crate) fn size<const MAX: u32>(bytes: u32) -> u32 {
    let last = u64::from(bytes.wrapping_sub(1));
    let mut last = if last < u64::from(MAX) {
        last
    } else {
        u64::from(MAX - 1)
    };
    // SAFETY: arithmetic on a register, which it leaves as it is. The optimiser would leave an ordinary mask out, and the
    // subtraction with the addition.
    unsafe {
        asm!("{n} &= {mask}", n = inout(reg) last, mask = const MAX.next_power_of_two() - 1,
            options(pure, nomem, nostack, preserves_flags));
    }
    last as u32 + 1
}

/// Bytes of the frame that were checked to be there.
///
/// Loads and stores are single BPF instructions of the given width. Plain Rust accesses would
/// have to be byte-wise, because nothing in a frame is aligned; the machines that XDP runs on
/// do unaligned accesses in hardware.
#[derive(Clone, Copy)]
pub(crate) struct Bytes(usize);

impl Bytes {
    /// The byte at a constant offset.
    ///
    /// # Safety
    ///
    /// `OFFSET + 1` is at most the length that [`at`] checked.
    #[inline(always)]
    pub(crate) unsafe fn load8<const OFFSET: i32>(self) -> u8 {
        let value: u64;
        // SAFETY: in bounds by the caller's promise; the verifier checks it again.
        unsafe {
            asm!("{v} = *(u8 *)({p} + {o})", v = out(reg) value, p = in(reg) self.0, o = const OFFSET,
                options(readonly, nostack, preserves_flags));
        }
        value as u8
    }

    /// Two bytes as they lie in memory.
    ///
    /// # Safety
    ///
    /// `OFFSET + 2` is at most the length that [`at`] checked.
    #[inline(always)]
    pub(crate) unsafe fn load16<const OFFSET: i32>(self) -> u16 {
        let value: u64;
        // SAFETY: as in `load8`.
        unsafe {
            asm!("{v} = *(u16 *)({p} + {o})", v = out(reg) value, p = in(reg) self.0, o = const OFFSET,
                options(readonly, nostack, preserves_flags));
        }
        value as u16
    }

    /// Four bytes as they lie in memory.
    ///
    /// # Safety
    ///
    /// `OFFSET + 4` is at most the length that [`at`] checked.
    #[inline(always)]
    pub(crate) unsafe fn load32<const OFFSET: i32>(self) -> u32 {
        let value: u64;
        // SAFETY: as in `load8`.
        unsafe {
            asm!("{v} = *(u32 *)({p} + {o})", v = out(reg) value, p = in(reg) self.0, o = const OFFSET,
                options(readonly, nostack, preserves_flags));
        }
        value as u32
    }

    /// Stores two bytes as they are to lie in memory.
    ///
    /// # Safety
    ///
    /// As for [`Self::load16`].
    #[inline(always)]
    pub(crate) unsafe fn store16<const OFFSET: i32>(self, value: u16) {
        // SAFETY: as in `load8`; nothing else refers to the frame's bytes.
        unsafe {
            asm!("*(u16 *)({p} + {o}) = {v}", v = in(reg) u64::from(value), p = in(reg) self.0, o = const OFFSET,
                options(nostack, preserves_flags));
        }
    }

    /// Stores four bytes as they are to lie in memory.
    ///
    /// # Safety
    ///
    /// As for [`Self::load32`].
    #[inline(always)]
    pub(crate) unsafe fn store32<const OFFSET: i32>(self, value: u32) {
        // SAFETY: as in `store16`.
        unsafe {
            asm!("*(u32 *)({p} + {o}) = {v}", v = in(reg) u64::from(value), p = in(reg) self.0, o = const OFFSET,
                options(nostack, preserves_flags));
        }
    }

    /// Sixteen bytes as they lie in memory.
    ///
    /// # Safety
    ///
    /// `OFFSET + 16` is at most the length that [`at`] checked.
    #[inline(always)]
    pub(crate) unsafe fn load_address<const OFFSET: i32>(self) -> [u32; 4] {
        // SAFETY: the caller's promise covers all four words.
        unsafe {
            let shifted = Self(self.0 + OFFSET as usize);
            [
                shifted.load32::<0>(),
                shifted.load32::<4>(),
                shifted.load32::<8>(),
                shifted.load32::<12>(),
            ]
        }
    }
}

/// Bytes from the start of the frame to its end.
#[inline(always)]
pub(crate) fn length(ctx: &XdpContext) -> usize {
    let mut length = pointer(ctx.data_end());
    // SAFETY: arithmetic on registers only. The optimiser would reorder it with scalars into
    // pointer arithmetic that the verifier prohibits.
    unsafe {
        asm!("{l} -= {d}", l = inout(reg) length, d = in(reg) pointer(ctx.data()),
            options(pure, nomem, nostack, preserves_flags));
    }
    length
}
