//! What is measured of a flow's replicas while packets pass: who owes an answer, and how long an acknowledgement takes. Nothing of
//! the takeover depends on it.
//!
//! One segment of a flow is timed at once, for all its replicas, and none that was sent again (Karn's rule): nobody could tell
//! which of the two was acknowledged.

use crate::{
    branchless::{is_before, is_some},
    flow::Flow,
    limits::REPLICAS,
    tcp::{Segment, segment::bit},
};

/// Bits of [`Flow::marks`], of slot 0; those of the others are to the left of it.
pub mod mark {
    /// Its acknowledgement is timed.
    pub const TIMED: u8 = 1;
    /// The client asked something, and it has said nothing since.
    pub const OWES: u8 = 1 << super::REPLICAS;
}

/// Of all slots.
const ALL_TIMED: u8 = mark::OWES - mark::TIMED;
/// [`Settled::timed`] holds a time.
const IS_TIMED: u32 = 1 << 31;
/// How far the kernel's last tick may be behind the clock, [`crate::time::steps`]: 16 ms.
const TICK: u32 = 1 << 10;

impl Flow {
    /// 1 if a replica has not answered what the client asked, else 0.
    #[inline(always)]
    pub const fn owes(&self, slot: u8) -> u32 {
        (self.marks >> (REPLICAS as u8 + (slot & 3)) & 1) as u32
    }

    /// 1 if the acknowledgement of the active replica is being timed, else 0.
    #[inline(always)]
    pub const fn is_timed(&self) -> u32 {
        (self.marks >> (self.active & 3) & 1) as u32
    }

    /// Takes in a client's segment that goes to `slots`, a bit each. `new` is 1 if it has payload none of which has passed before,
    /// `again` is 1 if some has. It is timed if `now_steps`, in which the highest bit says that the time is known, says
    /// when it passes and nothing else is timed. Returns 1 if a request begins.
    #[inline(always)]
    pub fn ask(
        &mut self,
        segment: &Segment,
        slots: u8,
        new: u32,
        again: u32,
        now_steps: u32,
    ) -> u32 {
        let (slots, new) = (slots & ALL_TIMED, new & 1);
        let begins = new & (self.owes(self.active) ^ 1);
        let marks =
            self.marks & !(ALL_TIMED * (again & 1) as u8) | ((slots << REPLICAS) * new as u8);
        let busy = is_some((marks & slots).into());
        let starts = new & (busy ^ 1);
        let timed = slots * (starts & now_steps >> 31) as u8;
        self.marks = marks & !(ALL_TIMED * starts as u8) | timed;
        let instead = starts.wrapping_neg();
        let end = segment.seq.wrapping_add(segment.payload);
        self.timed_end ^= (self.timed_end ^ end) & instead;
        self.timed_at ^= (self.timed_at ^ now_steps as u16) & instead as u16;
        begins
    }

    /// The same for a flow of which no sequence numbers are kept: what comes while an answer is owed is more of the
    /// same request, and only the beginning of a request is timed. What has passed before that is known not to be new.
    #[inline(always)]
    pub fn ask_alone(&mut self, segment: &Segment, now_steps: u32) -> u32 {
        let asks = is_some(segment.payload);
        let again = is_before(segment.seq, self.timed_end);
        let new = (again ^ 1) & (self.owes(0) ^ 1);
        self.ask(segment, 1, asks & new, asks & again, now_steps)
    }

    /// What a replica's segment settles, at a time of the same clock as [`Flow::seen_s`]. The caller takes the marks away: where several
    /// replicas answer at once, each on its CPU, none of them may bring back what another has settled.
    #[inline(always)]
    pub fn settled(&self, slot: u8, segment: &Segment, now_steps: u32) -> Settled {
        let place = slot & 3;
        let flags = u32::from(segment.flags);
        let ends = (flags / u32::from(bit::FIN)) | (flags / u32::from(bit::RST));
        let speaks = is_some(segment.payload) | ends & 1;
        let timed = u32::from(self.marks >> place)
            & (flags / u32::from(bit::ACK))
            & (is_before(segment.ack, self.timed_end) ^ 1)
            & 1;
        let marks = mark::OWES * speaks as u8 + mark::TIMED * timed as u8;
        // The flow's last packet before this one was the timed segment or came after it.
        let seconds = (now_steps >> 16).wrapping_sub(self.seen_s) & 0x7fff;
        Settled {
            marks: self.marks & marks << place,
            timed: (IS_TIMED | seconds << 16 | u32::from(self.timed_at)) & timed.wrapping_neg(),
        }
    }
}

/// What a replica's segment settles.
#[derive(Clone, Copy)]
pub struct Settled {
    /// Those of [`Flow::marks`] that are done with.
    pub marks: u8,
    /// 0, or when the segment passed that is acknowledged.
    timed: u32,
}

