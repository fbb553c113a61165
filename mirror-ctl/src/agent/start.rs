//! Starts the agent: what it is made of, and its first configuration ([`super::configure`]).

use std::{
    collections::{HashMap, HashSet},
    mem,
    path::Path,
    sync::Arc,
    thread,
};

use mirror_common::event::Event as Report;
use tokio::{
    runtime,
    sync::{mpsc, watch},
};
use tracing::warn;

use super::{
    Agent, Event, Inputs, Keeping, configure::Occasion, handover, log::EventLog, models::Models,
    predecessor, sets::SetBook, state::State, view::View,
};
use crate::{
    clock,
    config::Config,
    connections::{Rescuer, Sweep, Sweeper},
    dataplane::{Dataplane, DataplaneError, chain},
    health::watch::{Measured, Watch},
    metrics::Metrics,
    netlink::{Netlink, NetlinkError, Targets},
};

/// Batches of the dataplane's reports that may wait for the loop.
const REPORTS_QUEUED: usize = 1;
/// Reports that may wait for a place among those; more stay in the ring buffer.
const REPORTS_HELD: usize = 16_384;

/// Why the agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The kernel's side.
    #[error(transparent)]
    Dataplane(#[from] DataplaneError),
    /// The network's side.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A thread or a descriptor.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// The agent, ready to run, and what the API needs of it.
pub struct Started {
    /// The agent.
    pub agent: Agent,
    /// Orders to it.
    pub orders: mpsc::Sender<Event>,
    /// What it shows.
    pub views: watch::Receiver<Arc<View>>,
    /// What happened.
    pub log: Arc<EventLog>,
    /// What is measured.
    pub metrics: Arc<Metrics>,
    /// Handles of the maps for readers.
    pub maps: crate::dataplane::Maps,
}

/// Hands on what the programs report, in a thread of its own: connections that have moved do not wait for the agent's loop, which
/// is busiest when an instance is lost.
fn listen(
    dataplane: &Dataplane,
    rescuer: Rescuer,
    reports: mpsc::Sender<Vec<Report>>,
) -> Result<(), StartError> {
    let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
    let mut events = {
        let _within = runtime.enter();
        dataplane.events()?
    };
    let listening = async move {
        let mut heard: Vec<Report> = Vec::new();
        loop {
            tokio::select! {
                biased;
                // What comes from then on is another agent's.
                () = reports.closed() => return,
                place = reports.reserve(), if !heard.is_empty() => match place {
                    Ok(place) => place.send(mem::take(&mut heard)),
                    Err(_) => return,
                },
                batch = events.next(), if heard.len() < REPORTS_HELD => {
                    let Ok(batch) = batch else { return };
                    rescuer.reported(&batch);
                    heard.extend(batch);
                }
            }
        }
    };
    thread::Builder::new()
        .name("events".to_owned())
        .spawn(move || runtime.block_on(listening))?;
    Ok(())
}

/// Loads, attaches, pins or adopts everything that `config` (of `file`) asks for.
/// `log_programs`: level of the programs' own log, 0 (off) to 5 (trace). `keeping`: only what is there is looked after.
pub async fn start(
    file: &Path,
    config: Config,
    log_programs: u8,
    keeping: Option<Keeping>,
) -> Result<Started, StartError> {
    let pin_dir = &config.agent.pin_dir;
    let mut dataplane = match &keeping {
        Some(_) => Dataplane::keep(pin_dir)?,
        None => Dataplane::open(pin_dir, log_programs, config.vnis.len() as u32)?,
    };
    if dataplane.succeeds() {
        let folder = handover::folder(&config.agent.socket);
        match handover::read(&folder) {
            Ok(handover) => handover.take_up(&mut dataplane)?,
            Err(error) => warn!("{}: {error}: orders are forgotten", folder.display()),
        }
    }
    if log_programs > 0 {
        tokio::spawn(dataplane.program_log()?.run());
    }
    let (netlink, changes) = Netlink::open()?;
    let targets = Targets::open();
    let (closed_sender, closed) = mpsc::channel(1);
    let now_ns = clock::now_ns();
    let (probe_sender, probes) = mpsc::channel(1024);
    let (order_sender, orders) = mpsc::channel(64);
    let (sweep_sender, sweeps) = mpsc::channel(1);
    let (report_sender, reports) = mpsc::channel(REPORTS_QUEUED);
    let rescuer = Rescuer::start(dataplane.reader()?, dataplane.injector()?)?;
    listen(&dataplane, rescuer.clone(), report_sender)?;
    let (views, view_receiver) = watch::channel(Arc::new(View::default()));
    let metrics = Arc::new(Metrics::new());
    let log = Arc::new(EventLog::new(Arc::clone(&metrics)));
    let sweeper = Sweeper::start(dataplane.reader()?, dataplane.injector()?, sweep_sender)?;
    let maps = dataplane.reader()?;
    let to_measure = dataplane.reader()?;
    let measured: Measured = Arc::new(move |numbers| {
        let measures = to_measure.measures(numbers);
        measures.map_err(|error| chain(&error))
    });
    let nothing = Config {
        instances: Vec::new(),
        vnis: Vec::new(),
        ..config.clone()
    };
    let sources = dataplane.sources()?.into_iter().collect();
    let mut agent = Agent {
        file: file.to_owned(),
        state: State::new(nothing, Vec::new()),
        book: SetBook::of(&dataplane.sets()?, now_ns),
        dataplane,
        netlink,
        targets,
        published: HashMap::new(),
        sources,
        zoned: None,
        wired: HashMap::new(),
        broken: HashSet::new(),
        watch: Watch::new(measured),
        models: Models::default(),
        judged: 0,
        sweep: Sweep::default(),
        sweeper,
        rescuer,
        probes: HashMap::new(),
        inputs: Inputs {
            changes,
            closed,
            reports,
            sweeps,
            probes,
            probe_sender,
            orders,
        },
        log: Arc::clone(&log),
        metrics: Arc::clone(&metrics),
        views,
        ticks: 0,
        checksums_told: HashSet::new(),
        traced_until_ns: None,
        keeping,
        draining: None,
        kept_told: None,
        end: None,
    };
    let dataplane = &agent.dataplane;
    let occasion = match (dataplane.adopted(), dataplane.succeeds()) {
        (_, true) => Occasion::Succession,
        (true, false) => Occasion::Adoption,
        (false, false) => Occasion::FirstStart,
    };
    let (pin_dir, socket) = (config.agent.pin_dir.clone(), config.agent.socket.clone());
    agent.configure(config, occasion).await?;
    if !agent.keeps() {
        agent.draining = predecessor::watch(&pin_dir, &socket, order_sender.clone());
        agent.show();
    }
    if let Some(targets) = targets {
        targets.follow(closed_sender)?;
    }
    Ok(Started {
        agent,
        orders: order_sender,
        views: view_receiver,
        log,
        metrics,
        maps,
    })
}
