//! The API's paths, and the OpenAPI document that is generated of the same list: what is served is documented.

use utoipa::openapi::{Info, OpenApi, Server};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Shared, flows, handlers, metrics, orders, select, stream, trace};

/// The version in the paths. Within it, fields and paths are added, never renamed or removed.
pub const VERSION: &str = "1.0.0";

/// Every path but the document's own.
pub(super) fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::new()
        .routes(routes!(handlers::status))
        .routes(routes!(handlers::instances))
        .routes(routes!(handlers::health))
        .routes(routes!(orders::order))
        .routes(routes!(handlers::models))
        .routes(routes!(orders::models))
        .routes(routes!(handlers::vnis))
        .routes(routes!(select::select))
        .routes(routes!(handlers::mirrors))
        .routes(routes!(flows::flows))
        .routes(routes!(handlers::events))
        .routes(routes!(stream::events))
        .routes(routes!(handlers::config, orders::apply))
        .routes(routes!(orders::reload))
        .routes(routes!(orders::replace))
        .routes(routes!(orders::hand_over))
        .routes(routes!(trace::trace))
        .routes(routes!(metrics::metrics))
}

/// The whole document.
pub fn document() -> OpenApi {
    complete(routes().into_openapi())
}

/// Adds what is not a path's.
pub(super) fn complete(mut document: OpenApi) -> OpenApi {
    let mut info = Info::new("mirror-ctl", VERSION);
    info.description = Some(
        "The agent's API: HTTP/1.1 on a Unix socket (`curl --unix-socket /run/mirror/agent.sock \
         http://localhost/v1/status`)."
            .to_owned(),
    );
    document.info = info;
    document.servers = Some(vec![Server::new("http://localhost")]);
    document
}
