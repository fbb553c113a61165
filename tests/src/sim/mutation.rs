//! Rules broken on purpose, to show that the checks notice. A mutation stands between the protocol and the world
//! and falsifies what the protocol is told or what it says; the protocol's own code has no trace of it.

use std::{fmt, str::FromStr};

use mirror_common::{
    flow::TcpFlow,
    instance::state,
    limits::REPLICAS,
    plan::Copy,
    reason::Reason,
    tcp::{
        Conditions, Part, Segment,
        replica::{Output, Verdict},
        segment::bit,
        seq,
    },
    vni::flag,
};

macro_rules! mutations {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)+) => {
        /// A broken rule.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mutation { $($(#[$doc])* $variant,)+ }

        impl Mutation {
            /// Every one.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Its name on the command line.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

mutations! {
    /// Acknowledgements are not clamped to what a replica has produced.
    NoClamp = "no-clamp",
    /// The clamp compares numbers without regard to their wrap.
    ClampWithoutWrap = "clamp-without-wrap",
    /// The client is told what the active replica alone has received.
    NoHold = "no-hold",
    /// The hold does not wait for one of the mirrors.
    HoldIgnoresMirror = "hold-ignores-mirror",
    /// The client is offered the active replica's window.
    WindowOfActive = "window-of-active",
    /// The first SYN-ACK goes to the client at once.
    NoGate = "no-gate",
    /// Timestamp echoes reach replicas as the client sent them.
    EchoUntranslated = "echo-untranslated",
    /// The client sees each replica's own timestamps.
    TimestampUntranslated = "timestamp-untranslated",
    /// SACK edges reach replicas in the client's numbers.
    SackUntranslated = "sack-untranslated",
    /// SACK blocks beyond what a replica has produced are left in.
    SackBeyond = "sack-beyond",
    /// The client sees each replica's own sequence numbers.
    SequenceUntranslated = "sequence-untranslated",
    /// A mirror's data goes to the client.
    MirrorData = "mirror-data",
    /// A mirror's FIN goes to the client.
    MirrorFin = "mirror-fin",
    /// A mirror's reset goes to the client.
    MirrorReset = "mirror-reset",
    /// What mirrors say again is not answered.
    NoTurnRound = "no-turn-round",
    /// The active replica's FIN and RST are believed.
    NoVote = "no-vote",
    /// A FIN that waits for the mirrors' is sent on.
    FinNotStripped = "fin-not-stripped",
    /// The reset of a replica that others outlive goes to the client.
    ResetForwarded = "reset-forwarded",
    /// An evacuation does not wait for a good moment.
    EvacuateAtOnce = "evacuate-at-once",
    /// Nobody leaves a dead instance.
    StayWithTheDead = "stay-with-the-dead",
    /// What is in front of a waypoint is summed up wrongly.
    PartAstray = "part-astray",
}

impl Mutation {
    /// Falsifies what the protocol is told of the world.
    pub fn conditions(self, conditions: &mut Conditions) {
        match self {
            Self::NoHold => conditions.vni.flags &= !flag::HOLD_ACKS,
            Self::NoVote => conditions.vni.flags &= !flag::VOTE_ON_CLOSE,
            Self::NoGate => conditions.vni.handshake_ms = 0,
            Self::EvacuateAtOnce => conditions.deadline_ms = [conditions.now_ms; REPLICAS],
            Self::StayWithTheDead => {
                for slot in &mut conditions.state {
                    if *slot == state::DEAD as u8 {
                        *slot = state::UP as u8;
                    }
                }
            }
            _ => {}
        }
    }

    /// Falsifies what a part of a replica's segment comes to.
    pub fn part(self, part: &mut Part) {
        if self == Self::PartAstray {
            part.sum = part.sum.wrapping_add(1);
        }
    }

    /// Falsifies a copy for a replica.
    pub fn copy(self, flow: &TcpFlow, slot: u8, segment: &Segment, copy: &mut Copy) {
        let own = segment.ack.wrapping_add(flow.delta(slot));
        match self {
            Self::NoClamp if segment.is(bit::ACK) => copy.ack = own,
            Self::ClampWithoutWrap if segment.is(bit::ACK) => copy.ack = own.min(copy.snd_nxt),
            Self::EchoUntranslated => copy.ts_ecr = segment.ts_ecr,
            Self::SackUntranslated => copy.delta = 0,
            Self::SackBeyond => copy.snd_nxt = copy.snd_nxt.wrapping_add(1 << 30),
            _ => {}
        }
    }

    /// Falsifies the verdict on a replica's segment.
    pub fn output(
        self,
        flow: &TcpFlow,
        from: u8,
        segment: &Segment,
        conditions: &Conditions,
        output: &mut Output,
    ) {
        let to_client = matches!(output.verdict, Verdict::ToClient | Verdict::AckToClient);
        let ordinary = to_client && !segment.is(bit::SYN | bit::RST);
        let suppressed = output.verdict == Verdict::Drop && from != flow.flow.active;
        match self {
            Self::HoldIgnoresMirror if ordinary => {
                output.ack = seq::max(output.ack, heard_by_most(flow, conditions));
            }
            Self::WindowOfActive if ordinary => {
                let edge = flow.replica(flow.flow.active).edge;
                let room = edge.wrapping_sub(output.ack) >> (flow.sync.window_scale & 15);
                output.window = room.min(0xffff) as u16;
            }
            Self::TimestampUntranslated if to_client => output.ts_val = segment.ts_val,
            Self::SequenceUntranslated if to_client => output.seq = segment.seq,
            Self::MirrorData if suppressed && segment.payload > 0 => {
                *output = forwarded(flow, from, segment, output);
            }
            Self::MirrorFin if suppressed && segment.is(bit::FIN) => {
                *output = forwarded(flow, from, segment, output);
            }
            Self::MirrorReset if suppressed && segment.is(bit::RST) => {
                *output = forwarded(flow, from, segment, output);
            }
            Self::ResetForwarded if output.reason == Reason::ResetHeld => {
                *output = forwarded(flow, from, segment, output);
            }
            Self::NoTurnRound if output.verdict == Verdict::TurnRound => {
                *output = Output::drop(output.reason);
            }
            Self::FinNotStripped => output.strip_fin = false,
            _ => {}
        }
    }
}

/// What all warm replicas but the last one have received.
fn heard_by_most(flow: &TcpFlow, conditions: &Conditions) -> u32 {
    let warm = |slot: &u8| *slot < flow.flow.replicas && flow.is_warm(*slot, conditions);
    let active = flow.flow.active;
    let last = (0..REPLICAS as u8)
        .filter(warm)
        .rfind(|&slot| slot != active);
    let heard = (0..REPLICAS as u8)
        .filter(warm)
        .filter(|&slot| Some(slot) != last)
        .map(|slot| flow.replica(slot).rcv_nxt);
    heard.fold(flow.replica(active).rcv_nxt, seq::min)
}

/// A replica's segment in canonical numbers.
fn forwarded(flow: &TcpFlow, from: u8, segment: &Segment, output: &Output) -> Output {
    Output {
        verdict: Verdict::ToClient,
        seq: segment.seq.wrapping_sub(flow.delta(from)),
        ack: flow.sync.told_ack,
        window: segment.window,
        ts_val: segment.ts_val.wrapping_sub(flow.replica(from).ts_offset),
        ts_ecr: segment.ts_ecr,
        ..*output
    }
}

impl fmt::Display for Mutation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Mutation {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|mutation| mutation.name() == name);
        found.copied().ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|mutation| mutation.name()).collect();
            format!("these can be broken: {}", names.join(", "))
        })
    }
}
