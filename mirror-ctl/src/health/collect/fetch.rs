//! One HTTP request whose answer is bounded in time and size: what is at the other end is not trusted.

use std::{net::SocketAddr, time::Duration};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, Uri, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time};

/// The answer, all of it, must be there within so long.
pub const TIME_MAX: Duration = Duration::from_millis(800);
/// A node exporter's answer is some 100 KiB.
pub const BODY_BYTES_MAX: usize = 1 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// It took too long.
    #[error("no answer within {} ms", TIME_MAX.as_millis())]
    Late,
    /// There is no connection.
    #[error("connecting to {address}")]
    Connect {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// It does not speak HTTP.
    #[error("conversation")]
    Conversation(#[from] hyper::Error),
    /// It answers something else.
    #[error("answer {0}")]
    Status(StatusCode),
    /// It is too long, or breaks off.
    #[error("body: {0}")]
    Body(String),
}

/// Asks for `path` at `address`; the body as text, what is no UTF-8 replaced.
pub async fn fetch(address: SocketAddr, path: &Uri) -> Result<String, FetchError> {
    time::timeout(TIME_MAX, exchange(address, path))
        .await
        .unwrap_or(Err(FetchError::Late))
}

async fn exchange(address: SocketAddr, path: &Uri) -> Result<String, FetchError> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|source| FetchError::Connect { address, source })?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = path.clone();
    let host = address.to_string().parse();
    if let Ok(host) = host {
        request.headers_mut().insert("host", host);
    }
    let answer = async {
        let response = sender.send_request(request).await?;
        if !response.status().is_success() {
            return Err(FetchError::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), BODY_BYTES_MAX);
        let body = body
            .collect()
            .await
            .map_err(|e| FetchError::Body(e.to_string()))?;
        Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
    };
    tokio::pin!(answer);
    // The connection is driven here, not in a task of its own: with the answer it ends.
    tokio::select! {
        answer = &mut answer => answer,
        ended = connection => {
            ended?;
            answer.await
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpListener,
        thread,
    };

    use super::*;
    use crate::health::collect::{Usage, exporter};

    /// A server that reads a request and then does as it likes.
    fn serve(answer: impl FnOnce(&mut std::net::TcpStream) + Send + 'static) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]);
            answer(&mut stream);
        });
        address
    }

    fn ask(address: SocketAddr) -> Result<String, FetchError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(fetch(address, &Uri::from_static("/metrics")))
    }

    #[test]
    fn an_honest_one_is_heard() {
        let address = serve(|stream| {
            let body = "node_procs_running 2\n";
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all((head + body).as_bytes()).unwrap();
        });
        let usage = exporter::parse(&ask(address).unwrap());
        assert_eq!(usage.runnable, Some(2.0));
    }

    #[test]
    fn garbage_is_an_error_or_nothing() {
        let address = serve(|stream| stream.write_all(b"\x00\xff\x13garbage\r\n\r\n").unwrap());
        assert!(matches!(ask(address), Err(FetchError::Conversation(_))));
        let address = serve(|stream| {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n\xff\xfe\x00\x01")
                .unwrap();
        });
        assert_eq!(exporter::parse(&ask(address).unwrap()), Usage::default());
        let address = serve(|stream| {
            stream
                .write_all(b"HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n")
                .unwrap();
        });
        assert!(matches!(ask(address), Err(FetchError::Status(_))));
    }

    #[test]
    fn an_endless_body_is_cut_off() {
        let address = serve(|stream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            while stream.write_all(&[b'x'; 65_536]).is_ok() {}
        });
        assert!(matches!(ask(address), Err(FetchError::Body(_))));
    }

    #[test]
    fn a_drip_is_not_waited_for() {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let address = serve(move |stream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
            let every = Duration::from_millis(20);
            while stopped.recv_timeout(every).is_err() && stream.write_all(b"x").is_ok() {}
        });
        assert!(matches!(ask(address), Err(FetchError::Late)));
        let _ = stop.send(());
    }

    #[test]
    fn nobody_there_is_said() {
        let address = {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap()
        };
        assert!(matches!(ask(address), Err(FetchError::Connect { .. })));
    }
}
