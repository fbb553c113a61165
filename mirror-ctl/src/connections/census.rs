//! How many flows there are and how well they are protected: counted during the walk over all of them.

use std::collections::HashMap;

use mirror_common::{flow::state, reason::Cold};

use super::row::{Standing, alone, lag_bytes, standing};
use crate::dataplane::{Entry, FlowTable};

/// The reason of a flow that has no mirror, unless it is known why.
const UNMIRRORED: &str = "unmirrored";
/// The reason of a flow whose mirror has not answered the handshake yet.
const PENDING: &str = "pending";

/// Counts of flows; instances and VNIs by their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Entries of each table, by its name.
    pub tables: HashMap<&'static str, u64>,
    /// Flows that are not closed, by the instance that is active for them.
    pub active: HashMap<u16, u64>,
    /// Flows that an instance could take over.
    pub warm: HashMap<u16, u64>,
    /// Flows that an instance mirrors and could not take over, by reason.
    pub cold: HashMap<(u16, &'static str), u64>,
    /// Requests that an instance has not answered, in flows that it is active for or could take over.
    pub in_flight: HashMap<u16, u64>,
    /// Bytes by which an instance trails in flows that it could take over.
    pub lag_bytes: HashMap<u16, u64>,
    /// Flows that are not closed, by VNI.
    pub vnis: HashMap<u16, u64>,
    /// Of those, the ones that no mirror could take over, by VNI and the best mirror's reason.
    pub unprotected: HashMap<(u16, &'static str), u64>,
}

impl Census {
    /// Counts one entry. `is_dead`: whether an instance is out.
    pub fn count(&mut self, entry: &Entry<'_>, is_dead: impl Fn(u16) -> bool) {
        *self.tables.entry(table_name(entry.table)).or_default() += 1;
        let flow = entry.flow;
        if flow.state == state::CLOSED {
            return;
        }
        let replicas = usize::from(flow.replicas).clamp(1, flow.instances.len());
        let active = usize::from(flow.active).min(replicas - 1);
        *self.active.entry(flow.instances[active]).or_default() += 1;
        self.owes(entry, active);
        *self.vnis.entry(entry.key.vni).or_default() += 1;
        let mut why = alone(flow).map_or(UNMIRRORED, Cold::name);
        let mut warm = false;
        for slot in (0..replicas).filter(|slot| *slot != active) {
            let instance = flow.instances[slot];
            let reason = match standing(entry, slot) {
                Standing::Cold(reason) => reason.name(),
                _ if is_dead(instance) => Cold::InstanceDead.name(),
                Standing::Pending => PENDING,
                Standing::Warm => {
                    *self.warm.entry(instance).or_default() += 1;
                    self.owes(entry, slot);
                    let lag = entry.sync.map_or(0, |sync| lag_bytes(sync, slot, active));
                    *self.lag_bytes.entry(instance).or_default() += u64::from(lag);
                    warm = true;
                    continue;
                }
            };
            *self.cold.entry((instance, reason)).or_default() += 1;
            if why == UNMIRRORED || reason == PENDING {
                why = reason;
            }
        }
        if !warm {
            let place = (entry.key.vni, why);
            *self.unprotected.entry(place).or_default() += 1;
        }
    }
}

impl Census {
    fn owes(&mut self, entry: &Entry<'_>, slot: usize) {
        let owed = u64::from(entry.flow.owes(slot as u8));
        if owed > 0 {
            *self
                .in_flight
                .entry(entry.flow.instances[slot])
                .or_default() += owed;
        }
    }
}

fn table_name(table: FlowTable) -> &'static str {
    match table {
        FlowTable::HalfOpen => "half_open",
        FlowTable::Mirrored => "mirrored",
        FlowTable::Unmirrored => "unmirrored",
        FlowTable::Datagram => "datagram",
    }
}

#[cfg(test)]
mod tests {
    use mirror_common::{
        answers::mark,
        flow::{Flow, FlowKey, PlainFlow},
        tcp::{Replica, TcpSync, slot},
    };

