//! What follows from changes of links, neighbours and addresses.

use super::{Action, State};
use crate::{
    health::Cause,
    netlink::{Change, Link},
};

impl State {
    /// The network changed.
    pub fn network(&mut self, change: &Change, now_ns: u64) -> Vec<Action> {
        match change {
            Change::Link(link) => self.link_changed(link, now_ns),
            Change::LinkGone(ifindex) => self.link_gone(*ifindex, now_ns),
            Change::Neighbour(neighbour) => {
                let place = self.instances.iter().position(|instance| {
                    instance.ifindex == neighbour.ifindex
                        && instance.config.mac.is_none()
                        && instance.config.address == Some(neighbour.address)
                });
                match (place, neighbour.mac) {
                    (Some(place), Some(mac)) => self.change(place, now_ns, Cause::Recovered, |i| {
                        i.mac = Some(mac);
                        if i.failure.is_some_and(|f| f.cause == Cause::Unresolved) {
                            i.last_failure = i.failure.take();
                        }
                    }),
                    // The address that worked so far is the best guess there is.
                    _ => Vec::new(),
                }
            }
            Change::AddressGone(address) => {
                let link = self.links.get(&address.ifindex);
                let announced = link.filter(|link| {
                    let vnis = self.config.vnis.iter().filter(|vni| vni.announce);
                    vnis.clone().any(|vni| {
                        vni.interfaces.contains(&link.name)
                            && vni.addresses.contains(&address.address)
                    })
                });
                announced.map_or_else(Vec::new, |link| vec![Action::Announce(link.name.clone())])
            }
            Change::AddressAdded(_) => Vec::new(),
            Change::Closed(closed) => {
                self.closed.clone_from(closed);
                self.check_ways(now_ns)
            }
            Change::Lost => vec![Action::Resync],
        }
    }

    /// Takes instances out to which nothing can be redirected, and back in.
    pub fn check_ways(&mut self, now_ns: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        for place in 0..self.instances.len() {
            actions.extend(self.reconsider(place, now_ns));
        }
        let closed = self.closed.clone();
        self.closed_told.retain(|ifindex| closed.contains(ifindex));
        for (interface, _) in self.config.ports() {
            let Some(ifindex) = self.link(&interface).map(|link| link.ifindex) else {
                continue;
            };
            if self.is_native && closed.contains(&ifindex) && self.closed_told.insert(ifindex) {
                let mut instances = self.instances.iter();
                let instance = instances.find(|instance| instance.ifindex == ifindex);
                let instance = instance.map(|instance| instance.config.name.clone());
                actions.push(Action::Closed {
                    interface,
                    instance,
                });
            }
        }
        actions
    }

    fn link_changed(&mut self, link: &Link, now_ns: u64) -> Vec<Action> {
        let before = self.links.insert(link.ifindex, link.clone());
        let renamed = before.as_ref().filter(|before| before.name != link.name);
        let mut actions = Vec::new();
        if let Some(before) = renamed {
            actions.extend(self.detach_link(link.ifindex, now_ns));
            actions.push(Action::Rewire(before.name.clone()));
        }
        let place = self
            .instances
            .iter()
            .position(|instance| instance.config.link == link.name);
        if let Some(place) = place {
            actions.extend(self.instance_link(place, link, now_ns));
        }
        let carries = |vni: &&crate::config::Vni| vni.interfaces.contains(&link.name);
        if self.config.vnis.iter().any(|vni| carries(&vni)) {
            let is_new = before.is_none() || renamed.is_some();
            let came_up = link.up && before.is_none_or(|before| !before.up);
            if is_new {
                actions.push(Action::Rewire(link.name.clone()));
            }
            if is_new || came_up {
                // An interface that was down has lost its IPv6 addresses.
                actions.push(Action::Announce(link.name.clone()));
            }
        }
        actions
    }

    /// An instance's link is there: up or down, new or as before.
    fn instance_link(&mut self, place: usize, link: &Link, now_ns: u64) -> Vec<Action> {
        let instance = &self.instances[place];
        let is_new = instance.ifindex != link.ifindex;
        let came_up = link.up && instance.link_up_ns.is_none();
        let unresolved = instance.config.mac.is_none();
        let mut actions = Vec::new();
        if !link.up {
            // First of all: the one write that moves its flows.
            actions.extend(self.link_down(place, now_ns));
        }
        let source = link.mac.unwrap_or_default();
        actions.extend(self.change(place, now_ns, Cause::None, |instance| {
            instance.ifindex = link.ifindex;
            instance.mtu = link.mtu;
            instance.source_mac = source;
            instance.link_up_ns = link.up.then(|| instance.link_up_ns.unwrap_or(now_ns));
        }));
        if is_new {
            actions.push(Action::Rewire(link.name.clone()));
        }
        if (is_new || came_up) && unresolved {
            actions.push(Action::Resolve(place));
        }
        actions
    }

    fn link_down(&mut self, place: usize, now_ns: u64) -> Vec<Action> {
        let instance = &mut self.instances[place];
        instance.link_up_ns = None;
        match &mut instance.failure {
            // Out already; the wait begins again when the link is back.
            Some(failure) if !failure.is_suspicion => {
                failure.since_ns = now_ns;
                Vec::new()
            }
            _ => self.fail(place, Cause::LinkDown, now_ns),
        }
    }

    fn link_gone(&mut self, ifindex: u32, now_ns: u64) -> Vec<Action> {
        let mut actions = self.detach_link(ifindex, now_ns);
        if let Some(link) = self.links.remove(&ifindex) {
            actions.push(Action::Rewire(link.name));
        }
        actions
    }

    /// The instance behind an interface is out of reach.
    fn detach_link(&mut self, ifindex: u32, now_ns: u64) -> Vec<Action> {
        let place = self
            .instances
            .iter()
            .position(|instance| instance.ifindex == ifindex);
        let Some(place) = place else {
            return Vec::new();
        };
        let mut actions = self.link_down(place, now_ns);
        actions.extend(self.change(place, now_ns, Cause::LinkDown, |i| i.ifindex = 0));
        actions
    }
}
