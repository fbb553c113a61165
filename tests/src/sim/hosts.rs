//! The client's host and the machines of the instances: who hears a packet, and what follows from it.

use std::collections::BTreeMap;

use mirror_common::tcp::segment::bit;
use smoltcp::socket::tcp::State;

use super::{
    application::{Application, Direction},
    endpoint::{CLIENT, Endpoint, Time, VNI},
    frame::{Frame, Parsed},
    world::{Ending, Event, World},
};

/// One end of a connection and who uses it.
pub(super) struct End {
    pub(super) endpoint: Endpoint,
    pub(super) app: Application,
    pub(super) wake_at: Option<Time>,
}

/// The machine of an instance.
pub(super) struct Machine {
    pub(super) powered: bool,
    pub(super) frozen: bool,
    pub(super) cut: bool,
    /// The server process lives.
    pub(super) serving: bool,
    /// What arrived while it stood still.
    pub(super) held: Vec<Frame>,
    /// By the client's port.
    pub(super) ends: BTreeMap<u16, End>,
    /// It was killed, crashed, cut off or frozen at some time.
    pub(super) struck: bool,
    /// It was killed at some time.
    pub(super) killed: bool,
    /// How often it lost power.
    pub(super) crashes: u32,
    /// The agent took it for dead at some time.
    pub(super) declared_dead: bool,
    /// Or suspected it.
    pub(super) doubted: bool,
}

impl Machine {
    /// Whether it hears and answers.
    pub(super) fn is_fine(&self) -> bool {
        self.powered && !self.frozen && !self.cut
    }
}

impl World {
    pub(super) fn start(&mut self, number: usize) -> Result<(), String> {
        let plan = &self.scenario.flows[number];
        let mut endpoint =
            Endpoint::new(CLIENT, number, &self.scenario.client, plan.isns.0, self.now);
        endpoint.connect(plan.port);
        let app = Application::new(
            number,
            Direction::Up,
            &plan.client,
            plan.server.total(),
            self.scenario.client.service,
        );
        self.clients[number] = Some(End {
            endpoint,
            app,
            wake_at: None,
        });
        self.endings[number] = Ending::Open;
        self.client_works(number)
    }

    pub(super) fn client_hears(&mut self, frame: Frame) -> Result<(), String> {
        let Some(parsed) = frame.parse() else {
            return Ok(());
        };
        let port = parsed.ports.1;
        // The newest connection of the port.
        let number = (0..self.clients.len()).rfind(|&number| {
            self.clients[number].is_some() && self.scenario.flows[number].port == port
        });
        let Some(number) = number else {
            return Ok(());
        };
        let now = self.now;
        let Some(end) = &mut self.clients[number] else {
            return Ok(());
        };
        let fed = end.endpoint.feed(now, frame, &parsed);
        fed.map_err(|why| format!("client, flow {number}: {why}"))?;
        self.client_works(number)
    }

    pub(super) fn instance_hears(&mut self, instance: usize, frame: Frame) -> Result<(), String> {
        /// What a network card keeps of packets that nobody takes.
        const HELD_MAX: usize = 64;
        let machine = &mut self.machines[instance];
        if machine.frozen && machine.powered && !machine.cut {
            if machine.held.len() < HELD_MAX {
                machine.held.push(frame);
            }
            return Ok(());
        }
        if !machine.is_fine() {
            return Ok(());
        }
        let Some(parsed) = frame.parse() else {
            return Ok(());
        };
        let port = parsed.ports.0;
        if frame.is_intact() {
            self.accept(instance, port, &parsed);
        }
        let now = self.now;
        let Some(end) = self.machines[instance].ends.get_mut(&port) else {
            return Ok(());
        };
        let fed = end.endpoint.feed(now, frame, &parsed);
        fed.map_err(|why| format!("instance {instance}, port {port}: {why}"))?;
        self.server_works(instance, port)
    }

