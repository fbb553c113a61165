//! What must be true, after every packet and at the end. The oracle knows what the hosts really did; the protocol
//! knows only what passed.

use mirror_common::{
    event::cause,
    flow::state,
    instance,
    reason::Cold,
    tcp::{self, segment::bit, seq},
};

use super::{
    application::{Direction, byte_at},
    frame::{Frame, Parsed},
    middle::{Entry, Step, To},
    scenario::S,
    world::{Ending, World},
};

impl World {
    /// After a packet at the VNI host.
    pub(super) fn check_step(&self, from: Option<usize>, step: &Step) -> Result<(), String> {
        let Some((before, after)) = &step.flow else {
            return Ok(());
        };
        self.check_takeover(before, after, step)?;
        for slot in 0..after.flow.flow.replicas {
            if step.notes.went_cold & 1 << slot != 0 {
                self.check_cold(after, slot)?;
            }
        }
        for (to, frame) in &step.out {
            if *to == To::Client {
                self.check_to_client(from, before, after, frame)?;
            }
        }
        Ok(())
    }

    /// A takeover has its cause in the world, and an evacuation waits for its moment.
    fn check_takeover(&self, before: &Entry, after: &Entry, step: &Step) -> Result<(), String> {
        let flow = &after.flow;
        // Two may follow from one packet: the notes tell of the last.
        let left = step.notes.from;
        let old = usize::from(before.flow.flow.instances[usize::from(left)]);
        let state = self.middle.instances[old].state;
        let just = match step.notes.takeover {
            0 => return Ok(()),
            cause::DEAD => {
                // Or it asks for what the client was told is acknowledged.
                let lacks = !self.holds_acks() || self.machines[old].doubted;
                // Or closed in front of what the client has.
                let lacks = lacks || self.machines[old].killed;
                state == instance::state::DEAD || lacks
            }
            cause::SUSPECTED => self.machines[old].doubted,
            cause::EVACUATED => {
                let overdue = self.middle.instances[old].deadline_ms as u64 * 1_000 <= self.now;
                // As it was before the packet that may have made it so.
                let chosen = before.flow.produced(flow.flow.active);
                let ahead = seq::after(chosen, before.flow.sync.sent);
                let unbound = before.flow.flow.state == state::HANDSHAKE;
                state == instance::state::EVACUATING && (overdue || unbound || !ahead)
            }
            cause::RESET => self.has_reset(before, left) || self.machines[old].crashes > 0,
            cause::CLOSED_EARLY => self.machines[old].killed,
            // It closed and repeated that for long: a death, or the mirrors are slow.
            cause::CLOSED_ALONE => before.flow.replica(left).flags & tcp::flag::FIN != 0,
            _ => flow.flow.state <= state::ANSWERED,
        };
        if just {
            Ok(())
        } else {
            Err(format!(
                "flow {}: takeover from instance {old} without cause ({})",
                after.number, step.notes.takeover
            ))
        }
    }

    /// A replica is cold for a reason that is true.
    fn check_cold(&self, entry: &Entry, slot: u8) -> Result<(), String> {
        let replica = entry.flow.replica(slot);
        let instance = usize::from(entry.flow.flow.instances[usize::from(slot)]);
        let machine = &self.machines[instance];
        let why = Cold::from_number(replica.cold);
        let patient = self.scenario.patient;
        let just = match why {
            Some(Cold::HandshakeMissed) => machine.struck || !self.waits_for_handshakes(),
            Some(Cold::LagBytes) => !patient || machine.struck || !self.holds_acks(),
            Some(Cold::LagTime) => !patient || machine.struck || self.now > 25 * S,
            Some(Cold::Refused | Cold::Reset) => self.has_reset(entry, slot) || machine.struck,
            // A server may close early when its client has.
            Some(Cold::ClosedEarly) => machine.killed || self.endings[entry.number] == Ending::Lost,
            Some(Cold::InstanceDead) => machine.declared_dead,
            Some(Cold::OptionMismatch) => self.options_differ(entry),
            _ => false,
        };
        if just {
            Ok(())
        } else {
            Err(format!(
                "flow {}: instance {instance} is cold without cause ({why:?})",
                entry.number
            ))
        }
    }

