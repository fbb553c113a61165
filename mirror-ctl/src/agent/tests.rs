//! Events in, actions out: what the agent decides, without a kernel and without a clock.

mod ways;

use std::path::Path;

use mirror_common::{
    event::{Event as Report, cause, kind},
    flow::FlowKey,
    instance::{Vitals, state as entry_state},
    time,
};

use super::{
    decide::Action,
    orders::Refusal,
    state::{Instance, Order, State},
};
use crate::{
    config::{Config, Mac},
    dataplane::InstanceRecord,
    health::Cause,
    netlink::{Address, Change, Link, Neighbour},
    routing::State as Service,
};

const S: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;
const START: u64 = 1_000 * S;

const CONFIG: &str = r#"
[[instance]]
name = "a"
link = "ia"
mac = "02:00:00:00:01:02"
[[instance]]
name = "b"
link = "ib"
address = "10.66.2.2"
[[instance]]
name = "c"
link = "ic"
mac = "02:00:00:00:03:02"
[instance.probe]
tcp = "10.66.3.2:7000"
[[vni]]
name = "web"
addresses = ["10.77.0.100"]
interfaces = ["c0"]
[[vni]]
name = "small"
addresses = ["10.77.0.101"]
interfaces = ["c0"]
instances = ["a", "c"]
"#;

fn link(ifindex: u32, name: &str, up: bool) -> Link {
    Link {
        ifindex,
        name: name.to_owned(),
        mac: Some(Mac([2, 0, 0, 0, ifindex as u8, 1])),
        up,
        mtu: 1500,
        peer: None,
        xdp: None,
    }
}

/// Three instances, all up and known.
fn world() -> State {
    let config = Config::parse(Path::new("test.toml"), CONFIG).unwrap();
    let instances = config.instances.iter().enumerate();
    let instances = instances
        .map(|(number, config)| Instance::new(number as u32, config.clone(), START))
        .collect();
    let mut state = State::new(config, instances);
    state.is_native = true;
    for (ifindex, name) in [(1, "c0"), (2, "ia"), (3, "ib"), (4, "ic")] {
        state.network(&Change::Link(link(ifindex, name, true)), START);
    }
    state.network(&neighbour(Some(Mac([2, 0, 0, 0, 2, 2]))), START);
    state.settle(START);
    state
}

fn neighbour(mac: Option<Mac>) -> Change {
    Change::Neighbour(Neighbour {
        ifindex: 3,
        address: "10.66.2.2".parse().unwrap(),
        mac,
    })
}

fn down(state: &mut State, ifindex: u32, name: &str, now_ns: u64) -> Vec<Action> {
    state.network(&Change::Link(link(ifindex, name, false)), now_ns)
}

fn service(state: &State, name: &str) -> (Service, Cause) {
    let instance = &state.instances[state.find(name).unwrap()];
    (instance.service(), instance.cause)
}

fn takeover(from: u16, time_ns: u64) -> Report {
    Report {
        time_ns,
        flow: FlowKey {
            client: [0; 4],
            vni: 0,
            address: 0,
            protocol: 6,
            client_port: 0,
            vni_port: 0,
        },
        kind: kind::TAKEOVER,
        cause: cause::RESET,
        from,
        to: 1,
        pad: 0,
    }
}

#[test]
fn what_a_link_takes_is_written() {
    let mut state = world();
    assert_eq!(state.instances[1].entry().mtu, 1500);
    let mut narrow = link(3, "ib", true);
    narrow.mtu = 1400;
    let actions = state.network(&Change::Link(narrow), START);
    assert!(
        matches!(actions[..], [Action::WriteInstance(1)]),
        "{actions:?}"
    );
    assert_eq!(state.instances[1].entry().mtu, 1400);
    assert_eq!(service(&state, "b"), (Service::Up, Cause::Configured));
}

#[test]
fn all_serve_when_all_is_well() {
    let state = world();
    for instance in &state.instances {
        assert_eq!(instance.service(), Service::Up, "{}", instance.config.name);
        assert_eq!(instance.entry().state, entry_state::UP);
    }
    let addresses = state.instances[1].entry().addresses;
    assert_eq!(addresses.destination(), [2, 0, 0, 0, 2, 2]);
    assert_eq!(addresses.source(), [2, 0, 0, 0, 3, 1]);
}

