//! QUIC connections by their ids: a client that comes from another address or port finds the instance that knows its
//! connection.
//!
//! Only what every version of QUIC has in clear is read (RFC 8999). An instance says the id that it chose in the source field of
//! its long headers; the client addresses it by that one from then on. A short header does not tell how long its id is, so that the
//! lengths which instances say are remembered.

use crate::{
    assert_size,
    flow::Flow,
    limits::{QUIC_LENGTHS, QUIC_PORTS, REPLICAS},
    pod,
};

/// First byte: a long header (RFC 8999, section 5.1). The next bit is fixed in version 1 only until both ends have
/// agreed that it is not (RFC 9287), so it says nothing.
const LONG: u8 = 0x80;
/// Longest id of versions 1 and 2 (RFC 9000, section 17.2), which is also the shortest that short headers are read for: no packet
/// of theirs is shorter than a byte and this (section 10.3).
pub const ID_BYTES_MAX: u8 = 20;
/// Shorter ids are not learnt: several instances would choose the same.
pub const ID_BYTES_MIN: u8 = 4;
/// Where a long header has the length of its destination's id; the id follows.
const DESTINATION_LENGTH: usize = 5;
const ID_WORDS: usize = ID_BYTES_MAX as usize / 4;

/// Names a connection: the id that an instance chose for it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    /// The id's bytes, and zeros.
    pub bytes: [u32; ID_WORDS],
    /// The VNI's number.
    pub vni: u16,
    /// How many bytes there are.
    pub length: u8,
    /// Zero.
    pub pad: u8,
}
assert_size!(ConnectionId, 24);

impl ConnectionId {
    /// Takes the first `length` bytes.
    #[inline(always)]
    fn set(&mut self, bytes: &[u32; ID_WORDS], length: u8) {
        for (word, (to, from)) in self.bytes.iter_mut().zip(bytes).enumerate() {
            let kept = u32::from(length).saturating_sub(word as u32 * 4).min(4);
            *to = from & (((1_u64 << (8 * kept)) - 1) as u32).to_le();
        }
        self.length = length;
        self.pad = 0;
    }
}

/// Who serves a connection: what its flow said when its instance said the id.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Instance numbers by slot.
    pub instances: [u16; REPLICAS],
    /// Replica set number. The set may be gone, and its number another one's.
    pub set: u16,
    /// Used slots, 1..=4.
    pub replicas: u8,
    /// The slot that said the id.
    pub active: u8,
    /// Zero.
    pub pad: u32,
}
assert_size!(Served, 16);

impl Served {
    /// What a flow says.
    #[inline(always)]
    #[must_use]
    pub const fn of(flow: &Flow) -> Self {
        Self {
            instances: flow.instances,
            set: flow.plain.set,
            replicas: flow.replicas,
            active: flow.active,
            pad: 0,
        }
    }

    /// The instance that said the id.
    #[inline(always)]
    #[must_use]
    pub const fn instance(&self) -> u16 {
        // By a shift: the verifier has no patience with places on the stack that vary.
        let [first, second, third, fourth] = self.instances;
        let all =
            first as u64 | (second as u64) << 16 | (third as u64) << 32 | (fourth as u64) << 48;
        (all >> (16 * (self.active as u32 & (REPLICAS as u32 - 1)))) as u16
    }

    /// The same without mirrors.
    #[inline(always)]
    #[must_use]
    pub const fn alone(mut self) -> Self {
        self.instances[0] = self.instance();
        self.replicas = 1;
        self.active = 0;
        self
    }
}

/// What is known of a VNI's QUIC.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quic {
    /// The VNI's ports on which it is spoken; 0 for none. Written by the agent.
    pub ports: [u16; QUIC_PORTS],
    /// A byte for each length of ids that instances have said, the last one lowest; 0 for none. Written by the dataplane.
    pub lengths: u32,
    /// Zero.
    pub pad: u32,
}
assert_size!(Quic, 16);
const _: () = assert!(QUIC_LENGTHS == size_of::<u32>());

impl Quic {
    /// Whether QUIC is spoken on a port of the VNI.
    #[inline(always)]
    #[must_use]
    pub fn is_on(&self, port: u16) -> bool {
        port != 0 && self.ports.contains(&port)
    }

    /// The lengths with one more. With too many of them the one that came first is forgotten.
    #[inline(always)]
    #[must_use]
    pub fn lengths_with(&self, length: u8) -> u32 {
        let is_known = self.lengths.to_le_bytes().contains(&length);
        if is_known {
            self.lengths
        } else {
            self.lengths << 8 | u32::from(length)
        }
    }
}

pod!(ConnectionId, Served, Quic);

