//! Judgements in, actions out.

use std::path::Path;

use super::*;
use crate::{
    config::{Config, Mac},
    health::predict::engine::Outlook,
};

const S: u64 = 1_000_000_000;
const CONFIG: &str = r#"
[[instance]]
name = "a"
link = "ia"
mac = "02:00:00:00:01:02"
metrics = "http://10.66.1.2:9100"
[[instance]]
name = "b"
link = "ib"
mac = "02:00:00:00:02:02"
[[instance]]
name = "c"
link = "ic"
mac = "02:00:00:00:03:02"
[[vni]]
name = "web"
addresses = ["10.77.0.100"]
interfaces = ["c0"]
"#;

/// Three instances that serve, and a clock.
struct World {
    state: State,
    now_s: u64,
}

impl World {
    fn new(more: &str) -> Self {
        let config = Config::parse(Path::new("m.toml"), &format!("{CONFIG}{more}")).unwrap();
        let instances = config.instances.iter().enumerate();
        let instance = |(number, config): (usize, &crate::config::Instance)| Instance {
            link_up_ns: Some(1),
            mac: Some(Mac([2, 0, 0, 0, 0, number as u8])),
            ..Instance::new(number as u32, config.clone(), 0)
        };
        let instances = instances.map(instance).collect();
        Self {
            state: State::new(config, instances),
            now_s: 1_000,
        }
    }

    /// So many seconds with these risks; `None`: nothing is known.
    fn pass(&mut self, seconds: u64, risks: [Option<f32>; 3]) -> Vec<Action> {
        let judgement = |(name, risk): (&str, Option<f32>)| Judgement {
            instance: name.to_owned(),
            outlook: risk.map(|risk| Outlook::of(risk, None)),
            missing: risk.is_none(),
            depletion_s: None,
            reasons: Vec::new(),
            standings: Vec::new(),
        };
        let judgements = ["a", "b", "c"].into_iter().zip(risks).map(judgement);
        let judged = Judged {
            number: 0,
            made_ns: 0,
            tick_s: 1.0,
            vnis: vec![("web".to_owned(), judgements.collect())],
            standing: None,
        };
        let mut actions = Vec::new();
        for _ in 0..seconds {
            self.now_s += 1;
            actions.extend(self.state.foresee(&judged, self.now_s * S));
        }
        actions
    }

    fn a(&self) -> Service {
        self.state.instances[0].service()
    }
}

fn told(actions: &[Action]) -> Vec<Told> {
    let told = |action: &Action| match action {
        Action::Foretell { told, .. } => Some(*told),
        _ => None,
    };
    actions.iter().filter_map(told).collect()
}

const WELL: [Option<f32>; 3] = [Some(0.0); 3];
const ILL: [Option<f32>; 3] = [Some(0.9), Some(0.0), Some(0.0)];

#[test]
fn who_is_about_to_fail_is_left_and_returns_when_the_risk_has_gone() {
    let mut world = World::new("");
    assert!(world.pass(5, WELL).is_empty());
    let actions = world.pass(1, ILL);
    assert_eq!(told(&actions), [Told::Doubtful]);
    assert!(actions.contains(&Action::Publish));
    assert_eq!(world.a(), Service::Up, "one tick may be noise");
    let actions = world.pass(1, ILL);
    assert_eq!(told(&actions), [Told::Evacuated]);
    assert!(actions.contains(&Action::WriteInstance(0)));
    assert!(actions.iter().any(|action| matches!(
        action,
        Action::Tell {
            cause: Cause::Predicted,
            ..
        }
    )));
    assert_eq!(world.a(), Service::Evacuating);
    assert!(world.state.instances[0].deadline_ms > 0);
    assert!(world.pass(20, ILL).iter().all(|a| *a == Action::Publish));
    assert!(!told(&world.pass(29, WELL)).contains(&Told::Returned));
    let actions = world.pass(1, WELL);
    assert_eq!(told(&actions), [Told::Returned]);
    assert_eq!(world.a(), Service::Up);
    assert!(world.state.instances[0].candidate().score < 0.1, "slowly");
    world.pass(60, WELL);
    assert!(world.state.instances[0].candidate().score > 0.99);
}

#[test]
fn what_is_not_known_changes_nothing() {
    let mut world = World::new("");
    let actions = world.pass(100, [None, Some(0.0), Some(0.0)]);
    assert_eq!(told(&actions), [Told::Unknown]);
    assert_eq!(actions.len(), 1);
    world.pass(3, ILL);
    let before = world.state.instances[0].candidate().score;
    let actions = world.pass(1_000, [None, Some(0.0), Some(0.0)]);
    assert_eq!(told(&actions), [Told::Unknown]);
    assert_eq!(actions.len(), 1);
    assert_eq!(world.a(), Service::Evacuating);
    assert_eq!(world.state.instances[0].candidate().score, before);
}

#[test]
fn the_operators_orders_outrank_it() {
    let mut world = World::new("");
    world.pass(3, ILL);
    world.state.ordered("a", Order::None, false, S).unwrap();
    assert_eq!(world.a(), Service::Up);
    world.pass(10, ILL);
    assert_eq!(world.a(), Service::Up, "he said that it is to serve");
    assert_eq!(world.state.instances[0].candidate().score, 1.0);
    // The risk goes and comes back: that is another one.
    world.pass(60, WELL);
    world.pass(3, ILL);
    assert_eq!(world.a(), Service::Evacuating);

    let mut world = World::new("");
    world.state.ordered("a", Order::Drain, false, S).unwrap();
    world.pass(10, ILL);
    assert_eq!(world.a(), Service::Draining);
}

#[test]
fn never_beyond_what_the_others_can_bear() {
    let mut world = World::new("");
    world.state.ordered("b", Order::Takeover, false, S).unwrap();
    let actions = world.pass(10, ILL);
    assert_eq!(told(&actions), [Told::Doubtful, Told::Withheld]);
    assert_eq!(world.a(), Service::Up);
    // All of them look ill: it is the view that is doubted.
    let mut world = World::new("");
    assert!(world.pass(10, [Some(0.9); 3]).is_empty());
}

#[test]
fn what_it_may_do_is_configured() {
    let mut world = World::new("[health]\napply = \"nothing\"\n");
    assert_eq!(told(&world.pass(10, ILL)), [Told::Doubtful]);
    assert_eq!(world.a(), Service::Up);
    assert_eq!(world.state.instances[0].candidate().score, 1.0);

    let mut world = World::new("[health]\napply = \"new-flows\"\n");
    world.pass(10, ILL);
    assert_eq!(world.a(), Service::Up);
    assert!(world.state.instances[0].candidate().score < 0.1);

    let mut world = World::new("[health]\nevacuate_risk = 0.95\n");
    world.pass(10, ILL);
    assert_eq!(world.a(), Service::Up);
}

#[test]
fn an_agent_that_starts_leaves_who_was_left() {
    let mut before = World::new("");
    before.pass(3, ILL);
    let (record, entry) = {
        let a = &before.state.instances[0];
        (a.record(), a.entry())
    };
    let mut world = World::new("");
    world.state.instances[0].recall(&record, &entry);
    assert_eq!(world.a(), Service::Evacuating);
    world.pass(100, [None, Some(0.0), Some(0.0)]);
    assert_eq!(world.a(), Service::Evacuating);
    world.pass(30, WELL);
    assert_eq!(world.a(), Service::Up);
}
