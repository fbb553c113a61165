//! One flow's way through the tables: which of them, which bucket, and what the tables are made of.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use mirror_common::limits::STEERING_BUCKETS;

use super::{
    Bands, Candidate, Choice, Leaning, NONE, lean, maglev,
    select::{Common, Table},
    select_instance,
    source::Sources,
    weights,
};
use crate::config::Zone;

const SET_OF: u32 = 40;

/// A table of two instances by their parts; their sets are 40 and 41.
fn table(costs_ms: [f64; 2]) -> Table {
    let candidates = [Candidate::new("a", 100), Candidate::new("b", 100)];
    let weights = weights(&candidates, None, Bands::default());
    let leaning = Leaning {
        costs_ms: costs_ms.map(Some).to_vec(),
        keeps: vec![1.0; 2],
        halving_ms: 1.0,
        explore: 0.02,
    };
    let parts = lean(&weights, &leaning);
    let members: Vec<_> = candidates
        .iter()
        .zip(parts)
        .map(|(candidate, weight)| maglev::Member {
            name: candidate.name,
            weight,
        })
        .collect();
    let positions = maglev::build(&members, STEERING_BUCKETS);
    let count = |position: u32| positions.iter().filter(|p| **p == position).count() as f64;
    Table {
        shares: [0, 1].map(|p| count(p) / positions.len() as f64).to_vec(),
        buckets: positions.iter().map(|position| SET_OF + position).collect(),
        distances: Vec::new(),
    }
}

/// East is near to a, west to b; north is as far from both; south has no table left.
fn choice() -> Choice {
    let zones = ["east", "west", "north", "south"];
    let config: Vec<Zone> = zones
        .iter()
        .enumerate()
        .map(|(number, name)| Zone {
            name: (*name).to_owned(),
            prefixes: vec![format!("10.{number}.0.0/16").parse().unwrap()],
            costs: BTreeMap::new(),
        })
        .collect();
    Choice {
        sources: Arc::new(Sources::of(&config)),
        zones: Arc::new(zones.map(str::to_owned).to_vec()),
        common: table([0.0, 0.0]),
        by_zone: [(0, table([0.0, 5.0])), (1, table([5.0, 0.0]))].into(),
        refused: [3].into(),
        ..Choice::default()
    }
}

#[track_caller]
fn check(source: &str, zone: Option<usize>, common: Option<Common>, share_of_a: f64) {
    let choice = choice();
    let address: IpAddr = source.parse().unwrap();
    let selection = select_instance(&choice, Some(7 << 20), address).unwrap();
    assert_eq!(selection.zone.map(|(place, _)| place), zone);
    assert_eq!(selection.common, common);
    assert!(
        (selection.shares[0] - share_of_a).abs() < 0.001,
        "{:?}",
        selection.shares
    );
    let sum: f64 = selection.sets.values().sum();
    assert!((sum - 1.0).abs() < 1e-9);
    // The bucket is the dataplane's, the set is the one that stands in it.
    let hit = selection.flow.unwrap();
    assert_eq!(
        hit.bucket,
        mirror_common::steering::bucket(7 << 20, STEERING_BUCKETS)
    );
    let own = zone.and_then(|zone| choice.by_zone.get(&zone));
    let table = own.unwrap_or(&choice.common);
    assert_eq!(hit.set, table.buckets[hit.bucket as usize]);
}

#[test]
fn a_sources_zone_has_the_table() {
    check("10.0.9.9", Some(0), None, 0.960);
    check("10.1.9.9", Some(1), None, 0.040);
}

#[test]
fn others_use_the_common_one_and_it_says_why() {
    check("10.9.9.9", None, Some(Common::NoZone), 0.5);
    check("2001:db8::1", None, Some(Common::NoZone), 0.5);
    check("10.2.9.9", Some(2), Some(Common::Same), 0.5);
    check("10.3.9.9", Some(3), Some(Common::Full), 0.5);
}

#[test]
fn without_a_table_there_is_no_answer_and_without_a_hash_no_flow() {
    let mut choice = choice();
    let address = "10.0.0.1".parse().unwrap();
    assert_eq!(select_instance(&choice, None, address).unwrap().flow, None);
    choice.by_zone.clear();
    choice.common.buckets = vec![NONE; STEERING_BUCKETS as usize].into();
    let nobody = select_instance(&choice, Some(1), address).unwrap();
    assert_eq!((nobody.flow, nobody.sets.len()), (None, 0));
    choice.common.buckets = Arc::default();
    assert_eq!(select_instance(&choice, Some(1), address), None);
}

/// Every flow of a source goes to the same instance as long as nothing changes, and all flows spread as the shares say.
#[test]
fn flows_spread_as_the_shares_say() {
    let choice = choice();
    for (source, share) in [("10.0.0.1", 0.960), ("10.1.0.1", 0.040), ("10.2.0.1", 0.5)] {
        let address: IpAddr = source.parse().unwrap();
        let hits = (0..4096u32).map(|n| {
            let hash = n.wrapping_mul(0x9e37_79b9);
            select_instance(&choice, Some(hash), address)
                .unwrap()
                .flow
                .unwrap()
                .set
        });
        let to_a = hits.filter(|set| *set == SET_OF).count() as f64 / 4096.0;
        assert!((to_a - share).abs() < 0.03, "{source}: {to_a}");
    }
}
