//! Tells of each packet of one flow: as a program gets it, and what the program makes of it. Only in the variant of the programs
//! that is built with the feature `traced` and that the agent attaches for the time of a trace; in the normal one every function
//! here is empty, and so costs nothing at all. (A constant in read-only data that the verifier looks at would leave the loads of
//! it behind.)

#[cfg(not(feature = "traced"))]
pub(crate) use off::*;
#[cfg(feature = "traced")]
pub(crate) use on::*;

/// Of the normal programs.
#[cfg(not(feature = "traced"))]
mod off {
    use aya_ebpf::programs::XdpContext;
    use mirror_common::{flow::FlowKey, plan::Head, reason::Reason};

    use crate::Action;

    #[inline(always)]
    pub(crate) fn begin(_: u8) {}

    #[inline(always)]
    pub(crate) fn end(_: &XdpContext, action: Action) -> Action {
        action
    }

    #[inline(always)]
    pub(crate) fn arrived(_: &XdpContext, _: &FlowKey, _: u16) {}

    #[inline(always)]
    pub(crate) fn planned(_: &XdpContext, _: &Head) {}

    #[inline(always)]
    pub(crate) fn plan_flag() -> u8 {
        0
    }

    #[inline(always)]
    pub(crate) fn counted(_: Reason) {}

    #[inline(always)]
    pub(crate) fn concerns(_: u16) {}

    #[inline(always)]
    pub(crate) fn leaves_by(_: u32) {}
}

/// Of the traced ones.
#[cfg(feature = "traced")]
mod on {
    use core::ptr::{addr_of, addr_of_mut};

    use aya_ebpf::{
        EbpfContext as _,
        btf_maps::{Array, PerCpuArray, RingBuf},
        helpers::{bpf_get_smp_processor_id, bpf_ktime_get_ns, bpf_xdp_load_bytes},
        macros::btf_map,
        programs::XdpContext,
    };
    use mirror_common::{
        flow::FlowKey,
        limits::{TRACE_FRAME_MAX, TRACE_RING_BYTES},
        plan::{Head, flag::TRACED},
        reason::Reason,
        trace::{Filter, KEY_WORDS, NOBODY, Record, moment},
    };

    use crate::{Action, packet};

    /// What is known of the packet at hand.
    #[repr(C)]
    struct State {
        /// Packets of traced flows so far.
        packets: u32,
        /// Whether the packet at hand is one: 0 or [`TRACED`].
        traced: u32,
        record: Record,
        /// Behind the record, with which it is handed over.
        frame: [u8; TRACE_FRAME_MAX as usize],
    }

    #[btf_map]
    static TRACE_FILTER: Array<Filter, 1> = Array::new();

    #[btf_map]
    static TRACE_STATE: PerCpuArray<State, 1> = PerCpuArray::new();

    /// Records that found no room.
    #[btf_map]
    static TRACE_LOST: PerCpuArray<u64, 1> = PerCpuArray::new();

    #[btf_map]
    static TRACE_RING: RingBuf<Record, { TRACE_RING_BYTES as usize }> = RingBuf::new();

