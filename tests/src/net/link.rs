//! Links and what hangs on them, by rtnetlink from inside a namespace.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, Result, ensure};
use futures_util::StreamExt;
use nix::net::if_::if_nametoindex;
use rtnetlink::packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressHeaderFlags};
use rtnetlink::packet_route::link::{InfoData, InfoVeth};
use rtnetlink::packet_route::tc::{TcAttribute, TcHandle, TcMessage};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::MacAddr;
use crate::netns::Namespace;

/// The attribute that carries a queueing discipline's own options.
const TCA_OPTIONS: u16 = 2;

/// One end of a veth pair.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// Where it lives.
    pub namespace: &'a Namespace,
    /// Its interface name.
    pub name: &'a str,
    /// Its Ethernet address.
    pub mac: MacAddr,
}

/// Runs a configuration inside a namespace.
pub fn configure<T: Send>(
    namespace: &Namespace,
    work: impl AsyncFnOnce(Net) -> Result<T> + Send,
) -> Result<T> {
    namespace.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection().context("rtnetlink")?;
            tokio::spawn(connection);
            work(Net { handle }).await
        })
    })?
}

/// The network configuration of the namespace that the calling thread is in.
#[derive(Clone, Debug)]
pub struct Net {
    handle: Handle,
}

impl Net {
    /// Makes a veth pair; `near` must be in this namespace, `far` may be in any.
    pub async fn veth(&self, near: End<'_>, far: End<'_>, mtu: u32) -> Result<()> {
        let peer = LinkUnspec::new_with_name(far.name)
            .address(far.mac.0.to_vec())
            .mtu(mtu)
            .setns_by_fd(far.namespace.as_fd().as_raw_fd())
            .build();
        let pair = LinkMessageBuilder::<LinkVeth>::new(near.name, far.name)
            .address(near.mac.0.to_vec())
            .mtu(mtu)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        let what = || {
            format!(
                "veth {}/{} in {}",
                near.name,
                far.name,
                near.namespace.name()
            )
        };
        self.handle
            .link()
            .add(pair)
            .execute()
            .await
            .with_context(what)
    }

    /// Sets an interface up.
    pub async fn up(&self, device: &str) -> Result<()> {
        let message = LinkUnspec::new_with_index(index(device)?).up().build();
        self.handle
            .link()
            .set(message)
            .execute()
            .await
            .with_context(|| format!("{device} up"))
    }

    /// Sets an interface down.
    pub async fn down(&self, device: &str) -> Result<()> {
        let message = LinkUnspec::new_with_index(index(device)?).down().build();
        self.handle
            .link()
            .set(message)
            .execute()
            .await
            .with_context(|| format!("{device} down"))
    }

    /// Sets the largest packet that an interface takes.
    pub async fn mtu(&self, device: &str, mtu: u32) -> Result<()> {
        let message = LinkUnspec::new_with_index(index(device)?).mtu(mtu).build();
        self.handle
            .link()
            .set(message)
            .execute()
            .await
            .with_context(|| format!("{device} mtu {mtu}"))
    }

    /// Removes an interface, and with one end of a veth the other.
    pub async fn delete(&self, device: &str) -> Result<()> {
        let request = self.handle.link().del(index(device)?);
        request
            .execute()
            .await
            .with_context(|| format!("delete {device}"))
    }

    /// Adds an address that is usable at once (no duplicate address detection).
    pub async fn address(&self, device: &str, address: IpAddr, prefix: u8) -> Result<()> {
        let mut request = self.handle.address().add(index(device)?, address, prefix);
        let message = request.message_mut();
        message.header.flags = AddressHeaderFlags::Nodad;
        message
            .attributes
            .push(AddressAttribute::Flags(AddressFlags::Nodad));
        request
            .execute()
            .await
            .with_context(|| format!("address {address}/{prefix} on {device}"))
    }

    /// Adds a route through a device, by a gateway or on the link itself.
    pub async fn route(
        &self,
        destination: (IpAddr, u8),
        gateway: Option<IpAddr>,
        device: &str,
    ) -> Result<()> {
        let (prefix, length) = destination;
        let what = || format!("route {prefix}/{length} by {gateway:?} dev {device}");
        let mut route = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(prefix, length)
            .with_context(what)?
            .output_interface(index(device)?);
        if let Some(gateway) = gateway {
            route = route.gateway(gateway).with_context(what)?.onlink();
        }
        self.handle
            .route()
            .add(route.build())
            .replace()
            .execute()
            .await
            .with_context(what)
    }

    /// Adds a neighbour that is never asked for.
    pub async fn neighbour(&self, device: &str, address: IpAddr, mac: MacAddr) -> Result<()> {
        let request = self.handle.neighbours().add(index(device)?, address);
        let request = request.link_layer_address(&mac.0).replace();
        request
            .execute()
            .await
            .with_context(|| format!("neighbour {address} on {device}"))
    }

    /// Drops every packet that the interface is given to send: the host goes on
    /// receiving and believes that it answers, but nothing leaves it. A queue of
    /// length 0 does that for every protocol and for established connections,
    /// whose cached routes a blackhole route may not reach.
    pub async fn silence(&self, device: &str) -> Result<()> {
        let mut message = TcMessage::with_index(index(device)?.cast_signed());
        message.header.parent = TcHandle::ROOT;
        let limit = 0u32.to_ne_bytes().to_vec();
        message.attributes.push(TcAttribute::Kind("pfifo".into()));
        message
            .attributes
            .push(TcAttribute::Other(DefaultNla::new(TCA_OPTIONS, limit)));
        let flags = NLM_F_CREATE | NLM_F_REPLACE;
        let request = RouteNetlinkMessage::NewQueueDiscipline(message);
        self.request(request, flags)
            .await
            .with_context(|| format!("silence {device}"))
    }

    /// Ends [`Net::silence`].
    pub async fn unsilence(&self, device: &str) -> Result<()> {
        let mut message = TcMessage::with_index(index(device)?.cast_signed());
        message.header.parent = TcHandle::ROOT;
        let request = RouteNetlinkMessage::DelQueueDiscipline(message);
        self.request(request, 0)
            .await
            .with_context(|| format!("unsilence {device}"))
    }

    async fn request(&self, request: RouteNetlinkMessage, flags: u16) -> Result<()> {
        let mut message = NetlinkMessage::from(request);
        message.header.flags = NLM_F_REQUEST | NLM_F_ACK | flags;
        let mut answers = self.handle.clone().request(message)?;
        while let Some(answer) = answers.next().await {
            if let NetlinkPayload::Error(error) = answer.payload {
                ensure!(error.code.is_none(), "{}", error.to_io());
            }
        }
        Ok(())
    }
}

fn index(device: &str) -> Result<u32> {
    if_nametoindex(device).with_context(|| format!("no interface {device}"))
}
