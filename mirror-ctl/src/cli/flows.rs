//! `flows`: once, or again and again with `--watch`.

use std::{
    io::{self, IsTerminal, Write as _},
    path::Path,
    time::Duration,
};

use anyhow::Result;
use hyper::Method;
use tokio::time::interval;

use super::{
    args::Flows,
    ask::{Asker, print, small_runtime},
    look::Look,
    table,
};
use crate::{
    api::client::{escape, pieces, request},
    connections::FlowRow,
};

/// Rows that a table has unless it is asked for more.
const TABLE_ROWS: usize = 1_000;
/// Puts a terminal's cursor at the top and clears what is below.
const CLEAR: &str = "\x1b[H\x1b[J";

pub(super) fn flows(asker: &Asker<'_>, filter: &Flows) -> Result<()> {
    let path = path(filter, asker.json);
    let Some(watch_s) = filter.watch else {
        if asker.json {
            return small_runtime()?.block_on(pass_on(asker.socket, &path, false));
        }
        let rows: Vec<FlowRow> = asker.ask(Method::GET, &path)?;
        return print(&listing(&rows, filter, Look::of_stdout()));
    };
    small_runtime()?.block_on(async {
        let mut ticks = interval(Duration::from_secs_f64(watch_s));
        let terminal = io::stdout().is_terminal();
        loop {
            ticks.tick().await;
            if asker.json {
                pass_on(asker.socket, &path, true).await?;
                continue;
            }
            let rows: Vec<FlowRow> = request(asker.socket, Method::GET, &path).await?;
            let text = listing(&rows, filter, Look::of_stdout());
            match terminal {
                true => print(&format!("{CLEAR}{text}"))?,
                // Listings are told apart by an empty line.
                false => print(&format!("{text}\n"))?,
            }
        }
    })
}

/// Prints an answer piece by piece: a million flows need not fit into memory. `one_line`: without the ends of lines
/// that are in it, which are between its flows only.
async fn pass_on(socket: &Path, path: &str, one_line: bool) -> Result<()> {
    let mut stdout = io::stdout().lock();
    pieces(socket, Method::GET, path, |piece| -> Result<()> {
        match one_line {
            false => stdout.write_all(piece)?,
            true => {
                let mut lines = piece.split(|byte| *byte == b'\n');
                lines.try_for_each(|line| stdout.write_all(line))?;
            }
        }
        Ok(())
    })
    .await?;
    if one_line {
        stdout.write_all(b"\n")?;
    }
    Ok(stdout.flush()?)
}

fn listing(rows: &[FlowRow], filter: &Flows, look: Look) -> String {
    let cut = filter.limit.is_none() && rows.len() > TABLE_ROWS;
    let shown = if cut { &rows[..TABLE_ROWS] } else { rows };
    let mut text = table::flows(shown, look);
    if cut {
        text.push_str("... and more: use --limit, --client, --instance, --vni or --cold\n");
    }
    text
}

fn path(filter: &Flows, json: bool) -> String {
    let mut query = vec![format!("cold={}", filter.cold)];
    let mut add = |name: &str, value: &Option<String>| {
        let value = value.as_ref();
        query.extend(value.map(|value| format!("{name}={}", escape(value))));
    };
    add("client", &filter.client);
    add("instance", &filter.instance);
    add("vni", &filter.vni);
    let limit = match (filter.limit, json) {
        (Some(limit), _) => Some(limit),
        (None, true) => None,
        // One more, to know whether there are more.
        (None, false) => Some(TABLE_ROWS + 1),
    };
    query.extend(limit.map(|limit| format!("limit={limit}")));
    format!("/v1/flows?{}", query.join("&"))
}
