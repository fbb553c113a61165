//! What a person sees: a live table on a terminal, else a line per step.

use std::io::{IsTerminal, Stdout, stdout};
use std::time::Instant;

use anyhow::{Context, Result};
use comfy_table::presets::UTF8_FULL_CONDENSED;
use ratatui::backend::CrosstermBackend;
use ratatui::layout::{Constraint, Layout, Position};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Paragraph, Row, Table, Widget};
use ratatui::{Frame, Terminal, TerminalOptions, Viewport};
use testbed::agent::InstanceStatus;
use testbed::scenario::outcome::{Foresight, Outcome};
use testbed::scenario::{Fault, INSTANCES, Snapshot, Watch};

/// Border, two lines of text, the table's head and its rows.
const HEIGHT: u16 = 5 + INSTANCES as u16;
const BYTES_PER_MB: f64 = 1e6;

/// Where it is shown.
enum Output {
    Live(Box<Terminal<CrosstermBackend<Stdout>>>),
    Plain,
}

/// The demo's face.
pub(crate) struct View {
    output: Output,
    fault: Option<Fault>,
    began: Instant,
    phase: String,
}

impl View {
    /// Live on a terminal, unless plain lines are asked for.
    pub(crate) fn new(plain: bool) -> Result<Self> {
        let output = if plain || !stdout().is_terminal() {
            Output::Plain
        } else {
            let options = TerminalOptions {
                viewport: Viewport::Inline(HEIGHT),
            };
            let backend = CrosstermBackend::new(stdout());
            Output::Live(Box::new(
                Terminal::with_options(backend, options).context("terminal")?,
            ))
        };
        Ok(Self {
            output,
            fault: None,
            began: Instant::now(),
            phase: String::new(),
        })
    }

    /// A scenario begins.
    pub(crate) fn begin(&mut self, fault: Fault) {
        self.fault = Some(fault);
        self.began = Instant::now();
        self.phase.clear();
    }

    /// Prints lines that stay.
    pub(crate) fn say(&mut self, text: &str) -> Result<()> {
        match &mut self.output {
            Output::Plain => println!("{text}"),
            Output::Live(terminal) => {
                let height = u16::try_from(text.lines().count()).unwrap_or(u16::MAX);
                terminal.insert_before(height, |buffer| {
                    Paragraph::new(text).render(buffer.area, buffer);
                })?;
            }
        }
        Ok(())
    }

    /// A scenario has ended.
    pub(crate) fn verdict(&mut self, outcome: &Outcome) -> Result<()> {
        let word = if outcome.misses().is_empty() {
            "ok"
        } else {
            "MISSED"
        };
        self.say(&format!(
            "{word:6} {}: {} of {} connections taken over, {} reset, {} bytes lost, {} altered",
            outcome.name,
            outcome.taken_over,
            outcome.connections,
            outcome.resets,
            outcome.bytes_lost,
            outcome.bytes_altered,
        ))?;
        self.say(&format!(
            "       99 of 100 waited at most {:.1} ms; before the fault, {:.1} ms",
            outcome.stall_ms.p99, outcome.baseline_ms.p99,
        ))?;
        if let Some(lead_ms) = outcome.lead_ms {
            self.say(&format!(
                "       its connections were away {:.1} s before it died",
                lead_ms / 1e3
            ))?;
        }
        let by_use = outcome.by_use.iter();
        let by_use = by_use.map(|(profile, waits)| format!("{profile} {:.1}", waits.p99));
        self.say(&format!(
            "       by use: {}",
            by_use.collect::<Vec<_>>().join(", ")
        ))?;
        if let (Some(with), Some(without)) = sides(outcome) {
            self.say(&course(with, without).to_string())?;
        }
        for miss in outcome.misses().iter().chain(&outcome.notes) {
            self.say(&format!("       {miss}"))?;
        }
        Ok(())
    }

    /// Everything has ended: the summary takes the place of the live part.
    pub(crate) fn end(mut self, outcomes: &[Outcome]) -> Result<()> {
        if let Output::Live(terminal) = &mut self.output {
            terminal.clear()?;
            let start = terminal.get_frame().area().as_position();
            terminal.set_cursor_position(start)?;
        }
        println!("{}", summary(outcomes));
        for outcome in outcomes {
            if let Some(unpredicted) = outcome.without_prediction.as_deref() {
                println!("{}", comparison(outcome, unpredicted));
            }
        }
        Ok(())
    }
}

impl Watch for View {
    fn see(&mut self, snapshot: &Snapshot) {
        let fault = self.fault.map_or("", Fault::name);
        let elapsed = self.began.elapsed().as_secs_f64();
        match &mut self.output {
            Output::Plain if snapshot.phase != self.phase => {
                println!("{elapsed:6.2} s  {fault}: {}", snapshot.phase);
                self.phase.clone_from(&snapshot.phase);
            }
            Output::Plain => {}
            Output::Live(terminal) => {
                // A terminal that has gone takes nothing from the result.
                let _ = terminal.draw(|frame| draw(frame, fault, elapsed, snapshot));
            }
        }
    }
}

