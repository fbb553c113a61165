//! Interfaces: programs on them, redirect targets to them, VNI addresses of them.

use std::net::IpAddr;

use tracing::{error, info, warn};

use super::{Agent, log::LogEntry};
use crate::{
    clock,
    config::{Mode, Role},
    dataplane::{Announced, DataplaneError, Port, PublishedSet, XdpMode, far_end_complaints},
    netlink::Link,
};

impl Agent {
    /// Puts right what concerns an interface, as far as it is there. What fails is tried again.
    pub(super) fn rewire(&mut self, name: &str) {
        match self.try_rewire(name) {
            Ok(()) => {
                self.broken.remove(name);
            }
            Err(error) => {
                // Once, not every time it is tried.
                if self.broken.insert(name.to_owned()) {
                    error!("{error}");
                }
            }
        }
    }

    /// Targets first, the program last: no packet meets a half-known interface.
    pub(super) fn try_rewire(&mut self, name: &str) -> Result<(), DataplaneError> {
        self.write_targets()?;
        let Some(link) = self.state.link(name).cloned() else {
            // Its link's pin names an interface that is gone.
            return self.detach_others();
        };
        let role = self
            .state
            .config
            .ports()
            .into_iter()
            .find(|(port, _)| port == name);
        if let Some((_, role)) = role {
            let mode = self.state.config.mode(name);
            let peer = self.state.links.get(&link.peer.unwrap_or(0)).cloned();
            if self.keeps() {
                self.dataplane.presume(&link);
                return Ok(());
            }
            self.attach(&link, peer.as_ref(), role, mode)?;
            self.learn_mode();
            self.check_copies(&self.state.config, std::slice::from_ref(&link))?;
        }
        Ok(())
    }

    /// Learns whether drivers redirect what clients send.
    pub(super) fn learn_mode(&mut self) {
        let mut ports = self.state.config.ports().into_iter();
        self.state.is_native = ports.any(|(name, role)| {
            let mode = |link: &Link| self.dataplane.mode(link.ifindex);
            role == Role::VniInterface
                && self.state.link(&name).and_then(mode) == Some(XdpMode::Native)
        });
    }

    /// Attaches the role's program to a link. `peer`: its other end, if that is here.
    pub(super) fn attach(
        &mut self,
        link: &Link,
        peer: Option<&Link>,
        role: Role,
        mode: Mode,
    ) -> Result<(), DataplaneError> {
        let before = self.dataplane.mode(link.ifindex);
        let mode = self.dataplane.attach(&Port {
            name: &link.name,
            ifindex: link.ifindex,
            role,
            mode,
            present: link.xdp,
        })?;
        if before != Some(mode) {
            for complaint in peer
                .into_iter()
                .flat_map(|peer| far_end_complaints(&peer.name))
            {
                warn!(interface = link.name, "{complaint}");
            }
            self.log.add([LogEntry {
                time_ns: clock::now_ns(),
                kind: "interface".to_owned(),
                instance: None,
                from: Some(link.name.clone()),
                to: Some(mode.name().to_owned()),
                cause: Some(role.name().to_owned()),
                ..LogEntry::default()
            }]);
        }
        Ok(())
    }

    /// Writes which interface leads to which instance, and every redirect target.
    fn write_targets(&mut self) -> Result<(), DataplaneError> {
        self.add_targets()?;
        self.remove_targets()
    }

    /// The part of [`Self::write_targets`] that adds.
    pub(super) fn add_targets(&mut self) -> Result<(), DataplaneError> {
        for instance in self.state.instances.iter().filter(|i| i.ifindex != 0) {
            self.dataplane
                .maps
                .set_link(instance.ifindex, instance.number)?;
        }
        for ifindex in self.port_numbers() {
            self.dataplane.set_port(ifindex)?;
        }
        // The kernel empties a devmap's slot when the interface goes away.
        let sets: Vec<PublishedSet> = self
            .book
            .iter()
            .filter_map(|(number, _)| self.published_set(number))
            .collect();
        let changed: Vec<PublishedSet> = sets
            .iter()
            .filter(|set| self.wired.get(&set.number) != Some(&set.ifindexes))
            .copied()
            .collect();
        self.dataplane.publish_sets(&changed)?;
        self.wired = sets.iter().map(|set| (set.number, set.ifindexes)).collect();
        Ok(())
    }

