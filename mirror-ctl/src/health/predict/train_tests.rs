//! Training on what can go wrong with a table, and on problems whose answer is known.

use super::*;

const HOW: Boosting = Boosting {
    rounds: 30,
    depth: 3,
    leaf_rows: 5,
    rate: 0.3,
    rows: 0.7,
    columns: 1.0,
    seed: 1,
};

/// Positive where the first feature is above .5; the second is noise, the third constant.
fn separable(rows: usize) -> Table {
    let mut chance = fastrand::Rng::with_seed(7);
    let mut table = Table::new(3);
    for _ in 0..rows {
        let x = chance.f32();
        table.push(&[x, chance.f32(), 4.0], x > 0.5, 1.0);
    }
    table
}

#[test]
fn boosting_learns_what_is_there() {
    let (forest, bias) = boost(&separable(500), &HOW, || {}).unwrap();
    assert!(sigmoid(bias + forest.sum(&[0.9, 0.1, 4.0])) > 0.97);
    assert!(sigmoid(bias + forest.sum(&[0.1, 0.9, 4.0])) < 0.03);
    assert!(forest.nodes().iter().all(|n| n.is_leaf() || n.feature < 2));
}

#[test]
fn flattened_trees_answer_as_smartcore_does() {
    let table = separable(400);
    let rows: Vec<usize> = (0..table.len()).collect();
    let matrix = table.matrix(&rows, &[0, 1, 2]).unwrap();
    let targets: Vec<f32> = (0..400)
        .map(|n| table.row(n)[0] * table.row(n)[1])
        .collect();
    let parameters = DecisionTreeRegressorParameters::default().with_max_depth(7);
    let trained = DecisionTreeRegressor::fit(&matrix, &targets, parameters).unwrap();
    let expected = trained.predict(&matrix).unwrap();
    let read: TrainedTree = from_trained(&trained).unwrap();
    let nodes = read
        .tree_regressor
        .flatten(&[0, 1, 2], |output| output as f32);
    for (row, expected) in rows.iter().zip(expected) {
        assert_eq!(walk(&nodes, table.row(*row)), expected);
    }
}

#[test]
fn scattering_gives_the_share_of_positives() {
    let how = Scattering {
        trees: 20,
        depth: 6,
        leaf_rows: 5,
        columns: 1.0,
        seed: 1,
    };
    let forest = scatter(&separable(500), &how).unwrap();
    assert_eq!(forest.roots().len(), 20);
    assert!(forest.sum(&[0.9, 0.1, 4.0]) > 0.9);
    assert!(forest.sum(&[0.1, 0.9, 4.0]) < 0.1);
}

#[test]
fn one_kind_of_outcome_trains_to_its_rate() {
    for outcome in [false, true] {
        let mut table = Table::new(1);
        for n in 0..98 {
            table.push(&[n as f32], outcome, 1.0);
        }
        let (forest, bias) = boost(&table, &HOW, || {}).unwrap();
        let p = sigmoid(bias + forest.sum(&[3.0]));
        assert!(
            (p - if outcome { 0.995 } else { 0.005 }).abs() < 0.001,
            "{p}"
        );
    }
}

#[test]
fn constant_features_are_no_reason_to_fail() {
    let mut table = Table::new(2);
    for n in 0..100 {
        table.push(&[1.0, 0.0], n % 4 == 0, 1.0);
    }
    let (forest, bias) = boost(&table, &HOW, || {}).unwrap();
    let p = sigmoid(bias + forest.sum(&[1.0, 0.0]));
    assert!((p - 0.25).abs() < 0.1, "{p}");
}

#[test]
fn what_is_no_number_is_refused_by_place() {
    let mut table = separable(10);
    table.values[3 * 4 + 1] = f32::NAN;
    let error = boost(&table, &HOW, || {}).unwrap_err().to_string();
    assert_eq!(error, "row 4, feature 1 is not a finite number");
    assert!(matches!(
        boost(&Table::new(2), &HOW, || {}),
        Err(TrainError::Empty)
    ));
    let mut table = separable(10);
    table.outcomes.pop();
    assert!(matches!(
        boost(&table, &HOW, || {}),
        Err(TrainError::Uneven { .. })
    ));
}
