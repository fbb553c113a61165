//! The harness: a scripted client and up to four scripted replicas around one flow. Scripts speak
//! in stream offsets (byte 0 is the first one after the handshake); the harness turns them into
//! each host's own numbers and clock, feeds them through the protocol as the dataplane does, and
//! turns the outcome back.

use crate::{
    checksum::fold,
    flow::{Flow, TcpFlow, state},
    instance,
    limits::REPLICAS,
    plan::Copy,
    reason::{Cold, Reason},
    tcp::{
        Conditions, Notes, Part, Segment, client, divergence, option,
        replica::{self, Output, Verdict},
        segment::bit,
        seq, slot,
    },
    vni,
};

use super::say::{Say, ack, data};

pub(super) const A: u8 = 0;
pub(super) const B: u8 = 1;
pub(super) const C: u8 = 2;
pub(super) const D: u8 = 3;

/// The window that hosts offer unless a script says otherwise, bytes.
pub(super) const WINDOW: u32 = 60_032;

/// A world of initial numbers and clocks. Every script runs in each of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Numbering {
    pub(super) name: &'static str,
    pub(super) client_isn: u32,
    pub(super) client_clock: u32,
    pub(super) isn: [u32; REPLICAS],
    pub(super) clock: [u32; REPLICAS],
    pub(super) now_ms: u32,
    /// Megabytes that went both ways before the script begins.
    pub(super) age_mb: u32,
}

const TOP: u32 = u32::MAX;
const HALF: u32 = i32::MAX as u32;

const NUMBERINGS: [Numbering; 4] = [
    Numbering {
        name: "plain",
        client_isn: 1_000,
        client_clock: 70_000,
        isn: [10_000, 500_000, 77, 3_000_000_000],
        clock: [1_000, 900_000, 5_000, 4_000_000_000],
        now_ms: 5_000,
        age_mb: 0,
    },
    Numbering {
        name: "wrapping",
        client_isn: TOP - 50,
        client_clock: TOP - 3,
        isn: [TOP - 20, TOP - 130, TOP, 5],
        clock: [TOP - 10, 3, TOP - 2_000, HALF],
        now_ms: TOP - 20,
        age_mb: 0,
    },
    Numbering {
        name: "half way",
        client_isn: HALF - 40,
        client_clock: HALF,
        isn: [HALF - 1, TOP - 9, 0, HALF - 99],
        clock: [HALF - 5, TOP, 1, HALF + 3],
        now_ms: HALF - 10,
        age_mb: 0,
    },
    Numbering {
        name: "aged",
        client_isn: 90,
        client_clock: 1,
        isn: [4_000, TOP - 5, HALF, 1],
        clock: [10, 20, 30, 40],
        now_ms: 1,
        age_mb: 3_000,
    },
];

/// Runs a script in every numbering.
#[track_caller]
pub(super) fn everywhere(script: impl Fn(&mut Net)) {
    for numbering in NUMBERINGS {
        script(&mut Net::new(numbering));
    }
}

/// What the script knows of one host.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Host {
    pub(super) isn: u32,
    /// Its clock minus `now_ms`.
    pub(super) clock: u32,
    pub(super) scale: u8,
    pub(super) options: u8,
    /// Offset after the highest byte it sent.
    nxt: i32,
    /// Offset that it acknowledged last.
    pub(super) ack: i32,
    window: u32,
}

/// The flow and the hosts around it.
pub(super) struct Net {
    pub(super) numbering: Numbering,
    pub(super) flow: TcpFlow,
    pub(super) conditions: Conditions,
    pub(super) client: Host,
    pub(super) replicas: [Host; REPLICAS],
    /// Of the last segment.
    pub(super) notes: Notes,
    pub(super) output: Output,
    pub(super) copies: [Option<Copy>; REPLICAS],
    /// Bytes before offset 0, each way.
    base: u32,
}

/// A flow as the dataplane makes it, before its SYN is taken in.
/// Longer segments have no sum.
const SUMMED_MAX: u32 = 1_000;

/// The sum of a segment of the stream that all replicas say: at each offset its lowest byte.
fn sum_of(offset: i32, payload: u32) -> u16 {
    let mut sum = 0;
    if payload >= SUMMED_MAX {
        return 0;
    }
    for at in 0..payload as i32 {
        let mut word = [0; 2];
        word[at as usize & 1] = offset.wrapping_add(at) as u8;
        sum += u32::from(u16::from_ne_bytes(word));
    }
    fold(sum)
}

