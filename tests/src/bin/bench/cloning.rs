//! Packets per second through real links, on one processor: live frames leave by the client's end of its veth, and are
//! counted and dropped where the instances receive them.
//!
//! Sender, dataplane and counters share the processor, as they would the softirq of a network card, so a rate is the
//! reciprocal of what a frame costs on its whole way.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mirror_common::limits::REPLICAS;
use testbed::clock::wait_until;
use testbed::net::MacAddr;

use crate::assemble::{self, BROADCAST, Feed, Feeder, Then};
use crate::frame::HEADERS;
use crate::mirrors::{Mirror, Undo};
use crate::report::{Goal, Results, Row};
use crate::rig::{Rig, from_client};
use crate::stats::Spread;
use crate::{Effort, machine, sys};

const METHOD: &str = "million frames per second from the client's end of its veth to counters at the instances' ends, \
    all on one processor";
/// Frames without the checksum at their end, the largest of an MTU of 1500.
const FRAME_BYTES: [usize; 3] = [64, 512, 1514];
/// How long the last frames may be on their way.
const ARRIVAL_LIMIT: Duration = Duration::from_millis(200);
/// Frames of a run, by the packets that are measured elsewhere: what a run costs once is to vanish, and a tick of the scheduler, by
/// which a run may end later.
const FACTOR: u32 = 6;
/// Part of a run that goes ahead as a warm-up.
const WARM_UP: u32 = 8;
const MILLION: f64 = 1e6;

/// Who forwards the client's frames.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// A redirect to so many instances, and nothing else.
    Bare(usize),
    /// The dataplane, with so many mirrors.
    Ours(usize),
    /// The kernel's own.
    Kernel(Mirror),
}

impl Way {
    fn copies(self) -> usize {
        match self {
            Self::Bare(copies) => copies,
            Self::Ours(mirrors) => mirrors + 1,
            Self::Kernel(_) => 2,
        }
    }

    fn name(self) -> String {
        match self {
            Self::Bare(1) => "bare redirect".into(),
            Self::Bare(copies) => format!("bare broadcast to {copies}"),
            Self::Ours(0) => "dataplane, unmirrored".into(),
            Self::Ours(mirrors) => format!("dataplane, {mirrors} mirror(s)"),
            Self::Kernel(mirror) => format!("{}, 1 mirror", mirror.name()),
        }
    }
}

/// One way's figures of one size: by round.
struct Measured {
    way: Way,
    rates: Vec<f64>,
    lost: u64,
    sent: u64,
}

pub(crate) fn run(effort: &Effort) -> Result<Results> {
    machine::pin()?;
    let mut results = Results::new("cloning", METHOD);
    let mut rig = Rig::set_up()?;
    rig.topology.route_plainly(&rig.topology.instances[0])?;
    for mirrors in 0..REPLICAS {
        rig.open(1, mirrors)?;
    }
    let counters = Counters::attach(&rig)?;
    let mut ways: Vec<Way> = (1..=REPLICAS).map(Way::Bare).collect();
    ways.extend((0..REPLICAS).map(Way::Ours));
    for mirror in Mirror::ALL {
        match mirror.start(&rig.topology) {
            Ok(undo) => {
                drop(undo);
                ways.push(Way::Kernel(mirror));
            }
            Err(error) => results
                .missing
                .push(format!("{}: {error:#}", mirror.name())),
        }
    }
    let frames = effort.packets * FACTOR;
    for bytes in FRAME_BYTES {
        let wanted = |way: &Way| effort.wants(&format!("{bytes} B, {}", way.name()));
        if !ways.iter().any(wanted) {
            continue;
        }
        effort.progress(&format!("{bytes} B"));
        // What others are compared with is always measured.
        let chosen = ways
            .iter()
            .filter(|way| matches!(way, Way::Bare(_)) || wanted(way));
        let mut all: Vec<Measured> = chosen.map(|way| Measured::new(*way)).collect();
        // One round more, which is not kept.
        for round in 0..=effort.rounds.div_ceil(3) {
            for measured in &mut all {
                let way = measured.way;
                let run = once(&rig, &counters, way, bytes, frames);
                let (rate, lost) = run.with_context(|| way.name())?;
                if round > 0 {
                    measured.rates.push(rate);
                    measured.lost += lost;
                    measured.sent += u64::from(frames) * way.copies() as u64;
                }
            }
        }
        results.rows.extend(rows(&all, bytes));
    }
    Ok(results)
}

impl Measured {
    fn new(way: Way) -> Self {
        Self {
            way,
            rates: Vec::new(),
            lost: 0,
            sent: 0,
        }
    }

    fn row(&self, bytes: usize, against: Option<(&str, &[f64])>) -> Row {
        let pairs = |base: &[f64]| {
            let pairs = self.rates.iter().copied().zip(base.iter().copied());
            Spread::of_ratios(pairs)
        };
        let lost = match self.lost {
            0 => String::new(),
            lost => format!("{lost} of {} copies lost", self.sent),
        };
        Row {
            what: format!("{bytes} B, {}", self.way.name()),
            panel: format!("{bytes} B"),
            against: against.map(|(name, _)| name.into()),
            ratio: against.map(|(_, base)| pairs(base)),
            value: Spread::of(&self.rates),
            unit: "Mpps".into(),
            goal: None,
            note: lost,
        }
    }
}

