//! How long instances took to answer SYNs, by source: gathered during the walk over all flows, each flow once.

use std::net::IpAddr;

use mirror_common::flow::{Flow, protocol, state};

use crate::{
    dataplane::{Entry, address_from},
    routing::distance::{Seen, prefix_of},
};

/// A step of the dataplane's clock, 2^14 ns, in ms.
const STEP_MS: f64 = 0.016_384;
/// Sources and instances of one walk; what comes beyond is left out.
const SEEN_MAX: usize = 8_192;

/// The flows that a walk takes in: opened from the one second on and before the other, in the dataplane's seconds. The walks
/// before took in all that were opened before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first second.
    pub from_s: u32,
    /// The one after the last.
    pub to_s: u32,
}

impl Window {
    /// The next one, at a time. It ends a second ago: handshakes take a while.
    #[must_use]
    pub fn after(last: Option<Self>, now_s: u32) -> Self {
        let to_s = now_s.saturating_sub(1);
        Self {
            // The first takes in what there is: a new agent knows at once what the flows it finds have met.
            from_s: last.map_or(0, |last| last.to_s),
            to_s,
        }
    }

    fn holds(self, opened_s: u32) -> bool {
        (self.from_s..self.to_s).contains(&opened_s)
    }
}

/// Takes in one entry.
pub fn gather(seen: &mut Seen, entry: &Entry<'_>, window: Window) {
    if entry.key.protocol != protocol::TCP || !window.holds(entry.flow.opened_s) {
        return;
    }
    let Some((instance, ms)) = handshake(entry.flow) else {
        return;
    };
    let source: IpAddr = address_from(&entry.key.client);
    let key = (prefix_of(source), instance);
    if seen.len() >= SEEN_MAX && !seen.contains_key(&key) {
        return;
    }
    let handshakes = seen.entry(key).or_default();
    handshakes.sum_ms += ms;
    handshakes.count += 1;
}

/// Which instance answered how fast; none: it is not known.
fn handshake(flow: &Flow) -> Option<(u16, f64)> {
    // Once it was taken over, the time is that of one that is not active any more.
    if flow.handshake == 0 || flow.takeovers > 0 || flow.state < state::ESTABLISHED {
        return None;
    }
    let instance = flow.instances.get(usize::from(flow.active))?;
    let steps = match flow.handshake {
        // Less than two.
        1 => 0.5,
        steps => f64::from(steps),
    };
    Some((*instance, steps * STEP_MS))
}

#[cfg(test)]
mod tests {
    use mirror_common::flow::FlowKey;

    use super::*;
    use crate::{
        connections::prompt,
        dataplane::{FlowTable, address_to},
    };

    fn flow(handshake: u16) -> Flow {
        let mut flow = prompt::tests::flow();
        (flow.opened_s, flow.seen_s) = (50, 50);
        flow.instances = [7, 8, 0, 0];
        flow.handshake = handshake;
        flow
    }

    fn changed(change: impl Fn(&mut Flow)) -> Flow {
        let mut flow = flow(1000);
        change(&mut flow);
        flow
    }

    #[track_caller]
    fn check(protocol: u8, flow: Flow, expected: Option<(u16, f64)>) {
        let key = FlowKey {
            client: address_to("10.1.2.3".parse().unwrap()),
            vni: 1,
            protocol,
            ..prompt::tests::key()
        };
        let entry = Entry {
            table: FlowTable::Mirrored,
            key: &key,
            flow: &flow,
            sync: None,
        };
        let mut seen = Seen::new();
        let window = Window {
            from_s: 50,
            to_s: 51,
        };
        gather(&mut seen, &entry, window);
        let prefix = "10.1.2.0/24".parse().unwrap();
        let found = seen.iter().next().map(|((source, instance), handshakes)| {
            assert_eq!((*source, handshakes.count), (prefix, 1));
            (*instance, handshakes.sum_ms)
        });
        assert_eq!(found, expected);
    }

    #[test]
    fn a_handshake_is_its_instances() {
        check(protocol::TCP, flow(1000), Some((7, 16.384)));
        check(protocol::TCP, flow(1), Some((7, 0.008_192)));
        let closed = changed(|flow| flow.state = state::CLOSED);
        check(protocol::TCP, closed, Some((7, 16.384)));
    }

    #[test]
    fn what_is_not_known_is_not_taken_in() {
        check(protocol::TCP, flow(0), None);
        check(protocol::UDP, flow(1000), None);
        let moved = changed(|flow| (flow.takeovers, flow.active) = (1, 1));
        check(protocol::TCP, moved, None);
        let half_open = changed(|flow| flow.state = state::ANSWERED);
        check(protocol::TCP, half_open, None);
        for opened_s in [49, 51] {
            let other = changed(|flow| flow.opened_s = opened_s);
            check(protocol::TCP, other, None);
        }
    }

    #[test]
    fn each_second_is_in_one_window() {
        let first = Window::after(None, 50);
        assert_eq!(
            first,
            Window {
                from_s: 0,
                to_s: 49
            }
        );
        let second = Window::after(Some(first), 50);
        assert_eq!(
            second,
            Window {
                from_s: 49,
                to_s: 49
            }
        );
        assert!(!second.holds(49));
        let third = Window::after(Some(second), 53);
        assert_eq!(
            third,
            Window {
                from_s: 49,
                to_s: 52
            }
        );
        assert!(third.holds(49) && third.holds(51) && !third.holds(52));
    }
}