impl Settled {
    /// Whether the segment that is timed is acknowledged.
    #[inline(always)]
    pub const fn is_timed(&self) -> bool {
        self.timed != 0
    }

    /// How long that took, [`crate::time::steps`], by the time that [`Flow::settled`] was given and the exact one; 2^16 for
    /// all that is longer, because the 16 bits of [`Flow::timed_at`] come round.
    #[inline(always)]
    pub const fn took(&self, tick_steps: u32, now_steps: u32) -> u32 {
        let (at, seconds) = (self.timed & 0xffff, self.timed >> 16 & 0x7fff);
        // The segment may have come just after a second began, and the tick that was noted before it.
        let round = tick_steps & 0xffff >= at && at >= TICK;
        if seconds > 1 || (seconds == 1 && round) {
            return 1 << 16;
        }
        now_steps.wrapping_sub(at) & 0xffff
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ethernet::Addresses, flow::state};

    /// A minute and a half after the clock began.
    const NOW: u32 = 84 << 16 | 0x8000;
    const KNOWN: u32 = 1 << 31;

    fn flow() -> Flow {
        Flow {
            packets: 0,
            opened_s: 0,
            seen_s: NOW >> 16,
            set: 0,
            timed_at: 0,
            ifindex: 0,
            instances: [0; REPLICAS],
            addresses: Addresses::default(),
            replicas: 3,
            active: 0,
            state: state::ESTABLISHED,
            takeovers: 0,
            cold: 0,
            marks: 0,
            handshake: 0,
            timed_end: 1_000,
        }
    }

    /// A client's segment that is new; whether a request begins.
    fn ask(flow: &mut Flow, seq: u32, slots: u8, now_steps: u32) -> bool {
        flow.ask(&data(seq, 50), slots, 1, 0, now_steps | KNOWN) == 1
    }

    /// The same where no numbers are kept.
    fn ask_alone(flow: &mut Flow, segment: &Segment, now_steps: u32) -> bool {
        flow.ask_alone(segment, now_steps | KNOWN) == 1
    }

    fn owing(flow: &Flow) -> [u32; 3] {
        [0, 1, 2].map(|slot| flow.owes(slot))
    }

    fn data(seq: u32, payload: u32) -> Segment {
        Segment {
            seq,
            payload,
            flags: bit::ACK,
            ..Segment::default()
        }
    }

    fn ack(ack: u32) -> Segment {
        Segment {
            ack,
            flags: bit::ACK,
            ..Segment::default()
        }
    }

    fn hear(flow: &mut Flow, slot: u8, segment: &Segment, now_steps: u32) -> Settled {
        let settled = flow.settled(slot, segment, now_steps);
        flow.marks &= !settled.marks;
        settled
    }

    /// How long an acknowledgement took that comes so many steps after [`NOW`]; none: it says nothing.
    fn time(flow: &mut Flow, slot: u8, number: u32, after: u32) -> Option<u32> {
        let now = NOW + after;
        let settled = hear(flow, slot, &ack(number), now);
        settled.is_timed().then(|| settled.took(now, now))
    }

    #[test]
    fn each_replica_is_timed_once() {
        let mut flow = flow();
        assert!(ask(&mut flow, 1_000, 0b101, NOW));
        assert_eq!(time(&mut flow, 0, 1_049, 3), None, "not all of it");
        assert_eq!(time(&mut flow, 1, 1_050, 3), None, "it got none");
        assert_eq!(time(&mut flow, 2, 1_060, 7), Some(7));
        assert_eq!(time(&mut flow, 2, 1_060, 8), None, "told already");
        assert_eq!(flow.is_timed(), 1);
        assert_eq!(time(&mut flow, 0, 1_050, 900), Some(900));
        assert_eq!(flow.is_timed(), 0);
    }

    #[test]
    fn nothing_is_timed_while_something_is() {
        let mut flow = flow();
        ask(&mut flow, 1_000, 0b11, NOW);
        assert_eq!(time(&mut flow, 0, 1_050, 5), Some(5));
        // The mirror has not acknowledged the first yet.
        ask(&mut flow, 1_050, 0b11, NOW + 10);
        assert_eq!(time(&mut flow, 0, 1_100, 15), None);
        assert_eq!(time(&mut flow, 1, 1_100, 20), Some(20));
        // One that gets copies no more is not waited for.
        ask(&mut flow, 1_100, 0b11, NOW + 30);
        assert_eq!(time(&mut flow, 0, 1_150, 31), Some(1));
        ask(&mut flow, 1_150, 0b01, NOW + 40);
        assert_eq!(time(&mut flow, 1, 1_200, 41), None);
        assert_eq!(time(&mut flow, 0, 1_200, 42), Some(2));
    }

