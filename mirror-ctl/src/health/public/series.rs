//! Running quantities over a server's rows, each causal: a value depends on rows up to its own.

use super::data::Grid;

/// Exponentially weighted means, `rate` the weight of the newest row.
#[must_use]
pub fn smooth(grid: &Grid, rate: f32) -> Grid {
    let mut state = grid.row(0).to_vec();
    map_rows(grid, |value, metric| {
        state[metric] += rate * (value - state[metric]);
        state[metric]
    })
}

/// Each metric on its own scale: distance from the median of the first half in its deviations.
#[must_use]
pub fn standardise(grid: &Grid, train_rows: usize) -> Grid {
    let scales = quartiles(grid, train_rows);
    map_rows(grid, |value, metric| {
        let (median, scale) = scales[metric];
        ((value - median) / scale).clamp(-10.0, 10.0)
    })
}

/// How far a metric is from what is usual lately, in deviations of lately. `usual_rows`: how slowly the usual moves.
///
/// As `predict::track`: a row pulls by two deviations at most, so that an incident does not become usual.
#[must_use]
pub fn depart(grid: &Grid, train_rows: usize, usual_rows: f32, noise: f32) -> Grid {
    const PULL_MAX: f32 = 2.0;
    let mut states: Vec<(f32, f32)> = quartiles(grid, train_rows)
        .into_iter()
        .map(|(median, scale)| (median, scale / 1.253))
        .collect();
    map_rows(grid, |value, metric| {
        let (usual, wander) = &mut states[metric];
        let scale = (*wander * 1.253).max(noise);
        let off = value - *usual;
        let pull = off.clamp(-PULL_MAX * scale, PULL_MAX * scale);
        *usual += pull / usual_rows;
        *wander += (pull.abs() - *wander) / usual_rows;
        (off / scale).clamp(-20.0, 20.0)
    })
}

/// Distance from the running mean before the row in running deviations, and these deviations.
#[must_use]
pub fn surprise(grid: &Grid, rate: f32) -> (Grid, Grid) {
    let mut means = grid.row(0).to_vec();
    let mut variances = vec![0.0f32; grid.width];
    let mut deviations = Vec::with_capacity(grid.values.len());
    let surprises = map_rows(grid, |value, metric| {
        let deviation = variances[metric].sqrt();
        deviations.push(deviation.min(10.0));
        let off = value - means[metric];
        means[metric] += rate * off;
        variances[metric] += rate * (off * off - variances[metric]);
        (off / (deviation + 0.05)).clamp(-10.0, 10.0)
    });
    let deviations = Grid {
        values: deviations,
        width: grid.width,
    };
    (surprises, deviations)
}

/// How rare a value is by the first half, either tail: −log10 of its share.
#[must_use]
pub fn rarity(grid: &Grid, train_rows: usize) -> Grid {
    let sorted: Vec<Vec<f32>> = (0..grid.width)
        .map(|metric| sorted_column(grid, train_rows, metric))
        .collect();
    let n = train_rows as f32;
    map_rows(grid, |value, metric| {
        let column = &sorted[metric];
        let below = column.partition_point(|other| *other < value) as f32;
        let up_to = column.partition_point(|other| *other <= value) as f32;
        let tail = (n - below + 1.0).min(up_to + 1.0) / (n + 1.0);
        -(2.0 * tail).min(1.0).log10()
    })
}

/// Differences, metric by metric.
#[must_use]
pub fn minus(a: &Grid, b: &Grid) -> Grid {
    Grid {
        values: a.values.iter().zip(&b.values).map(|(a, b)| a - b).collect(),
        width: a.width,
    }
}

/// How many aggregates a row has.
pub const AGGREGATES: usize = 6;

/// Of each row's absolute values: the greatest, the mean of the three and of the fifth that are greatest, the mean,
/// the median, the root mean square. What is left when metrics have no names.
#[must_use]
pub fn aggregate(grid: &Grid) -> Vec<[f32; AGGREGATES]> {
    let width = grid.width;
    let fifth = (width / 5).max(2).min(width);
    let mut sorted = vec![0.0; width];
    (0..grid.rows())
        .map(|row| {
            for (to, from) in sorted.iter_mut().zip(grid.row(row)) {
                *to = from.abs();
            }
            sorted.sort_unstable_by(|a, b| b.total_cmp(a));
            let mean = |values: &[f32]| values.iter().sum::<f32>() / values.len() as f32;
            let square = sorted.iter().map(|value| value * value).sum::<f32>();
            [
                sorted[0],
                mean(&sorted[..3.min(width)]),
                mean(&sorted[..fifth]),
                mean(&sorted),
                sorted[width / 2],
                (square / width as f32).sqrt(),
            ]
        })
        .collect()
}

/// The greatest of the last `window` values.
#[must_use]
pub fn recent_max(values: &[f32], window: usize) -> Vec<f32> {
    // Candidates by falling value: the front is the greatest that is still in the window.
    let mut candidates = std::collections::VecDeque::new();
    let mut maxima = Vec::with_capacity(values.len());
    for (row, value) in values.iter().enumerate() {
        while candidates
            .back()
            .is_some_and(|last| values[*last] <= *value)
        {
            candidates.pop_back();
        }
        candidates.push_back(row);
        if candidates[0] + window <= row {
            candidates.pop_front();
        }
        maxima.push(values[candidates[0]]);
    }
    maxima
}

