//! What the service manager is told (sd_notify(3)): that the agent serves, that its loop still turns, that it
//! ends. Without a service manager nothing is sent.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;
use tracing::warn;

/// How much more often the service manager is told than it asks for.
const MARGIN: u32 = 3;

/// The agent serves.
pub fn ready() {
    tell(&[NotifyState::Ready, NotifyState::Status("serves")]);
}

/// The agent is about to end.
pub fn stopping() {
    tell(&[
        NotifyState::Stopping,
        NotifyState::Status("ends; the dataplane runs on"),
    ]);
}

/// Tells from the agent's loop that it turns: a loop that hangs is one that does not tell.
#[derive(Debug)]
pub struct Watchdog {
    every: Option<Duration>,
    told: Option<Instant>,
}

impl Watchdog {
    /// As often as the service manager asks for, if it does.
    pub fn of_environment() -> Self {
        Self::new(sd_notify::watchdog_enabled())
    }

    fn new(limit: Option<Duration>) -> Self {
        Self {
            every: limit.map(|limit| limit / MARGIN),
            told: None,
        }
    }

    /// To be called whenever the loop has turned.
    pub fn alive(&mut self, now: Instant) {
        if self.is_due(now) {
            tell(&[NotifyState::Watchdog]);
        }
    }

    fn is_due(&mut self, now: Instant) -> bool {
        let Some(every) = self.every else {
            return false;
        };
        let due = self
            .told
            .is_none_or(|told| now.duration_since(told) >= every);
        if due {
            self.told = Some(now);
        }
        due
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        warn!("NOTIFY_SOCKET: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_is_told_three_times_in_its_limit() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut watchdog = Watchdog::new(Some(Duration::from_millis(300)));
        let told: Vec<_> = (0..400).filter(|ms| watchdog.is_due(at(*ms))).collect();
        assert_eq!(told, [0, 100, 200, 300]);
        let mut none = Watchdog::new(None);
        assert!(!none.is_due(start));
    }
}
