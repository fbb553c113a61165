//! Every map of the dataplane. Keys, values and capacities are `mirror-common`'s.

use aya_ebpf::{
    bindings::bpf_spin_lock,
    btf_maps::{Array, ArrayOfMaps, DevMap, DevMapHash, HashMap, LruHashMap, PerCpuArray, RingBuf},
    macros::btf_map,
};
use mirror_common::{
    event::Event,
    flow::{Flow, FlowKey, TcpFlow},
    instance::{Instance, Vitals},
    limits,
    parked::Parked,
    plan::Plan,
    reason::Reason,
    replica_set::ReplicaSet,
    vni::{Vni, VniKey},
};

use crate::{
    health::World,
    packet::{
        headers::{Network, Transport},
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
pub(crate) static STEERING: ArrayOfMaps<SteeringTable, { limits::VNIS as usize }> =
    ArrayOfMaps::new();

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
pub(crate) static LINKS: HashMap<u32, u32, { limits::PORTS as usize }, NO_PREALLOC> =
    HashMap::new();

#[btf_map]
pub(crate) static FLOWS: HashMap<FlowKey, Flow, { limits::FLOWS as usize }, NO_PREALLOC> =
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
    /// The replicas of the packet's flow.
    pub(crate) world: World,
    /// The plan of the packet at hand.
    pub(crate) plan: Plan,
    /// See [`forget`].
    forgotten: u8,
}

#[btf_map]
pub(crate) static SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();

/// Makes the verifier forget what it knows of a value, so that it goes on with one state instead
/// of one for each value.
#[inline(always)]
pub(crate) fn forget(value: u8) -> u8 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else {
        return value;
    };
    // SAFETY: the scratch value is this CPU's own for the run of the program; volatile, so that
    // the optimiser does not take the short cut that the verifier is not to take.
    unsafe {
        let place = core::ptr::addr_of_mut!((*scratch).forgotten);
        place.write_volatile(value);
        place.read_volatile()
    }
}

#[btf_map]
pub(crate) static LOCKS: Array<FlowLock, { limits::FLOW_LOCKS as usize }> = Array::new();

#[btf_map]
pub(crate) static PARKED: Array<Parked, { limits::PARKED as usize }> = Array::new();

#[btf_map]
pub(crate) static COUNTERS: PerCpuArray<u64, { Reason::COUNT as usize }> = PerCpuArray::new();

#[btf_map]
pub(crate) static EVENTS: RingBuf<Event, { limits::EVENT_RING_BYTES as usize }> = RingBuf::new();

/// The layout version of these maps, written by the agent that made them.
#[btf_map]
pub(crate) static LAYOUT: Array<u32, 1> = Array::new();
