//! Who takes part: named instances, VNIs and addresses that all tests share.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mirror_common::flow::{Address, ipv4};
use mirror_common::vni::flag;

/// A hardware address.
pub(crate) type Mac = [u8; 6];

/// Instance numbers, which are also the numbers of their links.
pub(crate) const A: u16 = 1;
pub(crate) const B: u16 = 2;
pub(crate) const C: u16 = 3;
pub(crate) const D: u16 = 4;
pub(crate) const INSTANCES: [u16; 4] = [A, B, C, D];

/// The clients' next hop on the VNI interface's link.
pub(crate) const CLIENT_MAC: Mac = [2, 0, 0, 0, 0, 2];
/// The VNI interface.
pub(crate) const HOST_MAC: Mac = [2, 0, 0, 0, 0, 1];
/// Both addresses of a frame between the ingress program and the clone program.
pub(crate) const CLONE_MARK: Mac = *b"\x02CLONE";

/// An instance's address on its link.
pub(crate) const fn instance_mac(instance: u16) -> Mac {
    [2, 0, 0, 0, instance as u8, 2]
}

/// Our address on an instance's link.
pub(crate) const fn link_mac(instance: u16) -> Mac {
    [2, 0, 0, 0, instance as u8, 1]
}

/// What serves a VNI's new flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Steering {
    /// A replica set.
    Set(&'static [u16]),
    /// A table whose buckets name no set.
    NoSet,
    /// No table.
    NoTable,
}

/// A VNI.
#[derive(Clone, Copy, Debug)]
pub(crate) struct VniHost {
    pub(crate) number: u16,
    pub(crate) flags: u8,
    pub(crate) steering: Steering,
    pub(crate) lag_bytes_max: u32,
    pub(crate) handshake_ms: u32,
}

impl VniHost {
    const fn new(number: u16, flags: u8, steering: Steering) -> Self {
        Self {
            number,
            flags,
            steering,
            lag_bytes_max: 1 << 20,
            // Longer than any test: what is held stays so.
            handshake_ms: 600_000,
        }
    }

    /// Its address of a family.
    pub(crate) fn address(&self, family: Family) -> IpAddr {
        let last = 100 + self.number;
        match family {
            Family::V4 => Ipv4Addr::new(10, 77, 0, last as u8).into(),
            Family::V6 => Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, last).into(),
        }
    }
}

const SAFE: u8 = flag::MIRRORED | flag::HOLD_ACKS | flag::VOTE_ON_CLOSE;
const PAIR: Steering = Steering::Set(&[A, B]);

/// One mirror and the default policies.
pub(crate) const WEB: VniHost = VniHost::new(2, SAFE, PAIR);
/// As many replicas as there can be.
pub(crate) const FOUR: VniHost = VniHost::new(3, SAFE, Steering::Set(&INSTANCES));
/// No mirrors.
pub(crate) const PLAIN: VniHost = VniHost::new(4, 0, Steering::Set(&[A]));
/// Neither holds acknowledgements nor votes on closes.
pub(crate) const TRUSTING: VniHost = VniHost::new(5, flag::MIRRORED, PAIR);
/// Leaves flows alone that lost all replicas.
pub(crate) const LEAVING: VniHost = VniHost::new(6, SAFE | flag::LEAVE_LOST, PAIR);
/// Waits for no mirror.
pub(crate) const IMPATIENT: VniHost = VniHost {
    lag_bytes_max: 1000,
    handshake_ms: 0,
    ..VniHost::new(7, SAFE, PAIR)
};
pub(crate) const TABLELESS: VniHost = VniHost::new(8, SAFE, Steering::NoTable);
pub(crate) const UNPUBLISHED: VniHost = VniHost::new(9, SAFE, Steering::NoSet);

/// Clients at some places have a table of their own, that leads to B.
pub(crate) const ZONED: VniHost = VniHost::new(10, flag::ZONED, Steering::Set(&[A]));

/// Speaks QUIC on [`QUIC_PORT`]. Clients elsewhere ([`Family::elsewhere`]) have a table of their own, that leads to C and D.
pub(crate) const QUIC: VniHost = VniHost::new(11, SAFE | flag::ZONED | flag::QUIC, PAIR);
pub(crate) const QUIC_PORT: u16 = 443;

pub(crate) const VNIS: [VniHost; 10] = [
    WEB,
    FOUR,
    PLAIN,
    TRUSTING,
    LEAVING,
    IMPATIENT,
    TABLELESS,
    UNPUBLISHED,
    ZONED,
    QUIC,
];

/// An address family; its number is the address's place in each VNI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// A client's address.
    pub(crate) fn client(self, number: u8) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(192, 0, 2, number).into(),
            Self::V6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into()).into(),
        }
    }

    /// A client's address at another place.
    pub(crate) fn elsewhere(self, number: u8) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(198, 18, 0, number).into(),
            Self::V6 => Ipv6Addr::new(0x2001, 0xdb8, 18, 0, 0, 0, 0, number.into()).into(),
        }
    }
}

/// An address as the maps have it.
pub(crate) fn map_address(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(address) => ipv4(u32::from_ne_bytes(address.octets())),
        IpAddr::V6(address) => {
            let octets = address.octets();
            std::array::from_fn(|word| {
                let bytes = &octets[word * 4..word * 4 + 4];
                u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
            })
        }
    }
}
