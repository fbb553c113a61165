//! Asks the agent and shows the answer.

use std::{
    io::{self, Write as _},
    path::Path,
};

use anyhow::Result;
use hyper::{Method, body::Bytes};
use serde::{Serialize, de::DeserializeOwned};
use tokio::runtime::{self, Runtime};

use super::{args::Order, look::Look, table};
use crate::api::client::{escape, fetch, request};

/// Asks the agent and shows the answer.
pub(super) struct Asker<'a> {
    pub(super) socket: &'a Path,
    pub(super) json: bool,
}

impl Asker<'_> {
    pub(super) fn ask<T: DeserializeOwned>(&self, method: Method, path: &str) -> Result<T> {
        let runtime = small_runtime()?;
        Ok(runtime.block_on(request(self.socket, method, path))?)
    }

    /// Shows an answer as a table, or as it is.
    pub(super) fn show<T: DeserializeOwned + Serialize>(
        &self,
        path: &str,
        table: impl FnOnce(&T, Look) -> String,
    ) -> Result<()> {
        let answer: T = self.ask(Method::GET, path)?;
        self.print(&answer, table)
    }

    pub(super) fn print<T: Serialize>(
        &self,
        answer: &T,
        table: impl FnOnce(&T, Look) -> String,
    ) -> Result<()> {
        match self.json {
            true => print_json(answer),
            false => print(&table(answer, Look::of_stdout())),
        }
    }

    pub(super) fn metrics(&self) -> Result<()> {
        let text = fetch(self.socket, Method::GET, "/metrics", Bytes::new());
        let text = small_runtime()?.block_on(text)?;
        Ok(io::stdout().write_all(&text)?)
    }

    pub(super) fn order(&self, verb: &str, order: &Order) -> Result<()> {
        let (name, force) = (escape(&order.instance), order.force);
        let path = format!("/v1/instances/{name}/{verb}?force={force}");
        let rows: Vec<_> = self.ask(Method::POST, &path)?;
        self.print(&rows, |rows, look| table::instances(rows, look))
    }

    pub(super) fn reload(&self) -> Result<()> {
        self.ask::<()>(Method::POST, "/v1/reload")?;
        self.print(&Done::of("reloaded"), |_, _| "reloaded\n".to_owned())
    }
}

/// What `--json` prints where there is nothing to tell but that it is done.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct Done {
    /// `loaded`, `unloaded`, `reloaded` or `written`.
    done: &'static str,
}

impl Done {
    pub(super) fn of(done: &'static str) -> Self {
        Self { done }
    }
}

pub(super) fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

pub(super) fn print_json<T: Serialize>(value: &T) -> Result<()> {
    let mut stdout = io::stdout().lock();
    serde_json::to_writer_pretty(&mut stdout, value)?;
    writeln!(stdout)?;
    Ok(())
}

/// One JSON value on one line, at once: something may be waiting for it at the other end of a pipe.
pub(super) fn print_json_line<T: Serialize>(value: &T) -> Result<()> {
    let mut stdout = io::stdout().lock();
    serde_json::to_writer(&mut stdout, value)?;
    writeln!(stdout)?;
    Ok(stdout.flush()?)
}

pub(super) fn small_runtime() -> Result<Runtime> {
    Ok(runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}
