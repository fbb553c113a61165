//! Tables for people.

use super::look::{Look, Rows, duration, percent};
use crate::{
    agent::{
        log::LogEntry,
        view::{DrainingRow, InstanceRow, MirrorRow, StatusRow, VniRow},
    },
    connections::{FlowRow, ReplicaRow},
};

pub(super) fn instances(rows: &[InstanceRow], look: Look) -> String {
    let mut table = Rows::new(
        look,
        &[
            "instance", "state", "cause", "since", "weight", "share", "score", "flows", "warm",
            "link", "mac", "xdp",
        ],
    );
    for row in rows {
        table.add([
            row.name.clone(),
            row.state.clone(),
            row.cause.clone(),
            look.since(row.changed_ns),
            row.weight.to_string(),
            percent(row.share),
            format!("{:.2}", row.score),
            row.flows.to_string(),
            row.warm.to_string(),
            row.link.clone(),
            row.mac.clone().unwrap_or_else(|| "?".to_owned()),
            row.xdp_mode.clone(),
        ]);
    }
    table.text()
}

pub(super) fn vnis(rows: &[VniRow], look: Look) -> String {
    let mut table = Rows::new(
        look,
        &[
            "vni",
            "addresses",
            "interfaces",
            "mirrors",
            "flows",
            "unprotected",
            "ack",
            "delivery",
            "close",
            "instances",
        ],
    );
    for row in rows {
        let shares = row.instances.iter();
        let shares = shares.map(|part| format!("{} {}", part.instance, percent(part.share)));
        table.add([
            row.name.clone(),
            row.addresses.join(", "),
            row.interfaces.join(", "),
            row.mirrors_text(),
            row.flows.to_string(),
            row.unprotected.to_string(),
            row.ack.clone(),
            row.delivery.clone(),
            row.close.clone(),
            shares.collect::<Vec<_>>().join(", "),
        ]);
    }
    table.text()
}

pub(super) fn mirrors(rows: &[MirrorRow], look: Look) -> String {
    let mut table = Rows::new(
        look,
        &["vni", "set", "primary", "mirrors", "state", "share"],
    );
    for row in rows {
        table.add([
            row.vni.clone().unwrap_or_else(|| "-".to_owned()),
            row.set.to_string(),
            row.primary.clone(),
            row.mirrors.join(", "),
            row.state.clone(),
            percent(row.share),
        ]);
    }
    table.text()
}

pub(super) fn flows(rows: &[FlowRow], look: Look) -> String {
    let mut table = Rows::new(
        look,
        &[
            "client",
            "vni",
            "address",
            "proto",
            "state",
            "active",
            "mirrors",
            "lag",
            "age",
            "packets",
            "takeovers",
        ],
    );
    for row in rows {
        let mirrors = row
            .replicas
            .iter()
            .filter(|replica| replica.role == "mirror");
        let lag = mirrors.clone().map(|replica| replica.lag_bytes).max();
        let mirrors: Vec<_> = mirrors.map(mirror).collect();
        table.add([
            row.client.clone(),
            row.vni.clone(),
            row.address.clone(),
            row.protocol.clone(),
            row.state.clone(),
            row.active.clone(),
            match (mirrors.is_empty(), &row.reason) {
                (true, Some(reason)) => format!("- ({reason})"),
                (true, None) => "-".to_owned(),
                (false, _) => mirrors.join(", "),
            },
            lag.map_or_else(|| "-".to_owned(), |lag| lag.to_string()),
            duration(row.age_s.into()),
            row.packets.to_string(),
            row.takeovers.to_string(),
        ]);
    }
    table.text()
}

pub(super) fn mirror(replica: &ReplicaRow) -> String {
    match &replica.reason {
        Some(reason) if let Some(bytes) = replica.diverged_within => {
            let (instance, state) = (&replica.instance, &replica.state);
            format!("{instance} {state} ({reason} within {bytes} B)")
        }
        Some(reason) => format!("{} {} ({reason})", replica.instance, replica.state),
        None => format!("{} {}", replica.instance, replica.state),
    }
}

