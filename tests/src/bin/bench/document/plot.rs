//! A bench's results as a picture: bars of medians, one frame for each panel, with the spread as a line through each.

use anyhow::{Result, anyhow};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::report::{Results, Row, number};

const WIDTH: i32 = 1080;
/// Where bars begin and end; labels are to the left, values to the right.
const BARS: (i32, i32) = (490, 880);
const BAR: i32 = 20;
const TITLE: i32 = 30;
const MARGIN: i32 = 10;
/// In the units of the plotting crate, which makes pixels of them by a factor of 0.8.
const FONT: i32 = 15;
const REACHED: RGBColor = RGBColor(46, 125, 80);
const MISSED: RGBColor = RGBColor(192, 57, 43);
const NO_GOAL: RGBColor = RGBColor(110, 135, 165);

/// Rows on one scale.
struct Panel<'a> {
    title: String,
    rows: Vec<&'a Row>,
}

/// The picture; `None` when there is nothing to be drawn.
pub(super) fn bars(results: &Results) -> Result<Option<String>> {
    let panels = panels(results);
    if panels.is_empty() {
        return Ok(None);
    }
    let mut text = String::new();
    draw(&mut text, &panels).map_err(|error| anyhow!("plot of {}: {error}", results.bench))?;
    Ok(Some(text))
}

fn panels(results: &Results) -> Vec<Panel<'_>> {
    let mut panels: Vec<Panel<'_>> = Vec::new();
    let drawn = |row: &&Row| !row.unit.is_empty() && row.panel != Row::NOT_DRAWN;
    for row in results.rows.iter().filter(drawn) {
        let title = match row.panel.as_str() {
            "" => row.unit.clone().into_owned(),
            panel => format!("{panel}, {}", row.unit),
        };
        match panels.iter_mut().find(|panel| panel.title == title) {
            Some(panel) => panel.rows.push(row),
            None => panels.push(Panel {
                title,
                rows: vec![row],
            }),
        }
    }
    panels
}

fn draw(text: &mut String, panels: &[Panel<'_>]) -> Result<(), Box<dyn std::error::Error>> {
    let rows: usize = panels.iter().map(|panel| panel.rows.len()).sum();
    let height = rows as i32 * BAR + panels.len() as i32 * (TITLE + MARGIN) + 2 * MARGIN;
    let area = SVGBackend::with_string(text, (WIDTH as u32, height as u32)).into_drawing_area();
    area.fill(&WHITE)?;
    let font = ("sans-serif", FONT).into_font();
    let left = TextStyle::from(font.clone()).pos(Pos::new(HPos::Left, VPos::Center));
    let right = TextStyle::from(font).pos(Pos::new(HPos::Right, VPos::Center));
    let title = TextStyle::from(("sans-serif", FONT + 2).into_font().style(FontStyle::Bold));
    let mut y = MARGIN;
    for panel in panels {
        area.draw_text(&panel.title, &title, (MARGIN, y + 6))?;
        y += TITLE;
        let most = panel
            .rows
            .iter()
            .map(|row| row.value.max)
            .fold(f64::MIN_POSITIVE, f64::max);
        let place = |value: f64| {
            let share = (value.max(0.0) / most).min(1.0);
            BARS.0 + (share * f64::from(BARS.1 - BARS.0)) as i32
        };
        for row in &panel.rows {
            let (middle, value) = (y + BAR / 2, &row.value);
            let (color, remark) = match &row.goal {
                None => (NO_GOAL, String::new()),
                Some(goal) if goal.met => (REACHED, format!(" ({} reached)", goal.text)),
                Some(goal) => (MISSED, format!(" ({} missed)", goal.text)),
            };
            let label = row.what.strip_prefix(&row.panel).unwrap_or(&row.what);
            area.draw_text(
                label.trim_start_matches([',', ' ']),
                &right,
                (BARS.0 - 8, middle),
            )?;
            let bar = [
                (BARS.0, y + 3),
                (place(value.median).max(BARS.0 + 1), y + BAR - 3),
            ];
            area.draw(&Rectangle::new(bar, color.filled()))?;
            let spread = vec![(place(value.min), middle), (place(value.max), middle)];
            area.draw(&PathElement::new(spread, BLACK.mix(0.6)))?;
            let said = number(value.median) + &remark;
            area.draw_text(&said, &left, (place(value.max) + 8, middle))?;
            y += BAR;
        }
        y += MARGIN;
    }
    area.present()?;
    drop(area);
    Ok(())
}
