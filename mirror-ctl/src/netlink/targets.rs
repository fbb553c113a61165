//! Which interfaces take redirected frames, as the kernel itself sees it: the flag that its devmap
//! code looks at before it sends a frame (`is_valid_dst` and `__xdp_enqueue`, kernel/bpf/devmap.c).
//! A copy for an interface without it vanishes and is counted nowhere.
//!
//! A veth has the flag while GRO or an XDP program is on at its far end (`veth_set_xdp_features`,
//! drivers/net/veth.c), so that this tells of a far end that is in another network namespace.
//!
//! Asked for by generic netlink, family `netdev` (Linux 6.3). A thread of its own asks again at
//! each notification: the answer waits for the kernel's network lock, and the agent must not.

use std::{
    collections::{BTreeMap, BTreeSet},
    io, thread,
};

use rtnetlink::sys::{Socket, protocols::NETLINK_GENERIC};
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::Change;

/// linux/genetlink.h
const CONTROLLER: u16 = 16;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
const MULTICAST_GROUPS: u16 = 7;
const GROUP_NAME: u16 = 1;
const GROUP_ID: u16 = 2;
/// linux/netdev.h
const FAMILY: &[u8] = b"netdev\0";
const GROUP: &[u8] = b"mgmt\0";
const GET_DEVICE: u8 = 1;
const DEVICE_IFINDEX: u16 = 1;
const DEVICE_FEATURES: u16 = 3;
/// `enum netdev_xdp_act`.
const BASIC: u64 = 1;
const REDIRECT: u64 = 2;
const NDO_XMIT: u64 = 4;
/// linux/netlink.h
const REQUEST: u16 = 1;
const DUMP: u16 = 0x300;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const HEADER: usize = 16;
const GENERIC_HEADER: usize = 4;
/// Nested attributes and byte order have bits of their own in an attribute's type.
const TYPE_MASK: u16 = 0x3fff;

/// Bytes of an answer's part; the kernel makes none greater than the reader has room for.
const PART_BYTES: usize = 64 << 10;

/// What a driver's XDP can do on an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XdpFeatures {
    /// The driver runs programs.
    pub native: bool,
    /// Programs on it may redirect.
    pub redirect: bool,
    /// It takes redirected frames. Many network cards do so only while a program is attached.
    pub target: bool,
}

impl XdpFeatures {
    fn of(bits: u64) -> Self {
        Self {
            native: bits & BASIC != 0,
            redirect: bits & REDIRECT != 0,
            target: bits & NDO_XMIT != 0,
        }
    }
}

/// Asks for interfaces that take no redirected frame.
#[derive(Clone, Copy, Debug)]
pub struct Targets {
    family: u16,
    group: u32,
}

impl Targets {
    /// Finds the family; none: this kernel does not tell.
    pub fn open() -> Option<Self> {
        match find_family() {
            Ok(Some(found)) => Some(found),
            Ok(None) => {
                debug!("the kernel does not tell which interfaces take redirected frames");
                None
            }
            Err(error) => {
                warn!("which interfaces take redirected frames is not known: {error}");
                None
            }
        }
    }

    /// The interfaces of this network namespace that take no redirected frame.
    pub fn closed(&self) -> io::Result<BTreeSet<u32>> {
        let features = self.features()?.into_iter();
        let closed = features.filter(|(_, features)| !features.target);
        Ok(closed.map(|(ifindex, _)| ifindex).collect())
    }

    /// What XDP can do on the interfaces of this network namespace, by their numbers.
    pub fn features(&self) -> io::Result<BTreeMap<u32, XdpFeatures>> {
        let mut known = BTreeMap::new();
        ask(self.family, DUMP, GET_DEVICE, &[], |payload| {
            let found = attributes(payload);
            let ifindex = found.get(&DEVICE_IFINDEX).and_then(|value| word(value));
            let features = found.get(&DEVICE_FEATURES).and_then(|value| long(value));
            if let (Some(ifindex), Some(features)) = (ifindex, features) {
                known.insert(ifindex, XdpFeatures::of(features));
            }
        })?;
        Ok(known)
    }

    /// Tells of every change from now on, of the network namespace of the calling thread.
    pub fn follow(self, changes: mpsc::Sender<Change>) -> io::Result<()> {
        let mut notifications = Socket::new(NETLINK_GENERIC)?;
        notifications.bind_auto()?;
        notifications.add_membership(self.group)?;
        let mut told = None;
        let work = move || {
            loop {
                match self.closed() {
                    Ok(closed) if told.as_ref() != Some(&closed) => {
                        told = Some(closed.clone());
                        // Waits when the agent is busy: this thread has nothing else to do.
                        if changes.blocking_send(Change::Closed(closed)).is_err() {
                            return;
                        }
                    }
                    Ok(_) => {}
                    Err(error) => warn!("which interfaces take redirected frames: {error}"),
                }
                let mut part = Vec::with_capacity(PART_BYTES);
                // What it says does not matter, nor how many were lost: everything is asked again.
                if let Err(error) = notifications.recv(&mut part, 0)
                    && error.raw_os_error() != Some(libc::ENOBUFS)
                {
                    return warn!("changes of interfaces are not followed any more: {error}");
                }
            }
        };
        let thread = thread::Builder::new().name("targets".to_owned());
        thread.spawn(work).map(drop)
    }
}