pub(super) fn new_flow(replicas: u8) -> TcpFlow {
    TcpFlow {
        flow: Flow {
            instances: [10, 11, 12, 13],
            replicas,
            ..Flow::default()
        },
        sync: Default::default(),
    }
}

impl Net {
    pub(super) fn new(numbering: Numbering) -> Self {
        let options = option::TIMESTAMP | option::SACK | option::WINDOW_SCALE;
        let host = |isn, clock: u32| Host {
            isn,
            clock: clock.wrapping_sub(numbering.now_ms),
            scale: 7,
            options,
            window: WINDOW,
            ..Host::default()
        };
        let mut replicas = [Host::default(); REPLICAS];
        for (slot, replica) in replicas.iter_mut().enumerate() {
            *replica = host(numbering.isn[slot], numbering.clock[slot]);
        }
        Self {
            numbering,
            flow: new_flow(0),
            conditions: Conditions {
                now_ms: numbering.now_ms,
                vni: vni::Vni {
                    flags: vni::flag::MIRRORED | vni::flag::HOLD_ACKS | vni::flag::VOTE_ON_CLOSE,
                    lag_bytes_max: 10_000,
                    lag_ms_max: 1_000,
                    handshake_ms: 5,
                    ..vni::Vni::default()
                },
                ..Conditions::default()
            },
            client: host(numbering.client_isn, numbering.client_clock),
            replicas,
            notes: Notes::default(),
            output: Output::drop(Reason::NotVni),
            copies: [None; REPLICAS],
            base: 0,
        }
    }

    pub(super) fn wait(&mut self, ms: u32) {
        self.conditions.now_ms = self.conditions.now_ms.wrapping_add(ms);
    }

    pub(super) fn set(&mut self, slot: u8, state: u32) {
        self.conditions.state[usize::from(slot)] = state as u8;
    }

    pub(super) fn die(&mut self, slot: u8) {
        self.set(slot, instance::state::DEAD);
    }

    pub(super) fn suspect(&mut self, slot: u8) {
        self.set(slot, instance::state::SUSPECT);
    }

    pub(super) fn restore(&mut self, slot: u8) {
        self.set(slot, instance::state::UP);
    }

    /// The agent evacuates an instance and gives its flows half a second.
    pub(super) fn evacuate(&mut self, slot: u8) {
        self.set(slot, instance::state::EVACUATING);
        self.conditions.deadline_ms[usize::from(slot)] = self.conditions.now_ms.wrapping_add(500);
    }

    pub(super) fn vni(&mut self, set: u8, clear: u8) {
        self.conditions.vni.flags = (self.conditions.vni.flags | set) & !clear;
    }

    /// What a clock says now.
    pub(super) fn clock_of(&self, host: &Host) -> u32 {
        host.clock.wrapping_add(self.conditions.now_ms)
    }

    /// The client's SYN to so many replicas.
    pub(super) fn open(&mut self, replicas: u8) {
        self.flow = new_flow(replicas);
        self.conditions.state = [0; REPLICAS];
        for slot in 0..replicas {
            self.restore(slot);
        }
        let syn = self.syn();
        client::open(&mut self.flow, &syn, self.conditions.now_ms << 6);
        let _ = self.client_segment(&syn);
    }

    pub(super) fn syn(&self) -> Segment {
        Segment {
            seq: self.client.isn,
            ts_val: self.clock_of(&self.client),
            window: 64_240,
            flags: bit::SYN,
            options: self.client.options,
            window_scale: self.client.scale,
            ..Segment::default()
        }
    }

    pub(super) fn syn_ack_of(&self, slot: u8) -> Segment {
        let host = &self.replicas[usize::from(slot)];
        Segment {
            seq: host.isn,
            ack: self.client.isn.wrapping_add(1),
            ts_val: self.clock_of(host),
            ts_ecr: self.client.clock.wrapping_add(self.numbering.now_ms),
            window: host.window.min(0xffff) as u16,
            flags: bit::SYN | bit::ACK,
            options: host.options,
            window_scale: host.scale,
            ..Segment::default()
        }
    }

