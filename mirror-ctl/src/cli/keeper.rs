//! `keeper`: looks after the flows of this version while another one with other maps runs in its place. And what the agent does
//! before it becomes that one: it starts the keeper.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Stdio},
    sync::mpsc::sync_channel,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tracing::{error, info, warn};

use super::{ask::small_runtime, logging, service};
use crate::{
    agent::{
        End, Keeping,
        handover::{self, Ended, OWN_PROGRAM},
        predecessor,
    },
    api::{Listeners, Socket},
    config::{Agent, Config},
    dataplane,
};

/// It has to adopt what is pinned, as any agent that starts; the service manager's patience is not much longer.
const READY_MAX: Duration = Duration::from_secs(5);

/// Looks after the flows that a folder is about, until they have ended.
pub(super) fn run(folder: &Path) -> Result<()> {
    logging::start();
    let handover = handover::read(folder).with_context(|| folder.display().to_string())?;
    let file = handover::config(folder);
    let config = Config::load(&file)?;
    service::limit()?;
    let end = small_runtime()?.block_on(async {
        let (socket, api) = Socket::bind(&config.agent.socket, config.agent.group.as_deref())?;
        let listeners = Listeners {
            api,
            metrics: None,
            page: None,
            remote: None,
        };
        let keeping = Some(Keeping::new(&handover));
        let started = crate::agent::start(&file, config, 0, keeping).await?;
        let end = service::serve(started, listeners, None).await?;
        drop(socket);
        anyhow::Ok(end)
    })?;
    let End::Drained { cut } = end else {
        return Ok(());
    };
    match cut {
        Some(cut) => handover::end(folder, Ended { cut })?,
        // Whoever removed the pins knows; without an agent the folder is in nobody's care.
        None => handover::remove(folder)?,
    }
    Ok(dataplane::remove_drained(&handover.pin_dir)?)
}

/// Sets what is pinned aside, starts its keeper, and makes this process the new version, of the program at `program`. Returns
/// only why it could not.
pub(super) fn hand_over(program: &Path, agent: &Agent) -> anyhow::Error {
    let kept = dataplane::set_aside(&agent.pin_dir)
        .map_err(anyhow::Error::from)
        .and_then(|()| keep(&handover::folder(&agent.socket)));
    match kept {
        Ok(pid) => {
            info!(pid, "a keeper looks after this version's flows");
            service::become_program(program)
        }
        Err(reason) => {
            error!("this version goes on: {reason:#}");
            if let Err(error) = dataplane::take_back(&agent.pin_dir) {
                warn!("{error}");
            }
            if let Err(error) = handover::remove(&handover::folder(&agent.socket)) {
                warn!("{error}");
            }
            service::become_program(Path::new(OWN_PROGRAM))
        }
    }
}

/// Starts a keeper, and waits until it keeps: of the copy from which it could be started again, or, where programs cannot be run
/// from such a place, of this very program.
fn keep(folder: &Path) -> Result<u32> {
    let start = |program: &Path| {
        let mut command = predecessor::keeper(program, folder);
        command.stdout(Stdio::piped()).spawn()
    };
    let program = handover::program(folder);
    let started = start(&program).or_else(|error| {
        warn!(
            "{}: {error}: the keeper cannot be started again",
            program.display()
        );
        start(Path::new(OWN_PROGRAM))
    });
    let mut child = started.context("start a keeper")?;
    if let Err(error) = is_ready(&mut child) {
        // It may have ended by itself.
        let _ = child.kill();
        let _ = child.wait();
        return Err(error);
    }
    Ok(child.id())
}

fn is_ready(child: &mut Child) -> Result<()> {
    let output = child.stdout.take().context("the keeper's output")?;
    let (sender, receiver) = sync_channel(1);
    thread::spawn(move || {
        let mut line = String::new();
        let read = BufReader::new(output).read_line(&mut line);
        // Nobody may wait any more.
        let _ = sender.send(read.map(|_| line));
    });
    match receiver.recv_timeout(READY_MAX) {
        Ok(Ok(line)) if line.trim() == "ready" => Ok(()),
        Ok(_) => bail!("the keeper does not start"),
        Err(_) => bail!("the keeper does not start within {} s", READY_MAX.as_secs()),
    }
}
