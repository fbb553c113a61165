//! The agent's API: HTTP/1.1 with JSON on a Unix socket. Reading never waits for the agent's
//! loop; orders are events to it.

pub mod client;
mod handlers;
mod socket;

use std::{io, path::Path, sync::Arc, time::Instant};

use axum::{
    Router,
    routing::{get, post},
};
use tokio::{
    net::UnixListener,
    sync::{mpsc, watch},
};

use crate::{
    agent::{Event, log::EventLog, view::View},
    dataplane::Maps,
};

pub use socket::{Socket, SocketError};

/// What the handlers share.
#[derive(Clone)]
pub struct Shared {
    /// What the agent shows.
    pub views: watch::Receiver<Arc<View>>,
    /// What happened.
    pub log: Arc<EventLog>,
    /// Handles of the maps.
    pub maps: Arc<Maps>,
    /// Orders to the agent.
    pub orders: mpsc::Sender<Event>,
    /// When the agent started.
    pub started: Instant,
}

/// Serves requests until the process ends.
pub async fn serve(listener: UnixListener, shared: Shared) -> io::Result<()> {
    axum::serve(listener, router(shared)).await
}

fn router(shared: Shared) -> Router {
    Router::new()
        .route("/v1/status", get(handlers::status))
        .route("/v1/instances", get(handlers::instances))
        .route("/v1/instances/{name}/{order}", post(handlers::order))
        .route("/v1/vnis", get(handlers::vnis))
        .route("/v1/mirrors", get(handlers::mirrors))
        .route("/v1/flows", get(handlers::flows))
        .route("/v1/events", get(handlers::events))
        .route("/v1/reload", post(handlers::reload))
        .fallback(handlers::unknown)
        .with_state(shared)
}

/// Whether an agent answers on a socket.
pub fn is_answered(path: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(path).is_ok()
}
