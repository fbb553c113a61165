//! `upgrade`: this version in the place of the one that runs. Its programs are verified before anything changes, which
//! takes seconds during which the old agent works on; then the agent's process becomes this version, finds them ready, and
//! swaps them in by atomic updates of the links.

use std::{
    env,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use hyper::Method;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    apply, args,
    ask::{Asker, small_runtime},
};
use crate::{
    agent::view::StatusRow,
    api::client::{ClientError, request},
    dataplane,
};

/// The new agent takes so long at most.
const LIMIT: Duration = Duration::from_secs(30);
/// Between two looks whether it is there.
const AGAIN: Duration = Duration::from_millis(20);

/// What `upgrade --json` prints.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Upgraded {
    /// The version that ran before.
    before: String,
    /// This version.
    version: String,
    /// Interfaces that run this version's programs.
    interfaces: usize,
    /// False after `--dry-run`.
    upgraded: bool,
}

pub(super) fn run(asker: &Asker<'_>, upgrade: &args::Upgrade) -> Result<()> {
    let before: StatusRow = asker.ask(Method::GET, "/v1/status")?;
    check_place(before.program.as_deref())?;
    let pin_dir = &apply::running(asker)?.agent.pin_dir;
    match upgrade.dry_run {
        true => dataplane::check_upgrade(pin_dir)?,
        false => dataplane::prepare(pin_dir)?,
    }
    if !upgrade.dry_run {
        small_runtime()?.block_on(replace(asker.socket, &before, pin_dir))?;
    }
    let done = Upgraded {
        before: before.version,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        interfaces: dataplane::attached(pin_dir).len(),
        upgraded: !upgrade.dry_run,
    };
    asker.print(&done, |done, _| match done.upgraded {
        true => format!(
            "{} -> {}: {} interfaces run this version's programs\n",
            done.before, done.version, done.interfaces
        ),
        false => "it would be accepted; nothing was changed (--dry-run)\n".to_owned(),
    })
}

/// The agent becomes what is at its own program's place, so this must be it.
fn check_place(agents: Option<&str>) -> Result<()> {
    let agents = agents.context(
        "the running agent is of a version that cannot be replaced: start it again instead \
         (`systemctl restart mirror`)",
    )?;
    let own = env::current_exe().context("own path")?;
    let same = Path::new(agents)
        .canonicalize()
        .is_ok_and(|agents| own == agents);
    if !same {
        bail!(
            "the agent's program is {agents}, and this one is {}: install this version there, and run it from there",
            own.display()
        );
    }
    Ok(())
}

async fn replace(socket: &Path, before: &StatusRow, pin_dir: &Path) -> Result<()> {
    match request::<()>(socket, Method::POST, "/v1/replace").await {
        // It may be gone before it has answered.
        Ok(()) | Err(ClientError::Broken { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let start = Instant::now();
    loop {
        let status = request::<StatusRow>(socket, Method::GET, "/v1/status").await;
        let outdated = dataplane::outdated(pin_dir);
        if status.is_ok_and(|status| status.started_s != before.started_s) && outdated.is_empty() {
            return Ok(());
        }
        if start.elapsed() > LIMIT {
            bail!(
                "the new agent does not serve all interfaces within {} s (old programs on {outdated:?}): see its log; \
                 traffic goes on",
                LIMIT.as_secs()
            );
        }
        tokio::time::sleep(AGAIN).await;
    }
}
