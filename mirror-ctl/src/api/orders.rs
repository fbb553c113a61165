//! What changes something. Each call is written down with who made it: in the agent's log, and as an event.

use std::{path, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{ConnectInfo, Path, Query, State},
    http::{Method, StatusCode},
};
use serde::Deserialize;
use tokio::sync::oneshot;
use tracing::{info, warn};
use utoipa::IntoParams;

use super::{
    Shared, client,
    handlers::{Failed, Problem, unknown},
    listen::Peer,
};
use crate::{
    agent::{
        Applied, Event, handover,
        log::LogEntry,
        models::{ModelAct, ModelsRow},
        orders::Refusal,
        state::Order,
        view::{DrainingRow, InstanceRow},
    },
    clock, dataplane,
};

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct OrderQuery {
    /// Even if it is the last healthy one of a VNI.
    #[serde(default)]
    force: bool,
}

/// Orders something of an instance: evacuate, drain, takeover or restore.
#[utoipa::path(
    post,
    path = "/v1/instances/{name}/{order}",
    params(
        ("name" = String, Path, description = "The instance"),
        ("order" = String, Path, description = "evacuate, drain, takeover or restore"),
        OrderQuery
    ),
    responses(
        (status = 200, description = "The instance as it is then", body = Vec<InstanceRow>),
        (status = "default", description = "Refused or failed", body = Problem)
    )
)]
pub(super) async fn order(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path((instance, verb)): Path<(String, String)>,
    Query(query): Query<OrderQuery>,
) -> Result<Json<Vec<InstanceRow>>, Failed> {
    let order = match verb.as_str() {
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
    let answer = ask(&shared, event, answer).await?;
    note(
        &shared,
        &peer,
        LogEntry {
            to: Some(verb),
            instance: Some(instance.clone()),
            ..LogEntry::default()
        },
        answer.as_ref().err(),
    );
    match answer {
        Ok(()) => {
            pass_on(&shared, &instance, order, query.force).await;
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

/// Gives an order to the keeper of a version before as well: who takes an instance out means all of its flows.
async fn pass_on(shared: &Shared, instance: &str, order: Order, force: bool) {
    let keeper = |row: &DrainingRow| row.pid.filter(|pid| *pid != std::process::id());
    let draining = shared.views.borrow().draining.clone();
    let Some(row) = draining.filter(|row| keeper(row).is_some()) else {
        return;
    };
    let verb = match order {
        Order::None => "restore",
        order => order.verb(),
    };
    let path = format!(
        "/v1/instances/{}/{verb}?force={force}",
        client::escape(instance)
    );
    let answer =
        client::request::<Vec<InstanceRow>>(path::Path::new(&row.socket), Method::POST, &path);
    if let Err(error) = answer.await {
        warn!(
            instance,
            verb, "not done for the flows of the version before: {error}"
        );
    }
}

/// Has champion or challenger take the other's place: promote, or rollback to the champion before.
#[utoipa::path(
    post,
    path = "/v1/models/{act}",
    params(("act" = String, Path, description = "promote or rollback")),
    responses(
        (status = 200, description = "The models as they are then", body = ModelsRow),
        (status = "default", description = "Refused or failed", body = Problem)
    )
)]
pub(super) async fn models(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(name): Path<String>,
) -> Result<Json<ModelsRow>, Failed> {
    let Some(act) = ModelAct::of_verb(&name) else {
        return Err(unknown().await);
    };
    let (reply, answer) = oneshot::channel();
    let answer = ask(&shared, Event::Models { act, reply }, answer).await?;
    note(&shared, &peer, verb(&name), answer.as_ref().err());
    match answer {
        Ok(()) => Ok(Json(shared.views.borrow().models.clone())),
        Err(reason) => Err(Failed(StatusCode::CONFLICT, reason)),
    }
}

/// Reads the configuration file again.
#[utoipa::path(
    post,
    path = "/v1/reload",
    responses(
        (status = 200, description = "Done", body = ()),
        (status = "default", description = "Refused or failed", body = Problem)
    )
)]
pub(super) async fn reload(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
) -> Result<Json<()>, Failed> {
    let (reply, answer) = oneshot::channel();
    let answer = ask(&shared, Event::Reload(Some(reply)), answer).await?;
    note(&shared, &peer, verb("reload"), answer.as_ref().err());
    answer.map(Json).map_err(unprocessable)
}

