//! Whole shares of a total in proportion to weights, moved as little as the weights allow.

/// Shares of `total` in proportion to `weights`, each less than one away from the exact
/// proportion, and as near to `previous` as that permits.
///
/// With an all-zero `previous` this is the method of largest remainders (Hamilton's). That alone
/// would let the rounding of everybody jump when one weight changes; therefore a previous share
/// that is still within the proportion rounded down and up stays as it is, and only what then is
/// too much or too little in sum is settled by remainder. When one weight changes, no other
/// member's share moves against the direction in which it has to.
///
/// Ties are settled by position, so the caller orders the members by something stable. All
/// weights zero: all shares zero.
///
/// # Panics
/// When `previous` has another length than `weights`.
#[must_use]
pub fn apportion(weights: &[u32], total: u32, previous: &[u32]) -> Vec<u32> {
    assert_eq!(weights.len(), previous.len(), "one previous share a member");
    let sum: u64 = weights.iter().map(|&weight| u64::from(weight)).sum();
    if sum == 0 {
        return vec![0; weights.len()];
    }
    // Exact: a product of two u32 fits a u64.
    let exact = |index: usize| {
        let product = u64::from(total) * u64::from(weights[index]);
        ((product / sum) as u32, product % sum)
    };
    let mut shares: Vec<u32> = Vec::with_capacity(weights.len());
    for (index, &before) in previous.iter().enumerate() {
        let (floor, remainder) = exact(index);
        shares.push(before.clamp(floor, floor + u32::from(remainder > 0)));
    }
    let given: u64 = shares.iter().map(|&share| u64::from(share)).sum();
    let total_wide = u64::from(total);
    if given < total_wide {
        let mut short: Vec<(u64, usize)> = (0..shares.len())
            .map(|index| (exact(index), index))
            .filter(|&((floor, remainder), index)| remainder > 0 && shares[index] == floor)
            .map(|((_, remainder), index)| (remainder, index))
            .collect();
        short.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        for &(_, index) in short.iter().take((total_wide - given) as usize) {
            shares[index] += 1;
        }
    } else if given > total_wide {
        let mut long: Vec<(u64, usize)> = (0..shares.len())
            .map(|index| (exact(index), index))
            .filter(|&((floor, _), index)| shares[index] > floor)
            .map(|((_, remainder), index)| (remainder, index))
            .collect();
        long.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
        for &(_, index) in long.iter().take((given - total_wide) as usize) {
            shares[index] -= 1;
        }
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(weights: &[u32], total: u32, previous: &[u32], expected: &[u32]) {
        assert_eq!(apportion(weights, total, previous), expected);
    }

    #[test]
    fn shares() {
        check(&[], 10, &[], &[]);
        check(&[0, 0], 10, &[0, 0], &[0, 0]);
        check(&[1, 1], 10, &[0, 0], &[5, 5]);
        check(&[1, 1, 1], 10, &[0, 0, 0], &[4, 3, 3]);
        check(&[3, 1, 0], 10, &[0, 0, 0], &[8, 2, 0]);
        // The odd one stays where it is.
        check(&[1, 1, 1], 10, &[3, 3, 4], &[3, 3, 4]);
        // One leaves: the others keep what they have and share the rest.
        check(&[1, 0, 1], 10, &[3, 3, 4], &[5, 0, 5]);
        check(
            &[u32::MAX, u32::MAX],
            u32::MAX,
            &[0, 0],
            &[1 << 31, (1 << 31) - 1],
        );
    }

    fn weights_and_change() -> impl Strategy<Value = (Vec<u32>, usize, u32)> {
        prop::collection::vec(0u32..2000, 1..60)
            .prop_flat_map(|weights| (Just(weights.clone()), 0..weights.len(), 0u32..4000))
    }

    proptest! {
        #[test]
        fn sums_up_within_one_of_exact(weights in prop::collection::vec(0u32..5000, 1..80),
                                       previous in prop::collection::vec(0u32..500, 80),
                                       total in 0u32..20_000) {
            let shares = apportion(&weights, total, &previous[..weights.len()]);
            let sum: u64 = weights.iter().map(|&w| u64::from(w)).sum();
            prop_assume!(sum > 0);
            prop_assert_eq!(shares.iter().sum::<u32>(), total);
            for (share, weight) in shares.iter().zip(&weights) {
                let exact = f64::from(total) * f64::from(*weight) / sum as f64;
                prop_assert!((f64::from(*share) - exact).abs() < 1.0 + 1e-9);
            }
            prop_assert_eq!(&apportion(&weights, total, &shares), &shares);
        }

        #[test]
        fn one_change_moves_nobody_the_wrong_way((weights, index, weight) in weights_and_change(),
                                                 total in 0u32..20_000) {
            let before = apportion(&weights, total, &vec![0; weights.len()]);
            let mut changed = weights.clone();
            changed[index] = weight;
            prop_assume!(changed.iter().any(|&w| w > 0) && weights.iter().any(|&w| w > 0));
            let after = apportion(&changed, total, &before);
            for other in (0..weights.len()).filter(|&other| other != index) {
                if weight >= weights[index] {
                    prop_assert!(after[other] <= before[other]);
                } else {
                    prop_assert!(after[other] >= before[other]);
                }
            }
        }
    }
}
