//! How output looks: colours only where somebody sees them, the time that ages are counted from, and words for
//! numbers.

use std::io::{self, IsTerminal};

use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};

use crate::clock;

/// How output looks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look {
    /// Whether there are colours.
    pub(crate) colour: bool,
    /// Now, `CLOCK_MONOTONIC`.
    pub(crate) now_ns: u64,
}

impl Look {
    /// For standard output: colours on a terminal, unless NO_COLOR (no-color.org) or a dumb terminal forbids
    /// them.
    pub(crate) fn of_stdout() -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            colour: io::stdout().is_terminal() && !set("NO_COLOR") && !dumb,
            now_ns: clock::now_ns(),
        }
    }

    /// How long ago something was.
    pub(crate) fn since(&self, ns: u64) -> String {
        duration(self.now_ns.saturating_sub(ns) / 1_000_000_000)
    }
}

/// A table without lines, which `cut`, `awk` and people read alike. Never folded to a terminal's width: what
/// is copied from it or piped on must be whole.
pub(super) struct Rows {
    table: Table,
    look: Look,
}

impl Rows {
    pub(super) fn new(look: Look, header: &[&str]) -> Self {
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled);
        match look.colour {
            true => table.enforce_styling(),
            false => table.force_no_tty(),
        };
        table.set_header(header.iter().map(|name| {
            let cell = Cell::new(name.to_uppercase());
            match look.colour {
                true => cell.add_attribute(Attribute::Bold),
                false => cell,
            }
        }));
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        Self { table, look }
    }

    pub(super) fn add<const N: usize>(&mut self, cells: [String; N]) {
        let cells = cells.into_iter().map(|text| {
            let colour = colour(&text).filter(|_| self.look.colour);
            match colour {
                Some(colour) => Cell::new(text).fg(colour),
                None => Cell::new(text),
            }
        });
        self.table.add_row(cells);
    }

    pub(super) fn text(&self) -> String {
        let lines = self.table.lines().map(|line| {
            // Colours end before the spaces that fill a cell.
            format!("{}\n", line.trim_end())
        });
        lines.collect()
    }
}

/// The colour of a cell that says how something is.
fn colour(text: &str) -> Option<Color> {
    let has = |word: &str| text.split([' ', ',', '(']).any(|part| part == word);
    match text {
        "error" => Some(Color::Red),
        "warning" => Some(Color::Yellow),
        "fine" => Some(Color::Green),
        _ if has("dead") || has("cold") || has("takeover") => Some(Color::Red),
        _ if has("draining") || has("evacuating") || has("suspect") || has("generic") => {
            Some(Color::Yellow)
        }
        _ if has("up") || has("warm") => Some(Color::Green),
        _ => None,
    }
}

/// A part of one as a percentage.
pub(crate) fn percent(part: f64) -> String {
    format!("{:.0} %", part * 100.0)
}

/// A time in the unit that fits.
pub(crate) fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}
