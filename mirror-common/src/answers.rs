//! What is measured of a flow's replicas while packets pass: who owes an answer, how long an acknowledgement takes and how long
//! the answer. Nothing of the takeover depends on it.
//!
//! One segment of a flow is timed at once, for all its replicas: the first of a request, and later ones of it once the one
//! before is acknowledged. Acknowledgements of what was sent again are not timed (Karn's rule): nobody could tell which
//! of the two was acknowledged. Answers are: the client has waited for them since it asked first.

use crate::{
    branchless::{is_before, is_some},
    flow::PlainFlow,
    limits::REPLICAS,
    tcp::{Segment, segment::bit},
};

/// Bits of [`PlainFlow::marks`], of slot 0; those of the others are to the left of it. A replica with neither owes nothing, one with both
/// owes an acknowledgement and an answer that are timed.
pub mod mark {
    /// Alone: its answer is timed; it has acknowledged, or what it is to acknowledge was sent again.
    pub const TIMED: u8 = 1;
    /// Alone: it owes an answer that is not timed.
    pub const OWES: u8 = 1 << super::REPLICAS;
}

/// Of all slots.
const ALL_TIMED: u8 = mark::OWES - mark::TIMED;
/// The bit of [`Settled::timed`] that says that an acknowledgement is timed,
const ACKNOWLEDGED: u32 = 31;
/// and that of an answer.
const ANSWERED: u32 = 30;
/// Seconds in [`Settled::timed`], above [`PlainFlow::timed_at`].
const SECONDS: u32 = 0x3fff;
/// How far the kernel's last tick may be behind the clock, [`crate::time::steps`]: 16 ms.
const TICK: u32 = 1 << 10;

impl PlainFlow {
    /// 1 if a replica has not answered what the client asked, else 0.
    #[inline(always)]
    pub const fn owes(&self, slot: u8) -> u32 {
        (owing(self.marks) >> (slot & 3) & 1) as u32
    }

    /// Whether a replica's word may settle anything: [`Self::settled`] says nothing if not.
    #[inline(always)]
    pub const fn expects(&self, slot: u8) -> bool {
        self.marks >> (slot & 3) & (mark::TIMED | mark::OWES) != 0
    }

    /// 1 if the acknowledgement of a replica is being timed, else 0.
    #[inline(always)]
    pub const fn is_timed(&self, slot: u8) -> u32 {
        (unacknowledged(self.marks) >> (slot & 3) & 1) as u32
    }

    /// Takes in a client's segment that goes to `slots`, a bit each, of which `active` is the one that answers the client. `new` is 1 if it has payload none of which has passed before,
    /// `again` is 1 if some has. It is timed if `now_steps`, in which the highest bit says that the time is known, says
    /// when it passes and no acknowledgement is being timed. Returns 1 if a request begins.
    ///
    /// A replica that is a whole request behind the active one is not timed: it would seem to answer the later one.
    #[inline(always)]
    pub fn ask(
        &mut self,
        segment: &Segment,
        active: u8,
        slots: u8,
        new: u32,
        again: u32,
        now_steps: u32,
    ) -> u32 {
        let (slots, new) = (slots & ALL_TIMED, new & 1);
        let begins = new & (self.owes(active) ^ 1);
        let owing = owing(self.marks);
        let busy = is_some((unacknowledged(self.marks) & slots).into());
        let starts = new & (busy ^ 1);
        let all = |one: u32| ALL_TIMED * (one & 1) as u8;
        let timed = self.marks & ALL_TIMED;
        let owes = self.marks >> REPLICAS & !(timed & all(again))
            | slots & all(new) & !timed
            | (owing | slots) & all(starts);
        let started = slots & all(now_steps >> 31) & !(owing & all(begins));
        self.marks = timed ^ (timed ^ started) & all(starts) | owes << REPLICAS;
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
        self.ask(segment, 0, 1, asks & new, asks & again, now_steps)
    }

