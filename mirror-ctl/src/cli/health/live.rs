//! `health explain` of the running agent.

use std::fmt::Write as _;

use anyhow::Result;
use hyper::Method;

use super::Explain;
use crate::{
    agent::view::{HealthRow, SignalRow},
    api::client::escape,
    cli::ask::{Asker, print, print_json},
};

pub(super) fn explain(args: &Explain) -> Result<()> {
    let asker = Asker {
        socket: &args.socket,
        json: args.json,
    };
    let path = format!("/v1/instances/{}/health", escape(&args.instance));
    let row: HealthRow = asker.ask(Method::GET, &path)?;
    match args.json {
        true => print_json(&row),
        false => print(&text(&row)),
    }
}

fn text(row: &HealthRow) -> String {
    let predicted = match row.predicted_score {
        Some(score) => format!("predicted score {score:.2}"),
        None => "nothing is known yet".to_owned(),
    };
    let mut text = format!(
        "{}: {predicted}, score in force {:.2}",
        row.instance, row.score
    );
    for (is, words) in [
        (row.evacuated, "its flows leave"),
        (row.overruled, "overruled by an operator"),
        (row.source == "missing", "its metrics are missing"),
    ] {
        if is {
            text.push_str(", ");
            text.push_str(words);
        }
    }
    text.push('\n');
    // Writing to a string cannot fail.
    if let Some([p5, p15, p30, p60]) = row.chances {
        let _ = writeln!(
            text,
            "fails within 5 s {p5:.3}, 15 s {p15:.3}, 30 s {p30:.3}, 60 s {p60:.3}"
        );
    }
    if let Some(risk) = row.layer_a_risk {
        let _ = writeln!(text, "layer A's risk {risk:.3}");
    }
    if let Some(end_s) = row.memory_used_up_s {
        let _ = writeln!(text, "memory used up in {end_s:.0} s");
    }
    let _ = writeln!(
        text,
        "\n{:24} {:>6}  {:>10}  {:>8}  {:>8}",
        "signal", "risk", "value", "own", "peers"
    );
    let risk = |signal: &SignalRow| {
        let reasons = row.reasons.iter();
        let found = reasons
            .clone()
            .find(|reason| reason.signal == signal.signal);
        found.map_or(0.0, |reason| reason.risk)
    };
    let mut signals: Vec<_> = row.signals.iter().map(|s| (risk(s), s)).collect();
    signals.sort_by(|a, b| b.0.total_cmp(&a.0));
    for (risk, signal) in signals {
        let _ = writeln!(
            text,
            "{:24} {risk:6.3}  {:10.3}  {:+8.1}  {:+8.1}",
            signal.signal, signal.value, signal.level, signal.peers
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::view::ReasonRow;

    #[test]
    fn says_which_signals_moved_the_score() {
        let signal = |name: &str, value, level| SignalRow {
            signal: name.to_owned(),
            value,
            level,
            peers: 0.0,
        };
        let row = HealthRow {
            instance: "a".to_owned(),
            vni: Some("web".to_owned()),
            score: 0.02,
            predicted_score: Some(0.11),
            chances: None,
            layer_a_risk: Some(0.89),
            source: "answers".to_owned(),
            evacuated: true,
            overruled: false,
            memory_used_up_s: Some(6.6),
            reasons: vec![ReasonRow {
                signal: "memory_share".to_owned(),
                risk: 0.88,
            }],
            signals: vec![
                signal("silence_ms", 0.0, -0.1),
                signal("memory_share", 0.7, 40.0),
            ],
        };
        let expected = "\
a: predicted score 0.11, score in force 0.02, its flows leave
layer A's risk 0.890
memory used up in 7 s

signal                     risk       value       own     peers
memory_share              0.880       0.700     +40.0      +0.0
silence_ms                0.000       0.000      -0.1      +0.0
";
        assert_eq!(text(&row), expected);
    }
}
