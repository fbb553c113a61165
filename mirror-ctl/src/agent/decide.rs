//! From an event to what is to be done about it. Pure: time and facts come in, actions go out.

mod network;

use mirror_common::{
    event::{Event as Report, kind},
    instance::Vitals,
};

use super::{
    foresee::Told,
    state::{Instance, State},
};
use crate::{
    health::{
        Cause,
        recovery::{self, Failure, Next, Trial},
        silence::{Limits, Sample},
    },
    routing::State as Service,
};

/// How often an unknown hardware address is asked for.
const RESOLVE_NS: u64 = 1_000_000_000;
/// How often a known one is confirmed: the kernel forgets neighbours that nobody uses.
const CONFIRM_NS: u64 = 10_000_000_000;

/// An instance that was sent so many packets and never answered is set up wrongly.
const UNHEARD_PACKETS: u64 = 50;

/// Something to be done. The order of actions is the order in which they are done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Write an instance's entry: the one write that takes it out or back in.
    WriteInstance(usize),
    /// Tell that an instance changed.
    Tell {
        /// Its name.
        instance: String,
        /// What it was.
        from: Service,
        /// What it is.
        to: Service,
        /// Why.
        cause: Cause,
        /// When.
        time_ns: u64,
    },
    /// Tell what is expected of an instance.
    Foretell {
        /// Its name.
        instance: String,
        /// What.
        told: Told,
        /// Why.
        why: String,
        /// When.
        time_ns: u64,
    },
    /// Choose anew where new flows go.
    Publish,
    /// An interface came, went or got another number: put programs and targets right.
    Rewire(String),
    /// Find out the hardware address of an instance.
    Resolve(usize),
    /// Put the VNI addresses on an interface right.
    Announce(String),
    /// Say that an instance was asked often and never heard.
    Unheard(usize),
    /// Say that an interface takes no redirected frame, and which instance that concerns.
    Closed {
        /// The interface.
        interface: String,
        /// The instance; none: it leads to clients.
        instance: Option<String>,
    },
    /// Let handshakes go on that wait for an instance.
    Release(usize),
    /// Ask netlink for everything again.
    Resync,
}

impl State {
    /// Changes an instance; what follows from the change of its state.
    pub(super) fn change(
        &mut self,
        place: usize,
        now_ns: u64,
        cause: Cause,
        change: impl FnOnce(&mut Instance),
    ) -> Vec<Action> {
        let instance = &mut self.instances[place];
        let before = (
            instance.service(),
            instance.entry(),
            instance.trial.is_some(),
        );
        change(instance);
        let after = (
            instance.service(),
            instance.entry(),
            instance.trial.is_some(),
        );
        if before == after {
            return Vec::new();
        }
        let mut actions = vec![Action::WriteInstance(place)];
        if before.0 != after.0 || before.2 != after.2 {
            instance.changed_ns = now_ns;
            instance.cause = cause;
            actions.push(Action::Tell {
                instance: instance.config.name.clone(),
                from: before.0,
                to: after.0,
                cause,
                time_ns: now_ns,
            });
            actions.push(Action::Publish);
        }
        actions
    }

    /// Takes an instance out because of a failure.
    fn fail(&mut self, place: usize, cause: Cause, now_ns: u64) -> Vec<Action> {
        self.take_out(place, cause, false, now_ns)
    }

    /// Takes an instance out that may be dead.
    fn suspect(&mut self, place: usize, now_ns: u64) -> Vec<Action> {
        self.take_out(place, Cause::Silent, true, now_ns)
    }

    fn take_out(
        &mut self,
        place: usize,
        cause: Cause,
        is_suspicion: bool,
        now_ns: u64,
    ) -> Vec<Action> {
        self.change(place, now_ns, cause, |instance| {
            let last = instance.failure.or(instance.last_failure);
            instance.failure = Some(Failure {
                is_suspicion,
                ..Failure::after(last, cause, now_ns)
            });
            instance.trial = None;
            // What the probe said before it failed proves nothing now.
            if cause != Cause::Probe {
                instance.probe.reset();
            }
        })
    }

    /// A suspect is dead: for the same cause, since the same time.
    fn confirm(&mut self, place: usize, now_ns: u64) -> Vec<Action> {
        let cause = self.instances[place].cause;
        self.change(place, now_ns, cause, |instance| {
            if let Some(failure) = &mut instance.failure {
                failure.is_suspicion = false;
            }
        })
    }

    /// Ends a failure.
    fn recover(&mut self, place: usize, trial: bool, now_ns: u64) -> Vec<Action> {
        let cause = match trial {
            true => Cause::Probation,
            false => Cause::Recovered,
        };
        self.evidence.forgive(self.instances[place].number as u16);
        self.change(place, now_ns, cause, |instance| {
            instance.last_failure = instance.failure.take().or(instance.last_failure);
            instance.trial = trial.then(|| Trial::new(now_ns));
        })
    }

    /// The dataplane's evidence was read: `vitals` by place.
    pub fn looked(&mut self, vitals: &[Vitals], now_ns: u64) -> Vec<Action> {
        for (instance, vitals) in self.instances.iter_mut().zip(vitals) {
            instance.vitals = *vitals;
        }
        let samples: Vec<Sample> = self
            .instances
            .iter()
            .map(|instance| Sample {
                vitals: instance.vitals,
                alive: instance.service().is_relied_on(),
            })
            .collect();
        let ms = |ms: u32| u64::from(ms) * 1_000_000;
        let limits = Limits {
            poll_ns: ms(self.config.detect.poll_ms),
            silent_ns: ms(self.config.detect.silent_ms),
        };
        let silent = self.silence.look(now_ns, &samples, &self.members, limits);
        let mut actions = Vec::new();
        for place in silent {
            actions.extend(self.suspect(place, now_ns));
        }
        actions.extend(self.unresponsive(now_ns).into_iter().map(Action::Release));
        actions
    }

