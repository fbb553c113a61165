//! Which bucket of a steering table a new flow falls into.

use crate::flow::FlowKey;

/// Hash of a flow, the same in both directions and on every host.
///
/// Multiply-and-fold over the key's words with the constants of wyhash: about ten instructions,
/// where `bpf_get_hash`-like helpers do not exist for XDP.
#[inline(always)]
pub fn hash(key: &FlowKey) -> u32 {
    let low = u64::from(key.client[0]) << 32 | u64::from(key.client[1]);
    let high = u64::from(key.client[2]) << 32 | u64::from(key.client[3]);
    let rest = u64::from(key.client_port) << 48
        | u64::from(key.vni_port) << 32
        | u64::from(key.vni) << 16
        | u64::from(key.address) << 8
        | u64::from(key.protocol);
    let mixed = fold(low ^ 0xa076_1d64_78bd_642f, high ^ 0xe703_7ed1_a0b4_28db);
    let mixed = fold(mixed ^ rest, 0x8ebc_6af0_9c88_c6e3);
    (mixed ^ mixed >> 32) as u32
}

/// One mixing step on 64 bits. BPF has no 128-bit product, so the high half is mixed in by
/// shifts.
#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let product = (a ^ b.rotate_left(23)).wrapping_mul(0x9e37_79b9_7f4a_7c15 | 1);
    let product = (product ^ product >> 29).wrapping_mul(b | 1);
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

    #[test]
    fn consecutive_ports_spread_evenly() {
        const BUCKETS: usize = 64;
        let mut counts = [0u32; BUCKETS];
        let flows = 64 * 1024;
        for n in 0..flows {
            let flow = key(1024 + (n % 60_000) as u16, 0x0a00_0000 + n / 60_000);
            counts[bucket(hash(&flow), BUCKETS as u32) as usize] += 1;
        }
        let mean = flows / BUCKETS as u32;
        for count in counts {
            // Six standard deviations of a binomial with this mean.
            assert!(count.abs_diff(mean) < 6 * 32, "{counts:?}");
        }
    }
}
