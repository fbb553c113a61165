//! What the agent needs of the kernel's messages.

use std::net::IpAddr;

use netlink_packet_route::{
    address::{AddressAttribute, AddressMessage},
    link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, LinkXdp, XdpAttached},
    neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState},
};

use super::mac;
use crate::{config::Mac, dataplane::XdpMode};

/// A link.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// Its number.
    pub ifindex: u32,
    /// Its name.
    pub name: String,
    /// Its hardware address.
    pub mac: Option<Mac>,
    /// Set up, and its other end too.
    pub up: bool,
    /// Its largest packet.
    pub mtu: u32,
    /// The other end of a veth, when it is in this network namespace.
    pub peer: Option<u32>,
    /// Mode and id of the XDP program on it.
    pub xdp: Option<(XdpMode, u32)>,
}

impl Link {
    pub(super) fn of(message: &LinkMessage) -> Option<Self> {
        let flags = message.header.flags;
        let mut link = Self {
            ifindex: message.header.index,
            name: String::new(),
            mac: None,
            up: flags.contains(LinkFlags::Up) && flags.contains(LinkFlags::LowerUp),
            mtu: 0,
            peer: None,
            xdp: None,
        };
        let mut is_here = true;
        let mut is_veth = false;
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name.clone(),
                LinkAttribute::Address(bytes) => link.mac = mac(bytes),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Link(peer) => link.peer = Some(*peer),
                LinkAttribute::LinkNetNsId(_) => is_here = false,
                LinkAttribute::LinkInfo(infos) => {
                    is_veth = infos.contains(&LinkInfo::Kind(InfoKind::Veth));
                }
                LinkAttribute::Xdp(attributes) => link.xdp = xdp(attributes),
                _ => {}
            }
        }
        link.peer = link.peer.filter(|peer| *peer != 0 && is_here && is_veth);
        (!link.name.is_empty()).then_some(link)
    }
}

fn xdp(attributes: &[LinkXdp]) -> Option<(XdpMode, u32)> {
    let mut mode = None;
    let mut program = None;
    for attribute in attributes {
        match attribute {
            LinkXdp::Attached(XdpAttached::Driver | XdpAttached::Hardware) => {
                mode = Some(XdpMode::Native);
            }
            LinkXdp::Attached(XdpAttached::SocketBuffer) => mode = Some(XdpMode::Generic),
            LinkXdp::ProgId(id) => program = Some(*id),
            _ => {}
        }
    }
    Some((mode?, program?))
}

/// A neighbour on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// On which link.
    pub ifindex: u32,
    /// Its address.
    pub address: IpAddr,
    /// Its hardware address, while that is believed to be true.
    pub mac: Option<Mac>,
}

impl Neighbour {
    pub(super) fn of(message: &NeighbourMessage) -> Option<Self> {
        let mut address = None;
        let mut found = None;
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                    address = Some(IpAddr::from(*v4));
                }
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                    address = Some(IpAddr::from(*v6));
                }
                NeighbourAttribute::LinkLayerAddress(bytes) => found = mac(bytes),
                _ => {}
            }
        }
        let known = !matches!(
            message.header.state,
            NeighbourState::Incomplete | NeighbourState::Failed | NeighbourState::None
        );
        Some(Self {
            ifindex: message.header.ifindex,
            address: address?,
            mac: found.filter(|_| known),
        })
    }
}

/// An address on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// On which link.
    pub ifindex: u32,
    /// The address.
    pub address: IpAddr,
}

impl Address {
    pub(super) fn of(message: &AddressMessage) -> Option<Self> {
        let mut local = None;
        let mut peer = None;
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(address) => local = Some(*address),
                AddressAttribute::Address(address) => peer = Some(*address),
                _ => {}
            }
        }
        Some(Self {
            ifindex: message.header.index,
            // IPv6 has no local attribute unless there is a peer.
            address: local.or(peer)?,
        })
    }
}
