//! Programs on interfaces: always by a pinned `bpf_link`, so that they outlive the agent and are
//! replaced atomically.

use std::{io, os::fd::AsFd, os::fd::OwnedFd};

use aya::programs::ProgramFd;
use aya_obj::generated::{XDP_FLAGS_DRV_MODE, XDP_FLAGS_SKB_MODE};
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::{Dataplane, DataplaneError, error::PathContext, host, sys};
use crate::{
    config::{Mode, Role},
    netlink::Link,
};

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum XdpMode {
    /// The driver runs it.
    Native,
    /// The network stack runs it, after the packet became a socket buffer.
    Generic,
}

impl XdpMode {
    /// The mode's name in tables and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    const fn flags(self) -> u32 {
        match self {
            Self::Native => XDP_FLAGS_DRV_MODE,
            Self::Generic => XDP_FLAGS_SKB_MODE,
        }
    }
}

/// An interface that is to carry a program.
#[derive(Clone, Debug)]
pub struct Port<'a> {
    /// Its name, for messages.
    pub name: &'a str,
    /// Its number.
    pub ifindex: u32,
    /// Which program.
    pub role: Role,
    /// How.
    pub mode: Mode,
    /// What netlink says is attached: mode and program id.
    pub present: Option<(XdpMode, u32)>,
}

impl Dataplane {
    /// Attaches the role's program, or replaces the program of the link that is there.
    pub fn attach(&mut self, port: &Port<'_>) -> Result<XdpMode, DataplaneError> {
        let mode = match self.adopt(port)? {
            Some(mode) => mode,
            None => {
                let (link, mode) = self.create_link(port)?;
                let path = self.pins.link(port.ifindex);
                sys::pin(link.as_fd(), &path).path("pin", path)?;
                info!(interface = port.name, mode = mode.name(), "attached");
                mode
            }
        };
        self.modes.insert(port.ifindex, mode);
        Ok(mode)
    }

    /// Leaves what another version has attached as it is, and notes how.
    pub fn presume(&mut self, link: &Link) {
        if let Some((mode, _)) = link.xdp {
            self.modes.insert(link.ifindex, mode);
        }
    }

    /// How an interface's program is attached, if this agent attached or adopted it.
    pub fn mode(&self, ifindex: u32) -> Option<XdpMode> {
        self.modes.get(&ifindex).copied()
    }

    /// Whether what arrives at an interface can be cloned for a VNI.
    pub fn check_copies(&self, vni: &str, link: &Link) -> Result<(), DataplaneError> {
        if self.mode(link.ifindex) != Some(XdpMode::Generic) {
            return Ok(());
        }
        host::check_generic_copies().map_err(|release| DataplaneError::SharedCopies {
            vni: vni.to_owned(),
            interface: link.name.clone(),
            release,
        })
    }

    /// Takes the program off an interface.
    pub fn detach(&mut self, ifindex: u32) -> Result<(), DataplaneError> {
        self.modes.remove(&ifindex);
        let path = self.pins.link(ifindex);
        let link = sys::open_pin(&path).path("open", &path)?;
        std::fs::remove_file(&path).path("remove", &path)?;
        // An interface that is gone has taken the program with it.
        let _ = sys::link_detach(link.as_fd());
        Ok(())
    }

    /// The interfaces on which a link is pinned.
    pub fn attached(&self) -> Vec<u32> {
        self.pins.linked()
    }

    fn program(&self, role: Role) -> &ProgramFd {
        match role {
            Role::VniInterface => &self.programs.vni_ingress,
            Role::InstanceLink => &self.programs.instance_return,
        }
    }

    /// Takes over the pinned link of an interface, if it has a living one in the wanted mode.
    fn adopt(&mut self, port: &Port<'_>) -> Result<Option<XdpMode>, DataplaneError> {
        let path = self.pins.link(port.ifindex);
        let link = match sys::open_pin(&path) {
            Ok(link) => link,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).path("open", path),
        };
        let info = sys::link_info(link.as_fd()).path("inspect", &path)?;
        let mode = port
            .present
            .filter(|(_, program)| *program == info.program)
            .map(|(mode, _)| mode)
            // What netlink said may be older than the link.
            .or(self.mode(port.ifindex));
        let wanted = match (port.mode, mode) {
            (_, None) => false,
            (Mode::Auto, Some(_)) => true,
            (Mode::Native, Some(mode)) => mode == XdpMode::Native,
            (Mode::Generic, Some(mode)) => mode == XdpMode::Generic,
        };
        let living = info.ifindex == port.ifindex;
        if living && wanted {
            let program = self.program(port.role).as_fd();
            sys::link_update(link.as_fd(), program).path("replace the program of", &path)?;
            info!(interface = port.name, "adopted");
            return Ok(mode);
        }
        if living {
            warn!(
                interface = port.name,
                "taken off, to be attached in another mode"
            );
        }
        self.detach(port.ifindex)?;
        Ok(None)
    }

    fn create_link(&self, port: &Port<'_>) -> Result<(OwnedFd, XdpMode), DataplaneError> {
        let program = self.program(port.role).as_fd();
        let modes: &[XdpMode] = match port.mode {
            Mode::Auto => &[XdpMode::Native, XdpMode::Generic],
            Mode::Native => &[XdpMode::Native],
            Mode::Generic => &[XdpMode::Generic],
        };
        let mut failure = None;
        for &mode in modes {
            match sys::xdp_link_create(program, port.ifindex, mode.flags()) {
                Ok(link) => return Ok((link, mode)),
                Err(source) => {
                    if let Some(error) = hopeless(port, &source) {
                        return Err(error);
                    }
                    if modes.len() > 1 && mode == XdpMode::Native {
                        warn!(
                            interface = port.name,
                            "no native XDP ({source}): generic is used"
                        );
                    }
                    failure = Some(DataplaneError::Attach {
                        interface: port.name.to_owned(),
                        mode: mode.name(),
                        source,
                    });
                }
            }
        }
        Err(failure.unwrap_or_else(|| unknown(port)))
    }
}

/// Errors that another mode would not cure.
fn hopeless(port: &Port<'_>, error: &io::Error) -> Option<DataplaneError> {
    match error.raw_os_error()? {
        // EEXIST: a program in the other mode.
        libc::EBUSY | libc::EEXIST => Some(DataplaneError::Occupied {
            interface: port.name.to_owned(),
            program: port.present.map(|(_, program)| program),
        }),
        libc::ENODEV => Some(unknown(port)),
        _ => None,
    }
}

fn unknown(port: &Port<'_>) -> DataplaneError {
    DataplaneError::UnknownInterface {
        name: port.name.to_owned(),
    }
}