    /// A replica's SYN-ACK.
    pub(super) fn syn_ack(&mut self, slot: u8) -> Output {
        let segment = self.syn_ack_of(slot);
        self.replica_segment(slot, &segment)
    }

    /// SYN, all SYN-ACKs, ACK; then, in an aged world, megabytes both ways.
    pub(super) fn establish(&mut self, replicas: u8) {
        self.open(replicas);
        for slot in 0..replicas {
            let _ = self.syn_ack(slot);
        }
        assert_eq!(self.output.verdict, Verdict::ToClient, "{self:?}");
        self.complete();
        self.grow_old();
    }

    /// The client's handshake ACK.
    pub(super) fn complete(&mut self) {
        let _ = self.client_says(ack(0));
        assert_eq!(self.flow.flow.state, state::ESTABLISHED, "{self:?}");
    }

    fn grow_old(&mut self) {
        const STEP: u32 = 1 << 20;
        let replicas = self.flow.flow.replicas;
        let settings = self.conditions.vni;
        self.conditions.vni.lag_bytes_max = 1 << 24;
        for _ in 0..self.numbering.age_mb {
            self.wait(1);
            let wide = |say: Say| say.window(4 << 20);
            for slot in 0..replicas {
                let _ = self.replica_says(slot, wide(ack(0)));
            }
            let _ = self.client_says(wide(data(0, STEP).acks(0)));
            for slot in 0..replicas {
                let _ = self.replica_says(slot, wide(data(0, STEP).acks(STEP as i32)));
            }
            let _ = self.client_says(wide(ack(STEP as i32)));
            self.base = self.base.wrapping_add(STEP);
            for host in self.replicas.iter_mut().chain([&mut self.client]) {
                host.nxt = 0;
                host.ack = 0;
            }
        }
        self.conditions.vni = settings;
        // The windows that the script begins with.
        self.flow.sync.told_edge = self.client_seq(WINDOW as i32);
        for slot in 0..replicas {
            self.flow.replica_mut(slot).edge = self.flow.sync.told_edge;
        }
        let _ = self.client_says(ack(0));
    }

    /// The sequence number of a client's byte.
    pub(super) fn client_seq(&self, offset: i32) -> u32 {
        let first = self.client.isn.wrapping_add(1).wrapping_add(self.base);
        first.wrapping_add_signed(offset)
    }

    /// The number that a replica gives to a server's byte.
    pub(super) fn replica_seq(&self, slot: u8, offset: i32) -> u32 {
        let isn = self.replicas[usize::from(slot)].isn;
        isn.wrapping_add(1)
            .wrapping_add(self.base)
            .wrapping_add_signed(offset)
    }

    /// The canonical number of a server's byte.
    pub(super) fn canonical_seq(&self, offset: i32) -> u32 {
        let first = self.flow.sync.isn.wrapping_add(1).wrapping_add(self.base);
        first.wrapping_add_signed(offset)
    }

    /// The client's segment in its own numbers; acknowledgements are canonical.
    pub(super) fn client_segment_of(&mut self, say: Say) -> Segment {
        let offset = say.seq.unwrap_or(self.client.nxt);
        let acked = say.ack.unwrap_or(self.client.ack);
        let segment = Segment {
            seq: self.client_seq(offset),
            ack: self.canonical_seq(acked),
            ts_val: self.clock_of(&self.client).wrapping_add_signed(say.clock),
            ts_ecr: say.echo.unwrap_or(self.flow.sync.ts_sent),
            payload: say.payload,
            window: (say.window.unwrap_or(WINDOW) >> self.client.scale) as u16,
            flags: say.flags,
            options: self.options(say),
            ..Segment::default()
        };
        let end = offset.saturating_add_unsigned(segment.length());
        self.client.nxt = self.client.nxt.max(end);
        self.client.ack = self.client.ack.max(acked);
        segment
    }

    fn options(&self, say: Say) -> u8 {
        let sack = if say.sack { option::SACK } else { 0 };
        self.client.options & option::TIMESTAMP | sack
    }

