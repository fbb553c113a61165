//! New flows go to instances that are near to their sources, as long as these are well, and nobody who is connected
//! notices when that changes.

mod places;

use std::time::Duration;

use nix::sys::signal::Signal;
use testbed::agent::{Agent, Event};
use testbed::clock::wait_until;
use testbed::topology::Family;
use testbed::topology::config::{Config, SteeringConfig, ZoneConfig};

use places::{
    CONNECTIONS, MOST, Places, TABLES, ZONE_TABLES_FROM, check_most, count_zone_tables, select,
    zone_tables,
};

use crate::support::{LIMIT, calmly, check_whole, wait_replies};

#[test]
fn clients_get_the_instance_that_is_near() {
    let places = Places::new();
    let agent = places.site.agent(&places.config());
    for family in Family::ALL {
        check_most(&places.flows(&agent, true, family), "a");
        check_most(&places.flows(&agent, false, family), "b");
    }
    let east = select(&agent, "10.77.0.9", &[]);
    assert_eq!(
        (east.zone.as_deref(), east.table.as_str()),
        (Some("east"), "zone")
    );
    assert_eq!(
        (
            east.candidates[0].instance.as_str(),
            east.candidates[0].cost_ms
        ),
        ("a", Some(0.0))
    );
    assert_eq!(east.candidates[1].cost_ms, Some(10.0));
    let shares: f64 = east
        .candidates
        .iter()
        .map(|candidate| candidate.share)
        .sum();
    assert!(
        (shares - 1.0).abs() < 1e-9 && east.candidates[0].share > 0.9,
        "{east:?}"
    );
    let nowhere = select(&agent, "10.99.0.9", &[]);
    assert_eq!((nowhere.zone, nowhere.table.as_str()), (None, "common"));
    assert_eq!(nowhere.table_cause.as_deref(), Some("no-zone"));
    assert!(
        (nowhere.candidates[0].share - 0.5).abs() < 0.01,
        "{:?}",
        nowhere.candidates
    );
}

#[test]
fn a_near_instance_that_fails_or_is_at_risk_is_passed_by_until_it_is_back() {
    let places = Places::new();
    let config = places.config();
    let agent = places.site.agent(&config);
    check_most(&places.flows(&agent, true, Family::V4), "a");
    agent.act("takeover", "a").unwrap();
    assert_eq!(
        places.flows(&agent, true, Family::V4),
        [("b".to_owned(), CONNECTIONS)].into()
    );
    agent.act("restore", "a").unwrap();
    let near = || {
        let share = select(&agent, "10.77.0.9", &[]).candidates[0].share;
        Ok(
            (select(&agent, "10.77.0.9", &[]).instance.as_deref() == Some("a") && share > 0.9)
                .then_some(()),
        )
    };
    wait_until("a to be the near one again", LIMIT, near).unwrap();
    // Its slow start goes on: the tables change, so none of them is asked where a flow would go.
    let flows = || places.flows_that(&agent, true, Family::V4, |_| {});
    check_most(&flows(), "a");
    // At risk: it serves, and others serve better.
    let mut risky = config.clone();
    risky.instance[0].score = Some(0.1);
    apply(&places, &agent, &risky);
    check_most(&flows(), "b");
    apply(&places, &agent, &config);
    check_most(&flows(), "a");
}

fn apply(places: &Places, agent: &Agent<'_>, config: &Config) {
    let file = places.site.topology.dir().join("new.toml");
    config.write(&file).unwrap();
    agent
        .text(&["apply", "-f", file.to_str().unwrap()])
        .unwrap();
}

