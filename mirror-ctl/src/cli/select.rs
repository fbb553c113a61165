//! `select`: which instance a new flow would get, and why.

use anyhow::Result;

use super::{
    args::Select,
    ask::Asker,
    look::{Look, Rows, percent},
};
use crate::api::{client::escape, select::SelectRow};

pub(super) fn run(asker: &Asker<'_>, select: &Select) -> Result<()> {
    let mut path = format!(
        "/v1/vnis/{}/select?source={}",
        escape(&select.vni),
        escape(&select.source.to_string())
    );
    let given = [
        ("port", select.port.map(|port| port.to_string())),
        (
            "source_port",
            select.source_port.map(|port| port.to_string()),
        ),
        ("address", select.address.map(|address| address.to_string())),
        ("protocol", select.protocol.clone()),
    ];
    for (key, value) in given {
        if let Some(value) = value {
            path.push_str(&format!("&{key}={}", escape(&value)));
        }
    }
    asker.show::<SelectRow>(&path, table)
}

/// What decides first, then one line an instance.
pub(super) fn table(row: &SelectRow, look: Look) -> String {
    let place = match (&row.zone, &row.prefix) {
        (Some(zone), Some(prefix)) => format!("in zone {zone} ({prefix})"),
        _ => "in no zone".to_owned(),
    };
    let table = match row.table_cause.as_deref() {
        None => "table of that zone",
        Some("no-zone") => "common table",
        Some("same") => "common table (the zone's would be the same)",
        Some(_) => "common table (none is left for the zone)",
    };
    let mut text = format!("{} is {place}: {table}, rule {}\n", row.source, row.rule);
    let instance = row.instance.as_deref().unwrap_or("nobody");
    text.push_str(&match &row.flow {
        Some(flow) => format!(
            "gets {instance}, mirrored by {} (to {}: bucket {}, set {})\n\n",
            listed(&flow.mirrors),
            flow.address,
            flow.bucket,
            flow.set
        ),
        None => {
            format!("gets {instance} most likely (with --source-port and --port: for certain)\n\n")
        }
    });
    let mut rows = Rows::new(
        look,
        &[
            "instance",
            "state",
            "share",
            "score",
            "weight",
            "zone",
            "cost",
            "learned",
            "in flight",
            "load",
            "mirrors",
        ],
    );
    let ms = |ms: Option<f64>| ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.2} ms"));
    for candidate in &row.candidates {
        let learned = match candidate.learned_ms {
            Some(_) => format!("{} of {}", ms(candidate.learned_ms), candidate.samples),
            None => "-".to_owned(),
        };
        let hot = if candidate.hot { " hot" } else { "" };
        let sets = candidate.sets.iter();
        let sets = sets.map(|set| format!("{} {}", set.mirrors.join("+"), percent(set.share)));
        rows.add([
            candidate.instance.clone(),
            candidate.state.clone(),
            percent(candidate.share),
            format!("{:.2}", candidate.score),
            candidate.weight.to_string(),
            candidate.zone.clone().unwrap_or_else(|| "-".to_owned()),
            ms(candidate.cost_ms),
            learned,
            candidate.in_flight.to_string(),
            format!("{:.2}{hot}", candidate.load),
            listed(&sets.collect::<Vec<_>>()),
        ]);
    }
    text.push_str(&rows.text());
    text
}

fn listed(names: &[String]) -> String {
    match names {
        [] => "-".to_owned(),
        names => names.join(", "),
    }
}
