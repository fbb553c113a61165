//! The API for other hosts: the right token over TLS gets everything, all else nothing.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use testbed::topology::config::ListenConfig;

use crate::support::{LIMIT, Site};

/// The namespace is the test's own.
const ADDRESS: &str = "127.0.0.1:9480";
const NAME: &str = "mirror.test";
const TOKEN: &str = "0123456789abcdef0123456789abcdef";
/// More than an idle caller gets for its handshake.
const GIVEN_UP: Duration = LIMIT;

fn secret(site: &Site, name: &str, text: &str) -> PathBuf {
    let file = site.topology.dir().join(name);
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    file
}

fn connect(site: &Site) -> TcpStream {
    let stream = site.topology.host.run(|| TcpStream::connect(ADDRESS));
    let stream = stream.unwrap().unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream
}

/// What a request gets that trusts `ca` and says `head`.
fn ask(site: &Site, ca: &CertificateDer<'static>, head: &str) -> io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = ClientConnection::new(Arc::new(config), NAME.try_into().unwrap()).unwrap();
    let mut stream = StreamOwned::new(client, connect(site));
    let request = format!("{head}\r\nHost: {NAME}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
fn who_shows_the_token_over_tls_is_served_and_nobody_else() {
    let site = Site::new(2);
    let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
    let mut config = site.config();
    config.agent.listen = Some(ListenConfig {
        address: ADDRESS.to_owned(),
        certificate: secret(&site, "tls.pem", &made.cert.pem()),
        key: secret(&site, "tls.key", &made.signing_key.serialize_pem()),
        token: secret(&site, "token", &format!("{TOKEN}\n")),
    });
    let mut agent = site.agent(&config);
    let ca = made.cert.der();
    let bearer = format!("\r\nAuthorization: Bearer {TOKEN}");

    // One that says nothing holds up nobody, and is not waited for for ever.
    let mut idle = connect(&site);

    let answer = ask(&site, ca, &format!("GET /v1/instances HTTP/1.1{bearer}")).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains(r#""name":"b""#), "{answer}");

    let wrong = [
        String::new(),
        format!("\r\nAuthorization: Basic {TOKEN}"),
        format!("\r\nAuthorization: Bearer {TOKEN}0"),
        format!("\r\nAuthorization: Bearer {}", TOKEN.replace('0', "1")),
        "\r\nAuthorization: Bearer ".to_owned(),
    ];
    for header in wrong {
        for path in [
            "GET /v1/instances",
            "POST /v1/instances/a/evacuate",
            "GET /openapi.json",
            "GET /none",
        ] {
            let answer = ask(&site, ca, &format!("{path} HTTP/1.1{header}")).unwrap();
            assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
            assert!(
                answer.to_lowercase().contains("www-authenticate: bearer"),
                "{answer}"
            );
        }
    }
    assert!(agent.instances().unwrap().iter().all(|i| i.state == "up"));

    // An order is done, and the audit trail tells from where it came.
    let order = format!("POST /v1/instances/a/evacuate HTTP/1.1{bearer}");
    let answer = ask(&site, ca, &order).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let events = agent
        .text(&["events", "--kind", "order", "--json"])
        .unwrap();
    assert!(events.contains("token, from 127.0.0.1:"), "{events}");

    // Without TLS there is nothing, and another's certificate is not its own.
    let mut plain = connect(&site);
    plain
        .write_all(format!("GET /v1/instances HTTP/1.1{bearer}\r\n\r\n").as_bytes())
        .unwrap();
    let mut answer = Vec::new();
    let ended = plain.read_to_end(&mut answer);
    assert!(
        !String::from_utf8_lossy(&answer).contains("HTTP"),
        "{ended:?} {answer:?}"
    );
    assert!(
        ask(
            &site,
            other.cert.der(),
            &format!("GET /v1/instances HTTP/1.1{bearer}")
        )
        .is_err()
    );

    idle.set_read_timeout(Some(GIVEN_UP)).unwrap();
    assert_eq!(idle.read(&mut [0; 16]).unwrap(), 0);
    // Nothing of it is in the log.
    assert!(!agent.said().contains(TOKEN), "{}", agent.said());
    agent.check_alive().unwrap();
}
