//! Rows worked by hand, and a model of a recording whose failures are known.

use super::*;
use crate::health::{
    Cause,
    learning::lessons::{Effort, train},
};

fn reading(memory: f32) -> Reading {
    let mut reading = Reading::default();
    reading.set(Signal::Memory, memory);
    reading
}

fn moment(time_ms: u64, memory: f32, fate: Fate) -> Moment {
    let seen = Seen {
        fate,
        cause: Cause::Silent,
    };
    let fates = (fate != Fate::Serving).then(|| ("a".to_owned(), seen));
    Moment {
        time_ms,
        readings: vec![("a".to_owned(), reading(memory))],
        fates: fates.into_iter().collect(),
    }
}

fn memory(second: &Second) -> f32 {
    second.reading.get(Signal::Memory).unwrap()
}

#[test]
fn moments_become_seconds() {
    // Four a second; then one that comes late, and one that is early: the missed second is like the one before.
    let times = [0, 250, 500, 750, 1_100, 1_400, 2_600, 3_900];
    let values = [0.1, 0.3, 0.5, 0.7, 0.6, 0.8, 0.9, 0.4];
    let moments: Vec<_> = times
        .into_iter()
        .zip(values)
        .map(|(ms, value)| {
            moment(
                ms,
                value,
                if ms == 750 {
                    Fate::Failed
                } else {
                    Fate::Serving
                },
            )
        })
        .collect();
    let stretches = stretches(&moments).unwrap();
    assert_eq!(stretches.len(), 1);
    let seconds = &stretches[0].seconds[0];
    let found: Vec<_> = seconds.iter().map(memory).collect();
    let expected = [0.2, 0.65, 0.65, 0.9, 0.4];
    let near = |(a, b): (&f32, f32)| (a - b).abs() < 1e-6;
    assert!(
        found.len() == 5 && found.iter().zip(expected).all(near),
        "{found:?}"
    );
    assert_eq!(seconds[1].seen.fate, Fate::Failed);
    assert_eq!(seconds[3].seen.fate, Fate::Serving);
}

#[test]
fn pauses_and_clocks_that_go_back_begin_anew() {
    let times = [0, 1_000, 2_000, 6_000, 7_000, 5_000, 6_000];
    let moments = times.map(|ms| moment(ms, 0.5, Fate::Serving));
    let lengths: Vec<_> = stretches(&moments)
        .unwrap()
        .iter()
        .map(|stretch| stretch.seconds[0].len())
        .collect();
    assert_eq!(lengths, [3, 2, 2]);
    let rare = [0, 3_000, 6_000].map(|ms| moment(ms, 0.5, Fate::Serving));
    assert_eq!(stretches(&rare), Err(Unfit::Rare(3_000)));
    assert_eq!(stretches(&[]), Ok(Vec::new()));
}

#[test]
fn what_came_must_be_known() {
    let mut seconds = vec![Second::default(); 200];
    let uncertain = Seen {
        fate: Fate::Uncertain,
        cause: Cause::Predicted,
    };
    seconds[100].seen = uncertain;
    for (second, onsets, expected) in [
        (0, &[][..], true),
        (39, &[], true),
        // It was left, and nobody knows how it would have fared,
        (40, &[], false),
        (100, &[], false),
        (101, &[], true),
        // unless it failed all the same.
        (60, &[110], true),
        (49, &[110], false),
        // The recording ends before the horizon does.
        (139, &[], true),
        (140, &[], false),
        (140, &[199], true),
    ] {
        assert_eq!(
            is_known(&seconds, onsets, second),
            expected,
            "{second} {onsets:?}"
        );
    }
}

/// Memory that fills within 200 s every ten minutes, at the end of which the instance fails.
fn leaking(chunks: u64) -> Vec<Moment> {
    (0..chunks * 600)
        .map(|second| {
            let at = (second % 600) as f32;
            let noise = (second * 7 % 13) as f32 / 2_000.0;
            let leaked = ((at - 200.0) / 200.0).clamp(0.0, 1.0) * 0.7;
            let value = if at < 430.0 { 0.2 + leaked } else { 0.2 };
            let fate = if (400.0..430.0).contains(&at) {
                Fate::Failed
            } else {
                Fate::Serving
            };
            moment(second * 1_000, value + noise, fate)
        })
        .collect()
}

#[test]
fn a_model_of_recordings_foresees_what_was_recorded() {
    let recorded = stretches(&leaking(8)).unwrap();
    let mut ticks = 0;
    let (parts, found) = parts(&recorded, true, || ticks += 1).unwrap();
    assert_eq!((found.failures, found.seconds, ticks), (8, 4_800, 1));
    assert!(!parts.held_out.is_empty() && parts.checked.positives() > 0);
    let effort = Effort {
        trees: 20,
        ..Effort::default()
    };
    let model = train(&parts, &effort, "by hand".to_owned(), || {}).unwrap();
    let mut lessons_of = Parts::default();
    super::teach(
        0,
        &recorded[0],
        &mut [0, 0],
        &mut lessons_of,
        &mut Found::default(),
    );
    let held_out = parts.held_out.curve(&model);
    let lowest = held_out.first().unwrap();
    let risky = held_out.iter().filter(|(risk, ..)| *risk > 0.1);
    let (rows, failed) = risky.fold((0.0, 0.0), |(rows, failed), (_, share, number)| {
        let number = *number as f64;
        (rows + number, failed + share * number)
    });
    // It tells well from ill on what it has not seen: one of four rows of the last two minutes fails within 30 s.
    let tells = lowest.0 < 0.02 && lowest.1 < 0.02 && failed > 0.25 * rows && rows > 0.0;
    assert!(tells, "{held_out:?}");
    assert_eq!(lessons_of.learned.len(), parts.learned.len());
}

#[test]
fn one_failure_is_not_enough_unless_there_is_more_to_learn_from() {
    let recorded = stretches(&leaking(1)).unwrap();
    let error = parts(&recorded, true, || {}).unwrap_err().to_string();
    assert!(
        error.starts_with("1 failures in 0.2 instance-hours"),
        "{error}"
    );
    let (parts, _) = parts(&recorded, false, || {}).unwrap();
    assert!(parts.learned.positives() > 0);
}

#[test]
fn clients_know_better_who_failed() {
    // By what the agent saw it failed at the third second; by what its clients got, at the sixth, for four.
    let fate = |second| match second {
        3 => Fate::Failed,
        _ => Fate::Serving,
    };
    let moments: Vec<_> = (0..20)
        .map(|second| moment(50_000 + second * 1_000, 0.5, fate(second)))
        .collect();
    let mut stretch = stretches(&moments).unwrap().remove(0);
    assert_eq!(stretch.fared[0].1, [3]);
    let failures = [
        // Of before it, of another, and one that goes on beyond the end.
        ("a", 40_000..49_000),
        ("b", 52_000..60_000),
        ("a", 56_000..60_000),
        ("a", 68_000..90_000),
    ];
    stretch.tell(&failures);
    let (failing, onsets) = &stretch.fared[0];
    assert_eq!(onsets, &[6, 18]);
    let found: Vec<usize> = (0..20).filter(|second| failing[*second]).collect();
    assert_eq!(found, [6, 7, 8, 9, 18, 19]);
}
