//! The API for other hosts: TLS always, and a token that every request must show. Off unless the configuration has
//! `[agent.listen]`.

use std::{
    fs::{self, File},
    io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use axum::{
    Router,
    extract::{Request, State, connect_info::Connected},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    serve::{IncomingStream, Listener},
};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use subtle::ConstantTimeEq as _;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tracing::{debug, warn};

use super::{
    handlers::Failed,
    listen::{Held, Peer},
};
use crate::config::Listen;

/// Connections at a time, those that shake hands included; more wait until one ends.
const CONNECTIONS_MAX: usize = 64;
/// A handshake that takes longer is given up.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// Bytes of a token: what is shorter could be guessed, what is longer is some other file.
const TOKEN_BYTES: std::ops::RangeInclusive<usize> = 32..=4096;

/// Why the API is not served to other hosts.
#[derive(Debug, thiserror::Error)]
#[error("agent.listen: {}: {reason}", path.display())]
pub struct RemoteError {
    path: PathBuf,
    reason: String,
}

/// An address that is taken, and what callers are to show.
pub struct Remote {
    listener: std::net::TcpListener,
    tls: TlsAcceptor,
    token: Arc<[u8]>,
}

/// Reads certificate, key and token.
///
/// # Errors
/// Which file is wrong, and why: it cannot be read, holds something else, or everybody can read a secret.
pub fn prepare(listen: &Listen, listener: std::net::TcpListener) -> Result<Remote, RemoteError> {
    let wrong = |path: &Path, reason: &dyn ToString| RemoteError {
        path: path.to_owned(),
        reason: reason.to_string(),
    };
    let (certificate, key) = (&listen.certificate, &listen.key);
    let chain: Vec<_> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|error| wrong(certificate, &error))?;
    if chain.is_empty() {
        return Err(wrong(certificate, &"there is no PEM certificate in it"));
    }
    secret(key).map_err(|reason| wrong(key, &reason))?;
    let secret_key = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, &error))?;
    let token = secret(&listen.token).map_err(|reason| wrong(&listen.token, &reason))?;
    let token = token.trim_ascii();
    if !TOKEN_BYTES.contains(&token.len()) {
        let reason = format!(
            "a token has {} to {} characters, and this has {} (`openssl rand -hex 32` makes one)",
            TOKEN_BYTES.start(),
            TOKEN_BYTES.end(),
            token.len()
        );
        return Err(wrong(&listen.token, &reason));
    }
    let tls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map(|tls| tls.with_no_client_auth())
        .and_then(|tls| tls.with_single_cert(chain, secret_key))
        .map_err(|error| wrong(certificate, &error))?;
    Ok(Remote {
        listener,
        tls: TlsAcceptor::from(Arc::new(tls)),
        token: Arc::from(token),
    })
}

/// A file that only its owner and group may read.
fn secret(path: &Path) -> Result<Vec<u8>, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let data = file.metadata().map_err(|error| error.to_string())?;
    if data.permissions().mode() & 0o007 != 0 {
        return Err("everybody may use it: `chmod o= FILE`".to_owned());
    }
    if !data.is_file() || data.len() > 1 << 20 {
        return Err("it is not a file of a secret".to_owned());
    }
    fs::read(path).map_err(|error| error.to_string())
}

/// Serves what the socket serves, to whom shows the token.
pub(super) fn serve(remote: Remote, router: Router) -> io::Result<()> {
    let Remote {
        listener,
        tls,
        token,
    } = remote;
    let listener = Encrypted::start(TcpListener::from_std(listener)?, tls)?;
    let router = router.layer(middleware::from_fn_with_state(token, check));
    let service = router.into_make_service_with_connect_info::<Peer>();
    tokio::spawn(async move { axum::serve(listener, service).await });
    Ok(())
}

