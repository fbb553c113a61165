//! Asks an agent.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response,
    body::{Bytes, Incoming},
    client::conn::http1,
};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{net::UnixStream, time::timeout};

use crate::dataplane::with_sudo;

use super::{
    handlers::Problem,
    sse::{Message, Parser},
};

pub use super::handlers::by_name;

/// An agent that takes longer to begin an answer is stuck.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody serves the socket.
    #[error(
        "no agent answers on {}: {source} (start one with `mirror-ctl agent --config FILE`, \
         or name its socket with --socket)", path.display()
    )]
    NotRunning {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The socket is somebody else's.
    #[error(
        "{} may be used by its owner only, and by the group that `[agent] group` names: {source}; \
         type `{}`", path.display(), with_sudo()
    )]
    NotPermitted {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The agent says no.
    #[error("{0}")]
    Refused(String),
    /// The conversation failed.
    #[error("the agent's answer on {}: {reason}", path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// Sends one request and reads its answer.
pub async fn request<T: DeserializeOwned>(
    socket: &Path,
    method: Method,
    path: &str,
) -> Result<T, ClientError> {
    let body = fetch(socket, method, path, Bytes::new()).await?;
    serde_json::from_slice(&body).map_err(|error| broken(socket, error))
}

/// Sends one request and takes its answer as it is.
pub async fn fetch(
    socket: &Path,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<Bytes, ClientError> {
    let answer = send(socket, method, path, body).await?;
    let body = answer.into_body().collect().await;
    Ok(body.map_err(|error| broken(socket, error))?.to_bytes())
}

/// Reads an answer piece by piece, as long as it goes on.
pub async fn pieces<E: From<ClientError>>(
    socket: &Path,
    method: Method,
    path: &str,
    mut each: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let answer = send(socket, method, path, Bytes::new()).await?;
    let mut body = answer.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| broken(socket, error))?;
        if let Some(piece) = frame.data_ref() {
            each(piece)?;
        }
    }
    Ok(())
}

/// Reads server-sent events as long as they come.
pub async fn messages<E: From<ClientError>>(
    socket: &Path,
    method: Method,
    path: &str,
    mut each: impl FnMut(Message) -> Result<(), E>,
) -> Result<(), E> {
    let mut parser = Parser::default();
    pieces(socket, method, path, |piece| {
        parser.feed(piece).into_iter().try_for_each(&mut each)
    })
    .await
}

/// The head of a good answer.
async fn send(
    socket: &Path,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<Response<Incoming>, ClientError> {
    let stream = UnixStream::connect(socket).await.map_err(|source| {
        let path = socket.to_owned();
        match source.kind() {
            io::ErrorKind::PermissionDenied => ClientError::NotPermitted { path, source },
            _ => ClientError::NotRunning { path, source },
        }
    })?;
    let answer = timeout(ANSWER_MAX, exchange(stream, method, path, body)).await;
    let answer = answer
        .map_err(|_| broken(socket, format!("none within {} s", ANSWER_MAX.as_secs())))?
        .map_err(|error| broken(socket, error))?;
    if answer.status().is_success() {
        return Ok(answer);
    }
    let status = answer.status();
    let body = answer.into_body().collect().await;
    let body = body.map_err(|error| broken(socket, error))?.to_bytes();
    Err(match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) => ClientError::Refused(problem.error),
        Err(_) => {
            let text = String::from_utf8_lossy(&body);
            ClientError::Refused(format!("{status}: {}", text.trim()))
        }
    })
}

fn broken(socket: &Path, reason: impl ToString) -> ClientError {
    ClientError::Broken {
        path: socket.to_owned(),
        reason: reason.to_string(),
    }
}

async fn exchange(
    stream: UnixStream,
    method: Method,
    path: &str,
    body: Bytes,
) -> Result<Response<Incoming>, Box<dyn std::error::Error>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It moves the bytes for as long as the answer is read; what goes wrong there, the reader sees.
    tokio::spawn(connection);
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "mirror")
        .body(Full::new(body))?;
    Ok(sender.send_request(request).await?)
}

/// Escapes a value for a query string.
pub fn escape(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    value
        .bytes()
        .map(|byte| match plain(byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}
