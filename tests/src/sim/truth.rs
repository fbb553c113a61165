//! What the hosts really hold, whatever the protocol believes.

use mirror_common::{flow::state, instance, tcp::slot, vni::flag};
use smoltcp::socket::tcp::State;

use super::{hosts::End, middle::Entry, scenario::MS, world::World};

impl World {
    /// A replica's end of a flow, if its machine still has it.
    pub(super) fn end_of(&self, entry: &Entry, slot: u8) -> Option<&End> {
        let instance = usize::from(entry.flow.flow.instances[usize::from(slot)]);
        let port = self.scenario.flows[entry.number].port;
        let end = self.machines[instance].ends.get(&port)?;
        (end.endpoint.number == entry.number).then_some(end)
    }

    /// Whether a replica could really go on with a flow alone.
    pub(super) fn is_good(&self, entry: &Entry, slot: u8) -> bool {
        let flow = &entry.flow;
        let instance = usize::from(flow.flow.instances[usize::from(slot)]);
        let machine = &self.machines[instance];
        let state = self.middle.instances[instance].state;
        let able = match flow.replica(slot).state {
            slot::WARM => self.end_of(entry, slot).is_some_and(|end| {
                let alive = !end.endpoint.orphan && !end.endpoint.truth.reset;
                alive && is_whole(entry, end) && end.endpoint.state() != State::Closed
            }),
            slot::PENDING => flow.flow.state == state::HANDSHAKE,
            _ => false,
        };
        able && machine.is_fine() && machine.serving && state != instance::state::DEAD
    }

    pub(super) fn has_good(&self, entry: &Entry) -> bool {
        (0..entry.flow.flow.replicas).any(|slot| self.is_good(entry, slot))
    }

    /// Whether each flow has somebody besides an instance.
    pub(super) fn can_spare(&self, instance: usize) -> bool {
        self.middle.entries().all(|(_, entry)| {
            let flow = &entry.flow.flow;
            let mut slots = 0..flow.replicas;
            flow.state >= state::CLOSED
                || slots.any(|slot| {
                    let other = usize::from(flow.instances[usize::from(slot)]) != instance;
                    other && self.is_good(entry, slot)
                })
        })
    }

    pub(super) fn has_reset(&self, entry: &Entry, slot: u8) -> bool {
        self.end_of(entry, slot)
            .is_none_or(|end| end.endpoint.truth.reset)
    }

    pub(super) fn holds_acks(&self) -> bool {
        self.scenario.vni.flags & flag::HOLD_ACKS != 0
    }

    pub(super) fn waits_for_handshakes(&self) -> bool {
        u64::from(self.scenario.vni.handshake_ms) * MS > self.scenario.calm
    }

    pub(super) fn options_differ(&self, entry: &Entry) -> bool {
        let used = usize::from(entry.flow.flow.replicas);
        let set = &entry.flow.flow.instances[..used];
        let offers = |number: &u16| self.scenario.instances[usize::from(*number)].timestamps;
        set.iter().any(offers) && !set.iter().all(offers)
    }

    pub(super) fn votes(&self) -> bool {
        self.scenario.vni.flags & flag::VOTE_ON_CLOSE != 0
    }
}

/// Whether a replica has what the client was told is acknowledged.
pub(super) fn is_whole(entry: &Entry, end: &End) -> bool {
    let sync = &entry.flow.sync;
    let told = sync.told_ack.wrapping_sub(sync.client_isn);
    told <= end.endpoint.taken_in() + 1
}