/// Zones come, change places and go; flows stay where they are.
#[test]
fn zones_change_under_traffic_and_nobody_notices() {
    calmly(|| {
        let places = Places::alone();
        let (plain, zoned) = (places.plain(), places.config());
        let pins = places.site.topology.pin_dir();
        let agent = places.site.agent(&plain);
        let mut traffic = [
            places.client(true, Family::V4),
            places.client(false, Family::V6),
        ];
        agent.wait_warm(2 * CONNECTIONS, LIMIT).unwrap();
        let calm = places.calm();
        assert!(zone_tables(&pins).is_empty());

        apply(&places, &agent, &zoned);
        assert_eq!(zone_tables(&pins).len(), 2);
        check_most(&places.flows(&agent, true, Family::V4), "a");

        let mut turned = zoned.clone();
        turned.instance[0].zone = Some("west".into());
        turned.instance[1].zone = Some("east".into());
        apply(&places, &agent, &turned);
        check_most(&places.flows(&agent, true, Family::V4), "b");
        check_most(&places.flows(&agent, false, Family::V6), "a");

        // Another zone has the clients now; that of before has none left.
        let mut moved = zoned.clone();
        moved.zone.swap(0, 1);
        let prefixes = std::mem::take(&mut moved.zone[1].prefixes);
        moved.zone[0].prefixes.extend(prefixes);
        apply(&places, &agent, &moved);
        assert_eq!(zone_tables(&pins).len(), 1);
        check_most(&places.flows(&agent, true, Family::V4), "b");

        apply(&places, &agent, &plain);
        assert!(zone_tables(&pins).is_empty());
        let counts = places.flows(&agent, true, Family::V4);
        assert!(
            counts.values().all(|count| *count > CONNECTIONS / 6),
            "{counts:?}"
        );

        for client in &mut traffic {
            wait_replies(client, 300);
        }
        for client in traffic {
            calm.check(&client.finish().unwrap(), CONNECTIONS);
        }
    });
}

/// A successor finds the tables and goes on with them.
#[test]
fn a_successor_adopts_the_tables() {
    let places = Places::new();
    let pins = places.site.topology.pin_dir();
    let mut agent = places.site.agent(&places.config());
    let share = |agent: &Agent<'_>| {
        let candidates = select(agent, "10.77.0.9", &[]).candidates;
        let a = candidates.into_iter().find(|c| c.instance == "a");
        a.map_or(0.0, |a| a.share)
    };
    let usual = share(&agent);
    // A history: the table is not what one from nothing would be.
    agent.act("takeover", "a").unwrap();
    let gone = || Ok((share(&agent) < usual / 2.0).then_some(()));
    wait_until("a to be gone", LIMIT, gone).unwrap();
    agent.act("restore", "a").unwrap();
    // Its slow start is over: nothing changes the tables any more.
    wait_until("a to be back", 2 * LIMIT, || {
        Ok(((share(&agent) - usual).abs() < 1e-9).then_some(()))
    })
    .unwrap();
    let before = zone_tables(&pins);
    assert_eq!(before.len(), 2);
    agent.kill();
    check_alone(&places);
    agent.restart().unwrap();
    assert!(agent.status().unwrap().adopted);
    let after = zone_tables(&pins);
    assert!(after.keys().eq(before.keys()), "other tables");
    for (number, table) in &before {
        let pairs = table.iter().zip(&after[number]);
        let moved = pairs.filter(|(before, after)| before != after).count();
        // While it finds out how the instances fare a successor leans another way and back, which moves some.
        assert!(moved * 20 < table.len(), "{moved} of {}", table.len());
    }
    check_most(&places.flows(&agent, false, Family::V4), "b");
}

/// Without an agent the tables are still there.
#[track_caller]
fn check_alone(places: &Places) {
    let mut client = places.client(true, Family::V6);
    wait_replies(&mut client, 300);
    check_whole(&client.finish().unwrap(), CONNECTIONS);
}

