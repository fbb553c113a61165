//! Figures against cases worked by hand.

use super::*;

const ALARMS: Alarms = Alarms {
    window: 2,
    quiet: 2,
    late: false,
    unit_rows: 10.0,
    budgets: [0.5, 2.0],
};

fn series(rows: &[(f32, bool)], events: &[(usize, usize)]) -> Series {
    Series {
        predicted: rows.iter().map(|row| row.0).collect(),
        target: rows.iter().map(|row| row.1).collect(),
        judged: vec![true; rows.len()],
        events: events.to_vec(),
    }
}

#[track_caller]
fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-6, "{found} for {expected}");
}

#[test]
fn four_rows_worked_by_hand() {
    let all = [series(
        &[(0.95, true), (0.8, false), (0.3, true), (0.1, false)],
        &[],
    )];
    let figures = judge(&all, &ALARMS, 4, 1);
    // Pairs: .95 beats both, .3 beats one: 3 of 4. Precision at the positives: 1/1 and 2/3.
    close(figures.auc.value, 0.75);
    close(figures.ap.value, (1.0 + 2.0 / 3.0) / 2.0);
    // Squared errors .0025 + .64 + .49 + .01, base rate .5.
    close(figures.bss.value, 1.0 - 1.1425 / 4.0 / 0.25);
    close(figures.ece.value, (0.05 + 0.8 + 0.7 + 0.1) / 4.0);
}

#[test]
fn ties_are_half_won() {
    let all = [series(&[(0.5, true), (0.5, false)], &[])];
    close(judge(&all, &ALARMS, 2, 1).auc.value, 0.5);
}

#[test]
fn alarms_worked_by_hand() {
    // The failure begins at row 5; rows 3 and 4 are to be predicted. A threshold at .9 catches it from row 3
    // without a false alarm; the .95 at row 0 is a false one.
    let mut rows = [(0.1, false); 10];
    rows[3] = (0.9, true);
    rows[4] = (0.9, true);
    let all = [series(&rows, &[(5, 7)])];
    let figures = judge(&all, &ALARMS, 10, 1);
    close(figures.recall[0].value, 1.0);
    close(figures.lead_rows.value, 2.0);
    rows[0] = (0.95, false);
    let all = [series(&rows, &[(5, 7)])];
    let figures = judge(&all, &ALARMS, 10, 1);
    close(figures.recall[0].value, 0.0);
    close(figures.recall[1].value, 1.0);
}

#[test]
fn an_alarm_is_not_raised_again_at_once() {
    let rows = [(0.9, false); 6];
    let blocks = count(&series(&rows, &[]), 0.5, &ALARMS, 6);
    assert_eq!(blocks[0].false_alarms, 3);
}

#[test]
fn a_perfect_prediction_has_a_narrow_interval() {
    let rows: Vec<_> = (0..400)
        .map(|n| (f32::from(u8::from(n % 20 < 2)), n % 20 < 2))
        .collect();
    let figures = judge(&[series(&rows, &[])], &ALARMS, 20, 1);
    let one = Figure {
        value: 1.0,
        low: 1.0,
        high: 1.0,
    };
    assert_eq!((figures.auc, figures.bss), (one, one));
}

#[test]
fn one_kind_of_outcome_has_no_ranking() {
    let figures = judge(&[series(&[(0.2, false); 5], &[])], &ALARMS, 5, 1);
    assert!(figures.auc.value.is_nan());
}
