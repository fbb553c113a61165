//! The calibration curve as a picture.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::prelude::*;

const SIZE: (u32, u32) = (520, 480);

/// Draws predicted probability against what came; the diagonal is perfect.
pub(super) fn calibration(path: &Path, curve: &[(f64, f64, u64)]) -> Result<()> {
    draw(path, curve).map_err(|error| anyhow!("{}: {error}", path.display()))
}

fn draw(path: &Path, curve: &[(f64, f64, u64)]) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption("Failing within 30 s", ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(50)
        .build_cartesian_2d(0.0..1.0, 0.0..1.0)?;
    chart
        .configure_mesh()
        .x_desc("predicted probability")
        .y_desc("share that failed")
        .draw()?;
    chart.draw_series(LineSeries::new([(0.0, 0.0), (1.0, 1.0)], BLACK.mix(0.3)))?;
    let points = curve.iter().map(|(p, rate, _)| (*p, *rate));
    chart.draw_series(LineSeries::new(points.clone(), BLUE))?;
    chart.draw_series(points.map(|at| Circle::new(at, 4, BLUE.filled())))?;
    area.present()?;
    Ok(())
}

/// False alarms per instance-hour that are drawn.
const FALSE_ALARMS_MAX: f64 = 2.0;

/// Draws what false alarms buy: the share of failures caught, by view.
pub(super) fn trade(path: &Path, views: &[(&str, &Vec<(f64, f64)>)]) -> Result<()> {
    draw_trade(path, views).map_err(|error| anyhow!("{}: {error}", path.display()))
}

fn draw_trade(
    path: &Path,
    views: &[(&str, &Vec<(f64, f64)>)],
) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption("Recorded faults", ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(50)
        .build_cartesian_2d(0.0..FALSE_ALARMS_MAX, 0.0..1.05)?;
    chart
        .configure_mesh()
        .x_desc("false alarms per instance-hour")
        .y_desc("share of failures caught")
        .draw()?;
    for (number, (name, points)) in views.iter().enumerate() {
        let color = Palette99::pick(number).to_rgba();
        // The best that so many false alarms buy.
        let mut sorted: Vec<_> = points.iter().filter(|p| p.0 <= FALSE_ALARMS_MAX).collect();
        sorted.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
        let mut best = 0.0f64;
        let mut line = Vec::new();
        for (wrong, caught) in sorted {
            line.push((*wrong, best));
            best = best.max(*caught);
            line.push((*wrong, best));
        }
        line.push((FALSE_ALARMS_MAX, best));
        chart
            .draw_series(LineSeries::new(line, color.stroke_width(2)))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color));
    }
    chart
        .configure_series_labels()
        .border_style(BLACK.mix(0.3))
        .draw()?;
    area.present()?;
    Ok(())
}
