//! One arm a verb.

use std::path::Path;

use anyhow::Result;
use clap_complete::Shell;
use hyper::Method;

use super::{
    apply,
    args::{Args, Verb},
    ask::{Asker, print, small_runtime},
    config, diff, doctor, events, flows, health, keeper, man, offline, schema, select, service,
    table, top, trace, upgrade,
};
use crate::{agent::view::StatusRow, api::client::ClientError, dataplane};

pub(super) fn run(args: &Args) -> Result<()> {
    let json = args.json;
    let asker = Asker {
        socket: &args.socket,
        json,
    };
    match &args.verb {
        Verb::Agent(agent) => service::agent(agent),
        Verb::Keeper { folder } => keeper::run(folder),
        Verb::Load(file) => service::load(&file.config, json),
        Verb::Unload(unload) => service::unload(unload, json),
        Verb::Status(place) => status(&asker, &place.pin_dir),
        Verb::Vni => asker.show("/v1/vnis", |rows: &Vec<_>, look| table::vnis(rows, look)),
        Verb::Select(wanted) => select::run(&asker, wanted),
        Verb::Instances => asker.show("/v1/instances", |rows: &Vec<_>, look| {
            table::instances(rows, look)
        }),
        Verb::Mirrors => asker.show("/v1/mirrors", |rows: &Vec<_>, look| {
            table::mirrors(rows, look)
        }),
        Verb::Flows(filter) => flows::flows(&asker, filter),
        Verb::Events(events) => events::events(&asker, events),
        Verb::Trace(flow) => trace::trace(&asker, flow),
        Verb::Capture(flow) => trace::capture(&asker, flow),
        Verb::Diff(vni) => diff::run(&asker, vni),
        Verb::Top => top::run(&args.socket),
        Verb::Metrics => asker.metrics(),
        Verb::Evacuate(order) => asker.order("evacuate", order),
        Verb::Restore(order) => asker.order("restore", order),
        Verb::Drain(order) => asker.order("drain", order),
        Verb::Takeover(order) => asker.order("takeover", order),
        Verb::Reload => asker.reload(),
        Verb::Apply(file) => apply::run(&asker, file),
        Verb::Upgrade(upgrade) => upgrade::run(&asker, upgrade),
        Verb::Doctor(doctor) => doctor::run(&asker, doctor),
        Verb::Config(verb) => config::run(&asker, verb),
        Verb::Health { rest } => health::run(rest),
        Verb::Schema { of } => schema::run(*of),
        Verb::Completions { shell } => print(&completions(*shell)),
        Verb::Man(pages) => man::run(pages),
    }
}

/// clap_complete 4.6 names a verb of a program with a hyphen in two ways in bash's script, and so never finds the
/// verb's options: the one is made the other.
fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut man::whole(), "mirror-ctl", &mut script);
    let script = String::from_utf8_lossy(&script);
    script.replace("mirror__subcmd__ctl__", "mirror__ctl__")
}

fn status(asker: &Asker<'_>, pin_dir: &Path) -> Result<()> {
    let answer: Result<StatusRow> = asker.ask(Method::GET, "/v1/status");
    let row = match answer {
        Err(error) if is_not_running(&error) && dataplane::is_loaded(pin_dir) => {
            small_runtime()?.block_on(offline::status(pin_dir))?
        }
        answer => answer?,
    };
    asker.print(&row, table::status)
}

pub(super) fn is_not_running(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<ClientError>();
    matches!(error, Some(ClientError::NotRunning { .. }))
}
