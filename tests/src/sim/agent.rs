//! The agent as the flows know it: writes what it sees of instances, late and not at all while it is stalled,
//! asks the flows of a lost instance, and lets the last words of mirrors be said once more
//! (`mirror-ctl/src/connections`: `rescue`, `prompt`, `replay`).

use mirror_common::{
    flow::state,
    instance,
    tcp::{segment::bit, seq, slot},
};

use super::{
    endpoint::{CLIENT, PORT, Time, VNI},
    frame::{Bare, Frame, bare},
    middle::Entry,
    scenario::{MS, S},
    world::{Event, World},
};

/// How long an instance is suspect before it is dead.
pub(super) const SUSPICION: Time = S;
/// How often flows are asked: the question or its answer may be lost.
pub(super) const PROMPTS: u32 = 4;
/// Stacks answer such segments once a second at most.
const PROMPT_INTERVAL: Time = 1_100 * MS;
/// From an event of the dataplane to what follows.
const REACTION: Time = 200;

impl World {
    /// The agent looks at an instance and writes what it sees.
    pub(super) fn look_at(&mut self, instance: usize) {
        if self.now < self.stalled_until {
            self.at(self.stalled_until, Event::Looks(instance));
            return;
        }
        let machine = &self.machines[instance];
        let state = self.middle.instances[instance].state;
        let lost = matches!(state, instance::state::DEAD | instance::state::SUSPECT);
        if machine.is_fine() {
            if lost {
                self.middle.instances[instance].state = instance::state::UP;
                self.trace(|| format!("*** agent: instance {instance} is up"));
                self.at(self.now, Event::Prompts(instance, true, PROMPTS));
            }
        } else if state == instance::state::SUSPECT || !lost && machine.cut {
            self.declare(instance, instance::state::DEAD);
        } else if !lost {
            self.declare(instance, instance::state::SUSPECT);
            self.at(self.now + SUSPICION, Event::Looks(instance));
        }
    }

    /// Writes an instance as dead or suspect.
    pub(super) fn declare(&mut self, instance: usize, state: u32) {
        let dead = state == instance::state::DEAD;
        let word = if dead { "dead" } else { "suspect" };
        self.trace(|| format!("*** agent: instance {instance} is {word}"));
        self.middle.instances[instance].state = state;
        self.machines[instance].declared_dead |= dead;
        self.machines[instance].doubted = true;
        self.at(self.now, Event::Prompts(instance, false, PROMPTS));
    }

    /// A flow moved: its new active replica says its last word once more.
    pub(super) fn moved(&mut self, port: u16, entry: &Entry) {
        if self.now >= self.stalled_until {
            self.replay(port, entry, |active, slot| slot == active);
        }
    }

    fn replay(&mut self, port: u16, entry: &Entry, chosen: impl Fn(u8, u8) -> bool) {
        let flow = &entry.flow.flow;
        for slot in (0..flow.replicas).filter(|&slot| chosen(flow.active, slot)) {
            if let Some(frame) = self.middle.last_word(port, slot) {
                let instance = usize::from(flow.instances[usize::from(slot)]);
                let event = Event::AtMiddle(Some(instance), frame);
                self.at(self.now + REACTION, event);
            }
        }
    }

    /// Asks the client of a flow that has no warm replica left.
    pub(super) fn ask_client(&mut self, port: u16, times: u32) {
        if self.now < self.stalled_until {
            self.at(self.stalled_until, Event::Asks(port, times));
            return;
        }
        let entry = self.middle.entries().find(|(of, _)| *of == port);
        let Some((_, entry)) = entry.map(|(port, entry)| (port, *entry)) else {
            return;
        };
        let open = (state::ESTABLISHED..state::CLOSED).contains(&entry.flow.flow.state);
        if !open || !self.is_abandoned(&entry) {
            return;
        }
        self.send_to_client(question_to_client(port, &entry));
        if times > 1 {
            self.at(self.now + PROMPT_INTERVAL, Event::Asks(port, times - 1));
        }
    }

    /// Whether nobody is left to serve a flow's client, as far as the agent knows.
    pub(super) fn is_abandoned(&self, entry: &Entry) -> bool {
        let instances = &self.middle.instances;
        let is_dead = |number: u16| instances[usize::from(number)].state == instance::state::DEAD;
        entry.flow.is_abandoned(is_dead)
    }

    /// Asks, with a segment that every stack answers, the warm mirrors of each flow of an instance that is lost, or
    /// the client of one without; and an instance that is back, whether it still knows its flows.
    pub(super) fn prompt(&mut self, instance: usize, back: bool, times: u32) {
        if times > 1 {
            self.at(
                self.now + PROMPT_INTERVAL,
                Event::Prompts(instance, back, times - 1),
            );
        }
        let suspect = self.middle.instances[instance].state == instance::state::SUSPECT;
        let entries: Vec<_> = self
            .middle
            .entries()
            .map(|(port, entry)| (port, *entry))
            .collect();
        for (port, entry) in entries {
            let flow = &entry.flow.flow;
            let open = (state::ESTABLISHED..state::CLOSED).contains(&flow.state);
            let number = |slot: u8| usize::from(flow.instances[usize::from(slot) & 3]);
            if !open || !back && number(flow.active) != instance {
                continue;
            }
            if !back {
                self.replay(port, &entry, |active, slot| slot != active);
            }
            let mut asked = false;
            for slot in 0..flow.replicas {
                let up = self.middle.instances[number(slot)].state == instance::state::UP;
                let warm = entry.flow.replica(slot).state == slot::WARM;
                if warm && up && (!back || number(slot) == instance) {
                    asked = true;
                    self.send_to_instance(number(slot), question(port, &entry, slot));
                }
            }
            if !asked && !back && !suspect {
                self.send_to_client(question_to_client(port, &entry));
            }
        }
    }
}

/// A keep-alive in the client's name.
fn question(port: u16, entry: &Entry, slot: u8) -> Frame {
    let flow = &entry.flow;
    let replica = flow.replica(slot);
    let own = flow.sync.client_ack.wrapping_add(flow.delta(slot));
    bare(&Bare {
        addresses: [CLIENT, VNI],
        ports: (port, PORT),
        numbers: (
            replica.rcv_nxt.wrapping_sub(1),
            seq::min(own, replica.snd_nxt),
        ),
        window: flow.sync.client_window,
        flags: bit::ACK,
        ..Bare::default()
    })
}

/// A keep-alive in the VNI's name.
fn question_to_client(port: u16, entry: &Entry) -> Frame {
    let sync = &entry.flow.sync;
    bare(&Bare {
        addresses: [VNI, CLIENT],
        ports: (PORT, port),
        numbers: (sync.client_ack.wrapping_sub(1), sync.told_ack),
        flags: bit::ACK,
        ..Bare::default()
    })
}