/// What follows a datagram's UDP header. Everything is `None` beyond its end.
pub trait Payload {
    /// A byte.
    fn byte(&self, at: usize) -> Option<u8>;
    /// Four bytes as they lie in memory.
    fn word(&self, at: usize) -> Option<u32>;
    /// As many as the longest id has, as they lie in memory.
    fn id(&self, at: usize) -> Option<[u32; ID_WORDS]>;
}

/// Whether it is a long header.
#[inline(always)]
fn is_long(first: u8) -> bool {
    first & LONG != 0
}

/// Whether ids of this length are learnt.
#[inline(always)]
fn is_learnt(length: u8) -> bool {
    (ID_BYTES_MIN..=ID_BYTES_MAX).contains(&length)
}

/// Reads the id that the sender of a datagram, an instance, chose for itself, if it says one.
///
/// Not in a version negotiation (version 0), whose ids are the client's own choice (RFC 8999, section 6): anybody could have an
/// instance say another connection's.
#[inline(always)]
pub fn said(payload: &impl Payload, id: &mut ConnectionId) -> Option<()> {
    if !is_long(payload.byte(0)?) || payload.word(1)? == 0 {
        return None;
    }
    let destination = payload.byte(DESTINATION_LENGTH)?;
    if destination > ID_BYTES_MAX {
        return None;
    }
    let source = DESTINATION_LENGTH + 1 + usize::from(destination);
    let length = payload.byte(source)?;
    if !is_learnt(length) {
        return None;
    }
    // Whatever the packet is, so many bytes follow an id that is not shorter than `ID_BYTES_MIN`: an integrity tag of 16 at least.
    id.set(&payload.id(source + 1)?, length);
    Some(())
}