    /// What goes to the client is true, and said by who may say it.
    fn check_to_client(
        &self,
        from: Option<usize>,
        before: &Entry,
        entry: &Entry,
        frame: &Frame,
    ) -> Result<(), String> {
        let Some(parsed) = frame.parse() else {
            return Err("a malformed packet".to_owned());
        };
        let segment = &parsed.segment;
        let flow = &entry.flow;
        let number = entry.number;
        let active = usize::from(flow.flow.instances[usize::from(flow.flow.active)]);
        let open = flow.flow.state >= state::ESTABLISHED;
        let mirror = from.filter(|&from| from != active && open);
        let speaks = segment.payload > 0 && !segment.is(bit::FIN) || segment.is(bit::RST);
        if let Some(mirror) = mirror.filter(|_| speaks) {
            return Err(format!("flow {number}: mirror {mirror} answers the client"));
        }
        if segment.is(bit::RST) {
            // What was closed in order cannot be harmed any more.
            let over = before.flow.flow.state == state::CLOSED;
            if !over && self.has_good(entry) && self.votes() {
                return Err(format!(
                    "flow {number}: a reset though a warm replica lives"
                ));
            }
            return Ok(());
        }
        if segment.is(bit::SYN) {
            return Ok(());
        }
        if frame.is_intact() {
            self.check_content(entry, frame, &parsed)?;
        }
        if self.holds_acks() {
            self.check_told(before, entry, &parsed)?;
        }
        Ok(())
    }

    /// Payload is what belongs to its place, and a FIN comes at the end.
    fn check_content(&self, entry: &Entry, frame: &Frame, parsed: &Parsed) -> Result<(), String> {
        let segment = &parsed.segment;
        let sync = &entry.flow.sync;
        let number = entry.number;
        let total = self.scenario.flows[number].server.total();
        let start = segment.seq.wrapping_sub(sync.isn).wrapping_sub(1);
        // A keep-alive says a byte again that it does not know any more.
        let old = !seq::after(segment.end(), sync.client_ack);
        if !old {
            let payload = frame.payload(parsed).iter().enumerate();
            for (at, &byte) in payload {
                let place = (start as usize).wrapping_add(at);
                if place >= total || byte != byte_at(number, Direction::Down, place) {
                    return Err(format!(
                        "flow {number}: byte {place} to the client is wrong"
                    ));
                }
            }
        }
        let place = segment.end().wrapping_sub(sync.isn).wrapping_sub(2) as usize;
        let client = self.clients[number].as_ref();
        let ended = client.is_some_and(|end| end.endpoint.truth.fin_taken);
        let early = segment.is(bit::FIN) && place != total && !ended;
        if early && self.votes() && self.has_good(entry) {
            return Err(format!(
                "flow {number}: a FIN after {place} bytes of {total}"
            ));
        }
        Ok(())
    }

    /// Nothing is acknowledged, and no window offered, that is not true of every warm replica that is relied on
    /// and was whole before.
    fn check_told(&self, before: &Entry, entry: &Entry, parsed: &Parsed) -> Result<(), String> {
        let segment = &parsed.segment;
        let flow = &entry.flow;
        let told = segment
            .ack
            .wrapping_sub(flow.sync.client_isn)
            .wrapping_sub(1);
        let scale = flow.sync.window_scale & 15;
        let edge = segment.ack.wrapping_add(u32::from(segment.window) << scale);
        let conditions = self.middle.conditions(&flow.flow, self.now);
        for slot in 0..flow.flow.replicas {
            let counts = flow.is_relied_on(slot, &conditions) && !before.flow.is_lacking(slot);
            let Some(end) = self.end_of(entry, slot).filter(|_| counts) else {
                continue;
            };
            let truth = &end.endpoint.truth;
            // It has reset, or its machine begins anew: the protocol will hear of it.
            if truth.reset || !truth.spoke {
                continue;
            }
            let has = end.endpoint.taken_in();
            if told as i32 > has as i32 {
                return Err(format!(
                    "flow {}: told the client {told}, but slot {slot} has {has}",
                    entry.number
                ));
            }
            if seq::after(edge, truth.edge) {
                let beyond = edge.wrapping_sub(truth.edge);
                return Err(format!(
                    "flow {}: a window {beyond} bytes beyond that of slot {slot}",
                    entry.number
                ));
            }
        }
        Ok(())
    }
}