/// More zones than there are tables: those that get none are spread as sources of no zone, and it is said everywhere.
#[test]
fn zones_beyond_the_bound_use_the_common_table_and_it_is_said() {
    const BEYOND: usize = 3;
    let tables = (TABLES - ZONE_TABLES_FROM) as usize;
    let places = Places::new();
    let pins = places.site.topology.pin_dir();
    let mut config = places.config();
    // East and west have one each.
    for number in 0..tables - 2 + BEYOND {
        let prefix = format!("172.{}.{}.0/24", 16 + number / 256, number % 256);
        config.zone.push(ZoneConfig {
            name: format!("z{number}"),
            prefixes: vec![prefix],
            costs: [("east".to_owned(), 1.0), ("west".to_owned(), 5.0)].into(),
        });
    }
    let agent = places.site.agent(&places.plain());
    apply(&places, &agent, &config);
    assert_eq!(count_zone_tables(&pins), tables);
    let first = select(&agent, "172.16.0.1", &[]);
    assert_eq!(first.table, "zone");
    let last = tables - 2 + BEYOND - 1;
    let address = format!("172.{}.{}.9", 16 + last / 256, last % 256);
    let without = select(&agent, &address, &[]);
    assert_eq!(without.zone, Some(format!("z{last}")));
    assert_eq!(without.table_cause.as_deref(), Some("no-table-left"));
    let told: Vec<Event> = agent.json(&["events", "--kind", "zone"]).unwrap();
    assert_eq!(told.len(), BEYOND, "{told:?}");
    assert_eq!(told[0].to.as_deref(), Some("common"));
    assert!(agent.said().contains("no steering table is left"));
    let metrics = agent.text(&["metrics"]).unwrap();
    let line = format!("mirror_zones_without_table{{vni=\"web\"}} {BEYOND}.0");
    assert!(metrics.lines().any(|l| l == line), "{line}");
    check_most(&places.flows(&agent, true, Family::V4), "a");

    // With fewer zones there are enough.
    config.zone.truncate(tables);
    apply(&places, &agent, &config);
    assert_eq!(count_zone_tables(&pins), tables);
    let metrics = agent.text(&["metrics"]).unwrap();
    assert!(metrics.contains("mirror_zones_without_table{vni=\"web\"} 0.0"));
    apply(&places, &agent, &places.plain());
    assert!(zone_tables(&pins).is_empty());
}

/// All clients are near to one instance: it has more than its part, and hands over new flows until it has not.
#[test]
fn a_near_instance_with_too_much_to_do_sheds_new_flows() {
    let places = Places::new();
    let mut config = places.config();
    config.steering = Some(SteeringConfig {
        hot_ratio: Some(1.5),
        ..SteeringConfig::default()
    });
    let agent = places.site.agent(&config);
    let near = || {
        let selected = select(&agent, "10.77.0.2", &[]);
        selected
            .candidates
            .into_iter()
            .find(|c| c.instance == "a")
            .unwrap()
    };
    // Its server stops: what it was asked stays in flight.
    let client = places.client(true, Family::V4);
    places.site.servers[0].signal(Signal::SIGSTOP).unwrap();
    let shed = wait_until("a to shed", 2 * LIMIT, || {
        let near = near();
        Ok((near.hot && near.share < 0.85).then_some(near))
    });
    let shed = shed.unwrap();
    assert!(shed.in_flight >= MOST as u64 && shed.load > 1.5, "{shed:?}");
    places.site.servers[0].signal(Signal::SIGCONT).unwrap();
    wait_until("a to be cool", 2 * LIMIT, || {
        let near = near();
        Ok((!near.hot && near.share > 0.9).then_some(()))
    })
    .unwrap();
    check_whole(&client.finish().unwrap(), CONNECTIONS);
}

/// Nothing says where instances are; one of them turns out to be far.
#[test]
fn a_distance_that_was_learned_steers_until_it_is_gone() {
    let places = Places::new();
    let mut config = places.plain();
    config.steering = Some(SteeringConfig {
        learn: Some(true),
        ..SteeringConfig::default()
    });
    let agent = places.site.agent(&config);
    let share = || {
        let selected = select(&agent, "10.77.0.2", &[]);
        let a = selected.candidates.into_iter().find(|c| c.instance == "a");
        a.unwrap().share
    };
    assert!((share() - 0.5).abs() < 0.01);
    let late = places.site.topology.instances[1].delay(Duration::from_millis(10));
    let late = late.unwrap();
    // The tables change meanwhile, so none of them is asked where a flow would go.
    let flows = || places.flows_that(&agent, true, Family::V4, |_| {});
    // Flows are looked at about once a second: not each of them is seen.
    wait_until("a distance", 2 * LIMIT, || {
        flows();
        Ok((share() > 0.8).then_some(()))
    })
    .unwrap();
    let selected = select(&agent, "10.77.0.2", &[]);
    let learned = selected.candidates[1].learned_ms.unwrap();
    assert!((10.0..60.0).contains(&learned), "{selected:?}");
    // It stays so: that few come by is no reason to think otherwise of it.
    for _ in 0..3 {
        check_most(&flows(), "a");
        assert!(share() > 0.8);
    }
    drop(late);
    // What is explored shows that it is near again.
    wait_until("no distance", 4 * LIMIT, || {
        flows();
        Ok((share() < 0.7).then_some(()))
    })
    .unwrap();
}
