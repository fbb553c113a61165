//! `apply`: shows what a configuration changes, then has the agent take it up and keep it.

use std::{fs, path::Path};

use anyhow::Result;
use hyper::{Method, body::Bytes};
use serde::Serialize;

use super::{
    args::Apply,
    ask::{Asker, print, print_json, small_runtime},
};
use crate::{
    agent::Applied,
    api::client::fetch,
    config::{Config, ConfigError},
};

/// What `--json` prints.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = apply::Outcome)]
pub(super) struct Outcome {
    /// Whether it was put in force.
    applied: bool,
    /// What it changes.
    changes: Vec<String>,
    /// What the operator should know.
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<String>,
}

pub(super) fn run(asker: &Asker<'_>, apply: &Apply) -> Result<()> {
    let file = &apply.file;
    let text = fs::read_to_string(file).map_err(|source| ConfigError::Read {
        file: file.clone(),
        source,
    })?;
    let wanted = Config::parse(file, &text)?;
    let changes = running(asker)?.diff(&wanted);
    if !asker.json {
        for change in &changes {
            print(&format!("{change}\n"))?;
        }
    }
    if changes.is_empty() || apply.dry_run {
        return match asker.json {
            true => print_json(&Outcome {
                applied: false,
                changes,
                warning: None,
            }),
            false if changes.is_empty() => print("nothing changes\n"),
            false => print("nothing was changed (--dry-run)\n"),
        };
    }
    let answer = fetch(asker.socket, Method::POST, "/v1/config", Bytes::from(text));
    let answer = small_runtime()?.block_on(answer)?;
    let applied: Applied = serde_json::from_slice(&answer)?;
    if let Some(warning) = &applied.warning {
        eprintln!("mirror-ctl: {warning}");
    }
    match asker.json {
        true => print_json(&Outcome {
            applied: true,
            changes: applied.changes,
            warning: applied.warning,
        }),
        false => print("applied\n"),
    }
}

/// What the agent runs by.
pub(super) fn running(asker: &Asker<'_>) -> Result<Config> {
    let text = fetch(asker.socket, Method::GET, "/v1/config", Bytes::new());
    let text = small_runtime()?.block_on(text)?;
    let text = String::from_utf8_lossy(&text);
    Ok(Config::parse(Path::new("(the agent's)"), &text)?)
}