/// The greatest of the next `window` values: looks ahead, so it may be used of past days only.
#[must_use]
pub fn coming_max(values: &[f32], window: usize) -> Vec<f32> {
    let backwards: Vec<f32> = values.iter().rev().copied().collect();
    let mut maxima = recent_max(&backwards, window);
    maxima.reverse();
    // Of the rows after this one; the last one has none.
    maxima.rotate_left(1.min(values.len()));
    if let (Some(last), Some(value)) = (maxima.last_mut(), values.last()) {
        *last = *value;
    }
    maxima
}

/// Share of `reference` (sorted) that is not below, as −log10.
#[must_use]
pub fn percentile(reference: &[f32], value: f32) -> f32 {
    let below = reference.partition_point(|other| *other < value);
    let n = reference.len() as f32;
    -((n - below as f32 + 1.0) / (n + 1.0)).log10()
}

/// The upper median.
#[must_use]
pub fn median(values: &[f32]) -> f32 {
    let mut values = values.to_vec();
    let half = values.len() / 2;
    match values.is_empty() {
        true => 0.0,
        false => *values.select_nth_unstable_by(half, f32::total_cmp).1,
    }
}

/// Median of each metric in the first half, and its robust deviation.
fn quartiles(grid: &Grid, train_rows: usize) -> Vec<(f32, f32)> {
    (0..grid.width)
        .map(|metric| {
            let column = sorted_column(grid, train_rows, metric);
            let at = |share: f64| {
                let place = share * (column.len() - 1) as f64;
                let (low, part) = (place as usize, place.fract() as f32);
                let high = (low + 1).min(column.len() - 1);
                column[low] + (column[high] - column[low]) * part
            };
            (at(0.5), (at(0.75) - at(0.25)) / 1.349 + 0.01)
        })
        .collect()
}

fn sorted_column(grid: &Grid, rows: usize, metric: usize) -> Vec<f32> {
    let mut column: Vec<f32> = (0..rows).map(|row| grid.row(row)[metric]).collect();
    column.sort_unstable_by(f32::total_cmp);
    column
}

fn map_rows(grid: &Grid, mut f: impl FnMut(f32, usize) -> f32) -> Grid {
    let values = grid.values.iter().enumerate();
    Grid {
        values: values.map(|(n, value)| f(*value, n % grid.width)).collect(),
        width: grid.width,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(values: &[f32]) -> Grid {
        Grid {
            values: values.to_vec(),
            width: 1,
        }
    }

    #[test]
    fn rows_worked_by_hand() {
        assert_eq!(
            smooth(&column(&[0.0, 8.0, 8.0]), 0.5).values,
            [0.0, 4.0, 6.0]
        );
        // Quartiles of 1..5 are 2 and 4: scale 2/1.349 + .01.
        let z = standardise(&column(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), 5);
        assert!((z.values[5] - 3.0 / (2.0 / 1.349 + 0.01)).abs() < 1e-5);
        // Greater than all of four: tail 1/5, both sides 2/5.
        let rare = rarity(&column(&[1.0, 2.0, 3.0, 4.0, 9.0]), 4);
        assert!((rare.values[4] - -(0.4f32).log10()).abs() < 1e-5);
        assert_eq!(
            recent_max(&[1.0, 5.0, 2.0, 3.0, 1.0], 2),
            [1.0, 5.0, 5.0, 3.0, 3.0]
        );
        assert_eq!(
            coming_max(&[1.0, 5.0, 2.0, 3.0, 1.0], 2),
            [5.0, 3.0, 3.0, 1.0, 1.0]
        );
        assert!((percentile(&[1.0, 2.0, 3.0], 3.0) - -(0.5f32).log10()).abs() < 1e-6);
    }

    #[test]
    fn aggregates_of_a_row() {
        let grid = Grid {
            values: vec![-4.0, 3.0, 0.0, 1.0],
            width: 4,
        };
        let expected = [4.0, 8.0 / 3.0, 3.5, 2.0, 1.0, 6.5f32.sqrt()];
        assert_eq!(aggregate(&grid), [expected]);
    }

    #[test]
    fn constant_metrics_depart_from_nothing() {
        let grid = column(&[2.0; 50]);
        assert!(
            depart(&grid, 25, 100.0, 0.01)
                .values
                .iter()
                .all(|v| *v == 0.0)
        );
        assert!(standardise(&grid, 25).values.iter().all(|v| *v == 0.0));
        assert!(surprise(&grid, 0.1).0.values.iter().all(|v| *v == 0.0));
    }

    #[test]
    fn what_comes_later_changes_nothing_before() {
        let values: Vec<f32> = (0..60).map(|n| (n * 7 % 11) as f32).collect();
        let mut other = values.clone();
        other[50..].fill(99.0);
        let (a, b) = (column(&values), column(&other));
        for of in [
            |grid: &Grid| smooth(grid, 0.1),
            |grid: &Grid| depart(grid, 30, 20.0, 0.1),
            |grid: &Grid| surprise(grid, 0.1).0,
            |grid: &Grid| rarity(grid, 30),
        ] {
            assert_eq!(of(&a).values[..50], of(&b).values[..50]);
        }
    }
}
