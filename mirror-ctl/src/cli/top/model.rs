//! What `top` shows and what keys do to it. Pure: answers of the agent and keys in, orders out.

use std::collections::VecDeque;

use ratatui::crossterm::event::KeyCode;

use crate::{
    agent::{
        log::LogEntry,
        view::{InstanceRow, StatusRow, VniRow},
    },
    connections::FlowRow,
};

/// Points of a sparkline: a minute's worth.
pub(super) const HISTORY: usize = 60;
/// Events that are kept for the screen.
const EVENTS: usize = 200;

/// What the agent said at one look.
#[derive(Clone, Debug)]
pub(super) struct Answers {
    pub(super) status: StatusRow,
    pub(super) instances: Vec<InstanceRow>,
    pub(super) vnis: Vec<VniRow>,
    pub(super) flows: Vec<FlowRow>,
}

/// What a key asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Quit,
    /// Look again now, because what is looked at is another.
    Look,
    /// Tell the agent: a verb and an instance.
    Order(&'static str, String),
}

/// Everything on the screen.
#[derive(Debug, Default)]
pub(super) struct Model {
    pub(super) answers: Option<Answers>,
    /// Why there are no newer answers.
    pub(super) trouble: Option<String>,
    /// What became of the last order.
    pub(super) notice: Option<String>,
    pub(super) events: VecDeque<LogEntry>,
    /// Packets of VNIs per look.
    pub(super) packets: VecDeque<u64>,
    /// Takeovers per look.
    pub(super) takeovers: VecDeque<u64>,
    /// Mirrors that went cold per look.
    pub(super) colds: VecDeque<u64>,
    /// The order that waits for a yes.
    pub(super) asked: Option<(&'static str, String)>,
    /// Only flows that nothing could take over.
    pub(super) cold_only: bool,
    selected: usize,
}

impl Model {
    /// Takes new answers.
    pub(super) fn answered(&mut self, answers: Answers) {
        self.trouble = None;
        if let Some(before) = &self.answers {
            let count = |status: &StatusRow, names: &[&str]| -> u64 {
                names
                    .iter()
                    .filter_map(|name| status.counters.get(*name))
                    .sum()
            };
            let more = |names: &[&str]| {
                count(&answers.status, names).saturating_sub(count(&before.status, names))
            };
            push(&mut self.packets, more(&["steered", "cloned", "delivered"]));
            push(&mut self.takeovers, more(&["takeover"]));
            push(&mut self.colds, more(&["went_cold"]));
        }
        self.selected = self.selected.min(answers.instances.len().saturating_sub(1));
        self.answers = Some(answers);
    }

    /// Takes an event.
    pub(super) fn happened(&mut self, entry: LogEntry) {
        if self.events.len() == EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(entry);
    }

    /// Does what a key says.
    pub(super) fn key(&mut self, key: KeyCode) -> Option<Wish> {
        if let Some((verb, instance)) = self.asked.take() {
            return match key {
                KeyCode::Char('y' | 'Y') => Some(Wish::Order(verb, instance)),
                // Anything else is no.
                _ => None,
            };
        }
        self.notice = None;
        match key {
            KeyCode::Char('q') | KeyCode::Esc => return Some(Wish::Quit),
            KeyCode::Down | KeyCode::Char('j') => {
                let last = self.instances().len().saturating_sub(1);
                self.selected = (self.selected + 1).min(last);
            }
            KeyCode::Up | KeyCode::Char('k') => self.selected = self.selected.saturating_sub(1),
            KeyCode::Char('e') => self.ask("evacuate"),
            KeyCode::Char('d') => self.ask("drain"),
            KeyCode::Char('r') => self.ask("restore"),
            KeyCode::Char('c') => {
                self.cold_only = !self.cold_only;
                return Some(Wish::Look);
            }
            _ => {}
        }
        None
    }

    fn ask(&mut self, verb: &'static str) {
        self.asked = self.chosen().map(|row| (verb, row.name.clone()));
    }

    pub(super) fn instances(&self) -> &[InstanceRow] {
        self.answers
            .as_ref()
            .map_or(&[], |answers| &answers.instances)
    }

    /// The place of the instance that orders are about.
    pub(super) fn selected(&self) -> usize {
        self.selected
    }

    pub(super) fn chosen(&self) -> Option<&InstanceRow> {
        self.instances().get(self.selected)
    }
}

fn push(history: &mut VecDeque<u64>, value: u64) {
    if history.len() == HISTORY {
        history.pop_front();
    }
    history.push_back(value);
}
