//! Which flow is traced.

use std::net::SocketAddr;

use mirror_common::{
    flow::FlowKey,
    limits::TRACE_FRAME_MAX,
    trace::{Filter, KEY_WORDS, program},
};

use crate::{connections::Names, dataplane::address_to};

/// A flow by its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The client's end; of ICMP echo the identifier instead of the port.
    pub client: SocketAddr,
    /// The VNI's end; any.
    pub vni: Option<SocketAddr>,
}

impl Target {
    /// In the dataplane's numbers. Why not: the VNI's end is nobody's.
    pub fn filter(&self, names: &Names, until_ns: u64, frame_bytes: u32) -> Result<Filter, String> {
        let mut key = Key::default();
        let mut mask = Key::default();
        key.client(self.client);
        mask.client_mask();
        if let Some(vni) = self.vni {
            let place = names
                .addresses
                .iter()
                .find(|(_, address)| **address == vni.ip());
            let (&(number, address), _) =
                place.ok_or_else(|| format!("{} is no VNI's address", vni.ip()))?;
            key.vni(number, address, vni.port());
            mask.vni(u16::MAX, u8::MAX, u16::MAX);
        }
        Ok(Filter {
            until_ns,
            mask: mask.words(),
            key: key.words(),
            frame_bytes: frame_bytes.clamp(1, TRACE_FRAME_MAX),
            programs: 1 << program::VNI_INGRESS
                | 1 << program::CLONE
                | 1 << program::INSTANCE_RETURN,
        })
    }
}

/// What the replicas of all flows of a VNI say, in the dataplane's numbers; the clients' ports say which one in so many (a power of two) is looked at.
pub fn answers_of(number: u16, one_in: u16, frame_bytes: u32) -> Filter {
    let mut key = Key::default();
    let mut mask = Key::default();
    key.vni(number, 0, 0);
    mask.vni(u16::MAX, 0, 0);
    mask.put(
        std::mem::offset_of!(FlowKey, client_port),
        &one_in.saturating_sub(1).to_ne_bytes(),
    );
    Filter {
        until_ns: 0,
        mask: mask.words(),
        key: key.words(),
        frame_bytes: frame_bytes.clamp(1, TRACE_FRAME_MAX),
        programs: 1 << program::INSTANCE_RETURN,
    }
}

/// A flow's key byte by byte, as it lies in memory.
#[derive(Default)]
struct Key([u8; size_of::<FlowKey>()]);

impl Key {
    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn client(&mut self, client: SocketAddr) {
        for (word, at) in address_to(client.ip()).iter().zip((0..16).step_by(4)) {
            self.put(at, &word.to_ne_bytes());
        }
        self.put(
            std::mem::offset_of!(FlowKey, client_port),
            &client.port().to_ne_bytes(),
        );
    }

    fn client_mask(&mut self) {
        self.put(0, &[u8::MAX; 16]);
        self.put(std::mem::offset_of!(FlowKey, client_port), &[u8::MAX; 2]);
    }

    fn vni(&mut self, number: u16, address: u8, port: u16) {
        self.put(std::mem::offset_of!(FlowKey, vni), &number.to_ne_bytes());
        self.put(std::mem::offset_of!(FlowKey, address), &[address]);
        self.put(std::mem::offset_of!(FlowKey, vni_port), &port.to_ne_bytes());
    }

    fn words(&self) -> [u32; KEY_WORDS] {
        let mut words = [0; KEY_WORDS];
        for (word, bytes) in words.iter_mut().zip(self.0.as_chunks::<4>().0) {
            *word = u32::from_ne_bytes(*bytes);
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use mirror_common::flow::protocol;

    use super::*;

    fn names() -> Names {
        Names {
            addresses: [((3, 1), "10.77.0.100".parse().unwrap())].into(),
            ..Names::default()
        }
    }

    /// The words of a flow's key, as the programs read them.
    fn words(client: &str, vni_port: u16) -> [u32; KEY_WORDS] {
        let client: SocketAddr = client.parse().unwrap();
        let mut key = Key::default();
        key.client(client);
        key.vni(3, 1, vni_port);
        key.put(std::mem::offset_of!(FlowKey, protocol), &[protocol::TCP]);
        key.words()
    }

    #[track_caller]
    fn check(client: &str, vni: Option<&str>, wanted: &[(&str, u16, bool)]) {
        let target = Target {
            client: client.parse().unwrap(),
            vni: vni.map(|vni| vni.parse().unwrap()),
        };
        let filter = target.filter(&names(), 7, 1 << 20).unwrap();
        assert_eq!((filter.until_ns, filter.frame_bytes), (7, TRACE_FRAME_MAX));
        for (client, port, expected) in wanted {
            assert_eq!(
                filter.wants(&words(client, *port)),
                *expected,
                "{client} {port}"
            );
        }
    }

    #[test]
    fn a_part_of_a_vnis_flows_is_found() {
        let all = answers_of(3, 1, 128);
        assert!(all.wants(&words("10.0.0.9:4001", 80)) && all.wants(&words("[fd77::1]:2", 443)));
        assert!(!answers_of(4, 1, 128).wants(&words("10.0.0.9:4001", 80)));
        let some = answers_of(3, 4, 128);
        assert!(
            some.wants(&words("10.0.0.9:4004", 80)) && !some.wants(&words("10.0.0.9:4001", 80))
        );
    }

    #[test]
    fn a_flow_is_found_by_its_ends() {
        let any = [
            ("10.0.0.9:4000", 80, true),
            ("10.0.0.9:4000", 81, true),
            ("10.0.0.9:4001", 80, false),
            ("10.0.0.8:4000", 80, false),
        ];
        check("10.0.0.9:4000", None, &any);
        let one = [("10.0.0.9:4000", 80, true), ("10.0.0.9:4000", 81, false)];
        check("10.0.0.9:4000", Some("10.77.0.100:80"), &one);
        check(
            "[fd77::9]:4000",
            None,
            &[("[fd77::9]:4000", 80, true), ("[fd77::8]:4000", 80, false)],
        );
        let target = Target {
            client: "10.0.0.9:4000".parse().unwrap(),
            vni: Some("10.77.0.101:80".parse().unwrap()),
        };
        let refused = target.filter(&names(), 7, 128).unwrap_err();
        assert_eq!(refused, "10.77.0.101 is no VNI's address");
    }
}
