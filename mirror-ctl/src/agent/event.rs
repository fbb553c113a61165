//! What the agent's loop hears of, one at a time, and how it ends.

use mirror_common::event::Event as Report;
use tokio::sync::oneshot;

use super::{Applied, models::ModelAct, orders::Refusal, predecessor::News, state::Order};
use crate::{
    connections::Sweep,
    dataplane::{RecordMaps, Traced},
    netlink::Change,
};

/// Everything that can happen to the agent.
#[derive(Debug)]
pub enum Event {
    /// The network changed.
    Network(Change),
    /// It is time to read the dataplane's evidence.
    Look,
    /// It is time to reconsider.
    Tick,
    /// The dataplane reported events.
    Reported(Vec<Report>),
    /// A probe was tried.
    Probed(String, bool),
    /// All flows were walked.
    Swept(Box<Sweep>),
    /// An operator ordered something.
    Ordered {
        /// Of which instance.
        instance: String,
        /// What.
        order: Order,
        /// Whatever follows.
        force: bool,
        /// Who waits for the answer.
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    /// Champion or challenger are to take each other's place.
    Models {
        /// Which.
        act: ModelAct,
        /// Who waits for the answer.
        reply: oneshot::Sender<Result<(), String>>,
    },
    /// The configuration is to be read again.
    Reload(Option<oneshot::Sender<Result<(), String>>>),
    /// Another configuration is to be put in force, and kept.
    Apply {
        /// The text of its file.
        text: String,
        /// Who waits for the answer.
        reply: oneshot::Sender<Result<Applied, String>>,
    },
    /// Programs that trace are to be verified.
    LoadTraced(oneshot::Sender<Result<(Traced, RecordMaps), String>>),
    /// A flow is to be traced.
    Trace {
        /// The programs that do it.
        programs: Traced,
        /// Until when at most.
        until_ns: u64,
        /// Who waits for the answer.
        reply: oneshot::Sender<Result<(), String>>,
    },
    /// A trace is over.
    Untrace,
    /// The agent's process is to become one of the program that is at its place now.
    Replace(oneshot::Sender<()>),
    /// The same, but for its flows, which end by themselves: a version with other maps comes.
    HandOver(oneshot::Sender<()>),
    /// Of a version before whose flows are to end.
    Predecessor(News),
    /// The agent is to end.
    Stop,
}

/// How the agent ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// For good.
    Stopped,
    /// To be replaced by another version of itself.
    Replaced,
    /// To be replaced by one that does not know its flows.
    HandedOver,
    /// It has kept the flows of a version that was replaced, until so many were left; none: it does not matter any more.
    Drained {
        /// Flows that were left.
        cut: Option<u64>,
    },
}

impl Event {
    /// The event's name in metrics.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Network(_) => "network",
            Self::Look => "look",
            Self::Tick => "tick",
            Self::Reported(_) => "report",
            Self::Probed(..) => "probe",
            Self::Swept(_) => "sweep",
            Self::Ordered { .. } => "order",
            Self::Models { .. } => "models",
            Self::Reload(_) => "reload",
            Self::Apply { .. } => "apply",
            Self::Trace { .. } | Self::LoadTraced(_) => "trace",
            Self::Untrace => "untrace",
            Self::Replace(_) | Self::HandOver(_) => "replace",
            Self::Predecessor(_) => "predecessor",
            Self::Stop => "stop",
        }
    }
}
