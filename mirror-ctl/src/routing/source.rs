//! Which zone a client's address is in: the longest prefix that holds it, as the dataplane finds it.
//!
//! IPv4 is mapped into `::ffff:0:0/96`, so that there is one trie. An IPv6 prefix that is short enough to hold the
//! mapped addresses must not catch IPv4 clients; an entry of its own says that those are in no zone.

use core::net::{IpAddr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};
use prefix_trie::PrefixMap;

use crate::config::{Zone, mapped};

/// The prefixes of all zones.
#[derive(Clone, Debug, Default)]
pub struct Sources(PrefixMap<Ipv6Net, Option<usize>>);

impl Sources {
    /// Those of `zones`, which are numbered by their place.
    #[must_use]
    pub fn of(zones: &[Zone]) -> Self {
        let mut map: PrefixMap<Ipv6Net, Option<usize>> = PrefixMap::new();
        for (place, zone) in zones.iter().enumerate() {
            for prefix in &zone.prefixes {
                map.insert(mapped_prefix(*prefix), Some(place));
            }
        }
        let catches = |prefix: Ipv6Net| prefix.contains(&mapped()) && prefix != mapped();
        if map.keys().any(catches) && !map.contains_key(&mapped()) {
            map.insert(mapped(), None);
        }
        Self(map)
    }

    /// The zone of an address, and the prefix that says so.
    #[must_use]
    pub fn zone_of(&self, address: IpAddr) -> Option<(usize, IpNet)> {
        let (prefix, zone) = self.0.get_lpm(&Ipv6Net::from(mapped_address(address)))?;
        Some(((*zone)?, plain_prefix(prefix)))
    }

    /// Every prefix with its zone, or none where it only keeps IPv4 out of an IPv6 one.
    pub fn entries(&self) -> impl Iterator<Item = (Ipv6Net, Option<usize>)> {
        self.0.iter().map(|(prefix, zone)| (prefix, *zone))
    }
}

/// An address as the dataplane has it.
fn mapped_address(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

/// A prefix as the dataplane has it.
fn mapped_prefix(prefix: IpNet) -> Ipv6Net {
    match prefix {
        IpNet::V4(v4) => {
            let address = v4.network().to_ipv6_mapped();
            Ipv6Net::new_assert(address, mapped().prefix_len() + v4.prefix_len())
        }
        IpNet::V6(v6) => v6,
    }
}

/// The other way round.
fn plain_prefix(prefix: Ipv6Net) -> IpNet {
    let length = prefix.prefix_len().checked_sub(mapped().prefix_len());
    match (prefix.network().to_ipv4_mapped(), length) {
        (Some(v4), Some(length)) => ipnet::Ipv4Net::new_assert(v4, length).into(),
        _ => prefix.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zones(of: &[(&str, &[&str])]) -> Vec<Zone> {
        of.iter()
            .map(|(name, prefixes)| Zone {
                name: (*name).to_owned(),
                prefixes: prefixes.iter().map(|text| text.parse().unwrap()).collect(),
                costs: Default::default(),
            })
            .collect()
    }

    #[track_caller]
    fn check(of: &[(&str, &[&str])], expected: &[(&str, Option<(usize, &str)>)]) {
        let sources = Sources::of(&zones(of));
        for (address, expected) in expected {
            let found = sources.zone_of(address.parse().unwrap());
            let expected = expected.map(|(zone, prefix)| (zone, prefix.parse().unwrap()));
            assert_eq!(found, expected, "{address}");
        }
    }

    #[test]
    fn the_longest_prefix_counts() {
        check(
            &[
                ("east", &["10.0.0.0/8", "2001:db8::/32"]),
                ("west", &["10.1.0.0/16", "2001:db8:1::/48", "192.0.2.7/32"]),
            ],
            &[
                ("10.2.0.1", Some((0, "10.0.0.0/8"))),
                ("10.1.255.255", Some((1, "10.1.0.0/16"))),
                ("11.0.0.0", None),
                ("2001:db8:2::1", Some((0, "2001:db8::/32"))),
                ("2001:db8:1::1", Some((1, "2001:db8:1::/48"))),
                ("2001:db9::1", None),
                ("192.0.2.7", Some((1, "192.0.2.7/32"))),
                ("192.0.2.6", None),
            ],
        );
    }

    #[test]
    fn one_family_does_not_catch_the_other() {
        check(
            &[("six", &["::/0"])],
            &[("10.0.0.1", None), ("fd00::1", Some((0, "::/0")))],
        );
        check(
            &[("six", &["::/0"]), ("four", &["0.0.0.0/0"])],
            &[
                ("10.0.0.1", Some((1, "0.0.0.0/0"))),
                ("fd00::1", Some((0, "::/0"))),
            ],
        );
    }
}