#[test]
fn a_link_that_goes_down_is_one_write_first() {
    let mut state = world();
    let actions = down(&mut state, 2, "ia", START + S);
    assert_eq!(actions[0], Action::WriteInstance(0));
    assert!(matches!(
        &actions[1],
        Action::Tell { instance, from: Service::Up, to: Service::Dead, cause: Cause::LinkDown, .. }
            if instance == "a"
    ));
    assert_eq!(actions[2], Action::Publish);
    assert_eq!(state.instances[0].entry().state, entry_state::DEAD);
    // Told again, nothing is new.
    assert_eq!(down(&mut state, 2, "ia", START + S), []);
}

#[test]
fn a_link_that_comes_back_is_tried_then_trusted() {
    let mut state = world();
    down(&mut state, 2, "ia", START + S);
    state.network(&Change::Link(link(2, "ia", true)), START + 5 * S);
    assert_eq!(service(&state, "a"), (Service::Dead, Cause::LinkDown));
    state.tick(START + 5 * S + 900 * MS);
    assert_eq!(service(&state, "a").0, Service::Dead);
    let actions = state.tick(START + 6 * S);
    assert_eq!(actions[0], Action::WriteInstance(0));
    assert_eq!(service(&state, "a"), (Service::Up, Cause::Probation));
    assert!(state.instances[0].candidate().score < 0.1);
    // Heard for a second.
    state.instances[0].vitals.heard_ns = START + 6 * S + 1;
    state.tick(START + 7 * S);
    assert_eq!(service(&state, "a"), (Service::Up, Cause::Recovered));
    assert_eq!(state.instances[0].candidate().score, 1.0);
}

#[test]
fn a_link_that_is_replaced_is_rewired() {
    let mut state = world();
    let actions = state.network(&Change::LinkGone(2), START + S);
    assert_eq!(actions[0], Action::WriteInstance(0));
    assert!(actions.contains(&Action::Rewire("ia".to_owned())));
    assert_eq!(state.instances[0].entry().ifindex, 0);
    let actions = state.network(&Change::Link(link(9, "ia", true)), START + 2 * S);
    assert!(actions.contains(&Action::Rewire("ia".to_owned())));
    assert_eq!(state.instances[0].entry().ifindex, 9);
    assert_eq!(service(&state, "a").0, Service::Dead);
}

#[test]
fn a_renamed_interface_is_another_one() {
    let mut state = world();
    let actions = state.network(&Change::Link(link(2, "other", true)), START + S);
    assert!(actions.contains(&Action::Rewire("ia".to_owned())));
    assert_eq!(service(&state, "a").0, Service::Dead);
}

#[test]
fn vni_interfaces_are_rewired_and_announced() {
    let mut state = world();
    state.network(&Change::LinkGone(1), START);
    let actions = state.network(&Change::Link(link(8, "c0", true)), START);
    let (name, other) = ("c0".to_owned(), "c0".to_owned());
    assert_eq!(actions, [Action::Rewire(name), Action::Announce(other)]);
    // Down and up: its IPv6 addresses are gone.
    assert_eq!(down(&mut state, 8, "c0", START), []);
    let actions = state.network(&Change::Link(link(8, "c0", true)), START);
    assert_eq!(actions, [Action::Announce("c0".to_owned())]);
}

#[test]
fn an_address_that_somebody_removes_is_added_again() {
    let mut state = world();
    let mut gone = |address: &str| {
        let address = Address {
            ifindex: 1,
            address: address.parse().unwrap(),
        };
        state.network(&Change::AddressGone(address), START)
    };
    assert_eq!(gone("10.77.0.101"), [Action::Announce("c0".to_owned())]);
    assert_eq!(gone("10.0.0.1"), []);
}

#[test]
fn an_unknown_neighbour_keeps_its_instance_out() {
    let mut state = world();
    state.instances[1].mac = None;
    state.settle(START);
    assert_eq!(service(&state, "b"), (Service::Dead, Cause::Unresolved));
    assert_eq!(state.tick(START + S), [Action::Resolve(1)]);
    assert_eq!(state.tick(START + S + MS), []);
    let actions = state.network(&neighbour(Some(Mac([2, 0, 0, 0, 2, 9]))), START + 2 * S);
    assert_eq!(actions[0], Action::WriteInstance(1));
    assert_eq!(service(&state, "b").0, Service::Up);
    // A failed resolution later changes nothing, a new address does.
    assert_eq!(state.network(&neighbour(None), START + 3 * S), []);
    let actions = state.network(&neighbour(Some(Mac([2, 0, 0, 0, 2, 8]))), START + 4 * S);
    assert_eq!(actions, [Action::WriteInstance(1)]);
}

