//! What is made of a server whose metrics have no names: how far it departs from what is usual (layer A), what came
//! at this time on past days, and the features that trees learn from.
//!
//! Metrics are not comparable between servers, departures are: nothing that is learned on one server and used on
//! another sees a metric as such, only aggregates over all of them, as percentiles of the server's own first half.

use super::{
    data::{Grid, Server},
    protocol::{Settings, Split},
    series::{
        aggregate, coming_max, depart, median, minus, percentile, rarity, recent_max, smooth,
        standardise, surprise,
    },
};

/// Past days that are asked what came next.
const DAYS: usize = 7;
/// Rows of the first half before which nothing has settled: a third of it.
const SETTLING: usize = 3;
/// Every so many rows of the first half tell how the learned model sees the server when it is well.
const OWN_STRIDE: usize = 7;
/// Rows over which a departure is remembered.
const MEMORY_ROWS: usize = 60;

/// A server's features, by row of its test half.
#[derive(Clone, Debug, Default)]
pub struct Features {
    /// Layer A: departure of now and of the last hour, as a sum of logarithms, less what is usual for the server.
    pub evidence: Vec<f32>,
    /// What came at this time of past days, less what is usual.
    pub season: Vec<f32>,
    /// What trees learn from, row after row.
    pub wide: Vec<f32>,
    /// The same of some rows of the first half.
    pub own: Vec<f32>,
    /// Features a row of the last two.
    pub width: usize,
}

impl Features {
    /// Of a server.
    #[must_use]
    pub fn of(server: &Server, settings: &Settings) -> Self {
        let usual = server.train_rows / SETTLING..server.train_rows;
        let centred = |values: &[f32]| -> Vec<f32> {
            let middle = median(&values[usual.clone()]);
            values[server.train_rows..]
                .iter()
                .map(|v| v - middle)
                .collect()
        };
        let (evidence, departures, blunt) = evidence(server);
        let past = past_days(&departures, settings);
        let profile = profile(&blunt, settings);
        let season: Vec<f32> = past
            .iter()
            .zip(&profile)
            .map(|(day, profile)| profile + day.iter().map(|of| of.mean + of.median).sum::<f32>())
            .collect();
        let mut features = Self {
            evidence: centred(&evidence),
            season: centred(&season),
            ..Self::default()
        };
        match settings.split {
            Split::Group => features.set_comparable(server),
            Split::Time => features.set_own(server, &evidence, &past, &profile),
        }
        features
    }

    /// A row of what trees learn from.
    #[must_use]
    pub fn row(&self, row: usize) -> &[f32] {
        &self.wide[row * self.width..][..self.width]
    }

    /// For servers never seen: aggregates, as percentiles.
    fn set_comparable(&mut self, server: &Server) {
        let first = server.train_rows / 10..server.train_rows;
        let columns = comparable(server);
        self.width = columns.len();
        let test = server.grid.rows() - server.train_rows;
        self.wide = vec![0.0; test * self.width];
        let own: Vec<usize> = first.clone().step_by(OWN_STRIDE).collect();
        self.own = vec![0.0; own.len() * self.width];
        for (number, column) in columns.iter().enumerate() {
            let mut reference = column[first.clone()].to_vec();
            reference.sort_unstable_by(f32::total_cmp);
            for row in 0..test {
                let value = column[server.train_rows + row];
                self.wide[row * self.width + number] = percentile(&reference, value);
            }
            for (place, row) in own.iter().enumerate() {
                self.own[place * self.width + number] = percentile(&reference, column[*row]);
            }
        }
    }

    /// For servers seen before: each metric by itself, and past days.
    fn set_own(&mut self, server: &Server, evidence: &[f32], past: &[Vec<Past>], profile: &[f32]) {
        let z = standardise(&server.grid, server.train_rows);
        let slow = smooth(&z, 0.05);
        let drift = minus(&slow, &smooth(&z, 0.002));
        let shift = minus(&z, &smooth(&z, 0.01));
        let rows = server.train_rows..server.grid.rows();
        for row in rows {
            self.wide.extend(z.row(row));
            self.wide.extend(drift.row(row));
            self.wide
                .extend(shift.row(row).iter().map(|value| value.abs()));
            self.wide.extend([evidence[row], profile[row]]);
            self.wide.extend(past[row].iter().flat_map(Past::all));
        }
        self.width = 3 * z.width + 2 + 2 * Past::WIDTH;
    }
}

/// Layer A over all rows, the departures that past days are remembered by, and each metric's own.
fn evidence(server: &Server) -> (Vec<f32>, [Vec<f32>; 2], Grid) {
    let (grid, train) = (&server.grid, server.train_rows);
    let sharp = depart(grid, train, 1_000.0, 0.01);
    let lately: Vec<f32> = aggregate(&smooth(&sharp, 0.3))
        .iter()
        .map(|a| a[1])
        .collect();
    let lately = recent_max(&lately, MEMORY_ROWS);
    let sharp = aggregate(&sharp);
    let departed = depart(grid, train, 1_000.0, 0.03);
    let blunt = aggregate(&departed);
    // Three views of one thing: an hour's memory ranks rows, the sharp departure of the moment catches events, the
    // blunt one is not moved by metrics that hardly ever move. Logarithms, or the loudest would be all.
    let evidence = (0..grid.rows())
        .map(|row| lately[row].ln_1p() + sharp[row][5].ln_1p() + blunt[row][2].ln_1p())
        .collect();
    let few = blunt.iter().map(|a| a[1].ln_1p()).collect();
    let all = blunt.iter().map(|a| a[3].ln_1p()).collect();
    (evidence, [few, all], departed)
}

