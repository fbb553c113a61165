//! `health models`, `health promote` and `health rollback`: champion and challenger of the running agent.

use std::fmt::Write as _;

use anyhow::Result;
use hyper::Method;

use super::Models;
use crate::{
    agent::models::{ModelRow, ModelsRow},
    cli::ask::{Asker, print, print_json},
};

const PATH: &str = "/v1/models";

pub(super) fn show(args: &Models) -> Result<()> {
    answer(args, Method::GET, PATH)
}

pub(super) fn change(args: &Models, verb: &str) -> Result<()> {
    answer(args, Method::POST, &format!("{PATH}/{verb}"))
}

fn answer(args: &Models, method: Method, path: &str) -> Result<()> {
    let asker = Asker {
        socket: &args.socket,
        json: args.json,
    };
    let row: ModelsRow = asker.ask(method, path)?;
    match args.json {
        true => print_json(&row),
        false => print(&text(&row)),
    }
}

fn text(row: &ModelsRow) -> String {
    let mut text = String::new();
    // Writing to a string cannot fail.
    for (role, model) in [("champion", &row.champion), ("challenger", &row.challenger)] {
        match model {
            Some(model) => text.push_str(&of_model(role, model)),
            None => {
                let _ = writeln!(text, "{role:10}  none");
            }
        }
    }
    let _ = writeln!(
        text,
        "stage {}: {}; {} s and {} failures judged, {} foreseen better by the challenger",
        row.stage, row.verdict, row.seconds, row.failures, row.wins
    );
    match &row.drift {
        Some(drift) => {
            let word = if drift.drifted {
                "drifted"
            } else {
                "as trained"
            };
            let _ = write!(text, "drift {:.3}, {word}; most:", drift.psi);
            for feature in &drift.most {
                let _ = write!(text, " {} {:.2}", feature.feature, feature.psi);
            }
            text.push('\n');
        }
        None => text.push_str("drift not known yet\n"),
    }
    if let Some(recording) = &row.recording {
        let _ = write!(
            text,
            "recorded {}, lost {}",
            recording.written, recording.lost
        );
        if let Some(complaint) = &recording.complaint {
            let _ = write!(text, ": {complaint}");
        }
        text.push('\n');
    }
    text
}

fn of_model(role: &str, model: &ModelRow) -> String {
    let figure = |figure: Option<f64>| figure.map_or("-".to_owned(), |f| format!("{f:.4}"));
    format!(
        "{role:10}  {} {}\n            {}\n            log-loss {} (when trained {}), Brier {}, {} false alarms, {} caught\n",
        model.id,
        model.file,
        model.corpus,
        figure(model.log_loss),
        figure(model.trained_log_loss),
        figure(model.brier),
        model.false_alarms,
        model.caught
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::models::{DriftRow, FeatureRow, RecordingRow};

    #[test]
    fn it_reads_like_this() {
        let model = ModelRow {
            id: "00c0ffee".to_owned(),
            file: "/m".to_owned(),
            corpus: "simulated, 60 runs of each family".to_owned(),
            log_loss: Some(0.0125),
            trained_log_loss: Some(0.01),
            brier: None,
            false_alarms: 2,
            caught: 3,
        };
        let row = ModelsRow {
            champion: Some(model),
            stage: "none".to_owned(),
            verdict: "there is no challenger".to_owned(),
            seconds: 90,
            failures: 4,
            drift: Some(DriftRow {
                psi: 0.3,
                drifted: true,
                most: vec![FeatureRow {
                    feature: "cpu_share.level".to_owned(),
                    psi: 1.5,
                }],
            }),
            recording: Some(RecordingRow {
                written: 7,
                lost: 1,
                complaint: Some("/r: no space".to_owned()),
            }),
            ..ModelsRow::default()
        };
        let expected = "\
champion    00c0ffee /m
            simulated, 60 runs of each family
            log-loss 0.0125 (when trained 0.0100), Brier -, 2 false alarms, 3 caught
challenger  none
stage none: there is no challenger; 90 s and 4 failures judged, 0 foreseen better by the challenger
drift 0.300, drifted; most: cpu_share.level 1.50
recorded 7, lost 1: /r: no space
";
        assert_eq!(text(&row), expected);
    }
}
