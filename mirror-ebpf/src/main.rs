//! The XDP programs of the dataplane. Entry points only: each reads its packet, lets the pure
//! code of `mirror-common` decide, and carries the verdict out.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "a reference keeps map keys and values from being copied to the stack of 512 bytes"
)]

mod clone;
mod datagram;
mod flow;
mod fragment;
mod health;
mod icmp;
mod instance_return;
mod limit;
mod lock;
mod maps;
mod measure;
mod narrow;
mod packet;
mod park;
mod predecessor;
mod quic;
mod report;
mod steer;
mod tcp;
mod trace;
mod vni_ingress;

use aya_ebpf::{bindings::xdp_action, macros::xdp, programs::XdpContext};
use mirror_common::trace::program;

/// Client traffic: attached to each interface on which a VNI's packets arrive.
#[xdp]
#[inline(always)]
pub fn vni_ingress(ctx: XdpContext) -> u32 {
    trace::begin(program::VNI_INGRESS);
    trace::end(&ctx, vni_ingress::run(&ctx)).number()
}

/// Replies of instances: attached to each instance link.
#[xdp]
#[inline(always)]
pub fn instance_return(ctx: XdpContext) -> u32 {
    trace::begin(program::INSTANCE_RETURN);
    trace::end(&ctx, instance_return::run(&ctx)).number()
}

/// One copy on its way out: runs for every entry of every devmap.
#[xdp(map = "devmap")]
#[inline(always)]
pub fn clone(ctx: XdpContext) -> u32 {
    trace::begin(program::CLONE);
    trace::end(&ctx, clone::run(&ctx)).number()
}

/// What becomes of a packet, with the reason under which it is counted.
#[must_use]
#[derive(Clone, Copy)]
pub(crate) enum Action {
    /// To the kernel's stack, or on to the device in a devmap program.
    Pass,
    /// Gone.
    Drop,
    /// Handed to a redirect helper, whose return value this is.
    Redirect(u32),
    /// A client's, and larger than the links to its instances take, of which the narrowest takes so much.
    TooBig(u32),
}

impl Action {
    fn number(self) -> u32 {
        match self {
            Self::Pass => xdp_action::XDP_PASS,
            Self::Drop | Self::TooBig(_) => xdp_action::XDP_DROP,
            Self::Redirect(action) => action,
        }
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing here panics: the verifier would refuse the endless loop if it were reachable.
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
