//! The agent's API: HTTP/1.1 with JSON on a Unix socket. Reading never waits for the agent's
//! loop; orders are events to it.

pub mod client;
mod handlers;
mod socket;

use std::{io, os::unix::net::UnixListener, path::Path, sync::Arc, thread, time::Instant};

use axum::{
    Router,
    routing::{get, post},
};
use tokio::{
    runtime,
    sync::{mpsc, watch},
};
use tracing::error;

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

/// Serves requests until the process ends, in a thread of its own: however long an answer is,
/// the agent's loop does not wait for it.
pub fn serve(listener: UnixListener, shared: Shared) -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let server = move || {
        crate::dataplane::set_nice(0);
        runtime.block_on(async {
            let listener = tokio::net::UnixListener::from_std(listener)?;
            axum::serve(listener, router(shared)).await
        })
    };
    thread::Builder::new()
        .name("api".to_owned())
        .spawn(move || {
            if let Err(error) = server() {
                error!("the API is not served: {error}");
            }
        })
        .map(drop)
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