    /// This CPU's state.
    #[inline(always)]
    fn state() -> Option<&'static mut State> {
        let state = TRACE_STATE.get_ptr_mut(0)?;
        // SAFETY: it is this CPU's own for the run of a program; no two references of it are used at a time.
        Some(unsafe { &mut *state })
    }

    /// A program begins.
    #[inline(always)]
    pub(crate) fn begin(program: u8) {
        if let Some(state) = state() {
            state.traced = 0;
            state.record.program = program;
            state.record.instance = NOBODY;
            state.record.ifindex = 0;
            state.record.reasons = 0;
        }
    }

    /// A program is done with its packet.
    #[inline(always)]
    pub(crate) fn end(ctx: &XdpContext, action: Action) -> Action {
        left(ctx, action.number());
        action
    }

    /// A packet of a flow arrived, from an instance or for it.
    #[inline(never)]
    pub(crate) fn arrived(ctx: &XdpContext, key: &FlowKey, instance: u16) {
        let Some(filter) = TRACE_FILTER.get(0) else {
            return;
        };
        // SAFETY: the key is as many words, aligned as they are.
        let words = unsafe { &*core::ptr::from_ref(key).cast::<[u32; KEY_WORDS]>() };
        if !filter.wants(words) {
            return;
        }
        // SAFETY: the helper has no preconditions.
        let now_ns = unsafe { bpf_ktime_get_ns() };
        if now_ns >= filter.until_ns {
            return;
        }
        let Some(state) = state() else {
            return;
        };
        if filter.programs >> (state.record.program & 3) & 1 == 0 {
            return;
        }
        state.record.flow = *key;
        if instance != NOBODY {
            state.record.instance = instance;
        }
        first(ctx, state, filter);
    }

    /// A copy arrived with its plan, which says whether its flow is traced.
    #[inline(always)]
    pub(crate) fn planned(ctx: &XdpContext, head: &Head) {
        if head.flags & TRACED != 0 {
            arrived_as_planned(ctx);
        }
    }

    #[inline(never)]
    fn arrived_as_planned(ctx: &XdpContext) {
        let (Some(filter), Some(state)) = (TRACE_FILTER.get(0), state()) else {
            return;
        };
        // The copies of a packet leave on the CPU that it came to, before the next one is looked at or, in a batch, with
        // others of the same flow or of none that is traced; where one filter lets several flows through the record may
        // name another of them, and the frame tells.
        first(ctx, state, filter);
    }

    #[inline(always)]
    fn first(ctx: &XdpContext, state: &mut State, filter: &Filter) {
        state.traced = u32::from(TRACED);
        state.packets = state.packets.wrapping_add(1);
        state.record.packet = state.packets;
        state.record.moment = moment::BEFORE;
        state.record.action = 0;
        let leaves_by = state.record.ifindex;
        if leaves_by == 0 {
            state.record.ifindex = ctx.ingress_ifindex() as u32;
        }
        tell(ctx, state, filter);
        state.record.ifindex = leaves_by;
    }

    /// Tells what became of a traced packet.
    #[inline(never)]
    fn left(ctx: &XdpContext, action: u32) {
        let (Some(filter), Some(state)) = (TRACE_FILTER.get(0), state()) else {
            return;
        };
        if state.traced == 0 {
            return;
        }
        state.record.moment = moment::AFTER;
        state.record.action = action as u8;
        tell(ctx, state, filter);
    }

    /// Hands the record and the frame over.
    #[inline(always)]
    fn tell(ctx: &XdpContext, state: &mut State, filter: &Filter) {
        let length = packet::length(ctx) as u32;
        let mut captured = length;
        if captured > filter.frame_bytes {
            captured = filter.frame_bytes;
        }
        // From 1 on, in a form that the verifier takes for a bound.
        let captured = (captured.wrapping_sub(1) & (TRACE_FRAME_MAX - 1)) + 1;
        // SAFETY: the helpers have no preconditions but a place for so many bytes, which the mask above and the frame's size
        // make sure of; a frame that is shorter than `captured`, which no frame is, is refused.
        unsafe {
            state.record.time_ns = bpf_ktime_get_ns();
            state.record.cpu = bpf_get_smp_processor_id();
            state.record.length = length;
            state.record.captured = captured;
            let frame = addr_of_mut!(state.frame).cast();
            if bpf_xdp_load_bytes(ctx.as_ptr().cast(), 0, frame, captured) != 0 {
                return lose();
            }
            let record = addr_of!(state.record).cast::<u8>();
            let bytes =
                core::slice::from_raw_parts(record, size_of::<Record>() + captured as usize);
            if TRACE_RING.output_untyped::<[u8]>(bytes, 0).is_err() {
                lose();
            }
        }
    }

    /// Counts a record that is not handed over.
    #[inline(always)]
    fn lose() {
        if let Some(lost) = TRACE_LOST.get_ptr_mut(0) {
            // SAFETY: a per-CPU slot, which nothing else on this CPU writes meanwhile.
            unsafe { *lost += 1 };
        }
    }

    /// What the plan of the packet at hand is marked with.
    #[inline(always)]
    pub(crate) fn plan_flag() -> u8 {
        state().map_or(0, |state| state.traced as u8)
    }

    /// A reason was counted.
    #[inline(always)]
    pub(crate) fn counted(reason: Reason) {
        if let Some(state) = state() {
            state.record.reasons |= 1 << reason as u8;
        }
    }

    /// The packet goes to an instance.
    #[inline(always)]
    pub(crate) fn concerns(instance: u16) {
        if let Some(state) = state() {
            state.record.instance = instance;
        }
    }

    /// The packet leaves by an interface.
    #[inline(always)]
    pub(crate) fn leaves_by(ifindex: u32) {
        if let Some(state) = state() {
            state.record.ifindex = ifindex;
        }
    }
}
