//! The screen, character by character, and what keys do.

use ratatui::{Terminal, backend::TestBackend};

use super::*;
use crate::{
    agent::{
        log::LogEntry,
        view::{InstanceRow, StatusRow, VniRow},
    },
    connections::{FlowRow, ReplicaRow},
};

const PLAIN: Look = Look {
    colour: false,
    now_ns: 600_000_000_000,
};

fn answers(instances: usize) -> Answers {
    let instance = |n: usize| InstanceRow {
        name: format!("i{n}"),
        state: if n == 1 { "evacuating" } else { "up" }.to_owned(),
        cause: "configured".to_owned(),
        changed_ns: 0,
        weight: 100,
        share: 0.5,
        score: 1.0,
        flows: 10 * n as u64,
        warm: 7,
        ..InstanceRow::default()
    };
    let replica = |role: &str, instance: &str, reason: Option<&str>| ReplicaRow {
        instance: instance.to_owned(),
        slot: 0,
        role: role.to_owned(),
        state: if reason.is_some() { "cold" } else { "warm" }.to_owned(),
        reason: reason.map(str::to_owned),
        diverged_within: None,
        lag_bytes: 0,
    };
    let flow = FlowRow {
        client: "10.77.0.2:40000".to_owned(),
        vni: "web".to_owned(),
        address: "10.77.0.100:80".to_owned(),
        protocol: "tcp".to_owned(),
        state: "established".to_owned(),
        active: "i0".to_owned(),
        replicas: vec![
            replica("active", "i0", None),
            replica("mirror", "i1", Some("lag_bytes")),
        ],
        age_s: 1,
        idle_s: 0,
        packets: 12,
        takeovers: 0,
        reason: None,
    };
    Answers {
        status: StatusRow {
            version: "0.1.0".to_owned(),
            uptime_s: 300,
            flows: [("mirrored".to_owned(), 42)].into(),
            counters: [("cloned".to_owned(), 1_000), ("takeover".to_owned(), 1)].into(),
            ..StatusRow::unattended()
        },
        instances: (0..instances).map(instance).collect(),
        vnis: vec![VniRow {
            name: "web".to_owned(),
            addresses: vec!["10.77.0.100".to_owned(), "fd77::100".to_owned()],
            mirrors: 1,
            flows: 42,
            unprotected: 3,
            ..VniRow::default()
        }],
        flows: vec![flow],
    }
}

fn takeover(seq: u64) -> LogEntry {
    let text = |text: &str| Some(text.to_owned());
    LogEntry {
        seq,
        time_ns: 595_000_000_000,
        kind: "takeover".to_owned(),
        client: text("10.77.0.2:40000"),
        vni: text("web"),
        from: text("i1"),
        to: text("i0"),
        cause: text("evacuated"),
        ..LogEntry::default()
    }
}

fn model(instances: usize) -> Model {
    let mut model = Model::default();
    model.answered(answers(instances));
    let mut later = answers(instances);
    later.status.counters.insert("cloned".to_owned(), 1_500);
    later.status.counters.insert("takeover".to_owned(), 4);
    model.answered(later);
    model.happened(takeover(7));
    model
}

fn screen(model: &Model, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal
        .draw(|frame| draw::draw(frame, model, PLAIN))
        .unwrap();
    let buffer = terminal.backend().buffer();
    let lines = buffer.content().chunks(width.into()).map(|cells| {
        let line: String = cells.iter().map(ratatui::buffer::Cell::symbol).collect();
        format!("{}\n", line.trim_end())
    });
    lines.collect()
}

#[test]
fn everything_is_on_80_by_24() {
    let expected = "\
mirror-ctl 0.1.0  up 5 min  42 flows
packets/s 500              takeovers 3                went cold 0
█                          █
 INSTANCE      STATE      CAUSE       SINCE  SCORE WEIGHT SHARE  FLOWS   WARM
>i0            up         configured  10 min 1.00  100    50 %   0       7
 i1            evacuating configured  10 min 1.00  100    50 %   10      7
VNI               ADDRESSES                         MIRRORS  FLOWS   UNPROTECTED
web               10.77.0.100, fd77::100            1        42      3
 flows ─────────────────────────────────────────────────────────────────────────
CLIENT              STATE       ACTIVE   MIRRORS                       PACKETS
10.77.0.2:40000     established i0       i1 cold (lag_bytes)           12





 takeovers, cold mirrors, states ───────────────────────────────────────────────
   5 s ago  7  takeover  10.77.0.2:40000 web  i1 -> i0  evacuated





q quit  up/down choose  e evacuate  d drain  r restore  c only cold flows
";
    let shown = screen(&model(2), 80, 24);
    assert!(shown == expected, "shown\n{shown}\nexpected\n{expected}");
}

#[test]
fn no_size_and_no_state_is_a_panic() {
    for (width, height) in [(1, 1), (20, 5), (80, 3), (300, 100)] {
        screen(&Model::default(), width, height);
        screen(&model(40), width, height);
    }
}

#[test]
fn an_order_needs_a_yes() {
    let mut model = model(3);
    assert_eq!(model.key(KeyCode::Down), None);
    assert_eq!(model.key(KeyCode::Char('e')), None);
    assert!(screen(&model, 80, 24).ends_with("evacuate i1 (10 flows)? y/n\n"));
    assert_eq!(model.key(KeyCode::Enter), None, "is a no");
    assert!(screen(&model, 80, 24).ends_with("c only cold flows\n"));
    assert_eq!(model.key(KeyCode::Char('r')), None);
    let order = Wish::Order("restore", "i1".to_owned());
    assert_eq!(model.key(KeyCode::Char('y')), Some(order));
    assert_eq!(model.key(KeyCode::Char('y')), None, "once");
}

#[test]
fn the_choice_stays_within_the_instances() {
    let mut model = model(3);
    for _ in 0..5 {
        model.key(KeyCode::Down);
    }
    assert_eq!(model.selected(), 2);
    model.answered(answers(1));
    assert_eq!(model.selected(), 0);
    model.answered(answers(0));
    model.key(KeyCode::Char('e'));
    assert_eq!(model.asked, None);
    model.key(KeyCode::Up);
    assert_eq!(model.selected(), 0);
}

#[test]
fn the_chosen_instance_is_on_the_screen_and_troubles_are_told() {
    let mut model = model(40);
    for _ in 0..30 {
        model.key(KeyCode::Down);
    }
    model.trouble = Some("no agent answers".to_owned());
    let shown = screen(&model, 80, 24);
    assert!(shown.contains(">i30 "), "{shown}");
    assert!(shown.ends_with("no agent answers\n"), "{shown}");
}

#[test]
fn the_newest_events_are_shown() {
    let mut model = model(1);
    for seq in 8..400 {
        model.happened(takeover(seq));
    }
    let shown = screen(&model, 80, 24);
    assert!(
        shown.contains("399  takeover") && !shown.contains(" 300  takeover"),
        "{shown}"
    );
}
