//! The order in which a member of a steering table prefers its buckets, and the hash that it
//! follows from.

/// A member's permutation of the buckets: its `n`th preference is `offset + n * skip`.
pub(super) struct Preference {
    /// The first preference.
    pub(super) offset: u32,
    skip: u32,
    /// How many there are: the modulus, prime.
    pub(super) buckets: u32,
}

impl Preference {
    pub(super) fn of(name: &str, buckets: u32) -> Self {
        let hash = hash(name);
        let offset = (hash % u64::from(buckets)) as u32;
        let skip = (mix(hash) % u64::from(buckets - 1).max(1)) as u32 + 1;
        Self {
            offset,
            skip,
            buckets,
        }
    }

    /// The preference after `bucket`.
    pub(super) fn after(&self, bucket: u32) -> u32 {
        // Cannot overflow: there are fewer than 2^31 buckets.
        let next = bucket + self.skip;
        next.min(next.wrapping_sub(self.buckets))
    }

    /// `1 / skip` modulo the buckets, by Fermat's little theorem: what turns a bucket into its
    /// place in the permutation with one product.
    pub(super) fn inverse(&self) -> u64 {
        let modulus = u64::from(self.buckets);
        let (mut base, mut exponent, mut result) =
            (u64::from(self.skip) % modulus, modulus - 2, 1 % modulus);
        while exponent > 0 {
            if exponent & 1 == 1 {
                result = result * base % modulus;
            }
            base = base * base % modulus;
            exponent >>= 1;
        }
        result
    }
}

/// A 64-bit hash of a name: FNV-1a, finished with the mixer of SplitMix64, since FNV alone
/// hardly mixes the last byte. Part of the table's definition: a change moves buckets everywhere.
#[must_use]
pub fn hash(name: &str) -> u64 {
    mix(name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    }))
}

/// The finishing step of SplitMix64 (Steele, Lea, Flood 2014): every bit of the input moves
/// about half of the output's.
#[must_use]
pub fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

/// Whether the permutations reach every bucket.
pub(super) fn is_prime(number: u32) -> bool {
    number >= 2
        && (2..)
            .take_while(|n| n * n <= number)
            .all(|n| !number.is_multiple_of(n))
}
