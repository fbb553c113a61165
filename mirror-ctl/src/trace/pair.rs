//! The two records that a program's run leaves of a packet, put together.

use std::collections::BTreeMap;

use mirror_common::trace::{Record, moment};

use crate::dataplane::Told;

/// A packet's way through one program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passage {
    /// As the program got it; none if that record was lost.
    pub before: Option<Told>,
    /// As the program left it; none if that record was lost.
    pub after: Option<Told>,
}

impl Passage {
    /// What both records say alike.
    pub fn record(&self) -> &Record {
        let told = self.before.as_ref().or(self.after.as_ref());
        // One of them is there: see `Pairs::add`, which alone makes passages.
        &told.expect("a passage has a record").record
    }
}

/// Records that wait for their second half: one for each CPU at most, for a program's run is not interrupted by another.
#[derive(Debug, Default)]
pub struct Pairs(BTreeMap<u32, Told>);

impl Pairs {
    /// Takes a record in, and gives what is complete, or never will be, by it.
    pub fn add(&mut self, told: Told) -> Vec<Passage> {
        let cpu = told.record.cpu;
        let waiting = self.0.remove(&cpu);
        if told.record.moment == moment::BEFORE {
            self.0.insert(cpu, told);
            return waiting.map(alone).into_iter().collect();
        }
        let matches = |before: &Told| before.record.packet == told.record.packet;
        match waiting {
            Some(before) if matches(&before) => vec![Passage {
                before: Some(before),
                after: Some(told),
            }],
            waiting => {
                let mut all: Vec<_> = waiting.map(alone).into_iter().collect();
                all.push(Passage {
                    before: None,
                    after: Some(told),
                });
                all
            }
        }
    }
}

fn alone(before: Told) -> Passage {
    Passage {
        before: Some(before),
        after: None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use mirror_common::{
        flow::{FlowKey, ipv4},
        trace::NOBODY,
    };

    use super::*;

    pub(in crate::trace) fn told(cpu: u32, packet: u32, moment: u8) -> Told {
        Told {
            record: Record {
                time_ns: 0,
                reasons: 0,
                flow: FlowKey {
                    client: ipv4(u32::from_ne_bytes([10, 0, 0, 9])),
                    vni: 0,
                    address: 0,
                    protocol: 6,
                    client_port: 4000,
                    vni_port: 80,
                },
                packet,
                cpu,
                length: 0,
                captured: 0,
                ifindex: 0,
                instance: NOBODY,
                program: 0,
                moment,
                action: 0,
                pad: [0; 7],
            },
            frame: Vec::new(),
        }
    }

    /// The packets of both halves of each passage.
    fn add(pairs: &mut Pairs, told: Told) -> Vec<(Option<u32>, Option<u32>)> {
        let packet = |told: Option<Told>| told.map(|told| told.record.packet);
        let passages = pairs.add(told).into_iter();
        passages
            .map(|passage| (packet(passage.before), packet(passage.after)))
            .collect()
    }

    #[test]
    fn halves_are_joined_by_cpu() {
        let mut pairs = Pairs::default();
        assert_eq!(add(&mut pairs, told(0, 1, moment::BEFORE)), []);
        assert_eq!(add(&mut pairs, told(1, 1, moment::BEFORE)), []);
        let whole = [(Some(1), Some(1))];
        assert_eq!(add(&mut pairs, told(0, 1, moment::AFTER)), whole);
        assert_eq!(add(&mut pairs, told(1, 1, moment::AFTER)), whole);
    }

    #[test]
    fn what_is_left_of_a_loss_is_told() {
        let mut pairs = Pairs::default();
        assert_eq!(
            add(&mut pairs, told(0, 1, moment::AFTER)),
            [(None, Some(1))]
        );
        assert_eq!(add(&mut pairs, told(0, 2, moment::BEFORE)), []);
        assert_eq!(
            add(&mut pairs, told(0, 3, moment::BEFORE)),
            [(Some(2), None)]
        );
        assert_eq!(
            add(&mut pairs, told(0, 4, moment::AFTER)),
            [(Some(3), None), (None, Some(4))]
        );
    }
}
