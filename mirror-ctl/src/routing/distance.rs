//! How far away instances are, learned from the handshakes of flows.
//!
//! What is measured is the time from a client's SYN to its instance's SYN-ACK at this host: from here to the instance and
//! back. The way between client and host is not in it, and need not be: every packet of the flow passes this host,
//! whichever instance serves it, so that part is the same for all of them and tells none from another. For the same
//! reason sources do not differ in it on one host, but by chance. It is kept by source all the same, because what is asked for is
//! a distance from a place, and prefixes come and go with the clients; where a place has shown too little, what all
//! places have shown counts.

use std::{collections::HashMap, net::IpAddr, num::NonZeroUsize};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use lru::LruCache;

/// Prefixes that are kept; the least recently seen one goes first.
pub const PREFIXES_MAX: usize = 4_096;
/// So many handshakes make a distance.
pub const SAMPLES_MIN: u64 = 20;
/// Part of a new handshake in the mean.
const ALPHA: f64 = 0.05;
/// How far a distance must be from the one in force to be taken up, ms at least and as a part of it.
const BAND_MS: f64 = 0.25;
const BAND_PART: f64 = 0.2;
/// Lengths of the prefixes by which sources are told apart.
const V4_BITS: u8 = 24;
const V6_BITS: u8 = 56;

/// Handshakes of one prefix's clients with one instance.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Handshakes {
    /// Their sum, ms.
    pub sum_ms: f64,
    /// How many.
    pub count: u64,
}

/// What some walk over the flows has seen, by source and instance.
pub type Seen = HashMap<(IpNet, u16), Handshakes>;

/// The prefix that a source is kept by.
#[must_use]
pub fn prefix_of(source: IpAddr) -> IpNet {
    match source.to_canonical() {
        IpAddr::V4(v4) => Ipv4Net::new_assert(v4, V4_BITS).trunc().into(),
        IpAddr::V6(v6) => Ipv6Net::new_assert(v6, V6_BITS).trunc().into(),
    }
}

/// A moving mean.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Mean {
    ms: f64,
    samples: u64,
}

impl Mean {
    fn take(&mut self, seen: Handshakes) {
        if seen.count == 0 {
            return;
        }
        let mean = seen.sum_ms / seen.count as f64;
        // The first ones as a plain mean, so that the very first does not weigh for long.
        let exponential = 1.0 - (1.0 - ALPHA).powi(seen.count.min(1 << 20) as i32);
        let plain = seen.count as f64 / (self.samples + seen.count) as f64;
        self.ms += (mean - self.ms) * exponential.max(plain);
        self.samples += seen.count;
    }
}

/// What is known.
#[derive(Debug)]
pub struct Distances {
    by_prefix: LruCache<IpNet, HashMap<u16, Mean>>,
    /// Of sources anywhere.
    anywhere: HashMap<u16, Mean>,
    /// In force, by place and instance.
    in_force: HashMap<(Option<usize>, u16), Learned>,
}

/// A distance that was learned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Learned {
    /// How far, ms.
    pub ms: f64,
    /// Of how many handshakes.
    pub samples: u64,
}

impl Default for Distances {
    fn default() -> Self {
        let most = NonZeroUsize::new(PREFIXES_MAX).unwrap_or(NonZeroUsize::MIN);
        Self {
            by_prefix: LruCache::new(most),
            anywhere: HashMap::new(),
            in_force: HashMap::new(),
        }
    }
}

impl Distances {
    /// Takes in what a walk has seen.
    pub fn take(&mut self, seen: &Seen) {
        for ((prefix, instance), handshakes) in seen {
            let means = self.by_prefix.get_or_insert_mut(*prefix, HashMap::new);
            means.entry(*instance).or_default().take(*handshakes);
        }
        // Over all prefixes at once: the order of them must not matter.
        let mut sums: HashMap<u16, Handshakes> = HashMap::new();
        for ((_, instance), handshakes) in seen {
            let sum = sums.entry(*instance).or_default();
            sum.sum_ms += handshakes.sum_ms;
            sum.count += handshakes.count;
        }
        for (instance, handshakes) in sums {
            self.anywhere.entry(instance).or_default().take(handshakes);
        }
    }

    /// Forgets what is not known by `instances` any more, and all that was concluded of places.
    pub fn retain(&mut self, instances: impl Fn(u16) -> bool) {
        for (_, means) in self.by_prefix.iter_mut() {
            means.retain(|instance, _| instances(*instance));
        }
        self.anywhere.retain(|instance, _| instances(*instance));
        // Places have other numbers now, perhaps.
        self.in_force.clear();
    }

    /// Concludes anew how far `instances` are from each place, `place_of` saying where a prefix is. Whether something is to
    /// be done about it: a distance is taken up when it has left the one in force by more than a band.
    pub fn conclude(
        &mut self,
        places: impl Iterator<Item = Option<usize>>,
        instances: &[u16],
        place_of: impl Fn(IpNet) -> Option<usize>,
    ) -> bool {
        let mut by_place: HashMap<(Option<usize>, u16), Handshakes> = HashMap::new();
        for (prefix, means) in self.by_prefix.iter() {
            let place = place_of(*prefix);
            for (instance, mean) in means {
                let sum = by_place.entry((place, *instance)).or_default();
                sum.sum_ms += mean.ms * mean.samples as f64;
                sum.count += mean.samples;
            }
        }
        let mut changed = false;
        for place in places {
            for instance in instances {
                let own = by_place.get(&(place, *instance));
                let own = own.map(|sum| Learned {
                    ms: sum.sum_ms / sum.count.max(1) as f64,
                    samples: sum.count,
                });
                let anywhere = self.anywhere.get(instance).map(|mean| Learned {
                    ms: mean.ms,
                    samples: mean.samples,
                });
                let enough = |learned: &Learned| learned.samples >= SAMPLES_MIN;
                let Some(now) = own.filter(enough).or(anywhere.filter(enough)) else {
                    continue;
                };
                changed |= self.take_up((place, *instance), now);
            }
        }
        changed
    }