    #[test]
    fn what_is_sent_again_is_not_timed() {
        let mut flow = flow();
        ask(&mut flow, 1_000, 0b11, NOW);
        flow.ask(&data(1_000, 50), 0b11, 0, 1, (NOW + 5) | KNOWN);
        assert_eq!(time(&mut flow, 0, 1_050, 9), None);
        assert_eq!(time(&mut flow, 1, 1_050, 9), None);
        // Nor what nobody looked at the clock for.
        flow.ask(&data(1_050, 50), 0b11, 1, 0, NOW);
        assert_eq!(time(&mut flow, 0, 1_100, 9), None);
    }

    #[test]
    fn a_request_lasts_until_the_first_word_of_the_answer() {
        let mut flow = flow();
        assert!(ask(&mut flow, 1_000, 0b11, 0));
        assert!(!ask(&mut flow, 1_050, 0b11, 0), "more of it");
        hear(&mut flow, 0, &ack(1_100), NOW);
        assert_eq!(owing(&flow), [1, 1, 0], "an acknowledgement is no answer");
        hear(&mut flow, 0, &data(7, 1), NOW);
        assert_eq!(owing(&flow), [0, 1, 0]);
        assert!(ask(&mut flow, 1_100, 0b11, 0), "the next");
        for ends in [bit::FIN, bit::RST] {
            ask(&mut flow, 1_150, 0b11, 0);
            let end = Segment {
                flags: ends | bit::ACK,
                ..Segment::default()
            };
            hear(&mut flow, 0, &end, NOW);
            assert_eq!(owing(&flow), [0, 1, 0]);
        }
    }

    #[test]
    fn a_flow_without_numbers_knows_the_beginning_of_a_request() {
        let mut flow = flow();
        assert!(ask_alone(&mut flow, &data(1_000, 50), NOW));
        assert!(
            !ask_alone(&mut flow, &data(1_050, 50), NOW + 1),
            "more of it"
        );
        assert_eq!(time(&mut flow, 0, 1_100, 4), Some(4));
        hear(&mut flow, 0, &data(7, 1), NOW);
        assert_eq!(flow.owes(0), 0);
        // The request comes again after its answer; so may a keep-alive with a byte.
        assert!(!ask_alone(&mut flow, &data(1_000, 50), NOW + 5));
        assert!(!ask_alone(&mut flow, &data(1_049, 1), NOW + 5));
        assert_eq!((flow.owes(0), flow.is_timed()), (0, 0));
        assert!(ask_alone(&mut flow, &data(1_100, 50), NOW + 6));
        // Sent again while it is timed.
        assert!(!ask_alone(&mut flow, &data(1_100, 50), NOW + 7));
        assert_eq!(time(&mut flow, 0, 1_150, 8), None);
    }

    #[test]
    fn what_took_longer_than_the_clock_of_a_flow_goes_round_is_late() {
        for (after, expected) in [
            (0, 0),
            (0x7fff, 0x7fff),
            // Into the next second.
            (0x8000, 0x8000),
            (0xffff, 0xffff),
            (0x1_0000, 0x1_0000),
            (0x1_0005, 0x1_0000),
            (0x2_8000, 0x1_0000),
            (0x7_0005, 0x1_0000),
        ] {
            let mut flow = flow();
            ask(&mut flow, 1_000, 1, NOW);
            assert_eq!(
                time(&mut flow, 0, 1_050, after),
                Some(expected),
                "{after:#x}"
            );
        }
    }

    #[test]
    fn a_tick_that_is_behind_a_new_second_makes_nothing_late() {
        // The segment came 5 steps into a second, the tick of its packet was of the one before.
        let start = 85 << 16 | 5;
        let mut flow = flow();
        flow.seen_s = 84;
        ask(&mut flow, 1_000, 1, start);
        let settled = hear(&mut flow, 0, &ack(1_050), start + 100);
        assert_eq!(settled.took(start + 100, start + 100), 100);
        // And the other way round: the acknowledgement's tick is before the segment.
        flow.seen_s = 85;
        ask(&mut flow, 1_050, 1, 85 << 16 | 900);
        let settled = hear(&mut flow, 0, &ack(1_100), 85 << 16 | 800);
        assert_eq!(settled.took(85 << 16 | 800, 85 << 16 | 905), 5);
    }

    #[test]
    fn numbers_come_round() {
        let mut flow = flow();
        flow.timed_end = u32::MAX - 9;
        assert!(ask_alone(&mut flow, &data(u32::MAX - 9, 50), NOW));
        assert_eq!(time(&mut flow, 0, u32::MAX, 1), None);
        assert_eq!(time(&mut flow, 0, 40, 1), Some(1));
    }
}
