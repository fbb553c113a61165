//! What scripts check after each step; every check names the script's line when it fails.

use super::hosts::Net;
use super::say::{Say, Seen, ack};
use crate::{
    event::cause,
    reason::Cold,
    tcp::{
        client,
        replica::{Output, Verdict},
        segment::bit,
        slot,
    },
};

/// The rest of an output, for those who want to look at it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rest {
    pub(super) ts_val: u32,
    pub(super) ts_ecr: u32,
    pub(super) window: u16,
    pub(super) blank_sack: bool,
}

impl Net {
    /// A replica says something, and this becomes of it.
    #[track_caller]
    pub(super) fn check(&mut self, slot: u8, say: Say, expected: Seen) -> Rest {
        let output = self.replica_says(slot, say);
        let seen = self.seen(slot, &output);
        assert_eq!(seen, expected, "{say:?} of replica {slot}: {self:?}");
        Rest {
            ts_val: output.ts_val,
            ts_ecr: output.ts_ecr,
            window: output.window,
            blank_sack: output.blank_sack,
        }
    }

    /// The outcome of a replica's segment in offsets.
    #[track_caller]
    fn seen(&self, slot: u8, output: &Output) -> Seen {
        let canonical = |seq: u32| seq.wrapping_sub(self.canonical_seq(0)) as i32;
        let clients = |seq: u32| seq.wrapping_sub(self.client_seq(0)) as i32;
        match output.verdict {
            Verdict::ToClient => {
                let (seq, ack) = (canonical(output.seq), clients(output.ack));
                if output.strip_fin {
                    Seen::Stripped { seq, ack }
                } else {
                    Seen::Delivered { seq, ack }
                }
            }
            Verdict::AckToClient => {
                assert_eq!(output.seq, self.flow.sync.sent, "not at the end: {self:?}");
                Seen::Acked(clients(output.ack))
            }
            Verdict::TurnRound if output.flags == bit::RST => Seen::Refused(clients(output.seq)),
            Verdict::TurnRound => {
                assert_eq!(output.seq, self.flow.sync.client_nxt, "{self:?}");
                self.check_edge(slot, output);
                Seen::Turned(output.ack.wrapping_sub(self.replica_seq(slot, 0)) as i32)
            }
            Verdict::Drop => Seen::Dropped(output.reason),
        }
    }

    /// What is turned round puts the right window edge where the client put it, in whole units.
    #[track_caller]
    fn check_edge(&self, slot: u8, output: &Output) {
        let sync = &self.flow.sync;
        let own = sync.client_ack.wrapping_add(self.flow.delta(slot));
        let behind = own.wrapping_sub(output.ack) >> sync.client_scale;
        let window = u32::from(sync.client_window) + behind;
        assert_eq!(u32::from(output.window), window, "{self:?}");
    }

    /// The client says something; it is cloned to these replicas with these acknowledgements.
    #[track_caller]
    pub(super) fn check_client(&mut self, say: Say, expected: &[(u8, i32)]) {
        let verdict = self.client_says(say);
        assert_eq!(verdict, client::Verdict::Clone, "{say:?}: {self:?}");
        assert_eq!(self.cloned_to(), expected, "{say:?}: {self:?}");
    }

    /// The client says something that is not cloned.
    #[track_caller]
    pub(super) fn check_refused(&mut self, say: Say, expected: client::Verdict) {
        assert_eq!(self.client_says(say), expected, "{say:?}: {self:?}");
    }

    /// Who got a copy of the client's last segment, with which acknowledgement.
    pub(super) fn cloned_to(&self) -> Vec<(u8, i32)> {
        (0u8..)
            .zip(&self.copies)
            .filter_map(|(slot, copy)| {
                let copy = copy.as_ref()?;
                let offset = copy.ack.wrapping_sub(self.replica_seq(slot, 0));
                Some((slot, offset as i32))
            })
            .collect()
    }

    /// The window that the last output offered the client, bytes.
    #[track_caller]
    pub(super) fn check_window(&self, bytes: u32) {
        let offered = u32::from(self.output.window) << self.flow.sync.window_scale;
        assert_eq!(offered, bytes, "{self:?}");
    }

    /// The slots' states.
    #[track_caller]
    pub(super) fn check_warm(&self, expected: &[u8]) {
        let warm: Vec<u8> = (0..self.flow.flow.replicas)
            .filter(|&slot| self.flow.replica(slot).state == slot::WARM)
            .collect();
        assert_eq!(warm, expected, "{self:?}");
    }

    /// A replica is cold, for this reason, since the last segment.
    #[track_caller]
    pub(super) fn check_went_cold(&self, slot: u8, why: Cold) {
        let replica = self.flow.replica(slot);
        assert_eq!(replica.state, slot::COLD, "{self:?}");
        assert_eq!(Cold::from_number(replica.cold), Some(why), "{self:?}");
        assert_eq!(self.notes.went_cold, 1 << slot, "{self:?}");
    }

    /// The last segment made `to` active in place of `from`.
    #[track_caller]
    pub(super) fn check_takeover(&self, why: u8, from: u8, to: u8) {
        let notes = &self.notes;
        let told = (notes.takeover, notes.from, self.flow.flow.active);
        assert_eq!(told, (why, from, to), "cause, from, to: {self:?}");
    }

    /// The last segment moved nothing.
    #[track_caller]
    pub(super) fn check_stays(&self, active: u8) {
        assert_eq!(self.notes.takeover, 0, "{self:?}");
        assert_eq!(self.flow.flow.active, active, "{self:?}");
    }

    #[track_caller]
    pub(super) fn check_state(&self, state: u8) {
        assert_eq!(self.flow.flow.state, state, "{self:?}");
    }

    /// The active instance dies and its only warm mirror takes over at the client's next word.
    #[track_caller]
    pub(super) fn take_over(&mut self, from: u8, to: u8) {
        self.die(from);
        let _ = self.client_says(ack(0));
        self.check_takeover(cause::DEAD, from, to);
    }
}
