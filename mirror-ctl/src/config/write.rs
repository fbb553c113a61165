//! A configuration as a file again, with every default written out.

use serde::Serialize;

use super::{Agent, Config, Detect, Health, Instance, Interface, Steering, Vni, Zone};

/// The tables by the names that a file has for them.
#[derive(Serialize)]
struct File<'a> {
    agent: &'a Agent,
    detect: &'a Detect,
    health: &'a Health,
    steering: &'a Steering,
    interface: &'a [Interface],
    zone: &'a [Zone],
    instance: &'a [Instance],
    vni: &'a [Vni],
}

impl Config {
    /// The text of a file that means this.
    pub fn to_toml(&self) -> String {
        let file = File {
            agent: &self.agent,
            detect: &self.detect,
            health: &self.health,
            steering: &self.steering,
            interface: &self.interfaces,
            zone: &self.zones,
            instance: &self.instances,
            vni: &self.vnis,
        };
        // Nothing in it is of a kind that TOML does not have; an empty text would be refused by whoever reads it.
        toml::to_string(&file).unwrap_or_default()
    }
}
