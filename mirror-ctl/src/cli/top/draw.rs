//! Draws `top`. Made for 80 columns and 24 lines; what more there is goes to flows and events.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Block, Borders, Cell, Paragraph, Row, Sparkline, Table, TableState},
};

use super::model::{Answers, Model};
use crate::{
    agent::view::{InstanceRow, VniRow},
    cli::{
        look::{Look, duration, percent},
        table,
    },
    connections::FlowRow,
};

/// Rows that instances and VNIs take at most, so that flows and events always have some.
const INSTANCES_MAX: usize = 6;
const VNIS_MAX: usize = 3;
const KEYS: &str = "q quit  up/down choose  e evacuate  d drain  r restore  c only cold flows";

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, look: Look) {
    let rows = |all: usize, most: usize| Constraint::Length(all.clamp(1, most) as u16 + 1);
    let vnis = model
        .answers
        .as_ref()
        .map_or(0, |answers| answers.vnis.len());
    let [head, lines, instances, vni, flows, events, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(2),
        rows(model.instances().len(), INSTANCES_MAX),
        rows(vnis, VNIS_MAX),
        Constraint::Fill(1),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let paint = Paint(look);
    frame.render_widget(Paragraph::new(paint.head(model)), head);
    paint.sparklines(frame, model, lines);
    if let Some(answers) = &model.answers {
        paint.instances(frame, model, instances);
        frame.render_widget(paint.vnis(&answers.vnis), vni);
        frame.render_widget(paint.flows(model, answers), flows);
    }
    frame.render_widget(paint.events(model, events), events);
    frame.render_widget(Paragraph::new(paint.foot(model)), foot);
}

struct Paint(Look);

impl Paint {
    fn style(&self, colour: Color) -> Style {
        match self.0.colour {
            true => Style::new().fg(colour),
            false => Style::new(),
        }
    }

    fn header(&self, names: &[&'static str]) -> Row<'static> {
        Row::new(names.iter().map(|name| Cell::from(*name)))
            .style(Style::new().add_modifier(Modifier::BOLD))
    }

    fn head(&self, model: &Model) -> Line<'static> {
        let text = match &model.answers {
            Some(answers) => {
                let status = &answers.status;
                let flows: u64 = status.flows.values().sum();
                format!(
                    "mirror-ctl {}  up {}  {flows} flows",
                    status.version,
                    duration(status.uptime_s)
                )
            }
            None => "mirror-ctl: asking the agent".to_owned(),
        };
        Line::from(text).style(Style::new().add_modifier(Modifier::BOLD))
    }

    fn sparklines(&self, frame: &mut Frame<'_>, model: &Model, area: Rect) {
        let parts: [Rect; 3] = Layout::horizontal([Constraint::Fill(1); 3])
            .spacing(1)
            .areas(area);
        let all = [
            ("packets/s", &model.packets, Color::Cyan),
            ("takeovers", &model.takeovers, Color::Yellow),
            ("went cold", &model.colds, Color::Red),
        ];
        for ((name, history, colour), area) in all.into_iter().zip(parts) {
            let [title, line] = Layout::vertical([Constraint::Length(1); 2]).areas(area);
            let last = history.back().copied().unwrap_or(0);
            frame.render_widget(Paragraph::new(format!("{name} {last}")), title);
            // The newest at the right end, as far as there is room.
            let skip = history.len().saturating_sub(line.width.into());
            let points: Vec<u64> = history.iter().skip(skip).copied().collect();
            frame.render_widget(
                Sparkline::default().data(points).style(self.style(colour)),
                line,
            );
        }
    }

    fn instances(&self, frame: &mut Frame<'_>, model: &Model, area: Rect) {
        let header = [
            "INSTANCE", "STATE", "CAUSE", "SINCE", "SCORE", "WEIGHT", "SHARE", "FLOWS", "WARM",
        ];
        let rows = model.instances().iter().map(|row| self.instance(row));
        let widths = [
            Constraint::Fill(1),
            Constraint::Length(10),
            Constraint::Length(11),
            Constraint::Length(6),
            Constraint::Length(5),
            Constraint::Length(6),
            Constraint::Length(6),
            Constraint::Length(7),
            Constraint::Length(7),
        ];
        let table = Table::new(rows, widths)
            .header(self.header(&header))
            .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
            .highlight_symbol(">");
        // It scrolls to the chosen one by itself.
        let mut state = TableState::new().with_selected(model.selected());
        frame.render_stateful_widget(table, area, &mut state);
    }

    fn instance(&self, row: &InstanceRow) -> Row<'static> {
        let colour = match row.state.as_str() {
            "up" => Color::Green,
            "dead" => Color::Red,
            _ => Color::Yellow,
        };
        let state = Span::styled(row.state.clone(), self.style(colour));
        Row::new([
            Cell::from(row.name.clone()),
            Cell::from(state),
            Cell::from(row.cause.clone()),
            Cell::from(self.0.since(row.changed_ns)),
            Cell::from(format!("{:.2}", row.score)),
            Cell::from(row.weight.to_string()),
            Cell::from(percent(row.share)),
            Cell::from(row.flows.to_string()),
            Cell::from(row.warm.to_string()),
        ])
    }

    fn vnis(&self, vnis: &[VniRow]) -> Table<'static> {
        let rows = vnis.iter().map(|row| {
            let colour = match row.unprotected {
                0 => Color::Green,
                _ => Color::Yellow,
            };
            Row::new([
                Cell::from(row.name.clone()),
                Cell::from(row.addresses.join(", ")),
                Cell::from(row.mirrors_text()),
                Cell::from(row.flows.to_string()),
                Cell::from(Span::styled(
                    row.unprotected.to_string(),
                    self.style(colour),
                )),
            ])
        });
        let widths = [
            Constraint::Fill(1),
            Constraint::Fill(2),
            Constraint::Length(8),
            Constraint::Length(7),
            Constraint::Length(11),
        ];
        let header = ["VNI", "ADDRESSES", "MIRRORS", "FLOWS", "UNPROTECTED"];
        Table::new(rows, widths).header(self.header(&header))
    }

    fn flows(&self, model: &Model, answers: &Answers) -> Table<'static> {
        let rows = answers.flows.iter().map(|row| self.flow(row));
        let widths = [
            Constraint::Fill(2),
            Constraint::Length(11),
            Constraint::Length(8),
            Constraint::Fill(3),
            Constraint::Length(9),
        ];
        let title = match model.cold_only {
            true => " flows that no mirror could take over ",
            false => " flows ",
        };
        Table::new(rows, widths)
            .header(self.header(&["CLIENT", "STATE", "ACTIVE", "MIRRORS", "PACKETS"]))
            .block(Block::new().borders(Borders::TOP).title(title))
    }

    fn flow(&self, row: &FlowRow) -> Row<'static> {
        let mirrors: Vec<_> = row
            .replicas
            .iter()
            .filter(|replica| replica.role == "mirror")
            .map(table::mirror)
            .collect();
        Row::new([
            row.client.clone(),
            row.state.clone(),
            row.active.clone(),
            mirrors.join(", "),
            row.packets.to_string(),
        ])
    }

    fn events(&self, model: &Model, area: Rect) -> Paragraph<'static> {
        let room = usize::from(area.height.saturating_sub(1));
        let skip = model.events.len().saturating_sub(room);
        let lines = model.events.iter().skip(skip).map(|entry| {
            let colour = match entry.kind.as_str() {
                "takeover" => Color::Yellow,
                "flow-cold" => Color::Red,
                _ => Color::Cyan,
            };
            let ago = Span::raw(format!("{:>6} ago  ", self.0.since(entry.time_ns)));
            Line::from(vec![
                ago,
                Span::styled(table::event(entry), self.style(colour)),
            ])
        });
        Paragraph::new(lines.collect::<Vec<_>>()).block(
            Block::new()
                .borders(Borders::TOP)
                .title(" takeovers, cold mirrors, states "),
        )
    }

    fn foot(&self, model: &Model) -> Line<'static> {
        let warn = Style::new().add_modifier(Modifier::REVERSED);
        if let Some((verb, instance)) = &model.asked {
            let flows = model.chosen().map_or(0, |row| row.flows);
            return Line::styled(format!("{verb} {instance} ({flows} flows)? y/n"), warn);
        }
        if let Some(trouble) = model.trouble.as_ref().or(model.notice.as_ref()) {
            return Line::styled(trouble.clone(), warn);
        }
        Line::raw(KEYS)
    }
}
