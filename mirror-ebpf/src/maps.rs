//! Every map of the dataplane. Keys, values and capacities are `mirror-common`'s.

use aya_ebpf::{
    bindings::bpf_spin_lock,
    btf_maps::{
        Array, ArrayOfMaps, DevMap, DevMapHash, HashMap, LpmTrie, LruHashMap, PerCpuArray,
        ProgramArray, RingBuf,
    },
    macros::btf_map,
};
use mirror_common::{
    allowance::Allowance,
    counts::Counts,
    event::Event,
    flow::{Flow, FlowKey, PlainFlow, TcpFlow},
    fragment::{FragmentKey, Fragmented},
    instance::{Instance, Measures, Vitals},
    limits,
    parked::Parked,
    predecessor,
    quic::{ConnectionId, Quic, Served},
    replica_set::ReplicaSet,
    steering::Source,
    vni::{Vni, VniKey},
};

use crate::{
    health::World,
    measure::Stopwatch,
    packet::{
        headers::{Network, Transport},
        part::BLOCK_BYTES,
        tcp_header::TcpHeader,
    },
};

/// Do not preallocate: tables that are mostly empty cost nothing.
const NO_PREALLOC: usize = 1;

/// One of the locks that the mirrored flows share.
#[repr(C)]
pub(crate) struct FlowLock {
    pub(crate) lock: bpf_spin_lock,
}

/// A steering table: bucket to replica set number.
pub(crate) type SteeringTable = Array<u32, { limits::STEERING_BUCKETS as usize }>;

#[btf_map]
pub(crate) static VNIS: HashMap<VniKey, Vni, { limits::VNI_ADDRESSES as usize }, NO_PREALLOC> =
    HashMap::new();

#[btf_map]
pub(crate) static STEERING: ArrayOfMaps<
    SteeringTable,
    { (limits::VNIS + limits::ZONE_TABLES) as usize },
> = ArrayOfMaps::new();

/// Where the clients of some VNIs are: prefix to the number of a steering table.
#[btf_map]
pub(crate) static SOURCES: LpmTrie<Source, u32, { limits::SOURCES as usize }> = LpmTrie::new();

/// What each VNI may mirror of its new flows, by the VNI's number.
#[btf_map]
pub(crate) static ALLOWANCES: Array<Allowance, { limits::VNIS as usize }> = Array::new();

#[btf_map]
pub(crate) static SETS: Array<ReplicaSet, { limits::REPLICA_SETS as usize }> = Array::new();

#[btf_map]
pub(crate) static SET_PORTS: ArrayOfMaps<
    DevMap<{ limits::REPLICAS }>,
    { limits::REPLICA_SETS as usize },
> = ArrayOfMaps::new();

#[btf_map]
pub(crate) static PORTS: DevMapHash<{ limits::PORTS as usize }> = DevMapHash::new();

#[btf_map]
pub(crate) static INSTANCES: Array<Instance, { limits::INSTANCES as usize }> = Array::new();

#[btf_map]
pub(crate) static VITALS: Array<Vitals, { limits::INSTANCES as usize }> = Array::new();

#[btf_map]
pub(crate) static MEASURES: PerCpuArray<Measures, { limits::INSTANCES as usize }> =
    PerCpuArray::new();

#[btf_map]
pub(crate) static LINKS: HashMap<u32, u32, { limits::PORTS as usize }, NO_PREALLOC> =
    HashMap::new();

#[btf_map]
pub(crate) static FLOWS: HashMap<FlowKey, PlainFlow, { limits::FLOWS as usize }, NO_PREALLOC> =
    HashMap::new();

#[btf_map]
pub(crate) static MIRRORED_FLOWS: HashMap<
    FlowKey,
    TcpFlow,
    { limits::MIRRORED_FLOWS as usize },
    NO_PREALLOC,
> = HashMap::new();

#[btf_map]
pub(crate) static HALF_OPEN: LruHashMap<FlowKey, TcpFlow, { limits::HALF_OPEN as usize }> =
    LruHashMap::new();

#[btf_map]
pub(crate) static DATAGRAM_FLOWS: LruHashMap<FlowKey, Flow, { limits::DATAGRAM_FLOWS as usize }> =
    LruHashMap::new();

#[btf_map]
pub(crate) static FRAGMENTS: LruHashMap<FragmentKey, Fragmented, { limits::FRAGMENTS as usize }> =
    LruHashMap::new();

/// Which ports of a VNI speak QUIC, and what its ids are like, by the VNI's number.
#[btf_map]
pub(crate) static QUIC: Array<Quic, { limits::VNIS as usize }> = Array::new();

