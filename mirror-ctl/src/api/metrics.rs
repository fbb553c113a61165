//! Metrics over HTTP: on the API's socket, and on a loopback address where the configuration names one.

use std::sync::Arc;

use axum::{
    Router,
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
    routing::get,
};

use super::{
    Shared,
    handlers::{Failed, Problem, internal, unknown},
};
use crate::metrics::{self, Facts};

/// Nothing but metrics: what can be reached over TCP must not take orders.
pub(super) fn router(shared: Shared) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .fallback(unknown)
        .with_state(shared)
}

/// The metrics.
#[utoipa::path(
    get,
    path = "/metrics",
    responses(
        (status = 200, description = "Prometheus' text format", body = String, content_type = "text/plain"),
        (status = "default", description = "Refused or failed", body = Problem)
    )
)]
pub(super) async fn metrics(State(shared): State<Shared>) -> Result<Response, Failed> {
    let view = Arc::clone(&shared.views.borrow());
    let counters = shared.maps.counters().map_err(internal)?;
    let numbers: Vec<u32> = view.instances.iter().map(|row| row.id).collect();
    let vitals = shared.maps.vitals(&numbers).map_err(internal)?;
    let text = shared.metrics.scrape(&Facts {
        view: &view,
        counters: &counters,
        vitals: &vitals,
        measures: &shared.maps.measures(&numbers).map_err(internal)?,
        capacities: shared.maps.capacities().map_err(internal)?,
        vnis_max: shared.maps.vni_numbers().len() as u32,
        started_s: shared.started_s,
    });
    Ok(([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response())
}
