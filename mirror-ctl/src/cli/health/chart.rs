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
