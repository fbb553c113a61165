//! Whether an end of a connection will say anything more of its own accord: who has stopped though something is outstanding is a fault of
//! its stack, and not of the protocol.

use mirror_common::tcp::seq;
use smoltcp::socket::tcp::State;

use super::{Endpoint, Time, instant};
use crate::sim::scenario::S;

impl Endpoint {
    /// Whether something that it sent is outstanding and is not said again, which no stack may let happen: `smoltcp`
    /// 0.14 does after a fast retransmission beyond a window that shut. Either no timer runs, or its probes of the window begin
    /// behind what is outstanding, where no peer has to answer them.
    pub fn is_stuck(&mut self, now: Time) -> bool {
        /// Twice the longest pause between two retransmissions.
        const LONG: Time = 120 * S;
        let is_outstanding = seq::before(self.truth.una, self.truth.snd_max);
        let is_silent = is_outstanding && now.saturating_sub(self.repeated) > LONG;
        self.has_stopped(now) || is_silent && self.is_open()
    }

    fn is_open(&self) -> bool {
        !matches!(
            self.state(),
            State::Closed | State::Listen | State::TimeWait
        )
    }

    /// Whether everything that it said is acknowledged, and no timer runs: it will not say anything of its own accord.
    pub fn is_content(&mut self, now: Time) -> bool {
        let is_heard = !seq::before(self.truth.una, self.truth.snd_max);
        is_heard && !self.has_timer(now)
    }

    fn has_timer(&mut self, now: Time) -> bool {
        self.interface
            .poll_at(instant(now), &self.sockets)
            .is_some()
    }

    /// Whether something is outstanding and no timer runs.
    pub(super) fn has_stopped(&mut self, now: Time) -> bool {
        let closing = matches!(
            self.state(),
            State::FinWait1 | State::Closing | State::LastAck
        );
        let open = matches!(self.state(), State::Established | State::CloseWait);
        let queued = self.socket().send_queue() > 0;
        let outstanding = closing || open && queued;
        outstanding && !self.has_timer(now)
    }
}
