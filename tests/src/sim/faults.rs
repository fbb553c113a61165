//! What befalls instances, and how they come back.

use mirror_common::{instance, limits::EVACUATION_PATIENCE_MS};
use smoltcp::socket::tcp::State;

use super::{
    agent::SUSPICION,
    endpoint::Time,
    scenario::{Blow, MS},
    world::{Event, Recovery, World},
};

impl World {
    /// A fault happens, unless it would leave a flow with nobody and the run is not to be like that.
    pub(super) fn strike(&mut self, number: usize) -> Result<(), String> {
        let fault = self.scenario.faults[number];
        let instance = fault.instance;
        let harmless = matches!(fault.blow, Blow::Evacuate(_) | Blow::Stall(_));
        if !harmless && !self.scenario.doom && !self.can_spare(instance) {
            return Ok(());
        }
        // Who trusts a FIN must not be killed.
        if matches!(fault.blow, Blow::Kill(_)) && !self.votes() {
            return Ok(());
        }
        self.trace(|| format!("*** {:?} of instance {instance}", fault.blow));
        let machine = &mut self.machines[instance];
        machine.struck |= !harmless;
        match fault.blow {
            Blow::Crash(back) => {
                machine.powered = false;
                machine.crashes += 1;
                machine.ends.clear();
                machine.held.clear();
                self.later(back, instance, Recovery::Power);
            }
            Blow::Freeze(time) => {
                machine.frozen = true;
                self.later(Some(time), instance, Recovery::Motion);
            }
            Blow::Cut(time) => {
                machine.cut = true;
                self.later(Some(time), instance, Recovery::Link);
            }
            Blow::Kill(back) => {
                machine.killed = true;
                machine.serving = false;
                self.later(back, instance, Recovery::Process);
                self.kill(instance)?;
            }
            Blow::FalseAlarm(time) => {
                self.declare(instance, instance::state::SUSPECT);
                // It is heard again, or it is not and dead.
                if time > SUSPICION {
                    self.declare(instance, instance::state::DEAD);
                }
                self.at(self.now + time, Event::Looks(instance));
            }
            Blow::Evacuate(time) => {
                let entry = &mut self.middle.instances[instance];
                if entry.state == instance::state::UP {
                    entry.state = instance::state::EVACUATING;
                    entry.deadline_ms = (self.now / MS) as u32 + EVACUATION_PATIENCE_MS;
                }
                self.later(Some(time), instance, Recovery::Evacuation);
            }
            Blow::Stall(time) => self.stalled_until = self.now + time,
        }
        if !harmless {
            let notices = self.now + self.scenario.detection;
            self.at(notices, Event::Looks(instance));
        }
        Ok(())
    }

    fn later(&mut self, after: Option<Time>, instance: usize, what: Recovery) {
        if let Some(time) = after {
            self.at(self.now + time, Event::Recovers(instance, what));
        }
    }

    /// The kernel closes the sockets of a process that was killed, and resets where bytes are unread.
    fn kill(&mut self, instance: usize) -> Result<(), String> {
        let ports: Vec<u16> = self.machines[instance].ends.keys().copied().collect();
        for port in ports {
            let Some(end) = self.machines[instance].ends.get_mut(&port) else {
                continue;
            };
            end.endpoint.orphan = true;
            let unread = end.endpoint.socket().recv_queue() > 0;
            let young = matches!(end.endpoint.state(), State::SynReceived | State::Listen);
            if unread || young {
                end.endpoint.socket().abort();
            } else {
                end.endpoint.socket().close();
            }
            self.server_works(instance, port)?;
        }
        Ok(())
    }

    pub(super) fn recover(&mut self, instance: usize, what: Recovery) -> Result<(), String> {
        self.trace(|| format!("*** {what:?} of instance {instance} is back"));
        let machine = &mut self.machines[instance];
        match what {
            Recovery::Power => {
                machine.powered = true;
                machine.serving = true;
            }
            Recovery::Motion => machine.frozen = false,
            Recovery::Link => machine.cut = false,
            Recovery::Process => machine.serving = machine.powered,
            Recovery::Evacuation => {
                let entry = &mut self.middle.instances[instance];
                if entry.state == instance::state::EVACUATING {
                    entry.state = instance::state::UP;
                }
                return Ok(());
            }
        }
        let notices = self.now + self.scenario.detection;
        self.at(notices, Event::Looks(instance));
        for frame in std::mem::take(&mut self.machines[instance].held) {
            self.at(self.now, Event::AtInstance(instance, frame));
        }
        let ports: Vec<u16> = self.machines[instance].ends.keys().copied().collect();
        for port in ports {
            self.server_works(instance, port)?;
        }
        Ok(())
    }
}