    /// Whether [`Self::ask_alone`] has nothing to note of a segment: it is more of a request that is not answered yet.
    #[inline(always)]
    pub fn goes_on(&self, segment: &Segment) -> bool {
        self.owes(0) & (is_before(segment.seq, self.timed_end) ^ 1) != 0
    }

    /// What a replica's segment settles, at a time of the same clock as [`PlainFlow::seen_s`]. The caller takes the marks away: where several
    /// replicas answer at once, each on its CPU, none of them may bring back what another has settled.
    #[inline(always)]
    pub fn settled(&self, slot: u8, segment: &Segment, now_steps: u32) -> Settled {
        let place = slot & 3;
        let flags = u32::from(segment.flags);
        let ends = (flags / u32::from(bit::FIN)) | (flags / u32::from(bit::RST));
        let says = is_some(segment.payload);
        let speaks = says | ends & 1;
        let reached = (flags / u32::from(bit::ACK)) & (is_before(segment.ack, self.timed_end) ^ 1);
        let acknowledged = u32::from(unacknowledged(self.marks) >> place) & reached & 1;
        // What it says before it has heard the request is no answer to it.
        let heard = u32::from(self.marks >> REPLICAS >> place) ^ 1 | reached;
        let answered = u32::from(self.marks >> place) & says & heard & 1;
        // The flow's last packet before this one was the timed segment or came after it.
        let seconds = (now_steps >> 16).wrapping_sub(self.seen_s) & SECONDS;
        // An answer after it would be held against the second in which this one came.
        let late = acknowledged & is_some(seconds);
        let owed = mark::OWES * (speaks | acknowledged & (late ^ 1)) as u8;
        let marks = owed | (mark::TIMED * (speaks | late) as u8);
        Settled {
            marks: self.marks & marks << place,
            timed: acknowledged << ACKNOWLEDGED
                | answered << ANSWERED
                | seconds << 16
                | u32::from(self.timed_at),
        }
    }
}

/// Whose answer is awaited.
#[inline(always)]
const fn owing(marks: u8) -> u8 {
    (marks | marks >> REPLICAS) & ALL_TIMED
}

/// Whose acknowledgement is timed.
#[inline(always)]
const fn unacknowledged(marks: u8) -> u8 {
    marks & marks >> REPLICAS
}

/// What a replica's segment settles.
#[derive(Clone, Copy)]
pub struct Settled {
    /// Those of [`PlainFlow::marks`] that are done with.
    pub marks: u8,
    /// What is timed by it, and when the segment passed that is timed.
    timed: u32,
}

impl Settled {
    /// Whether it is an acknowledgement that is timed.
    #[inline(always)]
    pub const fn is_acknowledged(&self) -> bool {
        self.timed >> ACKNOWLEDGED & 1 != 0
    }

    /// Whether it begins an answer that is timed.
    #[inline(always)]
    pub const fn is_answered(&self) -> bool {
        self.timed >> ANSWERED & 1 != 0
    }

    /// Either of them.
    #[inline(always)]
    pub const fn is_timed(&self) -> bool {
        self.timed >> ANSWERED != 0
    }

