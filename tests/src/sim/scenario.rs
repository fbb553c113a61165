//! What happens in a run, drawn from its seed: hosts, links, conversations, faults.

use fastrand::Rng;
use mirror_common::{
    limits::REPLICAS,
    vni::{self, Vni},
};

use super::{application::Script, conversation::flows, endpoint::Time};

/// A millisecond.
pub const MS: Time = 1_000;
/// A second.
pub const S: Time = 1_000 * MS;

/// A TCP stack and the machine it runs on.
#[derive(Clone, Debug)]
pub struct HostPlan {
    /// Largest packet.
    pub mtu: usize,
    /// Receive buffer, bytes: decides the window scale.
    pub receive: usize,
    /// Send buffer, bytes.
    pub send: usize,
    /// Offers timestamps.
    pub timestamps: bool,
    /// Timestamp clock at time 0.
    pub clock: u32,
    /// The clock gains one tick in so many; 0: it keeps time.
    pub drift: i32,
    /// Nagle's algorithm.
    pub nagle: bool,
    /// Acknowledgements wait for so long.
    pub ack_delay: Option<Time>,
    /// Idle connections are probed so often.
    pub keep_alive: Option<Time>,
    /// The application takes so long for a step.
    pub service: Time,
}

impl HostPlan {
    /// A host without properties.
    pub fn plain() -> Self {
        Self {
            mtu: 576,
            receive: 8_192,
            send: 8_192,
            timestamps: true,
            clock: 1_000,
            drift: 0,
            nagle: false,
            ack_delay: None,
            keep_alive: None,
            service: 0,
        }
    }
}

/// One direction of a link.
#[derive(Clone, Copy, Debug)]
pub struct LinkPlan {
    /// A packet takes so long.
    pub delay: Time,
    /// And up to so much longer: what is more than the gap to the next packet reorders.
    pub jitter: Time,
    /// Of 10,000 packets so many are lost.
    pub loss: u32,
    /// Arrive twice.
    pub repeat: u32,
    /// Arrive much later.
    pub late: u32,
    /// Arrive damaged.
    pub corrupt: u32,
}

/// One connection.
#[derive(Clone, Debug)]
pub struct FlowPlan {
    /// The client's port.
    pub port: u16,
    /// It begins when this other flow of the same port has ended, else at `start`.
    pub after: Option<usize>,
    /// When it begins.
    pub start: Time,
    /// Initial sequence number of the client, and of each instance.
    pub isns: (u32, [u32; REPLICAS]),
    /// Instances by slot.
    pub set: Vec<u16>,
    /// What the client does.
    pub client: Script,
    /// What each replica does.
    pub server: Script,
}

/// What happens to an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// It loses power; after the time it is there again, without its connections.
    Crash(Option<Time>),
    /// It stands still for so long, and takes what waited for it then.
    Freeze(Time),
    /// Its link is down for so long.
    Cut(Time),
    /// The server process is killed; after the time a new one listens.
    Kill(Option<Time>),
    /// The agent takes it for dead without cause, for so long.
    FalseAlarm(Time),
    /// The agent evacuates it, for so long.
    Evacuate(Time),
    /// The agent does nothing for so long.
    Stall(Time),
}

/// A blow at a time.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// When.
    pub at: Time,
    /// To which instance.
    pub instance: usize,
    /// What.
    pub blow: Blow,
}

/// A run.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The client's host.
    pub client: HostPlan,
    /// The instances.
    pub instances: Vec<HostPlan>,
    /// Between client and VNI host.
    pub client_link: LinkPlan,
    /// Between VNI host and instances.
    pub instance_links: Vec<LinkPlan>,
    /// The VNI's settings.
    pub vni: Vni,
    /// The connections.
    pub flows: Vec<FlowPlan>,
    /// In order of time.
    pub faults: Vec<Fault>,
    /// How long the agent takes to notice.
    pub detection: Time,
    /// Faults may leave nobody.
    pub doom: bool,
    /// Nobody may become cold for being slow.
    pub patient: bool,
    /// From here on nothing is lost any more.
    pub calm: Time,
}

/// One in so many.
pub(super) fn one_in(rng: &mut Rng, count: u32) -> bool {
    rng.u32(..count) == 0
}

/// Around nought, the wrap and the sign, or anywhere.
pub(super) fn number_of(rng: &mut Rng) -> u32 {
    match rng.u32(..4) {
        0 => rng.u32(..),
        1 => 0u32.wrapping_sub(rng.u32(..500)),
        2 => 0u32.wrapping_sub(rng.u32(..20_000)),
        _ => (1 << 31) - rng.u32(..20_000),
    }
}

