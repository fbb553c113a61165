//! The whole protocol on small made-up servers, whose failures can be seen coming.

use super::*;

/// Ten days of three metrics. Before each failure the second metric climbs.
fn server(seed: u64) -> Server {
    const DAY: usize = 60;
    let mut chance = fastrand::Rng::with_seed(seed);
    let train_rows = 4 * DAY;
    let mut values = Vec::new();
    let mut failing = Vec::new();
    let mut until = 0;
    for row in 0..10 * DAY {
        if row > train_rows && row > until + 40 && chance.u32(..30) == 0 {
            until = row + 20;
        }
        let near = row < until;
        let off = if near {
            1.0 - (until - row) as f32 / 20.0
        } else {
            0.0
        };
        values.extend([
            chance.f32() * 0.1,
            off + chance.f32() * 0.1,
            chance.f32() * 0.1,
        ]);
        if row >= train_rows {
            failing.push(near && until - row <= 8);
        }
    }
    Server {
        name: seed.to_string(),
        grid: Grid { values, width: 3 },
        train_rows,
        failing,
    }
}

#[track_caller]
fn check(task: Task, split: Split, auc_min: f64) {
    let settings = Settings {
        task,
        horizon: 5,
        split,
        day: 60,
    };
    let servers = (0..5).map(server).collect();
    let mut done = 0.0;
    let found = evaluate(servers, &settings, |part| done = part).unwrap();
    assert_eq!((found.servers, done), (5, 1.0));
    assert!(found.events > 5);
    let Figures { auc, bss, .. } = found.figures;
    assert!(auc.value > auc_min, "{auc:?}");
    assert!(auc.low <= auc.value && auc.value <= auc.high);
    assert!(bss.value > 0.0, "{bss:?}");
}

#[test]
fn failures_that_announce_themselves_are_found() {
    check(Task::Soon, Split::Group, 0.9);
    check(Task::Onset, Split::Time, 0.85);
}

#[test]
fn servers_without_failures_are_no_reason_to_fail() {
    let servers = (0..4).map(|seed| Server {
        failing: vec![false; 360],
        ..server(seed)
    });
    let settings = Settings {
        task: Task::Soon,
        horizon: 5,
        split: Split::Group,
        day: 60,
    };
    let found = evaluate(servers.collect(), &settings, |_| {}).unwrap();
    assert_eq!(found.events, 0);
}
