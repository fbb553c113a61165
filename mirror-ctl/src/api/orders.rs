//! What changes something. Each call is written down with who made it: in the agent's log, and as an event.

use axum::{
    Json,
    extract::{ConnectInfo, Path, Query, State},
    http::StatusCode,
};
use serde::Deserialize;
use tokio::sync::oneshot;
use tracing::info;
use utoipa::IntoParams;

use super::{
    Shared,
    handlers::{Failed, Problem, unknown},
    listen::Peer,
};
use crate::{
    agent::{
        Applied, Event,
        log::LogEntry,
        models::{ModelAct, ModelsRow},
        orders::Refusal,
        state::Order,
        view::InstanceRow,
    },
    clock,
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