/// Has the agent's process become one of the program that is at its place now: the same arguments, the same process. An
/// agent that is replaced may not get to answer.
#[utoipa::path(
    post,
    path = "/v1/replace",
    responses(
        (status = 200, description = "It begins", body = ()),
        (status = "default", description = "Refused or failed", body = Problem)
    )
)]
pub(super) async fn replace(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
) -> Result<Json<()>, Failed> {
    note(&shared, &peer, verb("replace"), None::<&String>);
    let (reply, answer) = oneshot::channel();
    ask(&shared, Event::Replace(reply), answer).await.map(Json)
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct HandOverQuery {
    /// Flows that are left after so many seconds are cut.
    for_s: u64,
}

/// As `replace`, for a program with other maps that was prepared beside what is pinned: this version's flows stay with it
/// until they end, looked after by a process of their own.
#[utoipa::path(
    post,
    path = "/v1/hand-over",
    params(HandOverQuery),
    responses(
        (status = 200, description = "It begins", body = ()),
        (status = "default", description = "Refused or failed", body = Problem)
    )
)]
pub(super) async fn hand_over(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Query(query): Query<HandOverQuery>,
) -> Result<Json<()>, Failed> {
    let left = left_behind(&shared, Duration::from_secs(query.for_s)).await;
    note(&shared, &peer, verb("hand-over"), left.as_ref().err());
    left.map_err(|reason| Failed(StatusCode::CONFLICT, reason))?;
    let (reply, answer) = oneshot::channel();
    ask(&shared, Event::HandOver(reply), answer).await.map(Json)
}

/// Leaves behind what the next version must know and what a keeper needs.
async fn left_behind(shared: &Shared, time: Duration) -> Result<(), String> {
    let (config, maps) = (
        shared.views.borrow().config.clone(),
        Arc::clone(&shared.maps),
    );
    let pin_dir = &config.agent.pin_dir;
    if dataplane::is_draining(pin_dir) {
        return Err("the version before still lets its connections end".to_owned());
    }
    if !dataplane::is_prepared(pin_dir) {
        return Err("no other version is prepared".to_owned());
    }
    // The program is copied, which takes its time.
    let prepare = move || handover::prepare(&config, &maps, time);
    let prepared = tokio::task::spawn_blocking(prepare).await;
    let prepared = prepared.map_err(anyhow::Error::new).flatten();
    prepared.map_err(|error| format!("what a keeper needs cannot be left behind: {error:#}"))
}

/// Puts another configuration in force and makes it the file's.
#[utoipa::path(
    post,
    path = "/v1/config",
    request_body(content = String, description = "TOML", content_type = "text/plain"),
    responses(
        (status = 200, description = "What it changed", body = Applied),
        (status = "default", description = "Refused or failed", body = Problem)
    )
)]
pub(super) async fn apply(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    text: String,
) -> Result<Json<Applied>, Failed> {
    let (reply, answer) = oneshot::channel();
    let answer = ask(&shared, Event::Apply { text, reply }, answer).await?;
    note(&shared, &peer, verb("apply"), answer.as_ref().err());
    answer.map(Json).map_err(unprocessable)
}

/// Gives the agent's loop an event and waits for what it says.
pub(super) async fn ask<T>(
    shared: &Shared,
    event: Event,
    answer: oneshot::Receiver<T>,
) -> Result<T, Failed> {
    shared.orders.send(event).await.map_err(|_| ending())?;
    answer.await.map_err(|_| ending())
}

/// The audit trail: `order` says what was ordered, and of what.
pub(super) fn note(shared: &Shared, peer: &Peer, order: LogEntry, refusal: Option<&impl ToString>) {
    let (by, refused) = (peer.name(), refusal.map(ToString::to_string));
    let (verb, instance, client) = (&order.to, &order.instance, &order.client);
    info!(verb, instance, client, by, refused, "order");
    shared.log.add([LogEntry {
        time_ns: clock::now_ns(),
        kind: "order".to_owned(),
        cause: refused.map(|reason| format!("refused: {reason}")),
        by: Some(by),
        ..order
    }]);
}

fn verb(verb: &str) -> LogEntry {
    LogEntry {
        to: Some(verb.to_owned()),
        ..LogEntry::default()
    }
}

fn unprocessable(reason: String) -> Failed {
    Failed(StatusCode::UNPROCESSABLE_ENTITY, reason)
}

fn ending() -> Failed {
    let reason = "the agent is ending".to_owned();
    Failed(StatusCode::SERVICE_UNAVAILABLE, reason)
}
