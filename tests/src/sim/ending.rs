//! How connections end: in order, or for a reason.

use mirror_common::{
    flow::state,
    tcp::{self, slot},
    vni::flag,
};
use smoltcp::socket::tcp::State;

use super::{
    middle::Entry,
    truth::is_whole,
    world::{Ending, Event, World},
};

impl World {
    /// After the client's end did something.
    pub(super) fn judge_client(&mut self, number: usize) -> Result<(), String> {
        let Some(end) = self.clients[number]
            .as_ref()
            .filter(|_| self.endings[number] == Ending::Open)
        else {
            return Ok(());
        };
        let over = matches!(end.endpoint.state(), State::Closed | State::TimeWait);
        if !over {
            return Ok(());
        }
        let complete = end.app.is_satisfied(&end.endpoint) || end.app.resets() && end.app.closed;
        self.endings[number] = if complete {
            Ending::Complete
        } else {
            Ending::Lost
        };
        self.counts.lost += u64::from(!complete);
        self.trace(|| {
            format!(
                "*** flow {number} is {}",
                if complete { "complete" } else { "lost" }
            )
        });
        for next in 0..self.scenario.flows.len() {
            if self.scenario.flows[next].after == Some(number) {
                self.at(
                    self.now + self.scenario.flows[next].start,
                    Event::Start(next),
                );
            }
        }
        Ok(())
    }

    /// When all is over: every connection came to its end, and no warm replica is left with something to say.
    pub(super) fn check_end(&mut self) -> Result<(), String> {
        for number in 0..self.endings.len() {
            if self.endings[number] > Ending::Open {
                continue;
            }
            let before = self.scenario.flows[number].after;
            let waits = before.is_some_and(|before| self.endings[before] == Ending::Open);
            let excused = self.entries[number].is_some_and(|entry| self.excuses(&entry));
            let excused = excused || self.is_unaware(number);
            if !waits && !excused && !self.is_stuck(number) {
                let state = self.clients[number]
                    .as_ref()
                    .map(|end| end.endpoint.state());
                return Err(format!(
                    "flow {number} does not end: the client is in {state:?}"
                ));
            }
        }
        for (_, entry) in self.middle.entries() {
            // A late SYN may have begun anew what nobody goes on with.
            if entry.flow.flow.state >= state::ESTABLISHED {
                self.check_drained(entry)?;
            }
        }
        Ok(())
    }

    /// Whether a flow may be left open: nobody can go on with it, and the client was told or is not to be told.
    fn excuses(&self, entry: &Entry) -> bool {
        let active = entry.flow.flow.active;
        let left = self.scenario.vni.flags & flag::LEAVE_LOST != 0 && !self.has_good(entry);
        // The active replica's only word about its end was lost, and the client has nothing to ask.
        let unheard = self.has_reset(entry, active);
        // It waits for bytes that the client was told are acknowledged.
        let lacks = self
            .end_of(entry, active)
            .is_some_and(|end| !is_whole(entry, end));
        // All was said and heard, and only the acknowledgement of the last FIN was lost.
        let client = self.clients[entry.number].as_ref();
        let satisfied = client.is_some_and(|end| end.app.is_satisfied(&end.endpoint))
            && entry.flow.flow.state == state::CLOSED;
        left || unheard || lacks || satisfied || self.awaits_lost_fin(entry)
    }

    /// Whether the vote waits for the FIN of a killed process, that was lost and then acknowledged with what it
    /// closed, or of a machine that began anew unnoticed.
    fn awaits_lost_fin(&self, entry: &Entry) -> bool {
        (0..entry.flow.flow.replicas).any(|slot| {
            let replica = entry.flow.replica(slot);
            let silent = replica.state == slot::WARM && replica.flags & tcp::flag::FIN == 0;
            silent
                && self
                    .end_of(entry, slot)
                    .is_none_or(|end| end.endpoint.orphan)
        })
    }

    /// Whether the reset was lost that told a client that nobody is left, and it has nothing to ask.
    fn is_unaware(&mut self, number: usize) -> bool {
        let now = self.now;
        let client = self.clients[number].as_mut();
        self.given_up[number] && client.is_some_and(|end| end.endpoint.is_content(now))
    }

    /// Whether a stack has stopped of its own accord.
    fn is_stuck(&mut self, number: usize) -> bool {
        let now = self.now;
        let clients = self.clients.iter_mut().flatten();
        let servers = self
            .machines
            .iter_mut()
            .flat_map(|machine| machine.ends.values_mut());
        clients
            .chain(servers)
            .map(|end| &mut end.endpoint)
            .any(|end| end.number == number && (end.was_stuck || end.is_stuck(now)))
    }

    fn check_drained(&self, entry: &Entry) -> Result<(), String> {
        let ended = self.endings[entry.number] == Ending::Complete;
        let client = self.clients[entry.number].as_ref();
        let in_order = client.is_some_and(|end| !end.app.resets()) && ended;
        for slot in 0..entry.flow.flow.replicas {
            let warm = entry.flow.replica(slot).state == slot::WARM;
            let Some(end) = self.end_of(entry, slot).filter(|_| warm && in_order) else {
                continue;
            };
            let state = end.endpoint.state();
            // A reset SYN-ACK, as that for a late SYN, makes `smoltcp` listen again.
            let over = matches!(state, State::Closed | State::TimeWait | State::Listen);
            if !over && self.is_good(entry, slot) {
                return Err(format!(
                    "flow {}: slot {slot} is left in {state}",
                    entry.number
                ));
            }
        }
        Ok(())
    }
}
