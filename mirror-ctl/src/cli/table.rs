//! Tables for people.

use comfy_table::{ContentArrangement, Table, presets};

use crate::{
    agent::{
        log::LogEntry,
        view::{InstanceRow, MirrorRow, StatusRow, VniRow},
    },
    clock,
    connections::{FlowRow, ReplicaRow},
};

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(header.iter().map(|name| name.to_uppercase()));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

fn print(table: &Table) {
    for line in table.lines() {
        println!("{}", line.trim_end());
    }
}

fn percent(part: f64) -> String {
    format!("{:.0} %", part * 100.0)
}

fn since(ns: u64) -> String {
    duration(clock::now_ns().saturating_sub(ns) / 1_000_000_000)
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

pub(super) fn instances(rows: &[InstanceRow]) {
    let mut table = table(&[
        "instance", "state", "cause", "since", "weight", "share", "score", "flows", "link", "mac",
        "xdp",
    ]);
    for row in rows {
        table.add_row([
            row.name.clone(),
            row.state.clone(),
            row.cause.clone(),
            since(row.changed_ns),
            row.weight.to_string(),
            percent(row.share),
            format!("{:.2}", row.score),
            row.flows.to_string(),
            row.link.clone(),
            row.mac.clone().unwrap_or_else(|| "?".to_owned()),
            row.xdp_mode.clone(),
        ]);
    }
    print(&table);
}

pub(super) fn vnis(rows: &[VniRow]) {
    let mut table = table(&[
        "vni",
        "addresses",
        "interfaces",
        "mirrors",
        "ack",
        "close",
        "instances",
    ]);
    for row in rows {
        let shares = row.instances.iter();
        let shares = shares.map(|part| format!("{} {}", part.instance, percent(part.share)));
        table.add_row([
            row.name.clone(),
            row.addresses.join(", "),
            row.interfaces.join(", "),
            row.mirrors.to_string(),
            row.ack.clone(),
            row.close.clone(),
            shares.collect::<Vec<_>>().join(", "),
        ]);
    }
    print(&table);
}

pub(super) fn mirrors(rows: &[MirrorRow]) {
    let mut table = table(&["vni", "set", "primary", "mirrors", "state", "share"]);
    for row in rows {
        table.add_row([
            row.vni.clone().unwrap_or_else(|| "-".to_owned()),
            row.set.to_string(),
            row.primary.clone(),
            row.mirrors.join(", "),
            row.state.clone(),
            percent(row.share),
        ]);
    }
    print(&table);
}

pub(super) fn flows(rows: &[FlowRow]) {
    let mut table = table(&[
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
    ]);
    for row in rows {
        let mirrors = row
            .replicas
            .iter()
            .filter(|replica| replica.role == "mirror");
        let lag = mirrors.clone().map(|replica| replica.lag_bytes).max();
        let mirrors: Vec<_> = mirrors.map(mirror).collect();
        table.add_row([
            row.client.clone(),
            row.vni.clone(),
            row.address.clone(),
            row.protocol.clone(),
            row.state.clone(),
            row.active.clone(),
            match mirrors.is_empty() {
                true => "-".to_owned(),
                false => mirrors.join(", "),
            },
            lag.map_or_else(|| "-".to_owned(), |lag| lag.to_string()),
            duration(row.age_s.into()),
            row.packets.to_string(),
            row.takeovers.to_string(),
        ]);
    }
    print(&table);
}

fn mirror(replica: &ReplicaRow) -> String {
    match &replica.reason {
        Some(reason) => format!("{} {} ({reason})", replica.instance, replica.state),
        None => format!("{} {}", replica.instance, replica.state),
    }
}

pub(super) fn events(rows: &[LogEntry]) {
    let mut table = table(&["seq", "ago", "event", "what", "from", "to", "cause"]);
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    for row in rows {
        let flow = row.client.as_ref().map(|client| match &row.vni {
            Some(vni) => format!("{client} {vni}"),
            None => client.clone(),
        });
        table.add_row([
            row.seq.to_string(),
            since(row.time_ns),
            row.kind.clone(),
            text(&row.instance.clone().or(flow)),
            text(&row.from),
            text(&row.to),
            text(&row.cause),
        ]);
    }
    print(&table);
}

pub(super) fn status(row: &StatusRow) {
    match row.pid {
        Some(pid) => println!(
            "agent     running, pid {pid}, for {}{}",
            duration(row.uptime_s),
            if row.adopted {
                ", adopted the dataplane"
            } else {
                ""
            }
        ),
        None => println!("agent     not running; the dataplane runs on without it"),
    }
    println!("version   {} (layout {})", row.version, row.layout);
    let mut flows: Vec<_> = row.flows.iter().collect();
    flows.sort();
    let flows: Vec<_> = flows
        .iter()
        .map(|(table, n)| format!("{table} {n}"))
        .collect();
    println!(
        "flows     {}",
        match flows.is_empty() {
            true => "none".to_owned(),
            false => flows.join(", "),
        }
    );
    println!();
    let mut interfaces = table(&["interface", "role", "xdp"]);
    for interface in &row.interfaces {
        interfaces.add_row([&interface.name, &interface.role, &interface.mode]);
    }
    print(&interfaces);
    println!();
    let mut counters = table(&["packets", "count"]);
    for (reason, count) in &row.counters {
        counters.add_row([reason.clone(), count.to_string()]);
    }
    print(&counters);
}