/// Finds what `find` knows of the id that a client's datagram is addressed to. `lengths`: see [`Quic::lengths`].
#[inline(always)]
pub fn find<T>(
    payload: &impl Payload,
    lengths: u32,
    id: &mut ConnectionId,
    find: impl Fn(&ConnectionId) -> Option<T>,
) -> Option<T> {
    if is_long(payload.byte(0)?) {
        let length = payload.byte(DESTINATION_LENGTH)?;
        if !is_learnt(length) {
            return None;
        }
        id.set(&payload.id(DESTINATION_LENGTH + 1)?, length);
        return find(id);
    }
    let bytes = payload.id(1)?;
    for place in 0..QUIC_LENGTHS {
        let length = (lengths >> (8 * place)) as u8;
        if !is_learnt(length) {
            break;
        }
        id.set(&bytes, length);
        let found = find(id);
        if found.is_some() {
            return found;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bytes<'a>(&'a [u8]);

    impl Payload for Bytes<'_> {
        fn byte(&self, at: usize) -> Option<u8> {
            self.0.get(at).copied()
        }

        fn word(&self, at: usize) -> Option<u32> {
            let bytes = self.0.get(at..at + 4)?;
            Some(u32::from_ne_bytes(bytes.try_into().unwrap()))
        }

        fn id(&self, at: usize) -> Option<[u32; ID_WORDS]> {
            self.0.get(at..at + usize::from(ID_BYTES_MAX))?;
            Some(core::array::from_fn(|word| {
                self.word(at + word * 4).unwrap()
            }))
        }
    }

    const V1: u32 = 1;
    const V2: u32 = 0x6b33_43cf;

    fn long(version: u32, destination: &[u8], source: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0xe0];
        bytes.extend(version.to_be_bytes());
        for id in [destination, source] {
            bytes.push(id.len() as u8);
            bytes.extend(id);
        }
        bytes.extend([0x11; 20]);
        bytes
    }

    fn short(first: u8, id: &[u8]) -> Vec<u8> {
        [&[first], id, &[0x22; 20]].concat()
    }

    /// Bytes that differ from each other and from zero.
    fn id(length: u8) -> Vec<u8> {
        (1..=length).map(|byte| byte * 11).collect()
    }

    fn key(id: &[u8]) -> ConnectionId {
        let mut bytes = [0; 20];
        bytes[..id.len()].copy_from_slice(id);
        ConnectionId {
            bytes: Bytes(&bytes).id(0).unwrap(),
            vni: 7,
            length: id.len() as u8,
            pad: 0,
        }
    }

    /// A place where another id was.
    fn place() -> ConnectionId {
        ConnectionId {
            bytes: [u32::MAX; ID_WORDS],
            vni: 7,
            length: 20,
            pad: 0xff,
        }
    }

    fn said_by(datagram: &[u8]) -> Option<ConnectionId> {
        let mut id = place();
        said(&Bytes(datagram), &mut id).map(|()| id)
    }

    /// What a client's datagram is looked up by.
    fn asked(datagram: &[u8], lengths: u32) -> Vec<ConnectionId> {
        let asked = core::cell::RefCell::new(Vec::new());
        let mut id = place();
        let found = find(&Bytes(datagram), lengths, &mut id, |id| {
            asked.borrow_mut().push(*id);
            None::<()>
        });
        assert_eq!(found, None);
        asked.into_inner()
    }

    #[test]
    fn an_instance_says_the_id_that_it_chose() {
        for version in [V1, V2, 0xff00_001d, 0x1a2a_3a4a] {
            for destination in 0..=20 {
                for source in 4..=20 {
                    let datagram = long(version, &id(destination), &id(source));
                    assert_eq!(said_by(&datagram), Some(key(&id(source))));
                }
            }
        }
    }

    #[test]
    fn what_is_no_instances_choice_is_not_learnt() {
        let good = long(V1, &id(8), &id(8));
        // The client's word, repeated.
        assert_eq!(said_by(&long(0, &id(8), &id(8))), None);
        for length in [0, 1, 3] {
            assert_eq!(said_by(&long(V1, &id(8), &id(length))), None);
        }
        assert_eq!(said_by(&short(0x40, &id(20))), None);
        for (at, byte) in [(5, 21), (5, 0xff), (14, 21), (14, 0xff)] {
            let mut bad = good.clone();
            bad[at] = byte;
            assert_eq!(said_by(&bad), None, "{byte} at {at}");
        }
        // The whole id, and no more than there is.
        for length in 0..good.len() {
            let known = said_by(&good[..length]);
            assert_eq!(known.is_some(), length >= 15 + 20, "{length}");
        }
        assert_eq!(said_by(&[]), None);
    }

    #[test]
    fn a_long_header_says_whom_it_is_for() {
        for length in 4..=20 {
            let datagram = long(V1, &id(length), &id(3));
            assert_eq!(asked(&datagram, 0), [key(&id(length))]);
        }
        for length in [0, 3, 21, 255] {
            let mut datagram = long(V1, &id(20), &id(20));
            datagram[5] = length;
            assert_eq!(asked(&datagram, 0x14), []);
        }
        assert_eq!(asked(&long(V1, &id(8), &[])[..25], 0x08), []);
    }

    #[test]
    fn a_short_header_is_tried_by_every_length_known() {
        // With the bit that is fixed, and without (RFC 9287).
        for first in [0x40, 0x00, 0x7f] {
            let datagram = short(first, &id(20));
            assert_eq!(asked(&datagram, 0), []);
            assert_eq!(asked(&datagram, 8), [key(&id(8))]);
            let all = [20, 4, 8, 17].map(|length| key(&id(length)));
            assert_eq!(asked(&datagram, 0x1108_0414), all);
        }
        // Shorter than any packet.
        assert_eq!(asked(&[0x40; 20], 8), []);
        assert_eq!(asked(&[0x40; 21], 8), [key(&[0x40; 8])]);
    }

    #[test]
    fn the_first_id_that_is_known_counts() {
        let datagram = short(0x40, &id(20));
        let mut place = place();
        let known = |wanted: u8| move |id: &ConnectionId| (id.length == wanted).then_some(wanted);
        for wanted in [20, 4, 8] {
            let found = find(&Bytes(&datagram), 0x0008_0414, &mut place, known(wanted));
            assert_eq!(found, Some(wanted));
        }
        let found = find(&Bytes(&datagram), 0x0008_0414, &mut place, known(9));
        assert_eq!(found, None);
    }

    #[test]
    fn few_lengths_are_remembered() {
        let mut quic = Quic::default();
        let mut learn = |length| {
            quic.lengths = quic.lengths_with(length);
            quic.lengths
        };
        let learnt = [8, 20, 8, 4, 16, 20, 12, 8].map(&mut learn);
        let expected = [
            0x08,
            0x0814,
            0x0814,
            0x0008_1404,
            0x0814_0410,
            0x0814_0410,
            0x1404_100c,
            0x0410_0c08,
        ];
        assert_eq!(learnt, expected);
    }

    #[test]
    fn ports_are_those_that_are_named() {
        let quic = Quic {
            ports: [443, 8443, 0, 0],
            ..Quic::default()
        };
        assert_eq!(
            [443, 8443, 0, 80].map(|port| quic.is_on(port)),
            [true, true, false, false]
        );
    }

    #[test]
    fn without_mirrors_a_connection_keeps_its_instance() {
        let served = Served {
            instances: [5, 6, 7, 8],
            set: 3,
            replicas: 4,
            active: 2,
            pad: 0,
        };
        let alone = served.alone();
        assert_eq!((served.instance(), alone.instance()), (7, 7));
        assert_eq!((alone.replicas, alone.set), (1, 3));
    }
}
