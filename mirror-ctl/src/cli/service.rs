//! `agent`, `load` and `unload`: what puts the dataplane on a host, keeps it and takes it off.

use std::{
    env,
    io::{self, Write as _},
    os::unix::process::CommandExt,
    path::Path,
    process::Command,
    sync::Arc,
    time::{Instant, SystemTime},
};

use anyhow::{Context, Result};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{Semaphore, mpsc},
};
use tracing::info;

use super::{
    args::{self, Unload},
    ask::{Done, print, print_json, small_runtime},
    keeper, logging,
};
use crate::{
    agent::{self, End, Event},
    api::{self, Listeners, Remote, Shared, Socket},
    config::{Config, Listen},
    dataplane,
    netlink::Netlink,
    notify, privileges,
};

/// Priority of the agent's loop.
const LOOP_NICE: i32 = -15;

pub(super) fn agent(agent: &args::Agent) -> Result<()> {
    logging::start();
    // Now: the kernel's name of a file that is replaced later is of no use.
    let program = env::current_exe()?;
    let file = &agent.config;
    let config = Config::load(file)?;
    dataplane::prepare_host(&config.agent.pin_dir)?;
    limit()?;
    let own = config.agent.clone();
    let end = small_runtime()?.block_on(async {
        let (socket, listener) = Socket::bind(&config.agent.socket, config.agent.group.as_deref())?;
        let (metrics, page) = (config.agent.metrics, config.agent.page);
        let listeners = Listeners {
            api: listener,
            metrics: metrics.map(|at| api::bind("metrics", at)).transpose()?,
            page: page.map(|at| api::bind("the page", at)).transpose()?,
            remote: config.agent.listen.as_ref().map(remote).transpose()?,
        };
        let started = start(file, config, agent.log_programs as u8).await?;
        let end = serve(started, listeners, Some(program.display().to_string())).await?;
        if end == End::Stopped {
            notify::stopping();
        }
        drop(socket);
        anyhow::Ok(end)
    })?;
    match end {
        End::Stopped | End::Drained { .. } => Ok(()),
        End::Replaced => Err(become_program(&program)),
        End::HandedOver => Err(keeper::hand_over(&program, &own)),
    }
}

/// What this process is to have, and no more.
pub(super) fn limit() -> Result<()> {
    // What takes an instance out must not wait for a busy processor, nor for other threads.
    dataplane::set_nice(LOOP_NICE);
    privileges::narrow().context("giving up rights that are not needed")
}

/// Runs an agent that has started, with its API, until it ends.
pub(super) async fn serve(
    started: agent::Started,
    listeners: Listeners,
    program: Option<String>,
) -> Result<End> {
    let shared = Shared {
        views: started.views,
        log: started.log,
        readers: Arc::new(Semaphore::new(api::EVENT_READERS_MAX)),
        tracing: Arc::new(Semaphore::new(1)),
        metrics: started.metrics,
        maps: Arc::new(started.maps),
        orders: started.orders.clone(),
        program,
        started: Instant::now(),
        started_s: unix_s(),
    };
    api::serve(listeners, shared)?;
    tokio::spawn(signals(started.orders)?);
    ready();
    Ok(started.agent.run().await)
}

fn remote(listen: &Listen) -> Result<Remote> {
    let listener = api::bind("the API", listen.address)?;
    Ok(api::prepare_remote(listen, listener)?)
}

/// Makes this process one of the program that is at its place now; returns only why it could not. The service manager
/// sees the process that it started.
pub(super) fn become_program(program: &Path) -> anyhow::Error {
    let mut command = Command::new(program);
    let mut arguments = env::args_os();
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    let error = command.args(arguments).exec();
    anyhow::Error::new(error).context(format!("cannot run {}", program.display()))
}

pub(super) fn load(file: &Path, json: bool) -> Result<()> {
    logging::start();
    let config = Config::load(file)?;
    dataplane::prepare_host(&config.agent.pin_dir)?;
    small_runtime()?
        .block_on(start(file, config, 0))
        .map(drop)?;
    match json {
        true => print_json(&Done::of("loaded")),
        false => print(&format!(
            "loaded; `mirror-ctl agent --config {}` adopts it\n",
            file.display()
        )),
    }
}

/// Starts the agent; a first start that fails leaves nothing behind.
async fn start(file: &Path, config: Config, log_programs: u8) -> Result<agent::Started> {
    let pin_dir = config.agent.pin_dir.clone();
    let was_loaded = dataplane::is_loaded(&pin_dir);
    match agent::start(file, config, log_programs, None).await {
        Ok(started) => Ok(started),
        Err(error) => {
            if !was_loaded && dataplane::is_loaded(&pin_dir) {
                take_off(&pin_dir).await.context(error.to_string())?;
            }
            Err(error.into())
        }
    }
}

pub(super) fn unload(unload: &Unload, json: bool) -> Result<()> {
    let pin_dir = match &unload.config {
        Some(file) => Config::load(file)?.agent.pin_dir,
        None => unload.pin_dir.clone(),
    };
    small_runtime()?.block_on(take_off(&pin_dir))?;
    match json {
        true => print_json(&Done::of("unloaded")),
        false => print("unloaded\n"),
    }
}

/// Detaches, removes the addresses that an agent added, and removes the pins.
async fn take_off(pin_dir: &Path) -> Result<()> {
    let mut announced = Vec::new();
    dataplane::unload(pin_dir, |addresses| announced = addresses.to_vec())?;
    if announced.is_empty() {
        return Ok(());
    }
    let (netlink, _changes) = Netlink::open()?;
    let links = netlink.links().await?;
    for entry in announced {
        if let Some(link) = links.iter().find(|link| link.name == entry.interface) {
            netlink.remove_address(link.ifindex, entry.address).await?;
        }
    }
    Ok(())
}

fn unix_s() -> f64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

/// Turns signals into events.
fn signals(orders: mpsc::Sender<Event>) -> Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        loop {
            let event = tokio::select! {
                _ = terminate.recv() => Event::Stop,
                _ = interrupt.recv() => Event::Stop,
                _ = hangup.recv() => Event::Reload(None),
            };
            if orders.send(event).await.is_err() {
                return;
            }
        }
    })
}

/// Tells whoever started the agent that it serves.
fn ready() {
    let mut stdout = io::stdout().lock();
    if writeln!(stdout, "ready")
        .and_then(|()| stdout.flush())
        .is_err()
    {
        info!("ready");
    }
    notify::ready();
}
