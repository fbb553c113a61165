//! What the XDP programs and user space share: map keys and values, the reasons and events they
//! report, and the per-flow TCP takeover protocol as pure code.
//!
//! Nothing here knows a kernel, a clock or a device. The XDP programs, the unit and property
//! tests and a simulator run the very same functions.
#![cfg_attr(not(test), no_std)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

pub mod allowance;
pub mod answers;
pub mod branchless;
pub mod checksum;
pub mod counts;
pub mod ethernet;
pub mod event;
pub mod flow;
pub mod fragment;
pub mod histogram;
pub mod instance;
mod layout;
pub mod limits;
pub mod parked;
pub mod plan;
pub mod predecessor;
pub mod quic;
pub mod reason;
pub mod replica_set;
pub mod steering;
pub mod tcp;
pub mod time;
pub mod trace;
pub mod vni;

/// Version of every map layout in this crate. The dataplane's maps outlive the agent that made
/// them, so an agent adopts pinned maps only when they carry its own number.
pub const LAYOUT_VERSION: u32 = 10;

/// Asserts at compile time that a shared type has the size that its other side expects.
macro_rules! assert_size {
    ($type:ty, $bytes:expr) => {
        const _: () = assert!(core::mem::size_of::<$type>() == $bytes);
    };
}
pub(crate) use assert_size;

/// Marks types without padding or invalid bit patterns as loadable by aya.
#[cfg(feature = "user")]
macro_rules! pod {
    ($($type:ty),+ $(,)?) => { $(
        // SAFETY: the type is repr(C), Copy, made of integers only, and its size assertion
        // shows that it has no implicit padding.
        unsafe impl aya::Pod for $type {}
    )+ };
}
#[cfg(not(feature = "user"))]
macro_rules! pod {
    ($($type:ty),+ $(,)?) => {};
}
pub(crate) use pod;
