//! The flows, however many there are: written as the tables are walked, so that a million of them take no more memory
//! than a few pieces of the answer do.

use std::{ops::ControlFlow, sync::Arc};

use axum::{
    body::{Body, Bytes},
    extract::{Query, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;

use super::{
    Shared,
    handlers::{Failed, Problem, internal},
};
use crate::{
    clock,
    connections::{FlowFilter, FlowRow, Names, Wanted, row::row},
    dataplane::{DataplaneError, Maps},
};

/// Bytes of an answer that are written in one go.
const PIECE: usize = 64 << 10;
/// Pieces that may wait for a reader; then the walk waits too.
const PIECES_QUEUED: usize = 2;
/// A row is smaller.
const ROW: usize = 2 << 10;

type Piece = Result<Bytes, DataplaneError>;

/// The flows: client, active instance, mirrors and whether they could take over.
#[utoipa::path(
    get,
    path = "/v1/flows",
    params(FlowFilter),
    responses(
        (status = 200, description = "Flows, each on a line of its own", body = Vec<FlowRow>),
        (status = "default", description = "Refused or failed", body = Problem)
    )
)]
pub(super) async fn flows(
    State(shared): State<Shared>,
    Query(filter): Query<FlowFilter>,
) -> Result<Response, Failed> {
    let view = Arc::clone(&shared.views.borrow());
    let wanted = Wanted::of(&filter, &view.names);
    let wanted = wanted.map_err(|reason| Failed(StatusCode::BAD_REQUEST, reason))?;
    let limit = filter.limit.unwrap_or(usize::MAX);
    let (sender, mut pieces) = mpsc::channel(PIECES_QUEUED);
    let maps = Arc::clone(&shared.maps);
    // A million flows take a while: not on a thread that others wait for.
    tokio::task::spawn_blocking(move || {
        if let Err(error) = write(&maps, &view.names, &wanted, limit, &sender) {
            // Whoever asked may have gone.
            let _ = sender.blocking_send(Err(error));
        }
    });
    // A table that cannot be read at all is an error of its own, not an answer that breaks off.
    let first = match pieces.recv().await {
        Some(first) => first.map_err(internal)?,
        None => return Err(internal("the walk over the flows ended")),
    };
    let rest = stream::poll_fn(move |context| pieces.poll_recv(context));
    let all = stream::once(async { Piece::Ok(first) }).chain(rest);
    let json = [(CONTENT_TYPE, "application/json")];
    Ok((json, Body::from_stream(all)).into_response())
}

/// Writes the flows that are wanted as one JSON array.
fn write(
    maps: &Maps,
    names: &Names,
    wanted: &Wanted,
    limit: usize,
    pieces: &mpsc::Sender<Piece>,
) -> Result<(), DataplaneError> {
    let mut left = limit;
    let now_s = mirror_common::time::s(clock::now_ns());
    let mut piece = Vec::with_capacity(PIECE + ROW);
    let mut separator = "[\n";
    let mut read = true;
    maps.walk_flows(
        |entry| {
            if left == 0 {
                return ControlFlow::Break(());
            }
            if !wanted.admits(&entry, names) {
                return ControlFlow::Continue(());
            }
            left -= 1;
            piece.extend(separator.as_bytes());
            separator = ",\n";
            // Nothing in a row cannot be written, and memory takes it.
            let _ = serde_json::to_writer(&mut piece, &row(&entry, names, now_s));
            if piece.len() >= PIECE {
                let full = std::mem::replace(&mut piece, Vec::with_capacity(PIECE + ROW));
                read = pieces.blocking_send(Ok(full.into())).is_ok();
            }
            match read {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        },
        || ControlFlow::Continue(()),
    )?;
    piece.extend(match separator {
        "[\n" => "[]\n".as_bytes(),
        _ => "\n]\n".as_bytes(),
    });
    let _ = pieces.blocking_send(Ok(piece.into()));
    Ok(())
}
