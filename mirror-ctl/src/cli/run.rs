//! One function a verb.

use std::{
    io::{self, Write as _},
    os::{linux::net::SocketAddrExt, unix::net},
    path::Path,
    sync::Arc,
    time::Instant,
};

use anyhow::{Context, Result};
use clap::CommandFactory;
use hyper::Method;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    runtime::{self, Runtime},
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

use super::{
    args::{Args, ConfigVerb, Flows, Order, Unload, Verb},
    health, offline, table,
};
use crate::{
    agent::{self, Event, log::LogEntry, view::StatusRow},
    api::{
        self, Shared, Socket,
        client::{ClientError, escape, request},
    },
    config::Config,
    connections::FlowRow,
    dataplane,
    netlink::Netlink,
};

/// Rows that a table has unless it is asked for more.
const TABLE_ROWS: usize = 1_000;
/// Priority of the agent's loop.
const LOOP_NICE: i32 = -15;

pub(super) fn run(args: Args) -> Result<()> {
    let asker = Asker {
        socket: &args.socket,
        json: args.json,
    };
    match &args.verb {
        Verb::Agent(agent) => self::agent(&agent.config, agent.log_programs as u8),
        Verb::Load(file) => load(&file.config),
        Verb::Unload(unload) => self::unload(unload),
        Verb::Status(place) => status(&asker, &place.pin_dir),
        Verb::Vni => asker.show(Method::GET, "/v1/vnis", |rows: &Vec<_>| table::vnis(rows)),
        Verb::Instances => asker.show(Method::GET, "/v1/instances", |rows: &Vec<_>| {
            table::instances(rows)
        }),
        Verb::Mirrors => asker.show(Method::GET, "/v1/mirrors", |rows: &Vec<_>| {
            table::mirrors(rows)
        }),
        Verb::Flows(filter) => flows(&asker, filter),
        Verb::Events(events) => {
            let limit = events.limit.unwrap_or(usize::MAX);
            let path = format!("/v1/events?since={}&limit={limit}", events.since);
            asker.show(Method::GET, &path, |rows: &Vec<LogEntry>| {
                table::events(rows)
            })
        }
        Verb::Evacuate(order) => asker.order("evacuate", order),
        Verb::Restore(order) => asker.order("restore", order),
        Verb::Drain(order) => asker.order("drain", order),
        Verb::Takeover(order) => asker.order("takeover", order),
        Verb::Reload => asker.show(Method::POST, "/v1/reload", |(): &()| println!("reloaded")),
        Verb::Config(ConfigVerb::Check { file }) => {
            let config = Config::load(file)?;
            match args.json {
                true => print_json(&config)?,
                false => println!(
                    "{}: {} VNI(s), {} instance(s), no errors",
                    file.display(),
                    config.vnis.len(),
                    config.instances.len()
                ),
            }
            Ok(())
        }
        Verb::Health { rest } => health::run(rest),
        Verb::Completions { shell } => {
            let mut command = Args::command();
            clap_complete::generate(*shell, &mut command, "mirror-ctl", &mut io::stdout());
            Ok(())
        }
    }
}

/// Asks the agent and shows the answer.
struct Asker<'a> {
    socket: &'a Path,
    json: bool,
}

impl Asker<'_> {
    fn ask<T: DeserializeOwned>(&self, method: Method, path: &str) -> Result<T> {
        let runtime = small_runtime()?;
        Ok(runtime.block_on(request(self.socket, method, path))?)
    }

    fn show<T: DeserializeOwned + Serialize>(
        &self,
        method: Method,
        path: &str,
        table: impl FnOnce(&T),
    ) -> Result<()> {
        let answer: T = self.ask(method, path)?;
        match self.json {
            true => print_json(&answer)?,
            false => table(&answer),
        }
        Ok(())
    }

    fn order(&self, verb: &str, order: &Order) -> Result<()> {
        let (name, force) = (escape(&order.instance), order.force);
        let path = format!("/v1/instances/{name}/{verb}?force={force}");
        self.show(Method::POST, &path, |rows: &Vec<_>| table::instances(rows))
    }
}

