//! The network as the kernel tells it: links, neighbours and addresses of this network namespace,
//! asked for once and then followed by multicast.

mod message;
mod outlet;
mod targets;

use std::{collections::BTreeSet, io, net::IpAddr};

use futures_util::{StreamExt, TryStreamExt};
use netlink_packet_core::NetlinkPayload;
use netlink_packet_route::{
    RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressHeaderFlags},
    neighbour::{NeighbourFlags, NeighbourState},
};
use rtnetlink::{Handle, MulticastGroup, new_multicast_connection, sys::AsyncSocket as _};
use tokio::sync::mpsc;

use crate::config::Mac;
pub use message::{Address, Link, Neighbour};
use outlet::Outlet;
pub use targets::{Targets, XdpFeatures};

/// Bytes of the socket's receive buffer: a burst of changes must not push out the one that says
/// that an instance's link is down.
const RECEIVE_BYTES: usize = 4 << 20;

/// Changes that may wait for the agent's loop. What comes then is not kept: it is asked for again.
const CHANGES_QUEUED: usize = 4_096;

/// Something changed.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A link is there, in this state.
    Link(Link),
    /// A link is gone.
    LinkGone(u32),
    /// A neighbour is known by this hardware address, or no longer.
    Neighbour(Neighbour),
    /// An address was added to a link.
    AddressAdded(Address),
    /// An address was taken from a link.
    AddressGone(Address),
    /// These interfaces, and no others, take no redirected frame.
    Closed(BTreeSet<u32>),
    /// Changes were lost: everything is to be asked for again.
    Lost,
}

/// Requests to the kernel.
#[derive(Clone)]
pub struct Netlink {
    handle: Handle,
}

/// A request that the kernel refused.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// No netlink at all.
    #[error("netlink: {0}")]
    Open(#[from] io::Error),
    /// One request.
    #[error("netlink: {operation}: {source}")]
    Request {
        /// What was asked for.
        operation: &'static str,
        /// Why not.
        source: rtnetlink::Error,
    },
}

impl Netlink {
    /// Opens a socket and follows all changes from now on.
    pub fn open() -> Result<(Self, mpsc::Receiver<Change>), NetlinkError> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Neigh,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
        ];
        let (mut connection, handle, mut messages) = new_multicast_connection(&groups)?;
        connection
            .socket_mut()
            .socket_mut()
            .set_rx_buf_sz(RECEIVE_BYTES)?;
        tokio::spawn(connection);
        let (mut outlet, receiver) = Outlet::new(CHANGES_QUEUED);
        tokio::spawn(async move {
            while let Some((message, _)) = messages.next().await {
                let change = match message.payload {
                    NetlinkPayload::InnerMessage(message) => change(message),
                    NetlinkPayload::Overrun(_) => Some(Change::Lost),
                    _ => None,
                };
                if change.is_some_and(|change| outlet.hand_on(change).is_err()) {
                    break;
                }
            }
        });
        Ok((Self { handle }, receiver))
    }

    /// All links.
    pub async fn links(&self) -> Result<Vec<Link>, NetlinkError> {
        let messages: Result<Vec<_>, _> = self.handle.link().get().execute().try_collect().await;
        let messages = messages.map_err(refused("list links"))?;
        Ok(messages.iter().filter_map(Link::of).collect())
    }

    /// All neighbours with a hardware address.
    pub async fn neighbours(&self) -> Result<Vec<Neighbour>, NetlinkError> {
        let stream = self.handle.neighbours().get().execute();
        let messages: Result<Vec<_>, _> = stream.try_collect().await;
        let messages = messages.map_err(refused("list neighbours"))?;
        Ok(messages.iter().filter_map(Neighbour::of).collect())
    }

    /// Makes the kernel find out, or confirm, the hardware address of a neighbour.
    pub async fn resolve(&self, ifindex: u32, address: IpAddr) -> Result<(), NetlinkError> {
        let request = self.handle.neighbours().add(ifindex, address);
        let request = request
            .state(NeighbourState::None)
            .flags(NeighbourFlags::Use)
            .replace();
        request
            .execute()
            .await
            .map_err(refused("resolve a neighbour"))
    }

    /// Adds an address for this host alone (/32, /128). `false`: it was there.
    pub async fn add_address(&self, ifindex: u32, address: IpAddr) -> Result<bool, NetlinkError> {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let mut request = self.handle.address().add(ifindex, address, bits);
        if address.is_ipv6() {
            // The instances have the address too: duplicate detection would refuse it.
            let message = request.message_mut();
            message.header.flags |= AddressHeaderFlags::Nodad;
            let flags = AddressAttribute::Flags(AddressFlags::Nodad);
            message.attributes.push(flags);
        }
        match request.execute().await {
            Ok(()) => Ok(true),
            Err(error) if errno(&error) == Some(libc::EEXIST) => Ok(false),
            Err(error) => Err(refused("add an address")(error)),
        }
    }

    /// Removes an address that [`Self::add_address`] added. It may be gone.
    pub async fn remove_address(&self, ifindex: u32, address: IpAddr) -> Result<(), NetlinkError> {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let mut request = self.handle.address().add(ifindex, address, bits);
        let message = request.message_mut().clone();
        match self.handle.address().del(message).execute().await {
            Ok(()) => Ok(()),
            Err(error) if matches!(errno(&error), Some(libc::EADDRNOTAVAIL | libc::ENODEV)) => {
                Ok(())
            }
            Err(error) => Err(refused("remove an address")(error)),
        }
    }
}

fn refused(operation: &'static str) -> impl Fn(rtnetlink::Error) -> NetlinkError {
    move |source| NetlinkError::Request { operation, source }
}

fn errno(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.code.map(|code| -code.get()),
        _ => None,
    }
}

fn change(message: RouteNetlinkMessage) -> Option<Change> {
    match message {
        RouteNetlinkMessage::NewLink(message) => Link::of(&message).map(Change::Link),
        RouteNetlinkMessage::DelLink(message) => Some(Change::LinkGone(message.header.index)),
        RouteNetlinkMessage::NewNeighbour(message) => {
            Neighbour::of(&message).map(Change::Neighbour)
        }
        RouteNetlinkMessage::DelNeighbour(message) => {
            let neighbour = Neighbour::of(&message)?;
            Some(Change::Neighbour(Neighbour {
                mac: None,
                ..neighbour
            }))
        }
        RouteNetlinkMessage::NewAddress(message) => Address::of(&message).map(Change::AddressAdded),
        RouteNetlinkMessage::DelAddress(message) => Address::of(&message).map(Change::AddressGone),
        _ => None,
    }
}

/// A hardware address of six bytes, if it is one.
fn mac(bytes: &[u8]) -> Option<Mac> {
    bytes.try_into().ok().map(Mac)
}