#[test]
fn silence_takes_out_and_the_operator_brings_back() {
    let mut state = world();
    let mut now_ns = START;
    let mut told = Vec::new();
    for n in 0..100u64 {
        now_ns += 5 * MS;
        let answers = Vitals {
            heard_ns: now_ns - MS,
            sent: n,
            received: n,
            ..Vitals::default()
        };
        let owes = Vitals {
            heard_ns: START - S,
            owes_since_ns: START + 5 * MS,
            sent: n,
            ..Vitals::default()
        };
        told.extend(state.looked(&[answers, owes, answers], now_ns));
    }
    assert_eq!(service(&state, "b"), (Service::Suspect, Cause::Silent));
    assert_eq!(state.instances[1].entry().state, entry_state::SUSPECT);
    assert_eq!(
        told.iter().filter(|a| matches!(a, Action::Publish)).count(),
        1
    );
    let actions = state.tick(now_ns + S);
    assert_eq!(actions[0], Action::WriteInstance(1));
    assert_eq!(service(&state, "b"), (Service::Dead, Cause::Silent));
    assert_eq!(state.instances[1].entry().state, entry_state::DEAD);
    state.ordered("b", Order::None, false, now_ns).unwrap();
    assert_eq!(service(&state, "b"), (Service::Up, Cause::Operator));
}

#[test]
fn a_dying_service_is_seen_by_its_resets() {
    let mut state = world();
    let reports: Vec<Report> = (0..6).map(|n| takeover(0, START + n * MS)).collect();
    state.reported(&reports, START + 6 * MS);
    assert_eq!(service(&state, "a"), (Service::Dead, Cause::Resets));
    // On trial it refuses once more, and waits longer.
    state.tick(START + 2 * S);
    assert_eq!(service(&state, "a"), (Service::Up, Cause::Probation));
    state.reported(&[takeover(0, START + 2 * S + MS)], START + 2 * S + MS);
    state.tick(START + 2 * S + 100 * MS);
    assert_eq!(service(&state, "a"), (Service::Dead, Cause::Resets));
    state.tick(START + 4 * S);
    assert_eq!(service(&state, "a").0, Service::Dead);
    state.tick(START + 4 * S + 100 * MS);
    assert_eq!(service(&state, "a").0, Service::Up);
    // Nobody asks it anything: it is tried with more.
    let score = |state: &State| state.instances[0].candidate().score;
    let before = score(&state);
    let actions = state.tick(START + 6 * S + 100 * MS);
    assert!(actions.contains(&Action::Publish), "{actions:?}");
    assert_eq!(score(&state), 2.0 * before);
}

#[test]
fn probes_decide_about_who_has_one() {
    let mut state = world();
    state.probed("c", false, START);
    assert_eq!(service(&state, "c").0, Service::Up);
    state.probed("c", false, START);
    assert_eq!(service(&state, "c"), (Service::Dead, Cause::Probe));
    state.tick(START + 900 * S);
    for _ in 0..2 {
        state.probed("c", true, START + 900 * S);
        assert_eq!(service(&state, "c").0, Service::Dead);
    }
    state.probed("c", true, START + 900 * S);
    assert_eq!(service(&state, "c"), (Service::Up, Cause::Recovered));
    // Others have none: nothing happens.
    assert_eq!(state.probed("a", false, START), []);
}

#[test]
fn a_failing_probe_spares_the_last_live_instance() {
    let mut state = world();
    down(&mut state, 2, "ia", START);
    for _ in 0..9 {
        assert_eq!(state.probed("c", false, START), []);
    }
    // When another one is back for good, it counts.
    state.network(&Change::Link(link(2, "ia", true)), START);
    state.tick(START + 2 * S);
    assert_eq!(service(&state, "a"), (Service::Up, Cause::Probation));
    assert_eq!(service(&state, "c"), (Service::Up, Cause::Configured));
    state.instances[0].vitals.heard_ns = START + 3 * S;
    state.tick(START + 3 * S);
    assert_eq!(service(&state, "a"), (Service::Up, Cause::Recovered));
    assert_eq!(service(&state, "c"), (Service::Dead, Cause::Probe));
}

#[test]
fn evacuations_are_ordered_noted_and_undone() {
    let mut state = world();
    let actions = state.ordered("a", Order::Evacuate, false, START).unwrap();
    assert_eq!(actions[0], Action::WriteInstance(0));
    let instance = &state.instances[0];
    assert_eq!(instance.entry().state, entry_state::EVACUATING);
    let patience = mirror_common::limits::EVACUATION_PATIENCE_MS;
    assert_eq!(instance.entry().deadline_ms, time::ms(START) + patience);
    assert_eq!(instance.record().order, Order::Evacuate as u8);
    // Nothing but restore undoes it.
    state.tick(START + 900 * S);
    assert_eq!(service(&state, "a"), (Service::Evacuating, Cause::Operator));
    state.ordered("a", Order::None, false, START).unwrap();
    assert_eq!(service(&state, "a"), (Service::Up, Cause::Operator));
}