    use super::*;

    /// A census of one flow of VNI 1 with these mirrors of an active instance 0, instance 9 being dead.
    fn census(mirrors: &[(u16, u8, Cold)]) -> Census {
        census_of(mirrors, 0, [0; 4])
    }

    /// The same with these marks, and the client's bytes that each slot has acknowledged.
    fn census_of(mirrors: &[(u16, u8, Cold)], marks: u8, acknowledged: [u32; 4]) -> Census {
        let mut flow = Flow {
            plain: PlainFlow {
                state: state::ESTABLISHED,
                marks,
                ..PlainFlow::default()
            },
            replicas: 1 + mirrors.len() as u8,
            ..Flow::default()
        };
        let mut sync = TcpSync::default();
        sync.replicas[0].state = slot::WARM;
        sync.replicas[0].rcv_nxt = acknowledged[0];
        for (place, (instance, state, cold)) in mirrors.iter().enumerate() {
            flow.instances[place + 1] = *instance;
            sync.replicas[place + 1] = Replica {
                state: *state,
                cold: *cold as u8,
                rcv_nxt: acknowledged[place + 1],
                ..Replica::default()
            };
        }
        let key = FlowKey {
            client: [0; 4],
            vni: 1,
            address: 0,
            protocol: 6,
            client_port: 1,
            vni_port: 1,
        };
        let entry = Entry {
            table: FlowTable::Mirrored,
            key: &key,
            flow: &flow,
            sync: Some(&sync),
        };
        let mut census = Census::default();
        census.count(&entry, |instance| instance == 9);
        assert_eq!(census.active, [(0, 1)].into());
        assert_eq!(census.tables, [("mirrored", 1)].into());
        census
    }

    #[test]
    fn one_warm_mirror_protects() {
        let census = census(&[(3, slot::COLD, Cold::LagBytes), (4, slot::WARM, Cold::Warm)]);
        assert_eq!(census.warm, [(4, 1)].into());
        assert_eq!(census.cold, [((3, "lag_bytes"), 1)].into());
        assert_eq!(census.unprotected, [].into());
    }

    #[test]
    fn who_could_answer_is_asked_for_what_it_owes() {
        let mirrors = [
            (3, slot::WARM, Cold::Warm),
            (4, slot::COLD, Cold::Reset),
            (5, slot::WARM, Cold::Warm),
        ];
        let all = [0, 1, 2, 3].map(|slot| mark::OWES << slot);
        let owing = all.into_iter().sum();
        let census = census_of(&mirrors, owing, [1_000, 800, 100, 1_000]);
        assert_eq!(census.in_flight, [(0, 1), (3, 1), (5, 1)].into());
        assert_eq!(census.lag_bytes, [(3, 200), (5, 0)].into());
        let census = census_of(&mirrors, all[3], [0; 4]);
        assert_eq!(census.in_flight, [(5, 1)].into());
    }

    #[test]
    fn a_flow_beyond_the_limit_is_unprotected_for_that() {
        let flow = Flow::alone(PlainFlow {
            state: state::ESTABLISHED,
            cold: Cold::MirrorLimit as u8,
            ..PlainFlow::default()
        });
        let mut census = Census::default();
        let entry = Entry {
            table: FlowTable::Unmirrored,
            key: &super::super::row::tests::key(),
            flow: &flow,
            sync: None,
        };
        census.count(&entry, |_| false);
        assert_eq!(census.unprotected, [((1, "mirror_limit"), 1)].into());
    }

    #[test]
    fn an_unprotected_flow_says_why() {
        for (mirrors, why) in [
            (&[][..], UNMIRRORED),
            (&[(3, slot::COLD, Cold::Refused)], "refused"),
            (&[(9, slot::WARM, Cold::Warm)], "instance_dead"),
        ] {
            let census = census(mirrors);
            assert_eq!(census.unprotected, [((1, why), 1)].into());
            assert_eq!(census.warm, [].into());
        }
    }
}
