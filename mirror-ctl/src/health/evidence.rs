//! Tells from takeovers that an instance's service has died while its host lives: connections
//! that it reset, closed or refused, and that a mirror carried on. Pure.

use std::collections::{HashMap, VecDeque};

use mirror_common::{
    event::{Event, cause, kind},
    reason::Cold,
};

/// So many within [`WINDOW_NS`] are not the application's own doing: an application that closes
/// does so on every replica, and then nothing is taken over.
const FAILURES_MIN: usize = 5;
const WINDOW_NS: u64 = 1_000_000_000;

/// What the dataplane reported of each instance lately.
#[derive(Debug, Default)]
pub struct Evidence {
    failures: HashMap<u16, VecDeque<u64>>,
    /// When an instance refused or reset a connection last, in any role.
    refused_ns: HashMap<u16, u64>,
}

impl Evidence {
    /// Takes note of an event; the instance whose service it convicts.
    pub fn note(&mut self, event: &Event) -> Option<u16> {
        let took_over = event.kind == kind::TAKEOVER
            && matches!(
                event.cause,
                cause::RESET | cause::CLOSED_EARLY | cause::REFUSED
            );
        let refused = event.kind == kind::FLOW_COLD
            && [Cold::Refused, Cold::Reset]
                .iter()
                .any(|cold| *cold as u8 == event.cause);
        if took_over || refused {
            self.refused_ns.insert(event.from, event.time_ns);
        }
        if !took_over {
            return None;
        }
        let times = self.failures.entry(event.from).or_default();
        times.push_back(event.time_ns);
        if times.len() > FAILURES_MIN {
            times.pop_front();
        }
        let spread = times.back()?.saturating_sub(*times.front()?);
        (times.len() == FAILURES_MIN && spread <= WINDOW_NS).then_some(event.from)
    }

    /// When the instance refused or reset a connection last; 0: never.
    pub fn refused_ns(&self, instance: u16) -> u64 {
        self.refused_ns.get(&instance).copied().unwrap_or(0)
    }

    /// Forgets what was held against an instance.
    pub fn forgive(&mut self, instance: u16) {
        self.failures.remove(&instance);
    }
}

#[cfg(test)]
mod tests {
    use mirror_common::flow::FlowKey;

    use super::*;

    fn takeover(from: u16, cause: u8, ms: u64) -> Event {
        Event {
            time_ns: ms * 1_000_000,
            flow: FlowKey {
                client: [0; 4],
                vni: 0,
                address: 0,
                protocol: 6,
                client_port: 0,
                vni_port: 0,
            },
            kind: kind::TAKEOVER,
            cause,
            from,
            to: 1,
            pad: 0,
        }
    }

    #[test]
    fn a_burst_convicts_once() {
        let mut evidence = Evidence::default();
        let convicted = (0..5).filter_map(|n| evidence.note(&takeover(7, cause::RESET, n)));
        assert_eq!(convicted.collect::<Vec<_>>(), [7]);
        evidence.forgive(7);
        assert_eq!(evidence.note(&takeover(7, cause::RESET, 9)), None);
        assert_eq!(evidence.refused_ns(7), 9_000_000);
    }

    #[test]
    fn slow_or_ordered_takeovers_do_not() {
        let mut evidence = Evidence::default();
        for n in 0..50 {
            assert_eq!(
                evidence.note(&takeover(7, cause::CLOSED_EARLY, n * 300)),
                None
            );
            assert_eq!(evidence.note(&takeover(8, cause::DEAD, n)), None);
            assert_eq!(evidence.note(&takeover(9, cause::EVACUATED, n)), None);
            assert_eq!(evidence.note(&takeover(8, cause::UNANSWERED, n)), None);
        }
        assert_eq!(evidence.refused_ns(8), 0);
    }
}