fn draw(frame: &mut Frame<'_>, fault: &str, elapsed: f64, snapshot: &Snapshot) {
    let title = format!(" scenario {fault}  {elapsed:.1} s ");
    let block = Block::bordered().title(title);
    let inner = block.inner(frame.area());
    frame.render_widget(block, frame.area());
    let [text, table] = Layout::vertical([Constraint::Length(2), Constraint::Fill(1)]).areas(inner);
    let sums = snapshot.progress;
    let lost = Style::new().fg(if sums.failed == 0 {
        Color::Green
    } else {
        Color::Red
    });
    let counts = Line::from(vec![
        Span::from(format!("{} connections open, ", sums.open)),
        Span::styled(format!("{} failed", sums.failed), lost),
        Span::from(format!(
            ", {} replies, {:.1} MB in, {:.1} MB out, {} taken over",
            sums.replies,
            sums.bytes_received as f64 / BYTES_PER_MB,
            sums.bytes_sent as f64 / BYTES_PER_MB,
            snapshot.takeovers,
        )),
    ]);
    let phase = Line::styled(snapshot.phase.as_str(), Modifier::BOLD);
    frame.render_widget(Paragraph::new(vec![phase, counts]), text);
    let head = [
        "instance", "state", "weight", "score", "flows", "XDP", "link", "cause",
    ];
    let widths = [10, 12, 8, 7, 8, 9, 6, 24].map(Constraint::Length);
    let rows = snapshot.instances.iter().map(row);
    let head = Row::new(head).style(Style::new().add_modifier(Modifier::DIM));
    frame.render_widget(Table::new(rows, widths).header(head), table);
    // A cursor that is placed is not hidden, and so is there after a Ctrl-C.
    let last = Position::new(frame.area().x, frame.area().bottom().saturating_sub(1));
    frame.set_cursor_position(last);
}

fn row(instance: &InstanceStatus) -> Row<'_> {
    let color = match instance.state.as_str() {
        "up" => Color::Green,
        "dead" => Color::Red,
        _ => Color::Yellow,
    };
    Row::new([
        Cell::from(instance.name.as_str()),
        Cell::from(instance.state.as_str()).style(Style::new().fg(color)),
        Cell::from(instance.weight.to_string()),
        Cell::from(format!("{:.2}", instance.score)),
        Cell::from(instance.flows.to_string()),
        Cell::from(instance.xdp_mode.as_str()),
        Cell::from(instance.link.as_str()),
        Cell::from(instance.cause.as_deref().unwrap_or("")),
    ])
}

fn figure(ms: Option<f64>) -> String {
    ms.map_or("-".into(), |ms| format!("{ms:.1}"))
}

/// What was seen with somebody who sees a death coming, and without.
fn sides(outcome: &Outcome) -> (Option<&Foresight>, Option<&Foresight>) {
    let without = outcome.without_prediction.as_deref();
    (
        outcome.foresight.as_ref(),
        without.and_then(|without| without.foresight.as_ref()),
    )
}

/// Both courses of the same fault, side by side over time.
fn course(with: &Foresight, without: &Foresight) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header([
        "after s",
        "prediction on: risk",
        "flows",
        "state",
        "off: flows",
        "state",
    ]);
    for (number, step) in with.timeline.iter().enumerate() {
        let beside = without.timeline.get(number);
        let risk = step.risk.map_or("-".into(), |risk| format!("{risk:.2}"));
        table.add_row([
            format!("{:.1}", step.at_s),
            risk,
            step.flows.to_string(),
            step.state.clone(),
            beside.map_or(String::new(), |beside| beside.flows.to_string()),
            beside.map_or(String::new(), |beside| beside.state.clone()),
        ]);
    }
    table
}

/// What each side came to.
fn comparison(outcome: &Outcome, unpredicted: &Outcome) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header([
        "predicted: the same leak",
        "prediction on",
        "prediction off",
    ]);
    let seen = |of: fn(&Foresight) -> String| {
        let (with, without) = sides(outcome);
        [with, without].map(|side| side.map_or("-".into(), of))
    };
    let both = |of: fn(&Outcome) -> String| [of(outcome), of(unpredicted)];
    let rows: [(&str, [String; 2]); 9] = [
        ("connections hit", both(|o| o.connections.to_string())),
        ("taken over", both(|o| o.taken_over.to_string())),
        (
            "moved before it died",
            seen(|s| s.migrated_before_failure.to_string()),
        ),
        (
            "all away so long before, s",
            seen(|s| s.lead_s.map_or("-".into(), |lead| format!("{lead:.1}"))),
        ),
        ("resets", both(|o| o.resets.to_string())),
        (
            "bytes lost, altered",
            both(|o| format!("{}, {}", o.bytes_lost, o.bytes_altered)),
        ),
        ("failed", seen(|s| s.failed.to_string())),
        ("waited more than 20 ms", seen(|s| s.stalled.to_string())),
        (
            "stall p99, max ms",
            both(|o| format!("{:.1}, {:.1}", o.stall_ms.p99, o.stall_ms.max)),
        ),
    ];
    for (name, [with, without]) in rows {
        table.add_row([name.to_owned(), with, without]);
    }
    table
}

fn summary(outcomes: &[Outcome]) -> comfy_table::Table {
    let mut table = comfy_table::Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header([
        "scenario",
        "hit",
        "taken over",
        "resets",
        "lost",
        "altered",
        "stall p50",
        "p99",
        "max ms",
        "seen ms",
        "lead ms",
        "verdict",
    ]);
    for outcome in outcomes {
        let stall = outcome.stall_ms;
        table.add_row([
            outcome.name.to_owned(),
            outcome.connections.to_string(),
            outcome.taken_over.to_string(),
            outcome.resets.to_string(),
            outcome.bytes_lost.to_string(),
            outcome.bytes_altered.to_string(),
            format!("{:.1}", stall.p50),
            format!("{:.1}", stall.p99),
            format!("{:.1}", stall.max),
            figure(outcome.detection_ms),
            figure(outcome.lead_ms),
            if outcome.misses().is_empty() {
                "ok"
            } else {
                "MISSED"
            }
            .to_owned(),
        ]);
    }
    table
}