    /// Instances that have begun to leave SYNs unanswered for longer than their VNIs wait: the
    /// dataplane does not wait for them from now on, but some handshakes wait already.
    fn unresponsive(&mut self, now_ns: u64) -> Vec<usize> {
        let mut found = Vec::new();
        for (place, instance) in self.instances.iter_mut().enumerate() {
            let members = self.config.vnis.iter().zip(&self.members);
            let waits = members.filter(|(_, members)| members.contains(&place));
            let patience_ms = waits.map(|(vni, _)| vni.handshake_ms).max().unwrap_or(0);
            let since_ns = instance.vitals.syn_since_ns;
            let late = now_ns.saturating_sub(since_ns) > u64::from(patience_ms) * 1_000_000;
            if since_ns != 0 && late && instance.released_ns != since_ns {
                instance.released_ns = since_ns;
                found.push(place);
            }
        }
        found
    }

    /// The dataplane reported events.
    pub fn reported(&mut self, reports: &[Report], now_ns: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        for report in reports {
            let (number, cause) = match report.kind {
                // What it answers never gets through.
                kind::PARTIAL_CHECKSUM => (Some(report.from), Cause::PartialChecksum),
                _ => (self.evidence.note(report), Cause::Resets),
            };
            let place = number.and_then(|number| self.by_number(number.into()));
            let Some(place) = place else { continue };
            if self.instances[place].service() != Service::Dead && !self.is_last(place) {
                actions.extend(self.fail(place, cause, now_ns));
            }
        }
        actions
    }

    /// A probe was tried.
    pub fn probed(&mut self, name: &str, ok: bool, now_ns: u64) -> Vec<Action> {
        let Some(place) = self.find(name) else {
            return Vec::new();
        };
        let instance = &mut self.instances[place];
        let Some(probe) = &instance.config.probe else {
            return Vec::new();
        };
        match instance.probe.count(ok, probe.fall, probe.rise) {
            Some(_) => self.reconsider(place, now_ns),
            None => Vec::new(),
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now_ns: u64) -> Vec<Action> {
        let mut actions = self.check_ways(now_ns);
        for place in 0..self.instances.len() {
            let instance = &mut self.instances[place];
            let Vitals { sent, heard_ns, .. } = instance.vitals;
            if sent >= UNHEARD_PACKETS && heard_ns == 0 && !instance.unheard_told {
                instance.unheard_told = true;
                actions.push(Action::Unheard(place));
            }
            let interval_ns = match instance.mac {
                None => RESOLVE_NS,
                Some(_) => CONFIRM_NS,
            };
            if instance.config.mac.is_none()
                && instance.link_up_ns.is_some()
                && now_ns.saturating_sub(instance.asked_ns) >= interval_ns
            {
                instance.asked_ns = now_ns;
                actions.push(Action::Resolve(place));
            }
        }
        actions
    }

    /// Whether a failed instance may come back, or one on trial has stood or failed it.
    fn reconsider(&mut self, place: usize, now_ns: u64) -> Vec<Action> {
        let instance = &self.instances[place];
        let is_closed = self.is_closed(place);
        let signs = instance.signs(&self.evidence, !is_closed);
        if is_closed && instance.failure.is_none_or(|failure| failure.is_suspicion) {
            return self.fail(place, Cause::NoRedirect, now_ns);
        }
        if instance.failure.is_none() && signs.probe == Some(false) {
            // When every probe fails, it is more likely the probes' failure.
            return match self.is_last(place) {
                true => Vec::new(),
                false => self.fail(place, Cause::Probe, now_ns),
            };
        }
        if let Some(failure) = &instance.failure {
            return match recovery::next(failure, &signs, now_ns) {
                Next::Wait => Vec::new(),
                Next::Try => self.recover(place, true, now_ns),
                Next::Serve => self.recover(place, false, now_ns),
                Next::Confirm => self.confirm(place, now_ns),
            };
        }
        let Some(trial) = instance.trial else {
            return Vec::new();
        };
        if trial.is_refused(&signs) {
            return self.fail(place, Cause::Resets, now_ns);
        }
        if trial.is_passed(&signs, now_ns) {
            return self.recover(place, false, now_ns);
        }
        match trial.grown(&signs, now_ns) {
            Some(grown) => {
                self.instances[place].trial = Some(grown);
                vec![Action::Publish]
            }
            None => Vec::new(),
        }
    }

    /// Whether some VNI would have no live instance without this one. Who is on trial does not
    /// count.
    pub(super) fn is_last(&self, place: usize) -> bool {
        let lives = |other: &Instance| other.service().is_relied_on() && other.trial.is_none();
        self.members.iter().any(|members| {
            let mut others = members.iter().filter(|&&other| other != place);
            members.contains(&place) && !others.any(|&other| lives(&self.instances[other]))
        })
    }

    fn by_number(&self, number: u32) -> Option<usize> {
        self.instances
            .iter()
            .position(|instance| instance.number == number)
    }

    /// Marks what keeps an instance from serving when the agent starts.
    pub fn settle(&mut self, now_ns: u64) {
        for place in 0..self.instances.len() {
            let is_closed = self.is_closed(place);
            let instance = &mut self.instances[place];
            let fact = match (instance.link_up_ns, instance.mac) {
                (None, _) => Cause::LinkDown,
                (_, None) => Cause::Unresolved,
                _ if is_closed => Cause::NoRedirect,
                _ => continue,
            };
            if instance.failure.is_none() {
                instance.failure = Some(Failure::after(None, fact, now_ns));
                instance.cause = fact;
                instance.changed_ns = now_ns;
            }
        }
    }
}