    fn take_up(&mut self, key: (Option<usize>, u16), now: Learned) -> bool {
        if let Some(before) = self.in_force.get_mut(&key) {
            before.samples = now.samples;
            let band = BAND_MS.max(before.ms * BAND_PART);
            if (now.ms - before.ms).abs() <= band {
                return false;
            }
        }
        self.in_force.insert(key, now);
        true
    }

    /// How far an instance is from a place; none: not known.
    #[must_use]
    pub fn in_force(&self, place: Option<usize>, instance: u16) -> Option<Learned> {
        self.in_force.get(&(place, instance)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(of: &[(&str, u16, f64, u64)]) -> Seen {
        of.iter()
            .map(|&(source, instance, ms, count)| {
                let handshakes = Handshakes {
                    sum_ms: ms * count as f64,
                    count,
                };
                ((prefix_of(source.parse().unwrap()), instance), handshakes)
            })
            .collect()
    }

    fn anywhere(distances: &mut Distances, instances: &[u16]) -> bool {
        distances.conclude([None].into_iter(), instances, |_| None)
    }

    #[test]
    fn sources_are_kept_by_prefix() {
        for (source, prefix) in [
            ("10.1.2.3", "10.1.2.0/24"),
            ("::ffff:10.1.2.3", "10.1.2.0/24"),
            ("2001:db8:1:2ff::9", "2001:db8:1:200::/56"),
        ] {
            assert_eq!(prefix_of(source.parse().unwrap()), prefix.parse().unwrap());
        }
    }

    #[test]
    fn too_few_handshakes_say_nothing() {
        let mut distances = Distances::default();
        distances.take(&seen(&[("10.0.0.1", 1, 5.0, SAMPLES_MIN - 1)]));
        assert!(!anywhere(&mut distances, &[1]));
        assert_eq!(distances.in_force(None, 1), None);
        distances.take(&seen(&[("10.0.9.1", 1, 5.0, 1)]));
        assert!(anywhere(&mut distances, &[1]));
        let learned = distances.in_force(None, 1).unwrap();
        assert_eq!((learned.ms.round(), learned.samples), (5.0, SAMPLES_MIN));
    }

    #[test]
    fn a_place_has_its_own_and_else_that_of_all() {
        let mut distances = Distances::default();
        distances.take(&seen(&[
            ("10.0.0.1", 1, 2.0, 100),
            ("10.1.0.1", 1, 6.0, 100),
            ("10.1.0.1", 2, 3.0, 50),
        ]));
        let place = |prefix: IpNet| (prefix == "10.0.0.0/24".parse().unwrap()).then_some(0);
        assert!(distances.conclude([None, Some(0)].into_iter(), &[1, 2], place));
        let ms = |place, instance| {
            distances
                .in_force(place, instance)
                .map(|learned| learned.ms)
        };
        assert_eq!((ms(Some(0), 1), ms(None, 1)), (Some(2.0), Some(6.0)));
        assert_eq!((ms(Some(0), 2), ms(None, 2)), (Some(3.0), Some(3.0)));
    }

    #[test]
    fn noise_within_the_band_changes_nothing_and_a_change_is_followed() {
        let mut distances = Distances::default();
        distances.take(&seen(&[("10.0.0.1", 1, 1.0, 100)]));
        assert!(anywhere(&mut distances, &[1]));
        for ms in [1.2, 0.8, 1.1, 0.9].repeat(20) {
            distances.take(&seen(&[("10.0.0.1", 1, ms, 10)]));
            assert!(!anywhere(&mut distances, &[1]), "{ms}");
        }
        let mut changes = 0;
        for _ in 0..20 {
            distances.take(&seen(&[("10.0.0.1", 1, 9.0, 20)]));
            changes += u32::from(anywhere(&mut distances, &[1]));
        }
        let ms = distances.in_force(None, 1).unwrap().ms;
        assert!(
            (7.0..=9.0).contains(&ms) && (1..=5).contains(&changes),
            "{ms} {changes}"
        );
    }

    #[test]
    fn there_is_an_end_to_prefixes_and_the_least_recent_go() {
        let mut distances = Distances::default();
        for n in 0..PREFIXES_MAX as u32 + 10 {
            let source = core::net::Ipv4Addr::from(n << 8);
            distances.take(&seen(&[
                (&source.to_string(), 1, 1.0, 1),
                ("10.0.0.1", 1, 1.0, 1),
            ]));
        }
        assert_eq!(distances.by_prefix.len(), PREFIXES_MAX);
        assert!(
            distances
                .by_prefix
                .contains(&"10.0.0.0/24".parse().unwrap())
        );
        assert!(!distances.by_prefix.contains(&"0.0.1.0/24".parse().unwrap()));
    }

    #[test]
    fn a_number_that_is_anothers_begins_anew() {
        let mut distances = Distances::default();
        distances.take(&seen(&[
            ("10.0.0.1", 1, 9.0, 100),
            ("10.0.0.1", 2, 1.0, 100),
        ]));
        assert!(anywhere(&mut distances, &[1, 2]));
        distances.retain(|instance| instance == 2);
        assert_eq!(distances.in_force(None, 2), None);
        assert!(anywhere(&mut distances, &[1, 2]));
        assert_eq!(distances.in_force(None, 1), None);
        assert!(distances.in_force(None, 2).is_some());
    }
}
