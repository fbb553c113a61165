//! Clients at other places than the standard one.

use std::net::IpAddr;

use anyhow::Result;

use super::{ELSEWHERE_LINK, End, Family, HOST_LINK, Topology, link};
use crate::net::{MacAddr, configure, sysctl};
use crate::netns::Namespace;

const ELSEWHERE_MAC: MacAddr = MacAddr::local(0, 4);
const ELSEWHERE_LINK_MAC: MacAddr = MacAddr::local(0, 3);
/// The standard client's interface where clients beyond it are.
const BEYOND_LINK: &str = "e1";
const BEYOND_MAC: MacAddr = MacAddr::local(0, 6);
const BEYOND_LINK_MAC: MacAddr = MacAddr::local(0, 5);

impl Topology {
    /// A host for clients at another place: 10.78.0.2 and fd78::2, behind the VNI host's [`ELSEWHERE_LINK`].
    pub fn connect_elsewhere(&self) -> Result<Namespace> {
        let client = Namespace::create(&self.run.namespace("elsewhere"))?;
        let near = End {
            namespace: &self.host,
            name: ELSEWHERE_LINK,
            mac: ELSEWHERE_LINK_MAC,
        };
        let far = End {
            namespace: &client,
            name: HOST_LINK,
            mac: ELSEWHERE_MAC,
        };
        link(near, far, |family| {
            (family.elsewhere_net(1), family.elsewhere_net(2))
        })?;
        self.route_to_vni(&client, |family| family.elsewhere_net(1))?;
        self.route_back(|family| family.elsewhere_net(0))?;
        Ok(client)
    }

    /// A host for clients behind the standard one, which is their router: 10.79.0.2 and fd79::2. The router's link to it takes
    /// `mtu`, which it does not know itself.
    pub fn connect_beyond(&self, mtu: u32) -> Result<Namespace> {
        let client = Namespace::create(&self.run.namespace("beyond"))?;
        let near = End {
            namespace: &self.client,
            name: BEYOND_LINK,
            mac: BEYOND_LINK_MAC,
        };
        let far = End {
            namespace: &client,
            name: HOST_LINK,
            mac: BEYOND_MAC,
        };
        link(near, far, |family| {
            (family.beyond_net(1), family.beyond_net(2))
        })?;
        configure(&self.client, async |net| net.mtu(BEYOND_LINK, mtu).await)?;
        sysctl::set(
            &self.client,
            &[
                ("net.ipv4.ip_forward", "1"),
                ("net.ipv6.conf.all.forwarding", "1"),
            ],
        )?;
        self.route_to_vni(&client, |family| family.beyond_net(1))?;
        self.route_back(|family| family.beyond_net(0))?;
        Ok(client)
    }

    /// Has clients of another network find the VNI.
    fn route_to_vni(
        &self,
        client: &Namespace,
        gateway: impl Fn(Family) -> IpAddr + Sync,
    ) -> Result<()> {
        configure(client, async |net| {
            for family in Family::ALL {
                let vni = (family.vni(), family.host_prefix());
                net.route(vni, Some(gateway(family)), HOST_LINK).await?;
            }
            Ok(())
        })
    }

    /// Has instances answer another network.
    fn route_back(&self, network: impl Fn(Family) -> IpAddr + Sync) -> Result<()> {
        for instance in &self.instances {
            configure(&instance.namespace, async |net| {
                for family in Family::ALL {
                    let clients = (network(family), family.link_prefix());
                    let gateway = Some(instance.gateway(family));
                    net.route(clients, gateway, HOST_LINK).await?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}
