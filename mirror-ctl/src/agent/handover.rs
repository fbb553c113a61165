//! What a version leaves behind when another one with other maps takes its place: a folder with its program and its
//! configuration, by which a keeper looks after its flows and is started again, and with what the next version must know.
//!
//! One version writes it and another one reads it: within the file fields are added, never renamed or removed.

use std::{
    env, fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::Duration,
};

use mirror_common::{
    LAYOUT_VERSION,
    instance::{self, state},
};
use serde::{Deserialize, Serialize};

use super::state::Order;
use crate::{
    clock,
    config::Config,
    dataplane::{Announced, Dataplane, DataplaneError, InstanceRecord, Maps},
    health::Cause,
};

const PROGRAM: &str = "mirror-ctl";
const CONFIG: &str = "config.toml";
const HANDOVER: &str = "handover.json";
const ENDED: &str = "ended.json";
/// The running program, also after its file was replaced.
pub const OWN_PROGRAM: &str = "/proc/self/exe";

/// What the next version is told.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Handover {
    /// The version whose flows are to end.
    pub version: String,
    /// The version of its maps.
    pub layout: u32,
    /// Where it is pinned.
    pub pin_dir: PathBuf,
    /// Its keeper's socket.
    pub socket: PathBuf,
    /// When what is left is cut, `CLOCK_MONOTONIC`.
    pub until_ns: u64,
    /// Addresses that it added to interfaces.
    #[serde(default)]
    pub announced: Vec<Address>,
    /// What it knew of instances.
    #[serde(default)]
    pub instances: Vec<Standing>,
}

/// An address on an interface.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Address {
    address: std::net::IpAddr,
    interface: String,
}

/// An instance as it was. Words, and not the numbers of a version.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    name: String,
    /// Its number, by which replica sets are chosen alike.
    number: u32,
    /// What an operator ordered; empty: nothing.
    order: String,
    /// `up`, `evacuating`, `suspect` or `dead`.
    state: String,
    cause: String,
    changed_ns: u64,
    deadline_ms: u32,
}

/// How draining ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Flows that were left, and are known to nobody now.
    pub cut: u64,
}

const STATES: [(&str, u32); 4] = [
    ("up", state::UP),
    ("evacuating", state::EVACUATING),
    ("suspect", state::SUSPECT),
    ("dead", state::DEAD),
];

impl Standing {
    fn of(name: String, record: &InstanceRecord, entry: &instance::Instance) -> Self {
        let state = STATES.iter().find(|(_, state)| *state == entry.state);
        Self {
            name,
            number: record.number,
            order: Order::from_number(record.order).verb().to_owned(),
            state: state.map_or("", |(name, _)| name).to_owned(),
            cause: Cause::from_number(record.cause).name().to_owned(),
            changed_ns: record.changed_ns,
            deadline_ms: entry.deadline_ms,
        }
    }

    fn record(&self) -> InstanceRecord {
        InstanceRecord {
            number: self.number,
            order: Order::of_verb(&self.order) as u8,
            cause: Cause::of_name(&self.cause) as u8,
            changed_ns: self.changed_ns,
        }
    }

    fn entry(&self) -> instance::Instance {
        let state = STATES.iter().find(|(name, _)| *name == self.state);
        instance::Instance {
            state: state.map_or(state::NONE, |(_, state)| *state),
            deadline_ms: self.deadline_ms,
            ..instance::Instance::default()
        }
    }
}

/// The folder, which goes with an agent's socket: in the service's state directory, because a run-time directory may be one
/// that programs cannot be run from, or else beside the socket.
pub fn folder(socket: &Path) -> PathBuf {
    let state = env::var_os("STATE_DIRECTORY");
    let state = state.and_then(|dirs| env::split_paths(&dirs).next());
    let mut name = socket.file_name().unwrap_or_default().to_owned();
    name.push(".predecessor");
    let beside = || socket.parent().unwrap_or(Path::new("/")).to_owned();
    state.unwrap_or_else(beside).join(name)
}

/// Makes the folder for a configuration that is in force, with what the maps say.
pub fn prepare(config: &Config, maps: &Maps, time: Duration) -> anyhow::Result<()> {
    let handover = Handover {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        layout: LAYOUT_VERSION,
        pin_dir: config.agent.pin_dir.join("draining"),
        socket: keepers_socket(&config.agent.socket),
        until_ns: clock::now_ns() + time.as_nanos() as u64,
        announced: announced(maps)?,
        instances: standings(maps)?,
    };
    let folder = folder(&config.agent.socket);
    remove(&folder)?;
    fs::DirBuilder::new().mode(0o700).create(&folder)?;
    fs::copy(OWN_PROGRAM, folder.join(PROGRAM))?;
    let kept = kept(config, &handover);
    fs::write(folder.join(CONFIG), kept.to_toml())?;
    Ok(fs::write(
        folder.join(HANDOVER),
        serde_json::to_vec_pretty(&handover)?,
    )?)
}

/// Beside the agent's.
fn keepers_socket(socket: &Path) -> PathBuf {
    let mut name = socket.as_os_str().to_owned();
    name.push(".draining");
    name.into()
}

/// The configuration that a keeper runs by: nothing is served to others, recorded or tried out.
fn kept(config: &Config, handover: &Handover) -> Config {
    let mut kept = config.clone();
    kept.agent.pin_dir = handover.pin_dir.clone();
    kept.agent.socket = handover.socket.clone();
    kept.agent.metrics = None;
    kept.agent.page = None;
    kept.agent.listen = None;
    kept.health.record = None;
    kept.health.challenger = None;
    kept
}

