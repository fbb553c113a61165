//! QUIC: which instance knows a connection, by the ids that instances choose. Looked at for long headers of instances, which
//! are those of handshakes, and for datagrams of no known flow; never for others.

use aya_ebpf::programs::XdpContext;
use mirror_common::{
    flow::FlowKey,
    instance::state,
    quic::{self, ConnectionId, Payload, Quic, Served},
    reason::Reason,
};

use crate::{
    maps::{DATAGRAM_FLOWS, INSTANCES, QUIC, QUIC_IDS, SETS},
    packet::{at, headers::Transport},
    report,
};

/// Bytes of a UDP header.
const UDP: usize = 8;
/// Bytes of the longest id.
const ID: usize = quic::ID_BYTES_MAX as usize;

/// A datagram, whose UDP header is known to be there.
struct Datagram<'a> {
    ctx: &'a XdpContext,
    transport: &'a Transport,
}

impl Payload for Datagram<'_> {
    #[inline(always)]
    fn byte(&self, at: usize) -> Option<u8> {
        if !self.transport.holds(UDP + at + 1) {
            return None;
        }
        let bytes = self::at(self.ctx, self.transport.offset() + UDP + at, 1)?;
        // SAFETY: a byte is there.
        Some(unsafe { bytes.load8::<0>() })
    }

    #[inline(always)]
    fn word(&self, at: usize) -> Option<u32> {
        if !self.transport.holds(UDP + at + 4) {
            return None;
        }
        let bytes = self::at(self.ctx, self.transport.offset() + UDP + at, 4)?;
        // SAFETY: 4 bytes are there.
        Some(unsafe { bytes.load32::<0>() })
    }

    #[inline(always)]
    fn id(&self, at: usize) -> Option<[u32; 5]> {
        if !self.transport.holds(UDP + at + ID) {
            return None;
        }
        let bytes = self::at(self.ctx, self.transport.offset() + UDP + at, ID)?;
        // SAFETY: 20 bytes are there.
        Some(unsafe {
            [
                bytes.load32::<0>(),
                bytes.load32::<4>(),
                bytes.load32::<8>(),
                bytes.load32::<12>(),
                bytes.load32::<16>(),
            ]
        })
    }
}

/// What is known of the QUIC that a flow may speak.
#[inline(always)]
fn spoken(key: &FlowKey) -> Option<*mut Quic> {
    let quic = QUIC.get_ptr_mut(u32::from(key.vni))?;
    // SAFETY: the value outlives the program run; of what the agent writes single words are read.
    unsafe { (*quic).is_on(key.vni_port) }.then_some(quic)
}

/// Learns the id that an instance says in a datagram that goes to the client.
///
/// Who has said an id first keeps it while it is there: an instance that takes its ids from what clients say can be made to say another one's.
#[inline(always)]
pub(crate) fn learn(
    ctx: &XdpContext,
    transport: &Transport,
    key: &FlowKey,
    id: &mut ConnectionId,
) -> Option<()> {
    if transport.is_later() {
        return None;
    }
    quic::said(&Datagram { ctx, transport }, id)?;
    id.vni = key.vni;
    let quic = spoken(key)?;
    // SAFETY: the value outlives the program run; what two CPUs may write are single words.
    let served = Served::of(unsafe { &*DATAGRAM_FLOWS.get_ptr(key)? });
    // SAFETY: as above.
    if let Some(known) = unsafe { QUIC_IDS.get(&*id) }
        && known.instance() != served.instance()
        && is_reachable(known.instance())
    {
        return None;
    }
    QUIC_IDS.insert(&*id, &served, 0).ok()?;
    // SAFETY: an aligned word of a live map value, for which the last writer may win: a length that was lost is said again.
    unsafe { (*quic).lengths = (*quic).lengths_with(id.length) };
    Some(())
}

/// Who serves the connection that a client's datagram of no known flow is of.
#[inline(always)]
pub(crate) fn follow(
    ctx: &XdpContext,
    transport: &Transport,
    key: &FlowKey,
    id: &mut ConnectionId,
) -> Option<Served> {
    if transport.is_later() {
        return None;
    }
    let quic = spoken(key)?;
    id.vni = key.vni;
    let datagram = Datagram { ctx, transport };
    // SAFETY: as in `learn`.
    let lengths = unsafe { (*quic).lengths };
    let served = quic::find(&datagram, lengths, id, |id| {
        // SAFETY: as in `learn`.
        unsafe { QUIC_IDS.get(id) }
    })?;
    // Nobody else knows the connection: who has no use for its client tells it so at once.
    if !is_reachable(served.instance()) {
        return None;
    }
    report::count(key.vni, Reason::QuicFollowed);
    let set = SETS.get(u32::from(served.set));
    match set {
        Some(set) if set.instances == served.instances => Some(*served),
        // No flow has used the set for a while, and its number is another one's.
        _ => Some(served.alone()),
    }
}

/// Whether an instance can be sent anything.
#[inline(always)]
fn is_reachable(instance: u16) -> bool {
    matches!(INSTANCES.get(u32::from(instance)), Some(entry) if entry.state & state::REACHABLE != 0)
}
