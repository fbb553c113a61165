//! What must hold after any packet of anybody, however absurd. The numbers are those of `docs/takeover.md`.

use std::fmt;

use mirror_common::{
    event::cause,
    flow::{TcpFlow, state},
    limits::REPLICAS,
    plan::Copy,
    reason::Cold,
    tcp::{
        self, Conditions, Notes, Segment, client,
        replica::{Output, Verdict},
        segment::bit,
        seq, slot,
    },
    vni,
};

/// A packet, and the flow on both sides of it.
pub(super) struct Seen<'a> {
    pub(super) before: &'a TcpFlow,
    pub(super) after: &'a TcpFlow,
    pub(super) conditions: &'a Conditions,
    pub(super) segment: &'a Segment,
    pub(super) notes: &'a Notes,
    /// Whether the flow was established before the packet.
    pub(super) established: bool,
}

fn holds(it: bool, what: impl fmt::Display) -> Result<(), String> {
    if it { Ok(()) } else { Err(what.to_string()) }
}

impl Seen<'_> {
    fn slots(&self) -> impl Iterator<Item = u8> {
        0..self.after.flow.replicas
    }

    /// What holds whoever spoke.
    pub(super) fn check(&self) -> Result<(), String> {
        let (before, after) = (&self.before.flow, &self.after.flow);
        holds(after.active < after.replicas, "an unused slot is active")?;
        // A FIN does not count any more that was lost, and who sent it is not active any more.
        let opened_again = self.notes.takeover == cause::CLOSED_EARLY
            && (before.state, after.state) == (state::CLOSING, state::ESTABLISHED);
        holds(
            after.state >= before.state || opened_again,
            "the flow went back to a former state",
        )?;
        self.check_takeover()?;
        for slot in self.slots() {
            self.check_slot(slot)?;
        }
        if self.established {
            self.check_progress()?;
        }
        Ok(())
    }

    fn check_takeover(&self) -> Result<(), String> {
        let (before, after) = (&self.before.flow, &self.after.flow);
        if after.active == before.active {
            return Ok(());
        }
        let leads = self.conditions.has(vni::flag::FIRST) && self.notes.takeover == 0;
        if leads {
            self.check_lead(after.active)?;
        }
        holds(
            leads || self.notes.takeover != 0,
            "a takeover without a cause",
        )?;
        holds(
            after.takeovers > before.takeovers || after.takeovers == u16::MAX,
            "a takeover is not counted",
        )?;
        holds(
            !self.conditions.has(vni::flag::SHADOW),
            "a shadow took over",
        )?;
        holds(
            self.conditions.is_reachable(after.active),
            "a dead instance took over",
        )?;
        let is_cold = self.before.replica(after.active).state == slot::COLD;
        holds(!is_cold, "a cold replica took over")
    }

    /// Where the first to say it is heard, that is the client's next byte, and all before it was the same.
    fn check_lead(&self, leader: u8) -> Result<(), String> {
        let (before, sent) = (self.before, self.before.sync.sent);
        let new = before.replica(leader);
        let starts = self.segment.seq.wrapping_sub(before.delta(leader));
        holds(
            self.segment.payload > 0 && starts == sent,
            "a mirror became active and does not say the client's next byte",
        )?;
        let level = before.produced(before.flow.active) == sent && before.produced(leader) == sent;
        holds(
            level && new.flags & tcp::flag::AGREES != 0,
            "a mirror became active and may have said something else before",
        )?;
        holds(
            self.conditions.is_up(leader) && !before.is_lacking(leader),
            "a mirror became active that cannot go on alone",
        )
    }

    fn check_slot(&self, slot: u8) -> Result<(), String> {
        let (before, after) = (self.before.replica(slot), self.after.replica(slot));
        let is_cold = after.state == slot::COLD;
        holds(
            is_cold == (after.cold != Cold::Warm as u8),
            "cold without a reason, or warm with one",
        )?;
        holds(
            before.state != slot::COLD || is_cold,
            "a cold replica became warm",
        )?;
        let warm = after.state == slot::WARM && self.after.flow.state >= state::ESTABLISHED;
        holds(
            !warm || !seq::after(after.rcv_nxt, self.after.sync.client_nxt),
            "a replica acknowledged what the client never sent, and is believed",
        )
    }

    /// Of an established flow: nothing that the client was told or has said is taken back.
    fn check_progress(&self) -> Result<(), String> {
        let (before, after) = (&self.before.sync, &self.after.sync);
        for (name, before, after) in [
            ("told_ack", before.told_ack, after.told_ack),
            ("told_edge", before.told_edge, after.told_edge),
            ("sent", before.sent, after.sent),
            ("client_nxt", before.client_nxt, after.client_nxt),
            ("client_ack", before.client_ack, after.client_ack),
        ] {
            holds(
                !seq::before(after, before),
                format_args!("{name} went back"),
            )?;
        }
        holds(
            !seq::after(after.client_ack, after.sent),
            "the client acknowledged what it was not sent, and is believed",
        )?;
        holds(
            !seq::after(after.told_ack, after.told_edge),
            "the window's end is in front of its beginning",
        )?;
        holds(
            !seq::after(after.told_ack, after.client_nxt),
            "the client was told of bytes that it never sent",
        )?;
        if after.told_ack == before.told_ack || !self.conditions.has(vni::flag::HOLD_ACKS) {
            return Ok(());
        }
        for slot in self
            .slots()
            .filter(|slot| self.after.is_relied_on(*slot, self.conditions))
        {
            let lacked = self.before.is_lacking(slot);
            holds(
                lacked || !self.after.is_lacking(slot),
                format_args!("the client was told of bytes that warm replica {slot} lacks"),
            )?;
        }
        Ok(())
    }

    /// What holds of a client's packet.
    pub(super) fn check_client(
        &self,
        verdict: client::Verdict,
        copies: &[Option<Copy>; REPLICAS],
    ) -> Result<(), String> {
        let flow = self.after;
        if verdict != client::Verdict::Clone {
            let reset = verdict == client::Verdict::Reset;
            holds(
                reset != self.conditions.has(vni::flag::LEAVE_LOST),
                "a lost flow is not treated as configured",
            )?;
            let left = self
                .slots()
                .filter(|slot| flow.is_warm(*slot, self.conditions));
            let served = left.count() > 0 && !self.conditions.has(vni::flag::SHADOW);
            return holds(!served, "a flow is lost although a warm replica is left");
        }
        for (slot, copy) in (0u8..).zip(copies) {
            let Some(copy) = copy else { continue };
            self.check_copy(slot, copy)?;
        }
        Ok(())
    }

    fn check_copy(&self, slot: u8, copy: &Copy) -> Result<(), String> {
        let (flow, replica) = (self.after, self.after.replica(slot));
        holds(slot < flow.flow.replicas, "a copy for an unused slot")?;
        holds(
            self.conditions.is_reachable(slot),
            "a copy for a dead instance",
        )?;
        holds(replica.state != slot::COLD, "a copy for a cold replica")?;
        if !self.segment.is(bit::ACK) || !self.established {
            return Ok(());
        }
        let believes = !seq::after(copy.ack, replica.snd_nxt);
        let is_false = seq::after(self.segment.ack, flow.sync.sent);
        holds(
            believes != is_false,
            "a copy acknowledges what its replica has not sent, or makes a false acknowledgement true",
        )
    }

    /// What holds of a replica's packet.
    pub(super) fn check_replica(&self, from: u8, output: &Output) -> Result<(), String> {
        let (flow, sync) = (&self.after.flow, &self.after.sync);
        let is_reset = self.segment.is(bit::RST);
        match output.verdict {
            Verdict::ToClient => {
                // The last SYN-ACK of the set opens the connection, with the numbers of the active one's, and the last FIN of a vote
                // closes it.
                let opens = self.segment.is(bit::SYN) && output.seq == sync.isn;
                let end = output.seq.wrapping_add(self.segment.length());
                let closes = self.segment.is(bit::FIN) && end == sync.sent;
                holds(
                    from == flow.active || opens || closes,
                    "a mirror answers the client",
                )?;
                holds(
                    self.conditions.is_reachable(from) || is_reset || flow.state >= state::CLOSED,
                    "a dead instance answers the client",
                )?;
                let told = flow.state < state::ESTABLISHED
                    || is_reset
                    || !seq::after(output.ack, sync.told_ack);
                holds(told, "the client is told more than is noted")
            }
            Verdict::AckToClient => {
                holds(
                    output.seq == sync.sent,
                    "an acknowledgement that is not at the end",
                )?;
                holds(
                    !seq::after(output.ack, sync.told_ack),
                    "the client is told more than is noted",
                )
            }
            Verdict::TurnRound if output.flags & bit::RST != 0 => holds(
                from != flow.active
                    || self.after.replica(from).state == slot::COLD
                    || flow.state < state::ESTABLISHED
                    || flow.state == state::CLOSED,
                "the active replica is reset",
            ),
            Verdict::TurnRound => {
                let replica = self.after.replica(from);
                holds(
                    !seq::after(output.ack, replica.snd_nxt),
                    "a replica is told of what it has not sent",
                )
            }
            Verdict::Drop => Ok(()),
        }
    }
}
