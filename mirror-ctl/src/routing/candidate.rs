//! What the decisions know of an instance.

/// What an instance may be used for, as decided by operator, probes and evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    /// Serves.
    Up,
    /// Gets no new flows; established ones stay until they end.
    Draining,
    /// Gets no new flows; established ones move to their mirrors.
    Evacuating,
    /// Perhaps gone: flows leave it, but it stays a mirror of them until it is known.
    Suspect,
    /// Taken to be gone.
    Dead,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 5] = [
        Self::Up,
        Self::Draining,
        Self::Evacuating,
        Self::Suspect,
        Self::Dead,
    ];

    /// Whether flows may rely on it.
    #[must_use]
    pub fn is_relied_on(self) -> bool {
        !matches!(self, Self::Suspect | Self::Dead)
    }

    /// The name that command line and API use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Draining => "draining",
            Self::Evacuating => "evacuating",
            Self::Suspect => "suspect",
            Self::Dead => "dead",
        }
    }
}

/// An instance that a flow could go to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate<'a> {
    /// Its name, unique among the candidates.
    pub name: &'a str,
    /// What it may be used for.
    pub state: State,
    /// Configured weight: its capacity in proportion to the others'.
    pub weight: u32,
    /// Health, 0 (about to fail) to 1 (well). Not a number: unknown, which changes nothing.
    pub score: f64,
    /// Failure domain; none: on its own.
    pub domain: Option<&'a str>,
}

impl<'a> Candidate<'a> {
    /// A healthy, idle instance.
    #[must_use]
    pub fn new(name: &'a str, weight: u32) -> Self {
        Self {
            name,
            state: State::Up,
            weight,
            score: 1.0,
            domain: None,
        }
    }

    /// Whether it can be counted on to take flows: up, with capacity, and not about to fail.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        // An unknown score is no reason to count it out.
        let about_to_fail = self.score < HEALTHY_SCORE_MIN;
        self.state == State::Up && self.weight > 0 && !about_to_fail
    }
}

/// Below this score an instance is not counted on.
pub const HEALTHY_SCORE_MIN: f64 = 0.1;
