//! What is measured of instances while packets pass, see `mirror_common::answers`.

use mirror_common::{
    flow::{PlainFlow, TcpFlow},
    instance::Measures,
    limits::{REPLICAS, SYN_REPEATED_STEPS_MIN, TIMED_PER_TICK},
    tcp::{Segment, flag, slot},
};

use crate::{maps::MEASURES, report::Now};

/// Whether anything is measured: not in the variant that shows what it costs.
pub(crate) const IS_ON: bool = !cfg!(feature = "unmeasured");

/// Reads the clock for measurements, and not too often: each time takes as long as to look a flow up.
pub(crate) struct Stopwatch {
    /// The kernel's tick in which it is read.
    tick_ns: u64,
    /// How often it may still be.
    left: u64,
}

impl Stopwatch {
    /// The time in steps with the highest bit set; 0: it was read often enough during this tick.
    #[inline(always)]
    pub(crate) fn start(&mut self, now: Now) -> u32 {
        if !IS_ON {
            return 0;
        }
        if self.tick_ns != now.ns {
            self.tick_ns = now.ns;
            self.left = TIMED_PER_TICK;
        }
        if self.left == 0 {
            return 0;
        }
        self.left -= 1;
        Now::exact().steps() | 1 << 31
    }
}

/// Changes what is measured of an instance.
#[inline(always)]
fn of(instance: u16, change: impl FnOnce(&mut Measures)) {
    if IS_ON && let Some(measures) = MEASURES.get_ptr_mut(u32::from(instance)) {
        // SAFETY: a per-CPU value, which nothing else on this CPU writes meanwhile.
        change(unsafe { &mut *measures });
    }
}

/// A request begins that the instance is to answer.
#[inline(always)]
pub(crate) fn request(instance: u16) {
    of(instance, |measures| measures.requests += 1);
}

/// Takes in what an instance says in a flow, as the replica in `slot`.
#[inline(always)]
pub(crate) fn heard(flow: &mut PlainFlow, slot: u8, instance: u16, segment: &Segment, now: Now) {
    if !IS_ON || !flow.expects(slot) {
        return;
    }
    let settled = flow.settled(slot, segment, now.steps());
    if settled.marks == 0 {
        return;
    }
    take_marks(flow, settled.marks);
    if settled.is_timed() {
        let steps = settled.took(now.steps(), Now::exact().steps());
        of(instance, |measures| {
            if settled.is_acknowledged() {
                measures.ack.count(steps);
            }
            if settled.is_answered() {
                measures.answer.count(steps);
            }
        });
    }
}

/// Takes marks away whatever other CPUs do to the others. Not under the flow's lock: for this alone it would cost more than
/// all the rest.
#[inline(always)]
fn take_marks(flow: &mut PlainFlow, marks: u8) {
    const PLACE: usize = core::mem::offset_of!(PlainFlow, marks);
    const WORD: usize = PLACE / 8 * 8;
    let mut others = [0xff; 8];
    others[PLACE - WORD] = !marks;
    let others = u64::from_ne_bytes(others);
    // SAFETY: an atomic operation on an aligned word of a live map value, which changes none of the bits that are set in
    // `others`.
    unsafe {
        core::arch::asm!(
            "lock *(u64 *)({flow} + {word}) &= {others}",
            flow = in(reg) core::ptr::from_mut(flow),
            word = const WORD,
            others = in(reg) others,
        );
    }
}

/// The instance answered a SYN for the first time.
#[inline(always)]
pub(crate) fn handshake(instance: u16, steps: u32) {
    of(instance, |measures| measures.handshake.count(steps));
}

/// A segment of the active replica goes to the client. Only of a flow that has moved is looked at more than its first words.
#[inline(always)]
pub(crate) fn delivered(flow: &mut TcpFlow, instance: u16) {
    if flow.flow.takeovers != 0 && flow.sync.stalled_steps != 0 {
        let steps = flow.end_stall(Now::exact().steps());
        of(instance, |measures| measures.stall.count(steps));
    }
}

/// The client sends its SYN again: whoever has not answered the first one has let it down.
#[inline(always)]
pub(crate) fn repeated_syn(half: &TcpFlow, now: Now) {
    let waited = now.steps().wrapping_sub(half.sync.syn_steps) as i32;
    if waited < SYN_REPEATED_STEPS_MIN as i32 {
        return;
    }
    for number in 0..REPLICAS {
        let replica = &half.sync.replicas[number];
        let answered = replica.flags & flag::SYN_ACK != 0 || replica.state == slot::COLD;
        if number < usize::from(half.flow.replicas) && !answered {
            of(half.flow.instances[number], |measures| {
                measures.unanswered += 1
            });
        }
    }
}