#[test]
fn the_last_healthy_instance_is_not_taken_out() {
    let mut state = world();
    state.ordered("c", Order::Drain, false, START).unwrap();
    let refusal = state
        .ordered("a", Order::Evacuate, false, START)
        .unwrap_err();
    // There is `b`, but not for this VNI.
    assert!(
        matches!(&refusal, Refusal::LastHealthy { vni, .. } if vni == "small"),
        "{refusal}"
    );
    assert_eq!(service(&state, "a").0, Service::Up);
    assert!(state.ordered("a", Order::Takeover, false, START).is_err());
    state.ordered("a", Order::Drain, true, START).unwrap();
    // Draining, but all flows of the small one hang on it and on `c`, which drains too.
    state.ordered("c", Order::Takeover, false, START).unwrap();
    assert!(state.ordered("a", Order::Takeover, false, START).is_err());
    state.ordered("a", Order::Takeover, true, START).unwrap();
    assert_eq!(service(&state, "a").0, Service::Dead);
    state.ordered("a", Order::Takeover, false, START).unwrap();
    let unknown = state.ordered("x", Order::Drain, false, START);
    assert_eq!(unknown, Err(Refusal::Unknown("x".to_owned())));
}

#[test]
fn a_new_agent_recalls_orders_and_failures() {
    let recall = |order: Order, cause: Cause, entry: u32| {
        let mut state = world();
        let record = InstanceRecord {
            number: 0,
            order: order as u8,
            cause: cause as u8,
            changed_ns: START - S,
        };
        let mut known = state.instances[0].entry();
        known.state = entry;
        state.instances[0].recall(&record, &known);
        service(&state, "a")
    };
    let (up, dead, suspect) = (entry_state::UP, entry_state::DEAD, entry_state::SUSPECT);
    assert_eq!(
        recall(Order::None, Cause::Recovered, up),
        (Service::Up, Cause::Recovered)
    );
    assert_eq!(
        recall(Order::Drain, Cause::Operator, up).0,
        Service::Draining
    );
    assert_eq!(
        recall(Order::Takeover, Cause::Operator, dead).0,
        Service::Dead
    );
    assert_eq!(
        recall(Order::None, Cause::Silent, dead),
        (Service::Dead, Cause::Silent)
    );
    assert_eq!(
        recall(Order::None, Cause::Silent, suspect),
        (Service::Suspect, Cause::Silent)
    );
    // A link that was down may be up by now: looked at afresh.
    assert_eq!(recall(Order::None, Cause::LinkDown, dead).0, Service::Up);
}

#[test]
fn restore_does_not_deny_facts() {
    let mut state = world();
    down(&mut state, 2, "ia", START);
    state.ordered("a", Order::None, false, START).unwrap();
    assert_eq!(service(&state, "a").0, Service::Dead);
}

#[test]
fn handshakes_that_wait_for_an_instance_are_released_once() {
    let mut state = world();
    let since_ns = START + S;
    let invited = Vitals {
        syn_since_ns: since_ns,
        ..Vitals::default()
    };
    let look = |state: &mut State, vitals: Vitals, after_ms: u64| {
        let others = Vitals::default();
        let actions = state.looked(&[vitals, others, others], since_ns + after_ms * MS);
        actions.contains(&Action::Release(0))
    };
    assert!(!look(&mut state, invited, 5));
    assert!(look(&mut state, invited, 6));
    assert!(!look(&mut state, invited, 1_000));
    assert!(!look(&mut state, Vitals::default(), 2_000));
    let again = Vitals {
        syn_since_ns: since_ns + 3_000 * MS,
        ..invited
    };
    assert!(look(&mut state, again, 3_010));
}

#[test]
fn lost_changes_are_asked_for_again() {
    assert_eq!(world().network(&Change::Lost, START), [Action::Resync]);
}

#[test]
fn an_instance_that_never_answers_is_told_of_once() {
    let mut state = world();
    state.instances[0].vitals.sent = 50;
    assert!(state.tick(START).contains(&Action::Unheard(0)));
    assert!(!state.tick(START).contains(&Action::Unheard(0)));
}