    /// The part of [`Self::write_targets`] that takes away.
    pub(super) fn remove_targets(&mut self) -> Result<(), DataplaneError> {
        let instances = &self.state.instances;
        self.dataplane
            .maps
            .retain_links(|ifindex| instances.iter().any(|i| i.ifindex == ifindex))?;
        let ports = self.port_numbers();
        self.dataplane
            .retain_ports(|ifindex| ports.contains(&ifindex))
    }

    /// The numbers of the configured interfaces that are there.
    fn port_numbers(&self) -> Vec<u32> {
        let ports = self.state.config.ports().into_iter();
        ports
            .filter_map(|(name, _)| Some(self.state.link(&name)?.ifindex))
            .collect()
    }

    /// Takes programs off interfaces that are not configured any more.
    pub(super) fn detach_others(&mut self) -> Result<(), DataplaneError> {
        let ports = self.state.config.ports();
        for ifindex in self.dataplane.attached() {
            let link = self.state.links.get(&ifindex);
            let wanted = link.is_some_and(|link| ports.iter().any(|(name, _)| *name == link.name));
            if !wanted {
                let name = link.map_or("(gone)", |link| link.name.as_str());
                info!(interface = name, ifindex, "taken off");
                self.dataplane.detach(ifindex)?;
            }
        }
        Ok(())
    }

    /// Adds the VNIs' addresses to an interface, so that clients' ARP and ND are answered.
    pub(super) async fn announce(&mut self, interface: &str) {
        if self.keeps() {
            return;
        }
        let Some(ifindex) = self.state.link(interface).map(|link| link.ifindex) else {
            return;
        };
        for address in self.announced_on(interface) {
            match self.netlink.add_address(ifindex, address).await {
                Ok(true) => {
                    info!(interface, %address, "address added");
                    let announced = Announced {
                        address,
                        interface: interface.to_owned(),
                    };
                    if let Err(error) = self.dataplane.maps.register.set_announced(&announced) {
                        warn!("{address} will not be removed by unload: {error}");
                    }
                }
                Ok(false) => {}
                Err(error) => warn!(interface, %address, "not announced: {error}"),
            }
        }
    }

    /// Removes addresses that an agent added and that are not configured any more.
    pub(super) async fn withdraw_others(&mut self) -> Result<(), DataplaneError> {
        if self.keeps() {
            // They are the next version's now.
            return Ok(());
        }
        for announced in self.dataplane.maps.register.announced()? {
            let wanted = self.announced_on(&announced.interface);
            if wanted.contains(&announced.address) {
                continue;
            }
            if let Some(link) = self.state.link(&announced.interface) {
                let removed = self.netlink.remove_address(link.ifindex, announced.address);
                if let Err(error) = removed.await {
                    warn!(address = %announced.address, "not removed: {error}");
                    continue;
                }
                info!(interface = announced.interface, address = %announced.address, "address removed");
            }
            self.dataplane.maps.register.remove_announced(&announced)?;
        }
        Ok(())
    }

    fn announced_on(&self, interface: &str) -> Vec<IpAddr> {
        let vnis = self.state.config.vnis.iter();
        let here = vnis.filter(|vni| vni.announce && vni.interfaces.iter().any(|i| i == interface));
        here.flat_map(|vni| vni.addresses.iter().copied()).collect()
    }
}

/// Says that an interface takes no redirected frame, and what to do.
pub(super) fn closed(interface: &str, instance: Option<&str>) {
    let what = match instance {
        Some(instance) => format!("no packet reaches instance {instance:?}, which is taken out"),
        None => "no reply reaches the clients behind it".to_owned(),
    };
    warn!(
        interface,
        "takes no redirected frame, so that {what}: if it is a veth, turn GRO on at its far end (`ethtool -K \
         DEV gro on` in that network namespace); else its driver cannot be redirected to, and the \
         VNI's interfaces need `mode = \"generic\"`"
    );
}
