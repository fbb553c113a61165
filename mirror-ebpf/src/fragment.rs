//! Fragments of UDP and ICMP echo: the first one tells the flow, the others go the same way. TCP's are dropped: how long
//! a segment is, is not known from its first fragment, so that nobody can keep replicas in step with it.

use mirror_common::{
    flow::FlowKey,
    fragment::{FragmentKey, Fragmented},
    reason::Reason,
};

use crate::{
    maps::{self, FRAGMENTS},
    packet::headers::{Network, Transport},
    report::Now,
};

/// Names the datagram that a fragment is of.
#[inline(always)]
fn name(key: &mut FragmentKey, network: &Network, transport: &Transport, instance: u16) {
    key.source = network.source;
    key.destination = network.destination;
    key.id = transport.id;
    key.instance = instance;
    key.protocol = if network.is_v4() {
        transport.protocol
    } else {
        0
    };
    key.pad = 0;
}

/// Notes the flow of a datagram whose first fragment this is, if it is one.
#[inline(always)]
pub(crate) fn note(
    place: &mut FragmentKey,
    network: &Network,
    transport: &Transport,
    instance: u16,
    flow: &FlowKey,
    now: Now,
) {
    if !transport.is_first() {
        return;
    }
    name(place, network, transport, instance);
    let value = Fragmented {
        flow: *flow,
        first_s: now.s(),
    };
    // Without an entry the others are dropped, and the datagram is lost as any other may be.
    let _ = FRAGMENTS.insert(&*place, &value, 0);
}

/// The flow of a datagram of which this is a later fragment.
#[inline(always)]
pub(crate) fn follow(
    place: &mut FragmentKey,
    network: &Network,
    transport: &Transport,
    instance: u16,
    now: Now,
) -> Result<FlowKey, Reason> {
    name(place, network, transport, instance);
    // SAFETY: the value outlives the program run, and one that is written meanwhile is of the same datagram, or of the next one
    // of that name.
    match unsafe { FRAGMENTS.get(&*place) } {
        // SAFETY: a key is looked up by all of its bytes, and has no others.
        Some(known) if known.is_current(now.s()) => Ok(unsafe { maps::copy(&known.flow) }),
        _ => Err(Reason::FragmentUnknown),
    }
}
