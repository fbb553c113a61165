//! Programs on the interfaces of a configuration, before it is in force: attached where they can
//! be, or all of them as they were.

use tracing::{error, warn};

use super::{Agent, configure::Occasion};
use crate::{
    config::{Config, Mode, Role},
    dataplane::DataplaneError,
    netlink::Link,
};

/// An interface whose program was attached, or attached otherwise, and what was there before.
pub(super) struct Taken {
    link: Link,
    before: Option<(Role, Mode)>,
}

impl Agent {
    /// Attaches the programs of a configuration. On a failure all is as it was; but what serves
    /// already must not end for an interface that failed before, or that failed while no agent
    /// looked: that one is tried again later.
    ///
    /// Instance links first: an answer must find its way before a question is asked.
    pub(super) fn take_ports(
        &mut self,
        config: &Config,
        links: &[Link],
        occasion: Occasion,
    ) -> Result<Vec<Taken>, DataplaneError> {
        let mut taken = Vec::new();
        // Another version's programs serve until everything else is in place, or for good.
        let presumes = occasion == Occasion::Succession || self.keeps();
        for (name, role) in config.ports() {
            let Some(link) = links.iter().find(|link| link.name == name) else {
                continue;
            };
            let mode = config.mode(&name);
            let before = self.in_force(&name);
            let is_new = before != Some((role, mode));
            if is_new && !presumes {
                let link = link.clone();
                taken.push(Taken { link, before });
            }
            let peer = links.iter().find(|other| Some(other.ifindex) == link.peer);
            // A reply must find its target as soon as a question can be asked.
            let attached = self
                .dataplane
                .set_port(link.ifindex)
                .and_then(|()| match presumes {
                    true => {
                        self.dataplane.presume(link);
                        Ok(())
                    }
                    false => self.attach(link, peer, role, mode),
                });
            let must_not_fail = match occasion {
                Occasion::FirstStart | Occasion::Succession => true,
                Occasion::Adoption => false,
                Occasion::Reload => is_new,
            };
            match attached {
                Ok(()) => {
                    self.broken.remove(&name);
                }
                Err(error) if must_not_fail => {
                    if occasion == Occasion::Reload {
                        self.leave_ports(taken);
                    }
                    return Err(error);
                }
                // Once, not every time it is tried.
                Err(error) => {
                    if self.broken.insert(name) {
                        error!("{error}");
                    }
                }
            }
        }
        if let Err(error) = self.check_copies(config, links) {
            // What serves already must not end; it says so at every start.
            if occasion != Occasion::Adoption {
                self.leave_ports(taken);
                return Err(error);
            }
            error!("{error}");
        }
        Ok(taken)
    }

    /// Puts this version's programs in the place of those of the version before, which are handed what these do not know.
    ///
    /// Instance links first, here above all: an answer to what the old programs have asked finds its flow by the new ones
    /// too, but not the other way round.
    pub(super) fn take_charge(&mut self, links: &[Link]) -> Result<(), DataplaneError> {
        for (name, role) in self.state.config.ports() {
            let Some(link) = links.iter().find(|link| link.name == name) else {
                continue;
            };
            let peer = links.iter().find(|other| Some(other.ifindex) == link.peer);
            let mode = self.state.config.mode(&name);
            if let Err(error) = self.attach(link, peer, role, mode) {
                error!("{error}");
                self.broken.insert(name);
            }
        }
        self.dataplane.succeeded()
    }

    /// Whether every VNI with mirrors has interfaces at which packets can be cloned.
    pub(super) fn check_copies(
        &self,
        config: &Config,
        links: &[Link],
    ) -> Result<(), DataplaneError> {
        let mirrored = config.vnis.iter().filter(|vni| vni.mirrors > 0);
        for vni in mirrored {
            for link in links.iter().filter(|l| vni.interfaces.contains(&l.name)) {
                self.dataplane.check_copies(&vni.name, link)?;
            }
        }
        Ok(())
    }

    /// Undoes [`Self::take_ports`].
    pub(super) fn leave_ports(&mut self, taken: Vec<Taken>) {
        for Taken { link, before } in taken.into_iter().rev() {
            let undone = match before {
                Some((role, mode)) => self.attach(&link, None, role, mode),
                None if self.dataplane.attached().contains(&link.ifindex) => {
                    self.dataplane.detach(link.ifindex)
                }
                None => Ok(()),
            };
            if let Err(error) = undone {
                error!(interface = link.name, "not as it was: {error}");
                self.broken.insert(link.name);
            }
        }
        if let Err(error) = self.remove_targets() {
            warn!("{error}");
        }
    }

    /// Which program the configuration in force wants on an interface, and how.
    fn in_force(&self, name: &str) -> Option<(Role, Mode)> {
        let ports = self.state.config.ports();
        let (_, role) = ports.into_iter().find(|(port, _)| port == name)?;
        Some((role, self.state.config.mode(name)))
    }
}