    /// How long that took, [`crate::time::steps`], by the time that [`PlainFlow::settled`] was given and the exact one; 2^16 for
    /// all that is longer, because the 16 bits of [`PlainFlow::timed_at`] come round.
    #[inline(always)]
    pub const fn took(&self, tick_steps: u32, now_steps: u32) -> u32 {
        let (at, seconds) = (self.timed & 0xffff, self.timed >> 16 & SECONDS);
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

    /// A minute and a half after the clock began.
    const NOW: u32 = 84 << 16 | 0x8000;
    const KNOWN: u32 = 1 << 31;

    fn flow() -> PlainFlow {
        PlainFlow {
            seen_s: NOW >> 16,
            timed_end: 1_000,
            ..PlainFlow::default()
        }
    }

    /// A client's segment that is new; whether a request begins.
    fn ask(flow: &mut PlainFlow, seq: u32, slots: u8, now_steps: u32) -> bool {
        flow.ask(&data(seq, 50), 0, slots, 1, 0, now_steps | KNOWN) == 1
    }

    /// The same where no numbers are kept.
    fn ask_alone(flow: &mut PlainFlow, segment: &Segment, now_steps: u32) -> bool {
        flow.ask_alone(segment, now_steps | KNOWN) == 1
    }

    fn owing(flow: &PlainFlow) -> [u32; 3] {
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

    fn hear(flow: &mut PlainFlow, slot: u8, segment: &Segment, now_steps: u32) -> Settled {
        let settled = flow.settled(slot, segment, now_steps);
        flow.marks &= !settled.marks;
        settled
    }

    /// How long an acknowledgement took that comes so many steps after [`NOW`]; none: it says nothing.
    fn time(flow: &mut PlainFlow, slot: u8, number: u32, after: u32) -> Option<u32> {
        let now = NOW + after;
        let settled = hear(flow, slot, &ack(number), now);
        settled.is_acknowledged().then(|| settled.took(now, now))
    }

    /// The same of an answer that acknowledges so much.
    fn answer(flow: &mut PlainFlow, slot: u8, number: u32, after: u32) -> Option<u32> {
        let now = NOW + after;
        let segment = Segment {
            payload: 1,
            ..ack(number)
        };
        let settled = hear(flow, slot, &segment, now);
        settled.is_answered().then(|| settled.took(now, now))
    }

    #[test]
    fn each_replica_is_timed_once() {
        let mut flow = flow();
        assert!(ask(&mut flow, 1_000, 0b101, NOW));
        assert_eq!(time(&mut flow, 0, 1_049, 3), None, "not all of it");
        assert_eq!(time(&mut flow, 1, 1_050, 3), None, "it got none");
        assert_eq!(time(&mut flow, 2, 1_060, 7), Some(7));
        assert_eq!(time(&mut flow, 2, 1_060, 8), None, "told already");
        assert_eq!(flow.is_timed(0), 1);
        assert_eq!(time(&mut flow, 0, 1_050, 900), Some(900));
        assert_eq!(flow.is_timed(0), 0);
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
        flow.ask(&data(1_000, 50), 0, 0b11, 0, 1, (NOW + 5) | KNOWN);
        assert_eq!(time(&mut flow, 0, 1_050, 9), None);
        assert_eq!(time(&mut flow, 1, 1_050, 9), None);
        // Nor what nobody looked at the clock for.
        flow.ask(&data(1_050, 50), 0, 0b11, 1, 0, NOW);
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
        assert_eq!((flow.owes(0), flow.is_timed(0)), (0, 0));
        assert!(ask_alone(&mut flow, &data(1_100, 50), NOW + 6));
        // Sent again while it is timed.
        assert!(!ask_alone(&mut flow, &data(1_100, 50), NOW + 7));
        assert_eq!(time(&mut flow, 0, 1_150, 8), None);
    }

    #[test]
    fn what_need_not_be_looked_at_changes_nothing() {
        for marks in 0..=u8::MAX {
            for seq in [900, 999, 1_000, 1_001, 1_050] {
                let flow = PlainFlow { marks, ..flow() };
                let mut asked = flow;
                let begins = ask_alone(&mut asked, &data(seq, 50), NOW);
                if flow.goes_on(&data(seq, 50)) {
                    assert_eq!((asked, begins), (flow, false), "{marks:#x}, {seq}");
                }
            }
            for slot in 0..4 {
                let flow = PlainFlow { marks, ..flow() };
                let settled = [ack(999), ack(1_000), data(7, 1)].map(|segment| {
                    let settled = flow.settled(slot, &segment, NOW);
                    settled.marks != 0 || settled.is_timed()
                });
                assert!(flow.expects(slot) || settled == [false; 3], "{marks:#x}");
            }
        }
    }

    #[test]
    fn an_answer_is_timed_with_its_acknowledgement_or_after_it() {
        let mut flow = flow();
        ask(&mut flow, 1_000, 0b111, NOW);
        assert_eq!(answer(&mut flow, 0, 1_050, 30), Some(30));
        assert_eq!(answer(&mut flow, 0, 1_050, 31), None, "its second word");
        assert_eq!(time(&mut flow, 1, 1_050, 40), Some(40));
        assert_eq!(time(&mut flow, 1, 1_050, 50), None);
        assert_eq!(answer(&mut flow, 1, 1_050, 9_000), Some(9_000));
        // The end of what it said before, and it had not heard the request.
        assert_eq!(answer(&mut flow, 2, 1_000, 60), None);
        assert_eq!(owing(&flow), [0, 0, 0]);
        let end = Segment {
            flags: bit::RST,
            ..Segment::default()
        };
        ask(&mut flow, 1_050, 0b111, NOW + 9_100);
        assert!(!hear(&mut flow, 0, &end, NOW + 9_200).is_answered());
    }

    #[test]
    fn an_answer_is_timed_from_the_last_segment_of_the_request_that_was() {
        let mut flow = flow();
        ask(&mut flow, 1_000, 1, NOW);
        // Not acknowledged yet: the first goes on being timed.
        ask(&mut flow, 1_050, 1, NOW + 10);
        assert_eq!(time(&mut flow, 0, 1_100, 20), Some(20));
        ask(&mut flow, 1_100, 1, NOW + 30);
        assert_eq!(time(&mut flow, 0, 1_150, 35), Some(5));
        assert_eq!(answer(&mut flow, 0, 1_150, 100), Some(70));
    }

    #[test]
    fn an_answer_to_what_was_sent_again_took_as_long_as_the_client_waited() {
        let mut flow = flow();
        ask(&mut flow, 1_000, 0b11, NOW);
        assert_eq!(time(&mut flow, 1, 1_050, 3), Some(3));
        flow.ask(&data(1_000, 50), 0, 0b11, 0, 1, (NOW + 500) | KNOWN);
        assert_eq!(owing(&flow), [1, 1, 0]);
        assert_eq!(answer(&mut flow, 0, 1_050, 600), Some(600));
        assert_eq!(answer(&mut flow, 1, 1_050, 700), Some(700));
    }

    #[test]
    fn who_is_a_request_behind_is_not_timed() {
        let mut flow = flow();
        ask(&mut flow, 1_000, 0b11, NOW);
        assert_eq!(time(&mut flow, 1, 1_050, 3), Some(3));
        assert_eq!(answer(&mut flow, 0, 1_050, 5), Some(5));
        assert!(ask(&mut flow, 1_050, 0b11, NOW + 50));
        assert_eq!(answer(&mut flow, 1, 1_050, 60), None);
        assert_eq!(answer(&mut flow, 0, 1_100, 60), Some(10));
    }

    #[test]
    fn what_nobody_looked_at_the_clock_for_is_not_timed() {
        let mut flow = flow();
        ask(&mut flow, 1_000, 1, NOW);
        assert_eq!(answer(&mut flow, 0, 1_050, 5), Some(5));
        assert_eq!(flow.ask(&data(1_050, 50), 0, 1, 1, 0, NOW + 50), 1);
        assert_eq!(owing(&flow), [1, 0, 0]);
        assert_eq!(answer(&mut flow, 0, 1_100, 60), None);
        assert_eq!(owing(&flow), [0, 0, 0]);
    }

    #[test]
    fn an_answer_in_a_later_second_than_its_acknowledgement_is_not_mistaken_for_a_fast_one() {
        let mut flow = flow();
        ask(&mut flow, 1_000, 1, NOW);
        // Into the next second, and the flow's last packet is that.
        assert_eq!(time(&mut flow, 0, 1_050, 0x9000), Some(0x9000));
        flow.seen_s += 1;
        assert_eq!(owing(&flow), [1, 0, 0]);
        assert_eq!(answer(&mut flow, 0, 1_050, 0x1_0010), None);
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