fn flows(asker: &Asker<'_>, filter: &Flows) -> Result<()> {
    let mut query = vec![format!("cold={}", filter.cold)];
    let mut add = |name: &str, value: &Option<String>| {
        query.extend(
            value
                .as_ref()
                .map(|value| format!("{name}={}", escape(value))),
        );
    };
    add("client", &filter.client);
    add("instance", &filter.instance);
    add("vni", &filter.vni);
    let limit = match (filter.limit, asker.json) {
        (Some(limit), _) => Some(limit),
        (None, true) => None,
        // One more, to know whether there are more.
        (None, false) => Some(TABLE_ROWS + 1),
    };
    query.extend(limit.map(|limit| format!("limit={limit}")));
    let path = format!("/v1/flows?{}", query.join("&"));
    asker.show(Method::GET, &path, |rows: &Vec<FlowRow>| {
        let cut = filter.limit.is_none() && rows.len() > TABLE_ROWS;
        let shown = if cut { &rows[..TABLE_ROWS] } else { &rows[..] };
        table::flows(shown);
        if cut {
            println!("... and more: use --limit, --client, --instance, --vni or --cold");
        }
    })
}

fn status(asker: &Asker<'_>, pin_dir: &Path) -> Result<()> {
    let answer: Result<StatusRow> = asker.ask(Method::GET, "/v1/status");
    let row = match answer {
        Err(error)
            if matches!(
                error.downcast_ref::<ClientError>(),
                Some(ClientError::NotRunning { .. })
            ) && dataplane::is_loaded(pin_dir) =>
        {
            small_runtime()?.block_on(offline::status(pin_dir))?
        }
        answer => answer?,
    };
    match asker.json {
        true => print_json(&row)?,
        false => table::status(&row),
    }
    Ok(())
}

fn print_json<T: Serialize>(value: &T) -> Result<()> {
    let mut stdout = io::stdout().lock();
    serde_json::to_writer_pretty(&mut stdout, value)?;
    writeln!(stdout)?;
    Ok(())
}

fn agent(file: &Path, log_programs: u8) -> Result<()> {
    start_logging();
    let config = Config::load(file)?;
    dataplane::check()?;
    // What takes an instance out must not wait for a busy processor, nor for other threads.
    dataplane::set_nice(LOOP_NICE);
    small_runtime()?.block_on(async {
        let (socket, listener) = Socket::bind(&config.agent.socket)?;
        let started = start(file, config, log_programs).await?;
        let shared = Shared {
            views: started.views,
            log: started.log,
            maps: Arc::new(started.maps),
            orders: started.orders.clone(),
            started: Instant::now(),
        };
        api::serve(listener, shared)?;
        tokio::spawn(signals(started.orders)?);
        ready();
        started.agent.run().await;
        drop(socket);
        Ok(())
    })
}

fn load(file: &Path) -> Result<()> {
    start_logging();
    let config = Config::load(file)?;
    small_runtime()?
        .block_on(start(file, config, 0))
        .map(drop)?;
    println!(
        "loaded; `mirror-ctl agent --config {}` adopts it",
        file.display()
    );
    Ok(())
}

/// Starts the agent; a first start that fails leaves nothing behind.
async fn start(file: &Path, config: Config, log_programs: u8) -> Result<agent::Started> {
    let pin_dir = config.agent.pin_dir.clone();
    let was_loaded = dataplane::is_loaded(&pin_dir);
    match agent::start(file, config, log_programs).await {
        Ok(started) => Ok(started),
        Err(error) => {
            if !was_loaded && dataplane::is_loaded(&pin_dir) {
                take_off(&pin_dir).await.context(error.to_string())?;
            }
            Err(error.into())
        }
    }
}

fn unload(unload: &Unload) -> Result<()> {
    let pin_dir = match &unload.config {
        Some(file) => Config::load(file)?.agent.pin_dir,
        None => unload.pin_dir.clone(),
    };
    small_runtime()?.block_on(take_off(&pin_dir))?;
    println!("unloaded");
    Ok(())
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

fn start_logging() {
    let filter = EnvFilter::try_from_env("MIRROR_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
        .with_writer(io::stderr)
        .init();
}

fn small_runtime() -> Result<Runtime> {
    Ok(runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
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
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let name = name.to_string_lossy().into_owned();
    let address = match name.strip_prefix('@') {
        Some(name) => net::SocketAddr::from_abstract_name(name),
        None => net::SocketAddr::from_pathname(&name),
    };
    let sent = address
        .and_then(|address| net::UnixDatagram::unbound()?.send_to_addr(b"READY=1", &address));
    if let Err(error) = sent {
        warn!("NOTIFY_SOCKET: {error}");
    }
}