fn announced(maps: &Maps) -> Result<Vec<Address>, DataplaneError> {
    let address = |announced: Announced| Address {
        address: announced.address,
        interface: announced.interface,
    };
    let announced = maps.register.announced()?.into_iter();
    Ok(announced.map(address).collect())
}

fn standings(maps: &Maps) -> Result<Vec<Standing>, DataplaneError> {
    let known = maps.register.instances()?.into_iter();
    known
        .map(|(name, record)| {
            let entry = maps.instance(record.number)?;
            Ok(Standing::of(name, &record, &entry))
        })
        .collect()
}

/// What a folder says, if there is one.
pub fn read(folder: &Path) -> io::Result<Handover> {
    let text = fs::read(folder.join(HANDOVER))?;
    Ok(serde_json::from_slice(&text)?)
}

/// The program that is kept in a folder.
pub fn program(folder: &Path) -> PathBuf {
    folder.join(PROGRAM)
}

/// The configuration that is kept in a folder.
pub fn config(folder: &Path) -> PathBuf {
    folder.join(CONFIG)
}

/// Notes how draining ended.
pub fn end(folder: &Path, ended: Ended) -> io::Result<()> {
    fs::write(folder.join(ENDED), serde_json::to_vec(&ended)?)
}

/// How draining ended, if somebody noted it.
pub fn ended(folder: &Path) -> Option<Ended> {
    let text = fs::read(folder.join(ENDED)).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Removes a folder.
pub fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

impl Handover {
    /// Has a new dataplane know what the one before knew: which addresses are the agent's, what operators ordered, who is out.
    pub(super) fn take_up(&self, dataplane: &mut Dataplane) -> Result<(), DataplaneError> {
        for standing in &self.instances {
            let maps = &mut dataplane.maps;
            maps.set_instance(standing.number, standing.entry())?;
            maps.register
                .set_instance(&standing.name, standing.record())?;
        }
        for Address { address, interface } in &self.announced {
            dataplane.maps.register.set_announced(&Announced {
                address: *address,
                interface: interface.clone(),
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(order: Order, cause: Cause, state: u32) -> Standing {
        let record = InstanceRecord {
            number: 7,
            order: order as u8,
            cause: cause as u8,
            changed_ns: 9,
        };
        let entry = instance::Instance {
            state,
            deadline_ms: 11,
            ..instance::Instance::default()
        };
        let standing = Standing::of("a".to_owned(), &record, &entry);
        assert_eq!(standing.record(), record);
        assert_eq!(standing.entry(), entry);
        standing
    }

    #[test]
    fn what_was_ordered_and_found_out_is_handed_over_in_words() {
        for (_, state) in STATES {
            for order in [Order::None, Order::Drain, Order::Evacuate, Order::Takeover] {
                standing(order, Cause::Operator, state);
            }
        }
        let silent = standing(Order::Evacuate, Cause::Silent, state::SUSPECT);
        let words = (silent.order.as_str(), silent.state.as_str());
        assert_eq!(
            (words, silent.cause.as_str()),
            (("evacuate", "suspect"), "silent")
        );
    }

    #[test]
    fn words_of_another_version_are_nothing() {
        let strange = Standing {
            order: "dance".to_owned(),
            state: "asleep".to_owned(),
            cause: "boredom".to_owned(),
            ..Standing::default()
        };
        assert_eq!(strange.entry().state, state::NONE);
        assert_eq!(strange.record().order, Order::None as u8);
        assert_eq!(strange.record().cause, Cause::None as u8);
    }

    #[test]
    fn a_file_of_another_version_is_read() {
        let text = r#"{"version": "9.9", "layout": 77, "pin_dir": "/p/draining", "socket": "/r/s.draining",
            "until_ns": 5, "new": [1], "instances": []}"#;
        let read: Handover = serde_json::from_str(text).unwrap();
        assert_eq!((read.layout, read.until_ns), (77, 5));
    }

    #[test]
    fn a_keeper_serves_and_records_nothing() {
        let mut config = Config::default();
        config.agent.socket = "/run/mirror/agent.sock".into();
        config.agent.metrics = Some(([127, 0, 0, 1], 9477).into());
        config.agent.page = config.agent.metrics;
        config.health.record = Some("/var/lib/mirror/record".into());
        let handover = Handover {
            pin_dir: "/sys/fs/bpf/mirror/draining".into(),
            socket: keepers_socket(&config.agent.socket),
            ..Handover::default()
        };
        let kept = kept(&config, &handover);
        assert_eq!(
            kept.agent.socket,
            Path::new("/run/mirror/agent.sock.draining")
        );
        assert_eq!(kept.agent.pin_dir, handover.pin_dir);
        assert_eq!((kept.agent.metrics, kept.agent.page), (None, None));
        assert_eq!(kept.health.record, None);
    }

    #[test]
    fn how_it_ended_is_in_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(ended(dir.path()), None);
        end(dir.path(), Ended { cut: 3 }).unwrap();
        assert_eq!(ended(dir.path()), Some(Ended { cut: 3 }));
        let folder = dir.path().join("none");
        remove(&folder).unwrap();
        assert!(read(&folder).is_err());
    }
}