    /// A replica's segment in its own numbers.
    pub(super) fn replica_segment_of(&mut self, slot: u8, say: Say) -> Segment {
        let host = self.replicas[usize::from(slot)];
        let offset = say.seq.unwrap_or(host.nxt);
        let acked = say.ack.unwrap_or(host.ack);
        let window = say.window.unwrap_or(WINDOW);
        let segment = Segment {
            seq: self.replica_seq(slot, offset),
            ack: self.client_seq(acked),
            ts_val: self.clock_of(&host).wrapping_add_signed(say.clock),
            ts_ecr: say.echo.unwrap_or_else(|| self.clock_of(&self.client)),
            payload: say.payload,
            window: (window >> host.scale) as u16,
            flags: say.flags,
            options: self.options(say),
            sum: sum_of(offset, say.payload).wrapping_add(say.astray),
            has_sum: say.payload < SUMMED_MAX && !say.sack,
            ..Segment::default()
        };
        let end = offset.saturating_add_unsigned(segment.length());
        let host = &mut self.replicas[usize::from(slot)];
        host.nxt = host.nxt.max(end);
        host.ack = host.ack.max(acked);
        segment
    }

    /// Feeds a client's segment in, as the dataplane does.
    pub(super) fn client_segment(&mut self, segment: &Segment) -> client::Verdict {
        self.notes = Notes::default();
        if client::completes_handshake(&self.flow, segment) {
            self.flow.flow.state = state::ESTABLISHED;
        }
        let verdict = client::receive(&mut self.flow, segment, &self.conditions, &mut self.notes);
        for slot in 0..REPLICAS as u8 {
            let mut copy = Copy::default();
            let wanted = client::copy_for(&self.flow, slot, segment, &self.conditions, &mut copy);
            self.copies[usize::from(slot)] = wanted.then_some(copy);
        }
        self.check_invariants();
        verdict
    }

    pub(super) fn client_says(&mut self, say: Say) -> client::Verdict {
        let segment = self.client_segment_of(say);
        self.client_segment(&segment)
    }

    /// Feeds a replica's segment in.
    pub(super) fn replica_segment(&mut self, slot: u8, segment: &Segment) -> Output {
        self.notes = Notes::default();
        self.conditions.part = self.part(slot, segment);
        self.output = replica::receive(
            &mut self.flow,
            slot,
            segment,
            &self.conditions,
            &mut self.notes,
        );
        self.output.park = self.output.parks(&self.flow, segment);
        self.check_invariants();
        self.output
    }

    /// What the dataplane finds out about the part of a segment that the protocol asks for. Of one that goes astray the first word does.
    fn part(&self, slot: u8, segment: &Segment) -> Part {
        let length = divergence::part(&self.flow, slot, segment);
        let offset = segment.seq.wrapping_sub(self.replica_seq(slot, 0)) as i32;
        let astray = segment.sum.wrapping_sub(sum_of(offset, segment.payload));
        Part {
            length,
            sum: sum_of(offset, length).wrapping_add(astray),
        }
    }

    pub(super) fn replica_says(&mut self, slot: u8, say: Say) -> Output {
        let segment = self.replica_segment_of(slot, say);
        self.replica_segment(slot, &segment)
    }

    /// What must be true after every segment of every script.
    #[track_caller]
    fn check_invariants(&self) {
        let TcpFlow { flow, sync } = &self.flow;
        assert!(flow.active < flow.replicas, "active slot unused: {self:?}");
        if flow.state < state::ESTABLISHED {
            return;
        }
        assert!(!seq::after(sync.client_ack, sync.sent), "{self:?}");
        assert!(!seq::after(sync.told_ack, sync.told_edge), "{self:?}");
        for slot in 0..flow.replicas {
            let replica = self.flow.replica(slot);
            assert!(
                replica.state != slot::WARM || !seq::after(replica.rcv_nxt, sync.client_nxt),
                "a replica acknowledged what the client never sent: {self:?}"
            );
            assert_eq!(
                replica.state == slot::COLD,
                replica.cold != Cold::Warm as u8,
                "cold without a reason: {self:?}"
            );
        }
    }
}

impl core::fmt::Debug for Net {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        writeln!(f, "[{}] {:?}", self.numbering.name, self.flow.flow)?;
        let replicas = usize::from(self.flow.flow.replicas);
        for replica in &self.flow.sync.replicas[..replicas] {
            writeln!(f, "  {replica:?}")?;
        }
        let mut sync = self.flow.sync;
        sync.replicas = Default::default();
        write!(f, "  {:?}\n  {:?}", sync, self.output)
    }
}
