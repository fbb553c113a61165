//! The agent's API: HTTP/1.1 with JSON on a Unix socket. Reading never waits for the agent's
//! loop; orders are events to it.

pub mod client;
mod flows;
mod handlers;
mod listen;
pub mod metrics;
pub mod openapi;
mod orders;
mod page;
mod remote;
pub mod select;
mod socket;
pub mod sse;
mod stream;
pub mod trace;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::unix::net::UnixListener,
    path::Path,
    sync::Arc,
    thread,
    time::Instant,
};

use axum::{Json, Router, extract::DefaultBodyLimit, routing::get};
use tokio::{
    runtime,
    sync::{Semaphore, mpsc, watch},
};
use tracing::error;

use crate::{
    agent::{Event, log::EventLog, view::View},
    dataplane::Maps,
    metrics::Metrics,
    privileges,
};

use listen::{Limited, Peer};

pub use remote::{Remote, RemoteError, prepare as prepare_remote};
pub use socket::{Socket, SocketError};
pub use stream::{CUT, GAP};

/// Bytes of a request's body: a configuration with every instance and VNI there can be.
pub const BODY_BYTES_MAX: usize = 4 << 20;
/// Readers of the event stream at a time.
pub const EVENT_READERS_MAX: usize = 32;

/// What the handlers share.
#[derive(Clone)]
pub struct Shared {
    /// What the agent shows.
    pub views: watch::Receiver<Arc<View>>,
    /// What happened.
    pub log: Arc<EventLog>,
    /// Places for readers of the event stream.
    pub readers: Arc<Semaphore>,
    /// The place of the one trace there may be.
    pub tracing: Arc<Semaphore>,
    /// What is measured.
    pub metrics: Arc<Metrics>,
    /// Handles of the maps.
    pub maps: Arc<Maps>,
    /// Orders to the agent.
    pub orders: mpsc::Sender<Event>,
    /// The file of the agent's program, as it was started.
    pub program: Option<String>,
    /// When the agent started.
    pub started: Instant,
    /// The same in seconds since 1970.
    pub started_s: f64,
}

/// Where is listened.
pub struct Listeners {
    /// For everything.
    pub api: UnixListener,
    /// For metrics only.
    pub metrics: Option<TcpListener>,
    /// For the page only.
    pub page: Option<TcpListener>,
    /// For everything, to other hosts.
    pub remote: Option<Remote>,
}

/// An address cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("{what} on {address}: {source}")]
pub struct BindError {
    what: &'static str,
    address: SocketAddr,
    source: io::Error,
}

/// Takes an address for `what`.
pub fn bind(what: &'static str, address: SocketAddr) -> Result<TcpListener, BindError> {
    let listener = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    listener.map_err(|source| BindError {
        what,
        address,
        source,
    })
}

/// Serves requests until the process ends, in a thread of its own: however long an answer is,
/// the agent's loop does not wait for it.
pub fn serve(listeners: Listeners, shared: Shared) -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let server = move || -> anyhow::Result<()> {
        crate::dataplane::set_nice(0);
        // Whatever a request finds to break in here has no rights; maps are read by what is open.
        privileges::renounce()?;
        runtime.block_on(async {
            if let Some(listener) = listeners.metrics {
                serve_over_tcp(listener, metrics::router(shared.clone()))?;
            }
            if let Some(listener) = listeners.page {
                serve_over_tcp(listener, page::router(shared.clone()))?;
            }
            if let Some(remote) = listeners.remote {
                remote::serve(remote, router(shared.clone()))?;
            }
            let listener = Limited::new(tokio::net::UnixListener::from_std(listeners.api)?);
            let service = router(shared).into_make_service_with_connect_info::<Peer>();
            Ok(axum::serve(listener, service).await?)
        })
    };
    thread::Builder::new()
        .name("api".to_owned())
        .spawn(move || {
            if let Err(error) = server() {
                error!("the API is not served: {error:#}");
            }
        })
        .map(drop)
}

fn serve_over_tcp(listener: TcpListener, router: Router) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(())
}

fn router(shared: Shared) -> Router {
    let (router, document) = openapi::routes().split_for_parts();
    let document = openapi::complete(document);
    router
        .route("/openapi.json", get(async move || Json(document)))
        .fallback(handlers::unknown)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(shared)
}

/// Whether an agent answers on a socket.
pub fn is_answered(path: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(path).is_ok()
}