pub(super) fn events(rows: &[LogEntry], look: Look) -> String {
    let mut table = Rows::new(
        look,
        &["seq", "ago", "event", "what", "from", "to", "cause"],
    );
    for row in rows {
        table.add([
            row.seq.to_string(),
            look.since(row.time_ns),
            row.kind.clone(),
            what(row),
            text(&row.from),
            text(&row.to),
            why(row),
        ]);
    }
    table.text()
}

/// One event as it happens: there is no table whose widths could be known.
pub(super) fn event(row: &LogEntry) -> String {
    let change = match (&row.from, &row.to) {
        (Some(from), Some(to)) => format!("{from} -> {to}"),
        (from, to) => text(&from.clone().or_else(|| to.clone())),
    };
    let parts = [
        row.seq.to_string(),
        row.kind.clone(),
        what(row),
        change,
        why(row),
    ];
    let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    parts.join("  ")
}

fn text(value: &Option<String>) -> String {
    value.clone().unwrap_or_default()
}

/// Why something happened, or who wanted it.
fn why(row: &LogEntry) -> String {
    match (&row.by, &row.cause) {
        (Some(by), Some(cause)) => format!("{cause} ({by})"),
        (by, cause) => text(cause.as_ref().map_or(by, |_| cause)),
    }
}

/// What an event is about: an instance, or a flow of a VNI.
fn what(row: &LogEntry) -> String {
    let flow = row
        .client
        .as_ref()
        .map(|client| match (&row.vni, &row.address) {
            (Some(vni), Some(address)) => format!("{client} {vni} {address}"),
            (Some(vni), None) => format!("{client} {vni}"),
            (None, _) => client.clone(),
        });
    text(&row.instance.clone().or(flow))
}

pub(super) fn status(row: &StatusRow, look: Look) -> String {
    let agent = match row.pid {
        Some(pid) => {
            let adopted = if row.adopted {
                ", adopted the dataplane"
            } else {
                ""
            };
            format!(
                "running, pid {pid}, for {}{adopted}",
                duration(row.uptime_s)
            )
        }
        None => "not running; the dataplane runs on without it".to_owned(),
    };
    let mut flows: Vec<_> = row.flows.iter().collect();
    flows.sort();
    let flows: Vec<_> = flows
        .iter()
        .map(|(table, n)| format!("{table} {n}"))
        .collect();
    let flows = match flows.is_empty() {
        true => "none".to_owned(),
        false => flows.join(", "),
    };
    let mut interfaces = Rows::new(look, &["interface", "role", "xdp"]);
    for interface in &row.interfaces {
        interfaces.add([
            interface.name.clone(),
            interface.role.clone(),
            interface.mode.clone(),
        ]);
    }
    let mut counters = Rows::new(look, &["packets", "count"]);
    for (reason, count) in &row.counters {
        counters.add([reason.clone(), count.to_string()]);
    }
    let draining = row.draining.as_ref().map_or_else(String::new, draining);
    format!(
        "agent     {agent}\nversion   {} (layout {})\nflows     {flows}\n{draining}\n{}\n{}",
        row.version,
        row.layout,
        interfaces.text(),
        counters.text()
    )
}

/// The version before, in a line.
fn draining(row: &DrainingRow) -> String {
    let flows = match row.flows {
        Some(1) => "1 flow".to_owned(),
        Some(flows) => format!("{flows} flows"),
        None => "flows".to_owned(),
    };
    let keeper = match row.pid {
        Some(pid) => format!("pid {pid}, --socket {}", row.socket),
        None => "not looked after now".to_owned(),
    };
    let left = duration(row.left_s);
    format!(
        "draining  {flows} of {} ({keeper}), cut in {left}\n",
        row.version
    )
}

#[cfg(test)]
mod tests;