fn find_family() -> io::Result<Option<Targets>> {
    let mut found = None;
    let asked = ask(
        CONTROLLER,
        0,
        GET_FAMILY,
        &attribute(FAMILY_NAME, FAMILY),
        |payload| {
            let family = attributes(payload);
            let groups = family.get(&MULTICAST_GROUPS).map(|groups| group(groups));
            let id = family.get(&FAMILY_ID).and_then(|id| short(id));
            if let (Some(family), Some(Some(group))) = (id, groups) {
                found = Some(Targets { family, group });
            }
        },
    );
    match asked {
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
        Ok(()) => Ok(found),
    }
}

/// The number of the group among a family's groups.
fn group(groups: &[u8]) -> Option<u32> {
    attributes(groups).values().find_map(|group| {
        let group = attributes(group);
        let named = group.get(&GROUP_NAME) == Some(&GROUP);
        word(group.get(&GROUP_ID)?).filter(|_| named)
    })
}

/// Sends one request and takes the payloads of all its answers.
fn ask(
    family: u16,
    flags: u16,
    command: u8,
    attributes: &[u8],
    mut take: impl FnMut(&[u8]),
) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_GENERIC)?;
    socket.bind_auto()?;
    socket.send(&request(family, flags, command, attributes), 0)?;
    loop {
        let mut part = Vec::with_capacity(PART_BYTES);
        socket.recv(&mut part, 0)?;
        for (kind, payload) in messages(&part) {
            match kind {
                DONE => return Ok(()),
                ERROR => {
                    return match word(payload).map_or(-libc::EBADMSG, u32::cast_signed) {
                        0 => Ok(()),
                        code => Err(io::Error::from_raw_os_error(-code)),
                    };
                }
                _ => take(payload.get(GENERIC_HEADER..).unwrap_or_default()),
            }
        }
        if flags & DUMP == 0 {
            return Ok(());
        }
    }
}

fn request(family: u16, flags: u16, command: u8, attributes: &[u8]) -> Vec<u8> {
    let length = (HEADER + GENERIC_HEADER + attributes.len()) as u32;
    let mut message = Vec::new();
    message.extend(length.to_ne_bytes());
    message.extend(family.to_ne_bytes());
    message.extend((REQUEST | flags).to_ne_bytes());
    // Sequence and port: one request on each socket.
    message.extend([0; 8]);
    message.extend([command, 1, 0, 0]);
    message.extend(attributes);
    message
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend((value.len() as u16 + 4).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// The messages in what was received: type and payload.
fn messages(mut bytes: &[u8]) -> Vec<(u16, &[u8])> {
    let mut found = Vec::new();
    while let Some(length) = bytes.get(..4).and_then(word) {
        let length = length as usize;
        let Some(message) = bytes.get(..length).filter(|_| length >= HEADER) else {
            break;
        };
        found.push((short(&message[4..]).unwrap_or(0), &message[HEADER..]));
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

/// The attributes in a payload by type.
fn attributes(mut bytes: &[u8]) -> BTreeMap<u16, &[u8]> {
    let mut found = BTreeMap::new();
    while let (Some(length), Some(kind)) = (short(bytes), bytes.get(2..).and_then(short)) {
        let length = usize::from(length);
        let Some(value) = bytes.get(4..length) else {
            break;
        };
        found.insert(kind & TYPE_MASK, value);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

fn short(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

fn word(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn long(bytes: &[u8]) -> Option<u64> {
    bytes.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let nested = [
            attribute(GROUP_NAME, GROUP),
            attribute(GROUP_ID, &7u32.to_ne_bytes()),
        ];
        let groups = attribute(1, &nested.concat());
        assert_eq!(group(&groups), Some(7));
        assert_eq!(group(&attribute(1, &attribute(GROUP_NAME, GROUP))), None);

        let message = request(21, DUMP, GET_DEVICE, &attribute(FAMILY_NAME, FAMILY));
        let twice = [message.clone(), message.clone()].concat();
        let read = messages(&twice);
        assert_eq!(read.len(), 2);
        assert_eq!(read[1].0, 21);
        assert_eq!(
            attributes(&read[1].1[GENERIC_HEADER..])[&FAMILY_NAME],
            FAMILY
        );
    }

    #[test]
    fn features_are_bits() {
        let features = XdpFeatures::of(3);
        assert!(features.native && features.redirect && !features.target);
        assert!(XdpFeatures::of(4).target);
    }

    #[test]
    fn what_is_cut_off_or_lies_about_its_length_ends_the_reading() {
        let message = request(21, 0, GET_DEVICE, &attribute(FAMILY_NAME, FAMILY));
        for end in 0..message.len() {
            assert!(messages(&message[..end]).is_empty());
        }
        for length in [0u32, 15, 4_000_000_000] {
            let mut lying = message.clone();
            lying[..4].copy_from_slice(&length.to_ne_bytes());
            assert!(messages(&lying).is_empty(), "{length}");
        }
        for length in [0u16, 3, 60_000] {
            let mut lying = attribute(FAMILY_NAME, FAMILY);
            lying[..2].copy_from_slice(&length.to_ne_bytes());
            assert!(attributes(&lying).is_empty(), "{length}");
        }
    }
}
