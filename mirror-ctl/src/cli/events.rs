//! `events`: what happened, and with `--follow` what happens.

use anyhow::{Result, anyhow, bail};
use hyper::Method;

use super::{
    args::Events,
    ask::{Asker, print, print_json_line, small_runtime},
    table,
};
use crate::{
    agent::log::LogEntry,
    api::{
        CUT, GAP,
        client::{ClientError, escape, messages},
        sse::Message,
    },
};

pub(super) fn events(asker: &Asker<'_>, events: &Events) -> Result<()> {
    let mut query = Vec::new();
    if !events.kind.is_empty() {
        query.push(format!("kind={}", escape(&events.kind.join(","))));
    }
    query.extend(events.since.map(|since| format!("since={since}")));
    if events.follow {
        return follow(asker, &format!("/v1/events/stream?{}", query.join("&")));
    }
    query.extend(events.limit.map(|limit| format!("limit={limit}")));
    let path = format!("/v1/events?{}", query.join("&"));
    asker.show(&path, |rows: &Vec<_>, look| table::events(rows, look))
}

/// Ends when the agent ends or cuts the stream; both are failures, because more was wanted.
fn follow(asker: &Asker<'_>, path: &str) -> Result<()> {
    let read = messages(asker.socket, Method::GET, path, |message| {
        show(&message, asker.json)
    });
    match small_runtime()?.block_on(read) {
        // An agent that ends leaves its answer unfinished.
        Err(error) if matches!(error.downcast_ref(), Some(ClientError::Broken { .. })) => {}
        ended => ended?,
    }
    bail!("the agent ended the stream of events")
}

fn show(message: &Message, json: bool) -> Result<()> {
    match message.event.as_str() {
        CUT => {
            let why: serde_json::Value = serde_json::from_str(&message.data)?;
            Err(anyhow!("{}", why["error"].as_str().unwrap_or(CUT)))
        }
        GAP => {
            let gap: serde_json::Value = serde_json::from_str(&message.data)?;
            eprintln!(
                "mirror-ctl: {} older events are forgotten",
                gap["forgotten"]
            );
            Ok(())
        }
        _ => {
            let entry: LogEntry = serde_json::from_str(&message.data)?;
            match json {
                true => print_json_line(&entry),
                false => print(&format!("{}\n", table::event(&entry))),
            }
        }
    }
}