/// Lets a request pass that shows the token. How long the comparison takes says nothing of how much of it is right.
async fn check(State(token): State<Arc<[u8]>>, request: Request, next: Next) -> Response {
    let shown = request.headers().get(header::AUTHORIZATION);
    let shown = shown.and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    if shown.is_some_and(|shown| shown.ct_eq(&token).into()) {
        return next.run(request).await;
    }
    let reason = "the header `Authorization: Bearer TOKEN` is missing or wrong".to_owned();
    let mut refused = Failed(StatusCode::UNAUTHORIZED, reason).into_response();
    let ask = header::HeaderValue::from_static("Bearer");
    refused.headers_mut().insert(header::WWW_AUTHENTICATE, ask);
    refused
}

/// Hands over connections whose handshake is done; handshakes do not wait for each other.
struct Encrypted {
    address: SocketAddr,
    ready: mpsc::Receiver<(Held<TlsStream<TcpStream>>, SocketAddr)>,
}

impl Encrypted {
    fn start(listener: TcpListener, tls: TlsAcceptor) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (sender, ready) = mpsc::channel(1);
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        tokio::spawn(async move {
            // The semaphore is never closed.
            while let Ok(place) = Arc::clone(&places).acquire_owned().await {
                let (stream, from) = match listener.accept().await {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        warn!("agent.listen: {error}");
                        // Out of descriptors, most likely: some must be given back first.
                        tokio::time::sleep(Duration::from_secs(1)).await;
                        continue;
                    }
                };
                let (tls, sender) = (tls.clone(), sender.clone());
                tokio::spawn(async move {
                    match timeout(HANDSHAKE_MAX, tls.accept(stream)).await {
                        // Nobody listens any more: the process ends.
                        Ok(Ok(stream)) => drop(sender.send((Held::new(stream, place), from)).await),
                        Ok(Err(error)) => debug!(%from, "no TLS: {error}"),
                        Err(_) => debug!(%from, "no TLS: it takes too long"),
                    }
                });
            }
        });
        Ok(Self { address, ready })
    }
}

impl Listener for Encrypted {
    type Io = Held<TlsStream<TcpStream>>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        match self.ready.recv().await {
            Some(accepted) => accepted,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

impl Connected<IncomingStream<'_, Encrypted>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Encrypted>) -> Self {
        Self::named(format!("token, from {}", stream.remote_addr()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, text: &str, mode: u32) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn prepared(listen: &Listen) -> Result<(), String> {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        prepare(listen, listener)
            .map(drop)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn each_wrong_file_is_named_with_what_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let listen = Listen {
            address: "127.0.0.1:0".parse().unwrap(),
            certificate: at("cert.pem"),
            key: at("key.pem"),
            token: at("token"),
        };
        let made = rcgen::generate_simple_self_signed(["mirror.test".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(["mirror.test".to_owned()]).unwrap();
        let check = |what: &str, reason: &str| {
            let expected = format!("agent.listen: {}: {reason}", at(what).display());
            let error = prepared(&listen).unwrap_err();
            assert!(
                error.starts_with(&expected),
                "{error:?} and not {expected:?}"
            );
        };
        write(&at("cert.pem"), "no certificate", 0o644);
        check("cert.pem", "there is no PEM certificate in it");
        write(&at("cert.pem"), &made.cert.pem(), 0o644);
        check("key.pem", "No such file");
        write(&at("key.pem"), &made.signing_key.serialize_pem(), 0o644);
        check("key.pem", "everybody may use it: `chmod o= FILE`");
        write(&at("key.pem"), "no key", 0o600);
        check("key.pem", "");
        write(&at("key.pem"), &made.signing_key.serialize_pem(), 0o640);
        write(&at("token"), &"t".repeat(64), 0o604);
        check("token", "everybody may use it");
        write(&at("token"), "short\n", 0o600);
        check(
            "token",
            "a token has 32 to 4096 characters, and this has 5 (`openssl rand",
        );
        write(&at("token"), &format!("{}\n", "t".repeat(64)), 0o600);
        assert_eq!(prepared(&listen), Ok(()));
        write(&at("key.pem"), &other.signing_key.serialize_pem(), 0o600);
        check("cert.pem", "");
    }
}
