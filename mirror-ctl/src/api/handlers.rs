//! One function a path.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use mirror_common::{LAYOUT_VERSION, counts::Counts};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Shared, stream::Kinds};
use crate::agent::{
    log::LogEntry,
    models::ModelsRow,
    view::{HealthRow, InstanceRow, MirrorRow, StatusRow, VniRow},
};

/// An answer that is not what was asked for.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(super) struct Problem {
    /// What is wrong.
    pub(super) error: String,
}

pub(super) struct Failed(pub(super) StatusCode, pub(super) String);

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (self.0, Json(Problem { error: self.1 })).into_response()
    }
}

pub(super) fn internal(error: impl ToString) -> Failed {
    Failed(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

pub(super) async fn unknown() -> Failed {
    Failed(StatusCode::NOT_FOUND, "there is no such path".to_owned())
}

/// How the agent and the dataplane are.
#[utoipa::path(
    get,
    path = "/v1/status",
    responses(
        (status = 200, description = "Status", body = StatusRow),
        (status = "default", description = "Refused or failed", body = Problem)
    )
)]
pub(super) async fn status(State(shared): State<Shared>) -> Result<Json<StatusRow>, Failed> {
    let view = Arc::clone(&shared.views.borrow());
    let counters = shared.maps.counters().map_err(internal)?;
    Ok(Json(StatusRow {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        layout: LAYOUT_VERSION,
        pid: Some(std::process::id()),
        program: shared.program.clone(),
        uptime_s: shared.started.elapsed().as_secs(),
        started_s: shared.started_s,
        adopted: view.adopted,
        interfaces: view.interfaces.clone(),
        counters: by_name(&counters),
        flows: view.flows.clone(),
        draining: view.draining.clone(),
    }))
}

/// The instances.
#[utoipa::path(
    get,
    path = "/v1/instances",
    responses(
        (status = 200, description = "Instances", body = Vec<InstanceRow>),
        (status = "default", description = "Refused or failed", body = Problem)
    )
)]
pub(super) async fn instances(State(shared): State<Shared>) -> Json<Vec<InstanceRow>> {
    Json(shared.views.borrow().instances.clone())
}

/// What is expected of an instance, and why.
#[utoipa::path(
    get,
    path = "/v1/instances/{name}/health",
    params(("name" = String, Path, description = "The instance")),
    responses(
        (status = 200, description = "What is expected of it", body = HealthRow),
        (status = "default", description = "Refused or failed", body = Problem)
    )
)]
pub(super) async fn health(
    State(shared): State<Shared>,
    Path(name): Path<String>,
) -> Result<Json<HealthRow>, Failed> {
    let view = Arc::clone(&shared.views.borrow());
    let none = |why: String| Failed(StatusCode::NOT_FOUND, why);
    if !view.instances.iter().any(|row| row.name == name) {
        return Err(none(format!("there is no instance {name:?}")));
    }
    let found = view.health.iter().find(|row| row.instance == name);
    found.cloned().map(Json).ok_or_else(|| {
        none("nothing is predicted: no instance has `metrics` and there is no model".to_owned())
    })
}

/// Which models judge, how well, and whether what they are given has drifted.
#[utoipa::path(
    get,
    path = "/v1/models",
    responses(
        (status = 200, description = "Champion and challenger", body = ModelsRow),
        (status = "default", description = "Refused or failed", body = Problem)
    )
)]
pub(super) async fn models(State(shared): State<Shared>) -> Json<ModelsRow> {
    Json(shared.views.borrow().models.clone())
}

/// The virtual network interfaces and who serves them.
#[utoipa::path(
    get,
    path = "/v1/vnis",
    responses(
        (status = 200, description = "VNIs", body = Vec<VniRow>),
        (status = "default", description = "Refused or failed", body = Problem)
    )
)]
pub(super) async fn vnis(State(shared): State<Shared>) -> Json<Vec<VniRow>> {
    Json(shared.views.borrow().vnis.clone())
}

/// What the agent runs by, as a configuration file.
#[utoipa::path(
    get,
    path = "/v1/config",
    responses(
        (status = 200, description = "TOML", body = String, content_type = "text/plain"),
        (status = "default", description = "Refused or failed", body = Problem)
    )
)]
pub(super) async fn config(State(shared): State<Shared>) -> String {
    shared.views.borrow().config.to_toml()
}

/// The replica sets: who mirrors whom.
#[utoipa::path(
    get,
    path = "/v1/mirrors",
    responses(
        (status = 200, description = "Replica sets", body = Vec<MirrorRow>),
        (status = "default", description = "Refused or failed", body = Problem)
    )
)]
pub(super) async fn mirrors(State(shared): State<Shared>) -> Json<Vec<MirrorRow>> {
    Json(shared.views.borrow().mirrors.clone())
}

/// The counters of all VNIs together by the names of their reasons, those that are not zero.
pub fn by_name(counters: &[(String, Counts)]) -> BTreeMap<String, u64> {
    let mut total = Counts::default();
    counters.iter().for_each(|(_, counts)| total.add(counts));
    let counted = total.iter().filter(|(_, count)| *count > 0);
    counted
        .map(|(reason, count)| (reason.name().to_owned(), count))
        .collect()
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct EventQuery {
    /// Only events with greater numbers.
    since: Option<u64>,
    /// So many at most, the newest.
    limit: Option<usize>,
    /// Only events of these kinds, with commas between them.
    kind: Option<String>,
}

/// What happened, oldest first.
#[utoipa::path(
    get,
    path = "/v1/events",
    params(EventQuery),
    responses(
        (status = 200, description = "Events", body = Vec<LogEntry>),
        (status = "default", description = "Refused or failed", body = Problem)
    )
)]
pub(super) async fn events(
    State(shared): State<Shared>,
    Query(query): Query<EventQuery>,
) -> Result<Json<Vec<LogEntry>>, Failed> {
    let kinds = Kinds::parse(query.kind.as_deref())?;
    let mut entries = shared.log.since(query.since.unwrap_or(0), usize::MAX);
    entries.retain(|entry| kinds.want(entry));
    let limit = query.limit.unwrap_or(usize::MAX);
    entries.drain(..entries.len().saturating_sub(limit));
    Ok(Json(entries))
}
