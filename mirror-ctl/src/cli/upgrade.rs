//! `upgrade`: this version in the place of the one that runs. Its programs are verified before anything changes, which
//! takes seconds during which the old agent works on; then the agent's process becomes this version, finds them ready, and
//! swaps them in by atomic updates of the links. With `--drain` they have maps of their own, and the connections of the version
//! before stay with that one until they end.

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
    dataplane::{self, DataplaneError},
};

/// The new agent takes so long at most.
const LIMIT: Duration = Duration::from_secs(30);
/// Between two looks whether it is there.
const AGAIN: Duration = Duration::from_millis(20);
/// What an agent answers to what it does not know.
const UNKNOWN_PATH: &str = "there is no such path";

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
    /// Whether connections stay with the version before until they end.
    draining: bool,
}

pub(super) fn run(asker: &Asker<'_>, upgrade: &args::Upgrade) -> Result<()> {
    let before: StatusRow = asker.ask(Method::GET, "/v1/status")?;
    check_place(before.program.as_deref())?;
    let pin_dir = &apply::running(asker)?.agent.pin_dir;
    let is_possible = match upgrade.drain {
        true => dataplane::check_drain(pin_dir),
        false => dataplane::check_upgrade(pin_dir).map_err(|error| match error {
            DataplaneError::Layout { difference, .. } => DataplaneError::NotAdoptable {
                pin_dir: pin_dir.clone(),
                difference,
            },
            error => error,
        }),
    };
    is_possible?;
    if !upgrade.dry_run {
        match upgrade.drain {
            true => drain(asker.socket, &before, pin_dir, upgrade.drain_for)?,
            false => {
                dataplane::prepare(pin_dir)?;
                order(asker.socket, &before, pin_dir, "/v1/replace")?;
            }
        }
    }
    let done = Upgraded {
        before: before.version,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        interfaces: dataplane::attached(pin_dir).len(),
        upgraded: !upgrade.dry_run,
        draining: upgrade.drain && !upgrade.dry_run,
    };
    asker.print(&done, |done, _| match (done.upgraded, upgrade.drain) {
        (true, drains) => {
            let mut said = format!(
                "{} -> {}: {} interfaces run this version's programs\n",
                done.before, done.version, done.interfaces
            );
            if drains {
                said += "connections of the version before end by themselves: see `mirror-ctl status`\n";
            }
            said
        }
        (false, true) => {
            "the running version would be drained; nothing was changed (--dry-run)\n".to_owned()
        }
        (false, false) => "it would be accepted; nothing was changed (--dry-run)\n".to_owned(),
    })
}

/// Has the running version keep its connections, and this one get what is new.
fn drain(socket: &Path, before: &StatusRow, pin_dir: &Path, time: Duration) -> Result<()> {
    dataplane::prepare_beside(pin_dir)?;
    let path = format!("/v1/hand-over?for_s={}", time.as_secs());
    let ordered = order(socket, before, pin_dir, &path);
    let Err(error) = ordered else {
        return Ok(());
    };
    let is_refused = error.downcast_ref::<ClientError>().is_some();
    if is_refused {
        dataplane::abandon(pin_dir)?;
    }
    if error.to_string() == UNKNOWN_PATH {
        bail!(
            "the running agent is of a version that cannot let its connections end by themselves: move the clients to \
             another host or wait, and `mirror-ctl unload --pin-dir {}`",
            pin_dir.display()
        );
    }
    Err(error)
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

/// Has the agent become this version, and waits until it serves.
fn order(socket: &Path, before: &StatusRow, pin_dir: &Path, path: &str) -> Result<()> {
    small_runtime()?.block_on(async {
        match request::<()>(socket, Method::POST, path).await {
            // It may be gone before it has answered.
            Ok(()) | Err(ClientError::Broken { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let start = Instant::now();
        loop {
            let status = request::<StatusRow>(socket, Method::GET, "/v1/status").await;
            let is_new = status.is_ok_and(|status| status.started_s != before.started_s);
            if is_new && dataplane::is_in_place(pin_dir) {
                return Ok(());
            }
            if is_new && dataplane::is_refused(pin_dir) {
                bail!("the version before has started again, and goes on: see its log");
            }
            if start.elapsed() > LIMIT {
                bail!(
                    "the new agent does not serve all interfaces within {} s (old programs on {:?}): see its log; \
                     traffic goes on",
                    LIMIT.as_secs(),
                    dataplane::outdated(pin_dir)
                );
            }
            tokio::time::sleep(AGAIN).await;
        }
    })
}
