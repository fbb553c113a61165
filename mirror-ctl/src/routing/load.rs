//! Who has so much to do that new flows had better go elsewhere: Prequal's rule of hot and cold instances (Wydrowski et al., *Load is
//! not what you should balance: Introducing Prequal*, NSDI 2024), for tables instead of single requests.
//!
//! Prequal calls an instance hot whose requests in flight are above a quantile of all instances', and prefers any cold one, and
//! among the cold ones the one with the least latency. Requests in flight are known at once there, and here once a second
//! or so; a hard rule would then send everything to and fro. What a hot instance keeps of its part therefore falls step by step while it is
//! hot, and rises step by step once it is well below. Between the two nothing changes.
//!
//! Load is counted against an instance's part by weight and health: what it could carry is not known, what the others carry is.

/// Prequal's quantile: 2^−0.25.
const HOT_QUANTILE: f64 = 0.84;
/// With less in flight than this over all instances, what one has is chance.
const IN_FLIGHT_MIN: u64 = 32;
/// What a hot instance keeps after a step.
const STEP_DOWN: f64 = 0.8;
/// What an instance that has cooled down gets back by a step.
const STEP_UP: f64 = 0.1;
/// What every instance keeps.
pub const KEEP_MIN: f64 = 0.05;

/// One instance's load.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// What it has in flight.
    pub in_flight: u64,
    /// Its effective weight; 0: it gets no new flows, and its load does not matter.
    pub weight: u32,
}

/// How many times its part each one has; 1 for all while there is too little to tell.
#[must_use]
pub fn relative(loads: &[Load]) -> Vec<f64> {
    let counted = || loads.iter().filter(|load| load.weight > 0);
    let total: u64 = counted().map(|load| load.in_flight).sum();
    let weights: f64 = counted().map(|load| f64::from(load.weight)).sum();
    if total < IN_FLIGHT_MIN || weights == 0.0 {
        return vec![1.0; loads.len()];
    }
    let of = |load: &Load| match load.weight {
        0 => 1.0,
        weight => load.in_flight as f64 / total as f64 * weights / f64::from(weight),
    };
    loads.iter().map(of).collect()
}

/// What each keeps of its part from now on, and whether it is hot. `before`: what it kept so far. `hot_ratio` 0: all of it.
#[must_use]
pub fn keeps(loads: &[Load], before: &[f64], hot_ratio: f64) -> Vec<(f64, bool)> {
    let relative = relative(loads);
    let counted: Vec<f64> = relative
        .iter()
        .zip(loads)
        .filter(|(_, load)| load.weight > 0)
        .map(|(relative, _)| *relative)
        .collect();
    let quantile = quantile(counted, HOT_QUANTILE);
    let cool = (1.0 + hot_ratio) / 2.0;
    (0..loads.len())
        .map(|place| {
            let before = before.get(place).copied().unwrap_or(1.0);
            let load = relative[place];
            if hot_ratio == 0.0 || loads[place].weight == 0 {
                return (1.0, false);
            }
            let is_hot = load > hot_ratio && load > quantile;
            let keep = match is_hot {
                true => before * STEP_DOWN,
                false if load < cool => before + STEP_UP,
                false => before,
            };
            (keep.clamp(KEEP_MIN, 1.0), is_hot)
        })
        .collect()
}

/// Between the two values that are nearest to it, linearly.
fn quantile(mut values: Vec<f64>, part: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else {
        return f64::INFINITY;
    };
    let at = part * last as f64;
    let (low, high) = (values[at.floor() as usize], values[at.ceil() as usize]);
    low + (high - low) * at.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loads(of: &[(u64, u32)]) -> Vec<Load> {
        of.iter()
            .map(|&(in_flight, weight)| Load { in_flight, weight })
            .collect()
    }

    /// In hundredths.
    #[track_caller]
    fn check(of: &[(u64, u32)], before: &[f64], expected: &[(u32, bool)]) {
        let keeps: Vec<_> = keeps(&loads(of), before, 1.5)
            .iter()
            .map(|(keep, hot)| ((keep * 100.0).round() as u32, *hot))
            .collect();
        assert_eq!(keeps, expected);
    }

    #[test]
    fn a_part_is_by_weight() {
        assert_eq!(relative(&loads(&[(100, 1), (100, 1)])), [1.0, 1.0]);
        assert_eq!(relative(&loads(&[(300, 1), (100, 3)])), [3.0, 1.0 / 3.0]);
        // Nobody counts on the third.
        assert_eq!(
            relative(&loads(&[(60, 1), (20, 1), (900, 0)])),
            [1.5, 0.5, 1.0]
        );
        assert_eq!(
            relative(&loads(&[(31, 1), (0, 1)])),
            [1.0, 1.0],
            "too little to tell"
        );
        assert!(relative(&[]).is_empty());
    }

    #[test]
    fn the_hot_shed_and_the_cool_come_back() {
        check(
            &[(100, 1), (100, 1)],
            &[1.0, 1.0],
            &[(100, false), (100, false)],
        );
        check(
            &[(160, 1), (40, 1)],
            &[1.0, 1.0],
            &[(80, true), (100, false)],
        );
        check(
            &[(160, 1), (40, 1)],
            &[0.8, 1.0],
            &[(64, true), (100, false)],
        );
        // Neither hot nor cool: as it is.
        check(
            &[(140, 1), (60, 1)],
            &[0.64, 1.0],
            &[(64, false), (100, false)],
        );
        check(
            &[(110, 1), (90, 1)],
            &[0.64, 1.0],
            &[(74, false), (100, false)],
        );
        check(
            &[(160, 1), (40, 1)],
            &[0.05, 1.0],
            &[(5, true), (100, false)],
        );
    }

    #[test]
    fn only_those_above_the_quantile_are_hot() {
        // Both have more than one and a half times their part; the greater one is relieved first.
        let of = [(200, 1), (180, 1), (10, 1), (10, 1), (10, 1)];
        check(
            &of,
            &[1.0; 5],
            &[
                (80, true),
                (100, false),
                (100, false),
                (100, false),
                (100, false),
            ],
        );
    }

    #[test]
    fn nobody_is_hot_without_a_ratio() {
        assert_eq!(
            keeps(&loads(&[(900, 1), (1, 1)]), &[0.5, 1.0], 0.0),
            [(1.0, false); 2]
        );
    }

    #[test]
    fn an_overloaded_instance_settles() {
        // Flows last for ten steps; all come from sources that are near to the first of two.
        let (mut flows, mut keep) = ([0.0f64; 2], vec![1.0, 1.0]);
        let mut seen = Vec::new();
        for step in 0..400 {
            let share = [keep[0], 1.0 - keep[0]];
            for (flows, share) in flows.iter_mut().zip(share) {
                *flows += share * 100.0 - *flows / 10.0;
            }
            let loads = loads(&[(flows[0] as u64, 1), (flows[1] as u64, 1)]);
            keep = keeps(&loads, &keep, 1.5)
                .iter()
                .map(|(keep, _)| *keep)
                .collect();
            if step >= 100 {
                seen.push(flows[0] / (flows[0] + flows[1]));
            }
        }
        let (low, high) = (
            seen.iter().copied().fold(f64::INFINITY, f64::min),
            seen.iter().copied().fold(0.0, f64::max),
        );
        assert!(low > 0.5 && high < 0.85, "{low} {high}");
    }
}
