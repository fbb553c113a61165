//! Tells from takeovers that an instance's service has died while its host lives: connections
//! that it reset, closed or refused, and that a mirror carried on. Pure.
//!
//! A refusal speaks against an instance when the connection is opened after all: another instance accepted it and the client
//! acknowledged that. Else it is a port where nobody listens, and whoever sends SYNs to one (from
//! addresses that need not be his own) could take out one instance after the other.

use std::collections::{HashMap, VecDeque};

use mirror_common::{
    event::{Event, cause, kind},
    flow::FlowKey,
    reason::Cold,
};

/// So many within [`WINDOW_NS`] are not the application's own doing: an application that closes
/// does so on every replica, and then nothing is taken over.
const FAILURES_MIN: usize = 5;
const WINDOW_NS: u64 = 1_000_000_000;
/// Refusals whose connections may still be opened; of more the oldest are forgotten, and the next ones tell.
const REFUSALS_MAX: usize = 1_024;

/// What the dataplane reported of each instance lately.
#[derive(Debug, Default)]
pub struct Evidence {
    failures: HashMap<u16, VecDeque<u64>>,
    /// When an instance refused or reset a connection last, in any role.
    refused_ns: HashMap<u16, u64>,
    /// Of connections that are not opened yet, oldest first.
    refusals: VecDeque<Refusal>,
}

/// An instance refused a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Refusal {
    flow: FlowKey,
    instance: u16,
    time_ns: u64,
    /// It was the active one, and the connection was handed to another.
    took_over: bool,
}

impl Evidence {
    /// Takes note of an event; the instance whose service it convicts.
    pub fn note(&mut self, event: &Event) -> Option<u16> {
        match (event.kind, event.cause) {
            (kind::TAKEOVER, cause::RESET | cause::CLOSED_EARLY) => {
                self.refused_ns.insert(event.from, event.time_ns);
                self.failed(event.from, event.time_ns)
            }
            (kind::TAKEOVER, cause::REFUSED) => {
                self.refused(event, true);
                None
            }
            (kind::FLOW_COLD, why) if why == Cold::Refused as u8 => {
                self.refused(event, false);
                None
            }
            (kind::FLOW_COLD, why) if why == Cold::Reset as u8 => {
                self.refused_ns.insert(event.from, event.time_ns);
                None
            }
            (kind::FLOW_OPENED, _) => self.opened(&event.flow),
            (kind::FLOW_CLOSED, _) => {
                self.refusals.retain(|refusal| refusal.flow != event.flow);
                None
            }
            _ => None,
        }
    }

    fn refused(&mut self, event: &Event, took_over: bool) {
        if self.refusals.len() == REFUSALS_MAX {
            self.refusals.pop_front();
        }
        self.refusals.push_back(Refusal {
            flow: event.flow,
            instance: event.from,
            time_ns: event.time_ns,
            took_over,
        });
    }

    /// A connection was opened: whoever refused it should not have.
    fn opened(&mut self, flow: &FlowKey) -> Option<u16> {
        if self.refusals.is_empty() {
            return None;
        }
        let all = std::mem::take(&mut self.refusals).into_iter();
        let (of_flow, others) = all.partition::<VecDeque<_>, _>(|refusal| refusal.flow == *flow);
        self.refusals = others;
        let mut convicted = None;
        for refusal in of_flow {
            self.refused_ns.insert(refusal.instance, refusal.time_ns);
            if refusal.took_over {
                convicted = self.failed(refusal.instance, refusal.time_ns).or(convicted);
            }
        }
        convicted
    }

    fn failed(&mut self, instance: u16, time_ns: u64) -> Option<u16> {
        let times = self.failures.entry(instance).or_default();
        times.push_back(time_ns);
        if times.len() > FAILURES_MIN {
            times.pop_front();
        }
        let spread = times.back()?.saturating_sub(*times.front()?);
        (times.len() == FAILURES_MIN && spread <= WINDOW_NS).then_some(instance)
    }

    /// When the instance refused or reset a connection last; 0: never.
    pub fn refused_ns(&self, instance: u16) -> u64 {
        self.refused_ns.get(&instance).copied().unwrap_or(0)
    }

    /// Forgets what was held against an instance.
    pub fn forgive(&mut self, instance: u16) {
        self.failures.remove(&instance);
        self.refusals.retain(|refusal| refusal.instance != instance);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: u8, cause: u8, from: u16, client_port: u16, ms: u64) -> Event {
        Event {
            time_ns: ms * 1_000_000,
            flow: FlowKey {
                client: [0; 4],
                vni: 0,
                address: 0,
                protocol: 6,
                client_port,
                vni_port: 0,
            },
            kind,
            cause,
            from,
            to: 1,
            pad: 0,
        }
    }

    fn takeover(from: u16, cause: u8, ms: u64) -> Event {
        event(kind::TAKEOVER, cause, from, 1, ms)
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

    const NOBODY: [u16; 0] = [];

    /// The connection from `port` is refused by the active 7, and then it comes to this.
    fn refuse(evidence: &mut Evidence, port: u16, then: &[(u8, u8, u16)]) -> Vec<u16> {
        let ms = u64::from(port);
        let refused = [
            (kind::TAKEOVER, cause::REFUSED, 7),
            (kind::FLOW_COLD, Cold::Refused as u8, 7),
        ];
        let events = refused.iter().chain(then);
        let note = |(kind, cause, from): &(u8, u8, u16)| {
            evidence.note(&event(*kind, *cause, *from, port, ms))
        };
        events.filter_map(note).collect()
    }

    #[test]
    fn who_refuses_what_another_serves_is_convicted() {
        let mut evidence = Evidence::default();
        let opened = [(kind::FLOW_OPENED, 0, 0)];
        for port in 1..5 {
            assert_eq!(refuse(&mut evidence, port, &opened), NOBODY);
            assert_eq!(evidence.refused_ns(7), u64::from(port) * 1_000_000);
        }
        assert_eq!(refuse(&mut evidence, 5, &opened), [7]);
        assert!(evidence.refusals.is_empty());
    }

    #[test]
    fn a_port_where_nobody_listens_convicts_nobody() {
        let mut evidence = Evidence::default();
        // The mirror refuses too, and the client is told; or nobody hears of the client again.
        let closed = [
            (kind::FLOW_COLD, Cold::Refused as u8, 8),
            (kind::FLOW_CLOSED, 0, 0),
        ];
        for port in 1..100 {
            assert_eq!(refuse(&mut evidence, port, &closed), NOBODY);
        }
        assert!(evidence.refusals.is_empty());
        for port in 1..20_000 {
            assert_eq!(refuse(&mut evidence, port, &[]), NOBODY);
        }
        assert_eq!(evidence.refusals.len(), REFUSALS_MAX);
        assert_eq!((evidence.refused_ns(7), evidence.refused_ns(8)), (0, 0));
        // One that is opened counts all the same.
        assert_eq!(
            refuse(&mut evidence, 20_000, &[(kind::FLOW_OPENED, 0, 0)]),
            NOBODY
        );
        assert!(evidence.refused_ns(7) > 0);
    }
}
