//! Which bucket of a steering table a new flow falls into.

use crate::{
    assert_size,
    flow::{Address, FlowKey},
    pod,
};

/// A client of a VNI, as the table of zones' prefixes is asked for it. Behind the prefix's length it is aligned, and a prefix has the
/// bits of the VNI's number in front.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Source {
    /// The VNI's number.
    pub vni: u32,
    /// The client's address.
    pub client: Address,
}
assert_size!(Source, 20);

impl Source {
    /// Bits of the VNI's number.
    pub const VNI_BITS: u32 = 32;
    /// All bits.
    pub const BITS: u32 = Self::VNI_BITS + 128;
}

pod!(Source);

/// Hash of a flow, the same in both directions and on every host. Every part of it may be used: the
/// high bits choose a bucket, the low ones a lock.
///
/// One multiplication per word of the key, each followed by a fold of the high half onto the low
/// one (a product's low bits depend on the factor's low bits only), and a last round, since the
/// last word has met one product only. The constants are those of MurmurHash3's 64-bit finaliser.
#[inline(always)]
pub fn hash(key: &FlowKey) -> u32 {
    const A: u64 = 0xff51_afd7_ed55_8ccd;
    const B: u64 = 0xc4ce_b9fe_1a85_ec53;
    let low = u64::from(key.client[0]) << 32 | u64::from(key.client[1]);
    let high = u64::from(key.client[2]) << 32 | u64::from(key.client[3]);
    // What differs most between flows lowest.
    let rest = u64::from(key.client_port)
        | u64::from(key.vni_port) << 16
        | u64::from(key.vni) << 32
        | u64::from(key.address) << 48
        | u64::from(key.protocol) << 56;
    let mixed = round(low ^ A, B);
    let mixed = round(mixed ^ high, A);
    let mixed = round(mixed ^ rest, B);
    round(mixed, A) as u32
}

#[inline(always)]
fn round(word: u64, factor: u64) -> u64 {
    let product = word.wrapping_mul(factor);
    product ^ product >> 32
}

/// Bucket of a hash in a table of `buckets` entries, without a division.
#[inline(always)]
pub fn bucket(hash: u32, buckets: u32) -> u32 {
    ((u64::from(hash) * u64::from(buckets)) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(client_port: u16, last: u32) -> FlowKey {
        FlowKey {
            client: crate::flow::ipv4(last.to_be()),
            vni: 1,
            address: 0,
            protocol: 6,
            client_port,
            vni_port: 80,
        }
    }

    /// Counts where flows fall: `flows` of them, `step` apart, in 64 places.
    #[track_caller]
    fn check_spread(step: u32, flow: impl Fn(u32) -> FlowKey, place: impl Fn(u32) -> u32) {
        const PLACES: usize = 64;
        const FLOWS: u32 = 16 * 1024;
        let mut counts = [0u32; PLACES];
        for n in 0..FLOWS {
            counts[place(hash(&flow(n * step))) as usize % PLACES] += 1;
        }
        let mean = FLOWS / PLACES as u32;
        for count in counts {
            // Six standard deviations of a binomial with this mean.
            assert!(count.abs_diff(mean) < 6 * 16, "{counts:?}");
        }
    }

    #[test]
    fn ports_and_addresses_spread_evenly_by_any_bits_of_the_hash() {
        // Linux gives out every other port.
        for step in [1, 2, 256] {
            for shift in [0, 6, 12, 20, 26] {
                let port = |n: u32| key(n as u16, 0x0a00_0001 + (n >> 16));
                check_spread(step, port, |hash| hash >> shift);
                check_spread(step, |n| key(40_000, n), |hash| hash >> shift);
            }
            check_spread(step, |n| key(n as u16, n >> 16), |hash| bucket(hash, 64));
        }
    }
}
