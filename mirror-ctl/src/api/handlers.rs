//! One function a path.

use std::{ops::ControlFlow, sync::Arc};

use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use mirror_common::LAYOUT_VERSION;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::Shared;
use crate::{
    agent::{
        Event,
        decide::Refusal,
        log::LogEntry,
        state::Order,
        view::{InstanceRow, MirrorRow, StatusRow, VniRow},
    },
    clock,
    connections::{
        FlowFilter, FlowRow, Names,
        row::{ClientFilter, row},
    },
    dataplane::Maps,
};

/// An answer that is not what was asked for.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Problem {
    /// What is wrong.
    pub(super) error: String,
}

pub(super) struct Failed(StatusCode, String);

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (self.0, Json(Problem { error: self.1 })).into_response()
    }
}

fn internal(error: impl ToString) -> Failed {
    Failed(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

pub(super) async fn unknown() -> Failed {
    Failed(StatusCode::NOT_FOUND, "there is no such path".to_owned())
}

pub(super) async fn status(State(shared): State<Shared>) -> Result<Json<StatusRow>, Failed> {
    let view = Arc::clone(&shared.views.borrow());
    let counters = shared.maps.counters().map_err(internal)?;
    Ok(Json(StatusRow {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        layout: LAYOUT_VERSION,
        pid: Some(std::process::id()),
        uptime_s: shared.started.elapsed().as_secs(),
        adopted: view.adopted,
        interfaces: view.interfaces.clone(),
        counters: counters
            .into_iter()
            .map(|(reason, count)| (reason.to_owned(), count))
            .collect(),
        flows: view.flows.clone(),
    }))
}

pub(super) async fn instances(State(shared): State<Shared>) -> Json<Vec<InstanceRow>> {
    Json(shared.views.borrow().instances.clone())
}

pub(super) async fn vnis(State(shared): State<Shared>) -> Json<Vec<VniRow>> {
    Json(shared.views.borrow().vnis.clone())
}

pub(super) async fn mirrors(State(shared): State<Shared>) -> Json<Vec<MirrorRow>> {
    Json(shared.views.borrow().mirrors.clone())
}

pub(super) async fn flows(
    State(shared): State<Shared>,
    Query(filter): Query<FlowFilter>,
) -> Result<Json<Vec<FlowRow>>, Failed> {
    let client = filter.client.as_deref().map(ClientFilter::parse);
    let client = client
        .transpose()
        .map_err(|reason| Failed(StatusCode::BAD_REQUEST, reason))?;
    let view = Arc::clone(&shared.views.borrow());
    let maps = Arc::clone(&shared.maps);
    // A million flows take a while: not on a thread that others wait for.
    let rows = tokio::task::spawn_blocking(move || collect(&maps, &view.names, &filter, client));
    let rows = rows.await.map_err(internal)?;
    rows.map(Json).map_err(internal)
}

/// The flows that a filter wants.
pub fn collect(
    maps: &Maps,
    names: &Names,
    filter: &FlowFilter,
    client: Option<ClientFilter>,
) -> Result<Vec<FlowRow>, crate::dataplane::DataplaneError> {
    let limit = filter.limit.unwrap_or(usize::MAX);
    let now_s = clock::seconds(clock::now_ns());
    let mut rows = Vec::new();
    maps.walk_flows(
        |entry| {
            if filter.admits(client, entry.key) {
                let row = row(&entry, names, now_s);
                if filter.wants(&row) {
                    rows.push(row);
                }
            }
            match rows.len() >= limit {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        },
        || ControlFlow::Continue(()),
    )?;
    rows.truncate(limit);
    Ok(rows)
}

#[derive(Deserialize)]
pub(super) struct EventQuery {
    #[serde(default)]
    since: u64,
    limit: Option<usize>,
}

pub(super) async fn events(
    State(shared): State<Shared>,
    Query(query): Query<EventQuery>,
) -> Json<Vec<LogEntry>> {
    Json(
        shared
            .log
            .since(query.since, query.limit.unwrap_or(usize::MAX)),
    )
}

#[derive(Deserialize)]
pub(super) struct OrderQuery {
    #[serde(default)]
    force: bool,
}

pub(super) async fn order(
    State(shared): State<Shared>,
    Path((instance, order)): Path<(String, String)>,
    Query(query): Query<OrderQuery>,
) -> Result<Json<Vec<InstanceRow>>, Failed> {
    let order = match order.as_str() {
        "evacuate" => Order::Evacuate,
        "drain" => Order::Drain,
        "takeover" => Order::Takeover,
        "restore" => Order::None,
        _ => return Err(unknown().await),
    };
    let (reply, answer) = oneshot::channel();
    let event = Event::Ordered {
        instance: instance.clone(),
        order,
        force: query.force,
        reply,
    };
    shared.orders.send(event).await.map_err(|_| ending())?;
    match answer.await.map_err(|_| ending())? {
        Ok(()) => {
            let view = shared.views.borrow();
            let rows = view.instances.iter();
            Ok(Json(
                rows.filter(|row| row.name == instance).cloned().collect(),
            ))
        }
        Err(refusal @ Refusal::Unknown(_)) => {
            Err(Failed(StatusCode::NOT_FOUND, refusal.to_string()))
        }
        Err(refusal) => Err(Failed(StatusCode::CONFLICT, refusal.to_string())),
    }
}

pub(super) async fn reload(State(shared): State<Shared>) -> Result<Json<()>, Failed> {
    let (reply, answer) = oneshot::channel();
    let event = Event::Reload(Some(reply));
    shared.orders.send(event).await.map_err(|_| ending())?;
    let answer = answer.await.map_err(|_| ending())?;
    answer
        .map(Json)
        .map_err(|reason| Failed(StatusCode::UNPROCESSABLE_ENTITY, reason))
}

fn ending() -> Failed {
    let reason = "the agent is ending".to_owned();
    Failed(StatusCode::SERVICE_UNAVAILABLE, reason)
}