/// Ratios to what does the same without us.
fn rows(all: &[Measured], bytes: usize) -> Vec<Row> {
    let of = |way| all.iter().find(|measured| measured.way == way);
    let mut rows = Vec::new();
    for measured in all {
        let base = match measured.way {
            Way::Bare(_) => None,
            way => of(Way::Bare(way.copies())),
        };
        let name = base.map(|base| base.way.name());
        let against = name.as_deref().zip(base.map(|base| base.rates.as_slice()));
        let mut row = measured.row(bytes, against);
        if measured.way == Way::Ours(1) {
            row.goal = row
                .ratio
                .map(|ratio| Goal::at_least(ratio.median, 0.85, "x"));
        }
        rows.push(row);
    }
    // Of each round the best of the kernel's own.
    let kernels: Vec<&Measured> = all
        .iter()
        .filter(|measured| matches!(measured.way, Way::Kernel(_)))
        .collect();
    if let Some(ours) = of(Way::Ours(1)).filter(|_| !kernels.is_empty()) {
        let best = |round: usize| kernels.iter().map(move |kernel| kernel.rates[round]);
        let best = (0..ours.rates.len()).map(|round| best(round).fold(0.0, f64::max));
        let best: Vec<f64> = best.collect();
        let mut row = ours.row(bytes, Some(("best of the kernel's", &best)));
        // It is drawn once already.
        row.panel = Row::NOT_DRAWN.into();
        row.goal = row
            .ratio
            .map(|ratio| Goal::at_least(ratio.median, 1.8, "x"));
        rows.push(row);
    }
    rows
}

/// Sends frames one way; million frames a second that arrived, and the copies that did not.
fn once(rig: &Rig, counters: &Counters, way: Way, bytes: usize, frames: u32) -> Result<(f64, u64)> {
    let _set_up = set_up(rig, way)?;
    let mirrors = match way {
        Way::Ours(mirrors) => mirrors,
        _ => 0,
    };
    let segment = from_client(mirrors, bytes - HEADERS, false);
    let frame = segment.frame(MacAddr::local(0, 1).0, MacAddr::local(0, 2).0);
    ensure!(frame.len() == bytes, "a frame of {} bytes", frame.len());
    let client = &rig.topology.client;
    let ifindex = rig.own_end(client)?;
    let feed = Feed {
        flows: 1,
        client_offset: 0,
        seq: 0,
        step: 0,
    };
    let feeder = Feeder::new(&frame, feed, &Then::Send(ifindex))?;
    let send = |frames: u32| {
        let before = counters.sum()?;
        let elapsed = client.run(|| {
            let start = Instant::now();
            sys::run_live(feeder.program.as_fd(), ifindex, &frame, frames)?;
            anyhow::Ok(start.elapsed())
        })??;
        let expected = u64::from(frames) * way.copies() as u64;
        let arrived = || anyhow::Ok(counters.sum()? - before);
        // What is lost does not arrive later: the wait ends in vain then.
        let all = wait_until("all copies", ARRIVAL_LIMIT, || {
            Ok((arrived()? >= expected).then_some(()))
        });
        let arrived = if all.is_ok() { expected } else { arrived()? };
        anyhow::Ok((elapsed, arrived, expected))
    };
    send(frames / WARM_UP)?;
    let (elapsed, arrived, expected) = send(frames)?;
    ensure!(arrived > 0, "no frame of {bytes} bytes arrived");
    let rate = arrived as f64 / way.copies() as f64 / elapsed.as_secs_f64();
    Ok((rate / MILLION, expected - arrived))
}

/// What forwards, for as long as it lives.
#[expect(dead_code, reason = "held for what dropping it undoes")]
enum SetUp<'a> {
    Attached(OwnedFd, Vec<OwnedFd>),
    Kernel(Undo<'a>),
}

fn set_up(rig: &Rig, way: Way) -> Result<SetUp<'_>> {
    let host = &rig.topology.host;
    match way {
        Way::Kernel(mirror) => Ok(SetUp::Kernel(mirror.start(&rig.topology)?)),
        Way::Ours(_) => {
            let program = rig.program("vni_ingress")?;
            let link = host.run(|| sys::attach(program, rig.client_link()))??;
            Ok(SetUp::Attached(link, Vec::new()))
        }
        Way::Bare(copies) => {
            let devmap = sys::map(sys::MAP_DEVMAP, 4, copies as u32)?;
            let flags = if copies == 1 { 0 } else { BROADCAST };
            let program = assemble::redirect(devmap.as_fd(), flags)?;
            let link = host.run(|| {
                for copy in 0..copies {
                    let ifindex = rig.link(copy).to_ne_bytes();
                    sys::update(devmap.as_fd(), copy as u32, &ifindex)?;
                }
                sys::attach(program.as_fd(), rig.client_link())
            })??;
            Ok(SetUp::Attached(link, vec![devmap, program]))
        }
    }
}

/// Programs that count and drop, at every instance's end.
struct Counters {
    counts: OwnedFd,
    _links: Vec<OwnedFd>,
}

impl Counters {
    fn attach(rig: &Rig) -> Result<Self> {
        let counts = sys::map(sys::MAP_ARRAY, 8 * REPLICAS as u32, 1)?;
        let mut links = Vec::new();
        for (place, instance) in rig.topology.instances.iter().enumerate() {
            let program = assemble::count_and_drop(counts.as_fd(), 8 * place as u32)?;
            let ifindex = rig.own_end(&instance.namespace)?;
            let link = instance
                .namespace
                .run(|| sys::attach(program.as_fd(), ifindex))??;
            links.push(link);
        }
        Ok(Self {
            counts,
            _links: links,
        })
    }

    /// Frames that arrived anywhere.
    fn sum(&self) -> Result<u64> {
        let mut value = [0; 8 * REPLICAS];
        sys::lookup(self.counts.as_fd(), 0, &mut value)?;
        let counts = value.chunks_exact(8);
        Ok(counts
            .map(|count| u64::from_ne_bytes(std::array::from_fn(|byte| count[byte])))
            .sum())
    }
}