#[btf_map]
pub(crate) static QUIC_IDS: LruHashMap<ConnectionId, Served, { limits::QUIC_IDS as usize }> =
    LruHashMap::new();

/// What is known of the packet at hand, and what else is too large for the stack of 512 bytes.
///
/// Headers are kept here for the verifier's sake too: what it reads back from a map is unknown
/// to it, so that all the ways through the headers (VLAN tags, extension headers, options) end
/// in one state instead of multiplying what follows.
#[repr(C)]
pub(crate) struct Scratch {
    /// A new TCP flow is put together here.
    pub(crate) flow: TcpFlow,
    pub(crate) network: Network,
    pub(crate) transport: Transport,
    pub(crate) header: TcpHeader,
    pub(crate) world: World,
    pub(crate) stopwatch: Stopwatch,
    /// The name of a fragment's datagram.
    pub(crate) fragment: FragmentKey,
    /// A QUIC connection's id.
    pub(crate) id: ConnectionId,
}

/// A part of a frame, while it is summed up.
#[btf_map]
pub(crate) static BLOCK: PerCpuArray<[u32; BLOCK_BYTES as usize / 4], 1> = PerCpuArray::new();

#[btf_map]
static SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();

/// This CPU's scratch memory. To be looked up once for a packet, and handed on.
#[inline(always)]
pub(crate) fn scratch() -> Option<&'static mut Scratch> {
    let scratch = SCRATCH.get_ptr_mut(0)?;
    // SAFETY: it is this CPU's own for the run of the program, whose entry calls this once.
    Some(unsafe { &mut *scratch })
}

/// Zeroes a value by words: the compiler's memset for BPF goes byte by byte.
///
/// # Safety
///
/// Zeros are a valid value.
#[inline(always)]
pub(crate) unsafe fn zero<T>(value: &mut T) {
    const WORD: usize = size_of::<u64>();
    const { assert!(size_of::<T>().is_multiple_of(WORD) && align_of::<T>() == WORD) };
    let words = core::ptr::from_mut(value).cast::<u64>();
    for word in 0..size_of::<T>() / WORD {
        // SAFETY: within the value, and aligned, as is asserted; valid by the caller's promise.
        // Volatile, so that no memset is made of it.
        unsafe { words.add(word).write_volatile(0) };
    }
}

/// Copies a value by words, which the compiler must not gather: its memmove for BPF goes byte by byte too.
///
/// # Safety
///
/// There is nothing between the value's fields.
#[inline(always)]
pub(crate) unsafe fn copy<T: Copy>(from: &T) -> T {
    const { assert!(size_of::<T>().is_multiple_of(size_of::<u32>()) && align_of::<T>() <= 4) };
    let mut to = core::mem::MaybeUninit::<T>::uninit();
    let words = (
        core::ptr::from_ref(from).cast::<u32>(),
        to.as_mut_ptr().cast::<u32>(),
    );
    for word in 0..size_of::<T>() / size_of::<u32>() {
        // SAFETY: within both values, aligned as the values are, and read as what is there by the caller's promise.
        unsafe { words.1.add(word).write(words.0.add(word).read_volatile()) };
    }
    // SAFETY: every word is written.
    unsafe { to.assume_init() }
}

#[btf_map]
pub(crate) static LOCKS: Array<FlowLock, { limits::FLOW_LOCKS as usize }> = Array::new();

#[btf_map]
pub(crate) static PARKED: Array<Parked, { limits::PARKED as usize }> = Array::new();

/// By the VNI's number. Whoever loads the programs says how many there are (`counts::rows`).
#[btf_map]
pub(crate) static COUNTERS: PerCpuArray<Counts, { limits::VNIS as usize }> = PerCpuArray::new();

#[btf_map]
pub(crate) static EVENTS: RingBuf<Event, { limits::EVENT_RING_BYTES as usize }> = RingBuf::new();

/// The programs of the version before while it lets its flows end, by the numbers of [`predecessor`].
#[btf_map]
pub(crate) static PREDECESSOR: ProgramArray<{ predecessor::PROGRAMS as usize }> =
    ProgramArray::new();

/// Whether there are such, which a program cannot ask of their own map: 0 or 1.
#[btf_map]
pub(crate) static DRAINS: Array<u32, 1> = Array::new();

/// The layout version of these maps, written by the agent that made them.
#[btf_map]
pub(crate) static LAYOUT: Array<u32, 1> = Array::new();
