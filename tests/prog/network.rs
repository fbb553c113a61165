//! The network around the programs: a VNI interface and a link for each instance, as veth pairs
//! between two namespaces, so that redirects have somewhere to go.

use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::net::if_::if_nametoindex;
use socket2::{Domain, Protocol, Socket, Type};
use testbed::cleanup::{self, Leftover};
use testbed::net::ethtool::{self, Offload};
use testbed::net::{End, MacAddr, configure, sysctl};
use testbed::netns::Namespace;
use testbed::run::Run;

use crate::hosts::{CLIENT_MAC, HOST_MAC, INSTANCES, instance_mac, link_mac};

const MTU: u32 = 1500;
const ETH_P_ALL: u16 = 0x0003;
const FRAME_MAX: usize = 4096;

/// The VNI interface's name; an instance's link has its number in the place of the 0.
fn link_name(number: u16) -> String {
    format!("l{number}")
}

/// Two namespaces and the pairs between them.
pub(crate) struct Network {
    /// Where the programs run.
    pub(crate) host: Arc<Namespace>,
    /// Packet sockets in the namespace of all other ends, by the numbers of the links. Open for
    /// good, because closing one takes the kernel longer than a test.
    far_ends: Vec<FarEnd>,
    /// Interface numbers: of the VNI interface, then of the instances' links.
    ifindexes: [u32; 1 + INSTANCES.len()],
}

impl Network {
    pub(crate) fn create() -> Result<Self> {
        let run = Run::begin();
        let host = Namespace::create(&run.namespace("host"))?;
        let far = Namespace::create(&run.namespace("far"))?;
        for namespace in [&host, &far] {
            // Without addresses nobody says anything of their own accord.
            sysctl::set(namespace, &[("net.ipv6.conf.default.disable_ipv6", "1")])?;
            // The network is shared by all tests and so has no last owner who would remove it: it
            // goes with the process, as namespaces without a name do.
            cleanup::remove(&Leftover::Namespace(namespace.name().into()));
        }
        for number in 0..=INSTANCES.len() as u16 {
            connect(&host, &far, number)?;
        }
        let index = |number: usize| if_nametoindex(link_name(number as u16).as_str());
        let ifindexes = host.run(|| {
            let mut found = [0; 1 + INSTANCES.len()];
            for (number, ifindex) in found.iter_mut().enumerate() {
                *ifindex = index(number)?;
            }
            nix::Result::Ok(found)
        })??;
        let open = |number: usize| FarEnd::open(&link_name(number as u16));
        let far_ends = far.run(|| (0..ifindexes.len()).map(open).collect::<Result<_>>())??;
        Ok(Self {
            host: Arc::new(host),
            far_ends,
            ifindexes,
        })
    }

    /// The VNI interface.
    pub(crate) fn vni_interface(&self) -> u32 {
        self.ifindexes[0]
    }

    /// An instance's link.
    pub(crate) fn link(&self, instance: u16) -> u32 {
        self.ifindexes[usize::from(instance)]
    }

    /// The far end of an instance's link, or of the VNI interface (0).
    pub(crate) fn far_end(&mut self, number: u16) -> &mut FarEnd {
        &mut self.far_ends[usize::from(number)]
    }
}

fn connect(host: &Namespace, far: &Namespace, number: u16) -> Result<()> {
    let name = link_name(number);
    let (near_mac, far_mac) = match number {
        0 => (HOST_MAC, CLIENT_MAC),
        instance => (link_mac(instance), instance_mac(instance)),
    };
    let end = |namespace, mac| End {
        namespace,
        name: &name,
        mac: MacAddr(mac),
    };
    configure(host, async |net| {
        let (near, far) = (end(host, near_mac), end(far, far_mac));
        net.veth(near, far, MTU).await?;
        net.up(&name).await
    })?;
    configure(far, async |net| net.up(&name).await)?;
    // Without it a veth takes no redirected frames.
    far.run(|| ethtool::set(&name, Offload::GenericReceive, true))?
}

/// A packet socket on the far end of a link.
pub(crate) struct FarEnd(Socket);

impl FarEnd {
    fn open(name: &str) -> Result<Self> {
        let protocol = Protocol::from(i32::from(ETH_P_ALL.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(protocol))
            .context("packet socket on a far end")?;
        bind(&socket, if_nametoindex(name)?)?;
        Ok(Self(socket))
    }

    /// Sends a frame towards the programs.
    pub(crate) fn send(&mut self, frame: &[u8]) -> Result<()> {
        self.0.write_all(frame).context("send from a far end")
    }

    /// Forgets what has come so far.
    pub(crate) fn drain(&mut self) -> Result<()> {
        let mut frame = [0; FRAME_MAX];
        self.0.set_nonblocking(true)?;
        let drained = loop {
            match self.0.read(&mut frame) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break Ok(()),
                Err(error) => break Err(error).context("drain a far end"),
            }
        };
        self.0.set_nonblocking(false)?;
        drained
    }

    /// The next frame that came, or `None` when nothing comes for so long.
    pub(crate) fn receive(&mut self, patience: Duration) -> Result<Option<Vec<u8>>> {
        let deadline = Instant::now() + patience;
        let mut frame = vec![0; FRAME_MAX];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // Zero would mean for ever.
            let left = left.max(Duration::from_micros(1));
            self.0.set_read_timeout(Some(left))?;
            match self.0.read(&mut frame) {
                Ok(length) => {
                    frame.truncate(length);
                    return Ok(Some(frame));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(error).context("receive at a far end"),
            }
        }
    }
}

fn bind(socket: &Socket, ifindex: u32) -> Result<()> {
    use nix::libc::{self, sockaddr_ll, socklen_t};
    use socket2::{SockAddr, SockAddrStorage};
    // SAFETY: the storage has room for every kind of address, `sockaddr_ll` among them, and
    // the length given is its own.
    let (_, address) = unsafe {
        SockAddr::try_init(|storage: *mut SockAddrStorage, length: *mut socklen_t| {
            let address = storage.cast::<sockaddr_ll>();
            (*address).sll_family = libc::AF_PACKET as u16;
            (*address).sll_protocol = ETH_P_ALL.to_be();
            (*address).sll_ifindex = ifindex.cast_signed();
            *length = size_of::<sockaddr_ll>() as socklen_t;
            Ok(())
        })
    }?;
    socket.bind(&address).context("bind to a far end")
}