impl Scenario {
    /// The run of a seed.
    pub fn new(seed: u64) -> Self {
        let rng = &mut Rng::with_seed(seed);
        let count = rng.usize(2..=REPLICAS);
        let mut hosts = Hosts::new(rng);
        let mut client = hosts.one(rng);
        let instances: Vec<_> = (0..count).map(|_| hosts.one(rng)).collect();
        let quiet = one_in(rng, 4);
        let link = |rng: &mut Rng| {
            if quiet {
                calm_link(rng)
            } else {
                rough_link(rng)
            }
        };
        let client_link = link(rng);
        let instance_links = (0..count).map(|_| link(rng)).collect();
        // Who does not wait for mirrors leaves those behind that lost something: their time must be bounded.
        let waits = !one_in(rng, 8);
        if !waits {
            // The byte of a keep-alive of `smoltcp` is no byte of the stream, and a mirror that lacks that one would
            // take it for it.
            client.keep_alive = None;
        }
        let patient = waits && !one_in(rng, 4);
        let flows = flows(rng, count);
        let doom = one_in(rng, 6);
        let detection = [5 * MS, 20 * MS, 100 * MS, 1_500 * MS][rng.usize(..4)];
        let faults = faults(rng, count, detection);
        let mut vni = settings(rng, waits, patient);
        if flows.iter().any(|flow| flow.after.is_some()) {
            // What is left of a port's last use does not answer the handshake.
            vni.handshake_ms = vni.handshake_ms.min(3_000);
        }
        Self {
            client,
            instances,
            client_link,
            instance_links,
            vni,
            flows,
            faults,
            detection,
            doom,
            patient,
            calm: 30 * S,
        }
    }
}

/// What the hosts of a run have in common.
struct Hosts {
    timestamps: bool,
    mixed: bool,
    large: bool,
}

impl Hosts {
    fn new(rng: &mut Rng) -> Self {
        Self {
            timestamps: !one_in(rng, 5),
            mixed: one_in(rng, 30),
            large: one_in(rng, 6),
        }
    }

    fn one(&mut self, rng: &mut Rng) -> HostPlan {
        let sizes: &[usize] = if self.large {
            &[30_000, 65_535, 70_000, 140_000, 300_000]
        } else {
            &[1_500, 3_000, 6_000, 12_000, 24_000]
        };
        HostPlan {
            mtu: [300, 576, 1_000, 1_500][rng.usize(..4)],
            receive: sizes[rng.usize(..5)],
            send: sizes[rng.usize(..5)],
            timestamps: self.timestamps && !(self.mixed && rng.bool()),
            clock: number_of(rng),
            drift: [0, 0, 50, -70, 1_000][rng.usize(..5)],
            nagle: rng.bool(),
            ack_delay: [None, Some(10 * MS), Some(40 * MS)][rng.usize(..3)],
            keep_alive: one_in(rng, 6).then(|| rng.u64(300..5_000) * MS),
            service: [0, 0, 200, 3 * MS, 40 * MS][rng.usize(..5)],
        }
    }
}

fn calm_link(rng: &mut Rng) -> LinkPlan {
    LinkPlan {
        delay: rng.u64(20..5_000),
        jitter: 0,
        loss: 0,
        repeat: 0,
        late: 0,
        corrupt: 0,
    }
}

fn rough_link(rng: &mut Rng) -> LinkPlan {
    let mut rate = |rates: &[u32]| rates[rng.usize(..rates.len())];
    let (loss, repeat) = (rate(&[0, 10, 100, 500, 1_500]), rate(&[0, 0, 50, 500]));
    let (late, corrupt) = (rate(&[0, 0, 100, 500]), rate(&[0, 0, 50, 300]));
    LinkPlan {
        jitter: [0, 100, 3_000][rng.usize(..3)],
        loss,
        repeat,
        late,
        corrupt,
        ..calm_link(rng)
    }
}

fn settings(rng: &mut Rng, waits: bool, patient: bool) -> Vni {
    let mut flags = vni::flag::MIRRORED | vni::flag::VOTE_ON_CLOSE;
    if waits {
        flags |= vni::flag::HOLD_ACKS;
    }
    if one_in(rng, 12) {
        flags &= !vni::flag::VOTE_ON_CLOSE;
    }
    if one_in(rng, 10) {
        flags |= vni::flag::LEAVE_LOST;
    }
    if one_in(rng, 3) {
        flags |= vni::flag::FIRST;
    }
    let (bytes, ms, handshake) = if patient {
        (1 << 24, 25_000, 1 << 28)
    } else {
        (
            1 << rng.u32(12..20),
            rng.u32(200..5_000),
            rng.u32(20..1_000),
        )
    };
    Vni {
        flags,
        lag_bytes_max: bytes,
        lag_ms_max: ms,
        handshake_ms: handshake,
        ..Vni::default()
    }
}

fn faults(rng: &mut Rng, count: usize, detection: Time) -> Vec<Fault> {
    let total = [0, 2, 4, 8, 12][rng.usize(..5)];
    let span = [300 * MS, 2 * S, 10 * S][rng.usize(..3)];
    let mut faults: Vec<_> = (0..total)
        .map(|_| Fault {
            at: rng.u64(..span),
            instance: rng.usize(..count),
            blow: blow(rng, detection),
        })
        .collect();
    faults.sort_by_key(|fault| fault.at);
    faults
}

fn blow(rng: &mut Rng, detection: Time) -> Blow {
    let time = |rng: &mut Rng| [1, 30, 300, 3_000][rng.usize(..4)] * rng.u64(1..10) * MS / 3;
    match rng.u32(..15) {
        // No machine starts anew before it is missed.
        0..2 => Blow::Crash(rng.bool().then(|| 2 * detection + time(rng))),
        2..4 => Blow::Freeze(time(rng)),
        4..6 => Blow::Cut(time(rng)),
        6..9 => Blow::Kill(rng.bool().then(|| time(rng))),
        9 => Blow::FalseAlarm(time(rng)),
        10..14 => Blow::Evacuate(time(rng)),
        _ => Blow::Stall(time(rng)),
    }
}
