//! The walk over all flows that forgets dead ones and counts the others. It runs in a thread of
//! its own, in slices with pauses, so that neither the agent nor traffic ever waits for it.

use std::{
    collections::{HashMap, HashSet},
    ops::ControlFlow,
    sync::{
        Arc, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use mirror_common::{
    flow::{self, FlowKey},
    instance::{Measures, state},
    time,
};
use tokio::sync::mpsc;
use tracing::warn;

use super::{
    Census, Vnis,
    expiry::{is_expired, is_needed},
    handshakes::{Window, gather},
    prompt,
};
use crate::{
    clock,
    dataplane::{DataplaneError, FlowTable, Injector, Maps, set_nice},
    health::{board::Noticed, collect::passive::Passive, predict::signal::Reading},
    routing::distance::Seen,
};

/// Between two slices of a walk.
const PAUSE: Duration = Duration::from_micros(200);
/// Between two walks, at least.
const INTERVAL: Duration = Duration::from_secs(1);
/// A walk may take one part in this of the time.
const DUTY: u32 = 10;
/// Priority of the thread: housekeeping.
const NICE: i32 = 10;
/// Idle time of flows whose VNI is not configured any more.
const ORPHAN_IDLE_S: u32 = 600;

/// What one walk found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sweep {
    /// When it began.
    pub began_ns: u64,
    /// The flows by several counts.
    pub census: Census,
    /// How long instances took to answer SYNs, of flows that no walk before took in; empty unless it is wanted.
    pub seen: Seen,
    /// Sets that a flow uses.
    pub sets: HashSet<u32>,
    /// TCP flows whose state is needed still.
    pub left: u64,
    /// Flows that were forgotten.
    pub expired: u64,
    /// What was measured of instances since the walk before, and where that was little, in the last five; by their numbers.
    pub measured: HashMap<u16, Reading>,
}

/// The thread.
pub struct Sweeper {
    /// Idle limits by VNI number.
    pub idle_s: Arc<RwLock<HashMap<u16, u32>>>,
    /// Whether handshakes are wanted.
    pub learns: Arc<AtomicBool>,
}

impl Sweeper {
    /// Starts the thread; it ends when nobody listens to `found`.
    pub fn start(
        mut maps: Maps,
        injector: Injector,
        found: mpsc::Sender<Sweep>,
    ) -> std::io::Result<Self> {
        let idle_s = Arc::new(RwLock::new(HashMap::new()));
        let limits = Arc::clone(&idle_s);
        let learns = Arc::new(AtomicBool::new(false));
        let wanted = Arc::clone(&learns);
        let mut last: Option<Window> = None;
        thread::Builder::new()
            .name("sweep".to_owned())
            .spawn(move || {
                set_nice(NICE);
                let mut looks = Looks::new();
                while !found.is_closed() {
                    let start = Instant::now();
                    let idle = limits
                        .read()
                        .map(|limits| limits.clone())
                        .unwrap_or_default();
                    let window = wanted.load(Ordering::Relaxed).then(|| {
                        let now_s = time::s(clock::now_ns());
                        Window::after(last, now_s)
                    });
                    match sweep(&mut maps, &injector, &idle, window, &mut looks) {
                        Ok(sweep) => {
                            last = window;
                            if found.blocking_send(sweep).is_err() {
                                return;
                            }
                        }
                        Err(error) => warn!("flow tables cannot be read: {error}"),
                    }
                    pause(INTERVAL.max(start.elapsed() * DUTY));
                }
            })?;
        Ok(Self { idle_s, learns })
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the pace of the walk: there is no condition to wait for"
)]
fn pause(time: Duration) {
    thread::sleep(time);
}

/// Looks at what was measured, by the instances' numbers.
type Looks = HashMap<u32, Passive>;

/// What was measured since the looks before.
fn measure(maps: &Maps, looks: &mut Looks) -> Result<HashMap<u16, Reading>, DataplaneError> {
    let known = maps.register.instances()?;
    let numbers: Vec<u32> = known.iter().map(|(_, record)| record.number).collect();
    let measures = maps.measures(&numbers)?;
    looks.retain(|number, _| numbers.contains(number));
    let at_ns = clock::now_ns();
    let look = |(number, measures): (u32, Measures)| {
        let noticed = Noticed {
            number,
            at_ns,
            ..Noticed::default()
        };
        let reading = looks.entry(number).or_default();
        Some((number as u16, reading.look(noticed, Some(measures))?))
    };
    Ok(numbers.into_iter().zip(measures).filter_map(look).collect())
}

/// One walk.
fn sweep(
    maps: &mut Maps,
    injector: &Injector,
    idle_s: &HashMap<u16, u32>,
    window: Option<Window>,
    looks: &mut Looks,
) -> Result<Sweep, DataplaneError> {
    let limit = |key: &FlowKey| idle_s.get(&key.vni).copied().unwrap_or(ORPHAN_IDLE_S);
    let mut found = Sweep {
        began_ns: clock::now_ns(),
        measured: measure(maps, looks).unwrap_or_else(|error| {
            warn!("what the dataplane measures is missing: {error}");
            HashMap::new()
        }),
        ..Sweep::default()
    };
    let now_s = time::s(found.began_ns);
    let dead = dead_instances(maps)?;
    let mut expired: Vec<(FlowTable, FlowKey)> = Vec::new();
    maps.walk_flows(
        |entry| {
            found.sets.insert(entry.flow.set.into());
            found.census.count(&entry, |number| dead.contains(&number));
            if let Some(window) = window {
                gather(&mut found.seen, &entry, window);
            }
            found.left += u64::from(is_needed(entry.table, entry.flow, now_s));
            if is_expired(entry.table, entry.flow, now_s, limit(entry.key)) {
                expired.push((entry.table, *entry.key));
            }
            ControlFlow::Continue(())
        },
        || {
            pause(PAUSE);
            ControlFlow::Continue(())
        },
    )?;
    let vnis = match expired.is_empty() {
        true => Vnis::default(),
        false => Vnis::read(maps)?,
    };
    for (table, key) in expired {
        // It may have come to life since: only what is expired now goes.
        let now_s = time::s(clock::now_ns());
        let Some(flow) = maps.flow(table, &key)? else {
            continue;
        };
        if !is_expired(table, &flow, now_s, limit(&key)) {
            continue;
        }
        // Before it is forgotten: what they say afterwards would pass.
        let open = table == FlowTable::Mirrored && flow.state < flow::state::CLOSED;
        if open && let Err(error) = let_go(maps, injector, &vnis, &key) {
            warn!("replicas of a forgotten flow are not told: {error}");
        }
        maps.delete_flow(table, &key)?;
        found.expired += 1;
    }
    Ok(found)
}

/// Lets go the replicas of a flow that is about to be forgotten.
fn let_go(
    maps: &Maps,
    injector: &Injector,
    vnis: &Vnis,
    key: &FlowKey,
) -> Result<(), DataplaneError> {
    let Some((address, _)) = vnis.of(key) else {
        return Ok(());
    };
    let Some(flow) = maps.tcp_flow(FlowTable::Mirrored, key)? else {
        return Ok(());
    };
    let instance = |number: u16| maps.instance(number.into()).ok();
    for (ifindex, frame) in prompt::farewells(key, &flow, *address, instance) {
        injector.send(ifindex, &frame)?;
    }
    Ok(())
}

fn dead_instances(maps: &Maps) -> Result<HashSet<u16>, DataplaneError> {
    let mut dead = HashSet::new();
    for (_, record) in maps.register.instances()? {
        if maps.instance(record.number)?.state == state::DEAD {
            dead.insert(record.number as u16);
        }
    }
    Ok(dead)
}
