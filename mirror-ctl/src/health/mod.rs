//! How well the instances are: detection of hard failure ([`silence`], [`evidence`], [`probe`])
//! and of recovery ([`recovery`]), prediction of failure ([`predict`]) at work in a task of its own
//! ([`watch`]), which leaves what it expects on a [`board`], and learning from what became of it ([`learning`]).

pub mod board;
pub mod collect;
pub mod evidence;
pub mod learning;
pub mod predict;
pub mod probe;
pub mod public;
pub mod recording;
pub mod recovery;
pub mod silence;
pub mod sim;
pub mod truth;
pub mod watch;

use std::fmt;

/// Why an instance is in the state it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Cause {
    /// Nothing special.
    None = 0,
    /// The configuration says so.
    Configured = 1,
    /// Its link is down or gone.
    LinkDown = 2,
    /// It owed answers while others gave theirs.
    Silent = 3,
    /// Its probe failed.
    Probe = 4,
    /// It reset or closed connections that its mirrors kept.
    Resets = 5,
    /// An operator ordered it.
    Operator = 6,
    /// Its hardware address is not known.
    Unresolved = 7,
    /// It is being tried out after a failure.
    Probation = 8,
    /// It is back.
    Recovered = 9,
    /// The interface that leads to it takes no redirected frame.
    NoRedirect = 10,
    /// It sends checksums that are only partly computed.
    PartialChecksum = 11,
    /// It was expected to fail, or is not any more.
    Predicted = 12,
}

impl Cause {
    const ALL: [Self; 13] = [
        Self::None,
        Self::Configured,
        Self::LinkDown,
        Self::Silent,
        Self::Probe,
        Self::Resets,
        Self::Operator,
        Self::Unresolved,
        Self::Probation,
        Self::Recovered,
        Self::NoRedirect,
        Self::PartialChecksum,
        Self::Predicted,
    ];

    /// The cause's name in tables and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Configured => "configured",
            Self::LinkDown => "link-down",
            Self::Silent => "silent",
            Self::Probe => "probe",
            Self::Resets => "resets",
            Self::Operator => "operator",
            Self::Unresolved => "unresolved",
            Self::Probation => "probation",
            Self::Recovered => "recovered",
            Self::NoRedirect => "no-redirect",
            Self::PartialChecksum => "partial-checksum",
            Self::Predicted => "predicted",
        }
    }

    /// The cause of a number in the register.
    pub fn from_number(number: u8) -> Self {
        let found = Self::ALL.into_iter().find(|cause| *cause as u8 == number);
        found.unwrap_or(Self::None)
    }

    /// The cause of a name.
    pub fn of_name(name: &str) -> Self {
        let found = Self::ALL.into_iter().find(|cause| cause.name() == name);
        found.unwrap_or(Self::None)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