/// How far metrics depart on average at this time of past days, the greatest within the horizon: what comes every day
/// adds up, what came once averages out.
fn profile(departed: &Grid, settings: &Settings) -> Vec<f32> {
    let (rows, width) = (departed.rows(), departed.width);
    let mut mean = Grid {
        values: vec![0.0; departed.values.len()],
        width,
    };
    for back in (1..=DAYS)
        .map(|day| day * settings.day)
        .filter(|back| *back < rows)
    {
        let earlier = &departed.values[..(rows - back) * width];
        for (sum, value) in mean.values[back * width..].iter_mut().zip(earlier) {
            *sum += value / DAYS as f32;
        }
    }
    let loudness: Vec<f32> = aggregate(&mean)
        .iter()
        .map(|a| a[1].ln_1p() + a[3].ln_1p())
        .collect();
    // A row's mean is of days before it, and so is that of the rows to come within less than a day.
    coming_max(&loudness, settings.horizon.min(settings.day))
}

/// What came within the horizon at this time of past days.
#[derive(Clone, Copy, Debug, Default)]
struct Past {
    yesterday: f32,
    last_week: f32,
    least: f32,
    third_least: f32,
    median: f32,
    greatest: f32,
    mean: f32,
    least_of_three: f32,
    beyond_now: f32,
}

impl Past {
    const WIDTH: usize = 9;

    fn all(&self) -> [f32; Self::WIDTH] {
        [
            self.yesterday,
            self.last_week,
            self.least,
            self.third_least,
            self.median,
            self.greatest,
            self.mean,
            self.least_of_three,
            self.beyond_now,
        ]
    }
}

/// By row, of both departures. Much of what fails in practice is a job that runs every day.
fn past_days(departures: &[Vec<f32>; 2], settings: &Settings) -> Vec<Vec<Past>> {
    let rows = departures[0].len();
    let mut past = vec![Vec::with_capacity(departures.len()); rows];
    for departure in departures {
        let coming = coming_max(departure, settings.horizon);
        let unknown = median(&coming[..rows / 2]);
        for (row, past) in past.iter_mut().enumerate() {
            let day = |back: usize| {
                // A day ago and further back, all that came within the horizon is known by now.
                row.checked_sub(back * settings.day)
                    .map_or(unknown, |row| coming[row])
            };
            let days: [f32; DAYS] = std::array::from_fn(|n| day(n + 1));
            let mut sorted = days;
            sorted.sort_unstable_by(f32::total_cmp);
            let mean = days.iter().sum::<f32>() / DAYS as f32;
            past.push(Past {
                yesterday: days[0],
                last_week: days[DAYS - 1],
                least: sorted[0],
                third_least: sorted[2],
                median: sorted[DAYS / 2],
                greatest: sorted[DAYS - 1],
                mean,
                least_of_three: days[0].min(days[1]).min(days[2]),
                beyond_now: mean - departure[row],
            });
        }
    }
    past
}

/// Aggregates that are comparable between servers, by column over all rows.
fn comparable(server: &Server) -> Vec<Vec<f32>> {
    let z = standardise(&server.grid, server.train_rows);
    let [fast, middle, slow, slower] = [0.3, 0.05, 0.01, 0.002].map(|rate| smooth(&z, rate));
    let mut columns = Vec::new();
    let mut add = |grid: &Grid| {
        let aggregates = aggregate(grid);
        for number in 0..super::series::AGGREGATES {
            columns.push(aggregates.iter().map(|a| a[number]).collect());
        }
    };
    add(&z);
    add(&rarity(&server.grid, server.train_rows));
    add(&fast);
    add(&middle);
    for mean in [&fast, &middle, &slow] {
        add(&minus(&z, mean));
    }
    add(&minus(&fast, &slower));
    add(&minus(&fast, &middle));
    add(&minus(&fast, &slow));
    add(&minus(&middle, &slower));
    for rate in [0.05, 0.01, 0.002] {
        let (surprise, deviation) = surprise(&z, rate);
        add(&surprise);
        add(&deviation);
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::public::protocol::Task;

    /// Three days of two metrics, the first half unlabelled.
    fn server() -> Server {
        let day = 50;
        let values = (0..6 * day).flat_map(|row| {
            let job = row % day == 20;
            [(row % 7) as f32, if job { 90.0 } else { 1.0 }]
        });
        Server {
            name: "a".to_owned(),
            grid: Grid {
                values: values.collect(),
                width: 2,
            },
            train_rows: 3 * day,
            failing: vec![false; 3 * day],
        }
    }

    #[test]
    fn a_job_that_runs_every_day_is_seen_to_come() {
        for split in [Split::Time, Split::Group] {
            let settings = Settings {
                task: Task::Onset,
                horizon: 5,
                split,
                day: 50,
            };
            let features = Features::of(&server(), &settings);
            assert_eq!(features.wide.len(), 150 * features.width);
            assert!(features.wide.iter().all(|value| value.is_finite()));
            let (before, after) = (features.season[67], features.season[75]);
            assert!(before > after + 1.0, "{before} {after}");
            assert!(features.evidence[70] > features.evidence[69] + 1.0);
        }
    }
}