    /// Makes room for a connection that begins. As Linux does, a SYN may take the place of one that waits out
    /// its time (net/ipv4/tcp_minisocks.c, tcp_timewait_state_process).
    pub(super) fn accept(&mut self, instance: usize, port: u16, parsed: &Parsed) {
        let segment = &parsed.segment;
        if segment.is(bit::RST) {
            // Nobody answers it.
            return;
        }
        let opens = segment.flags & (bit::SYN | bit::ACK) == bit::SYN;
        let machine = &self.machines[instance];
        let known = machine.ends.get(&port);
        let free = known.is_none_or(|end| {
            // A reset SYN-ACK makes `smoltcp` listen again.
            let idle = [State::Closed, State::Listen, State::TimeWait];
            let over = idle.contains(&end.endpoint.state());
            opens && over && end.endpoint.truth.peer_isn != segment.seq
        });
        let plans = &self.scenario.flows;
        let same = |number: &usize| {
            plans[*number].port == port && (!opens || plans[*number].isns.0 == segment.seq)
        };
        let Some(number) = (0..plans.len()).find(same).filter(|_| free) else {
            return;
        };
        let plan = &plans[number];
        let host = &self.scenario.instances[instance];
        // A machine that begins anew does not choose the same number again.
        let isn = plan.isns.1[instance].wrapping_add(machine.crashes << 24);
        let mut endpoint = Endpoint::new(VNI, number, host, isn, self.now);
        endpoint.anew = machine.crashes > 0;
        let app = Application::new(
            number,
            Direction::Down,
            &plan.server,
            plan.client.total(),
            host.service,
        );
        // Else the closed socket answers with a reset.
        if opens && machine.serving {
            endpoint.listen();
        }
        let end = End {
            endpoint,
            app,
            wake_at: None,
        };
        self.machines[instance].ends.insert(port, end);
    }

    /// The client's application and stack do what they can.
    pub(super) fn client_works(&mut self, number: usize) -> Result<(), String> {
        let now = self.now;
        let Some(end) = &mut self.clients[number] else {
            return Ok(());
        };
        let wake = end
            .work(now)
            .map_err(|why| format!("client, flow {number}: {why}"))?;
        let mut said = Vec::new();
        while let Some((frame, _)) = end.endpoint.take(now) {
            said.push(frame);
        }
        if let Some(at) = wake {
            self.at(at, Event::ClientWakes(number));
        }
        for frame in said {
            let link = self.scenario.client_link;
            self.transmit(link, frame, false, |frame| Event::AtMiddle(None, frame));
        }
        self.judge_client(number)
    }

    /// A server's application and stack do what they can.
    pub(super) fn server_works(&mut self, instance: usize, port: u16) -> Result<(), String> {
        let now = self.now;
        let machine = &mut self.machines[instance];
        let (fine, moves) = (machine.is_fine(), machine.powered && !machine.frozen);
        let Some(end) = machine.ends.get_mut(&port).filter(|_| moves) else {
            return Ok(());
        };
        let wake = end
            .work(now)
            .map_err(|why| format!("instance {instance}, flow {}: {why}", end.endpoint.number))?;
        let mut said = Vec::new();
        while let Some((frame, _)) = end.endpoint.take(now) {
            said.push(frame);
        }
        if let Some(at) = wake {
            self.at(at, Event::ServerWakes(instance, port));
        }
        if fine {
            let link = self.scenario.instance_links[instance];
            for frame in said {
                self.transmit(link, frame, false, |frame| {
                    Event::AtMiddle(Some(instance), frame)
                });
            }
        }
        Ok(())
    }
}

impl End {
    /// Application, then stack. Returns when to come again, if that is not arranged yet.
    fn work(&mut self, now: Time) -> Result<Option<Time>, String> {
        if !self.endpoint.orphan {
            self.app.step(&mut self.endpoint, now)?;
        }
        self.endpoint.poll(now);
        let app = self.app.wake_at().filter(|_| !self.endpoint.orphan);
        let at = self.endpoint.poll_at(now).into_iter().chain(app).min();
        // What is due at once was done: the rest is for the next millisecond.
        let at = at.map(|at| at.max(now + 1_000));
        let changed = at != self.wake_at;
        self.wake_at = at;
        Ok(at.filter(|_| changed))
    }
}
