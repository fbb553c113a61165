//! Asks an agent.

use std::{
    io,
    path::{Path, PathBuf},
};

use http_body_util::{BodyExt, Empty};
use hyper::{Method, Request, StatusCode, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::handlers::Problem;

pub use super::handlers::collect;

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
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|source| ClientError::NotRunning {
            path: socket.to_owned(),
            source,
        })?;
    let (status, body) = exchange(stream, method, path)
        .await
        .map_err(|reason| broken(socket, &*reason))?;
    if status.is_success() {
        return serde_json::from_slice(&body).map_err(|error| broken(socket, &error));
    }
    Err(match serde_json::from_slice::<Problem>(&body) {
        Ok(problem) => ClientError::Refused(problem.error),
        Err(_) => {
            let text = String::from_utf8_lossy(&body);
            ClientError::Refused(format!("{status}: {}", text.trim()))
        }
    })
}

fn broken(socket: &Path, reason: &(dyn std::error::Error + 'static)) -> ClientError {
    ClientError::Broken {
        path: socket.to_owned(),
        reason: reason.to_string(),
    }
}

type AnyError = Box<dyn std::error::Error + 'static>;

async fn exchange(
    stream: UnixStream,
    method: Method,
    path: &str,
) -> Result<(StatusCode, Bytes), AnyError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "mirror")
        .body(Empty::<Bytes>::new())?;
    let answer = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        Ok::<_, AnyError>((status, body))
    };
    tokio::pin!(answer);
    tokio::pin!(connection);
    // The connection moves the bytes; it may end before the answer is read out.
    tokio::select! {
        answer = &mut answer => return answer,
        ended = &mut connection => ended?,
    }
    answer.await
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
