//! The benches' own service, so that what is measured is the way to it: no more than reads and writes.
//!
//! A connection begins with an order of 16 bytes: what, and how much. Everything that the server sends follows from what
//! it received, so that replicas of it agree.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use testbed::clock::wait_until;
use testbed::netns::Namespace;
use testbed::process::Process;

use crate::machine;

/// Where it listens.
pub(crate) const PORT: u16 = 7000;
/// Bytes of a request, and of its response.
pub(crate) const MESSAGE: usize = 64;
const ORDER: usize = 16;
const CHUNK: usize = 64 << 10;
const READY_LIMIT: Duration = Duration::from_secs(10);
/// A connection that says nothing for so long is lost.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    /// Requests and responses, one at a time.
    Exchange,
    /// So many bytes to the server.
    Upload(u64),
    /// So many bytes from the server.
    Download(u64),
}

impl Use {
    fn to_order(self) -> [u8; ORDER] {
        let (code, bytes) = match self {
            Self::Exchange => (0, 0),
            Self::Upload(bytes) => (1, bytes),
            Self::Download(bytes) => (2, bytes),
        };
        let mut order = [0; ORDER];
        order[0] = code;
        order[8..].copy_from_slice(&bytes.to_be_bytes());
        order
    }

    fn of_order(order: &[u8; ORDER]) -> Self {
        let bytes = u64::from_be_bytes(std::array::from_fn(|byte| order[8 + byte]));
        match order[0] {
            1 => Self::Upload(bytes),
            2 => Self::Download(bytes),
            _ => Self::Exchange,
        }
    }
}

/// Starts the server in a namespace.
pub(crate) fn start(namespace: &Namespace, port: u16) -> Result<Process> {
    let mut command = namespace.command(std::env::current_exe().context("own path")?)?;
    command.args(["--serve", &port.to_string()]);
    let mut server = Process::start("the bench's server", command)?;
    server.line("ready", READY_LIMIT, |line| {
        Ok((line == "ready").then_some(()))
    })?;
    Ok(server)
}

/// Serves until it is killed.
pub(crate) fn serve(port: u16) -> Result<()> {
    machine::come_first()?;
    let listener = TcpListener::bind(("0.0.0.0", port)).context("listen")?;
    println!("ready");
    for stream in listener.incoming() {
        let stream = stream.context("accept")?;
        // What goes wrong with one connection is the client's to tell.
        thread::spawn(move || drop(handle(stream)));
    }
    Ok(())
}

fn handle(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut order = [0; ORDER];
    stream.read_exact(&mut order)?;
    match Use::of_order(&order) {
        Use::Exchange => {
            let mut message = [0; MESSAGE];
            while stream.read_exact(&mut message).is_ok() {
                stream.write_all(&message)?;
            }
        }
        Use::Upload(bytes) => {
            receive(&mut stream, bytes)?;
            stream.write_all(&[1])?;
        }
        Use::Download(bytes) => send(&mut stream, bytes)?,
    }
    // Until the client closes too.
    let _ = stream.read(&mut order);
    Ok(())
}

/// Opens a connection from the calling thread's namespace.
pub(crate) fn connect(server: SocketAddr, what: Use) -> Result<TcpStream> {
    connect_within(server, what, PATIENCE)
}

/// The same, with an own patience for each of its steps.
pub(crate) fn connect_within(
    server: SocketAddr,
    what: Use,
    patience: Duration,
) -> Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&server, patience)
        .with_context(|| format!("connect to {server}"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    stream.write_all(&what.to_order())?;
    Ok(stream)
}

/// Waits until a server, or the one behind a proxy, answers.
pub(crate) fn wait_for(client: &Namespace, server: SocketAddr) -> Result<()> {
    let attempt = || exchange(&mut connect(server, Use::Exchange)?, &mut [7; MESSAGE]);
    wait_until("an answer", READY_LIMIT, || Ok(client.run(attempt)?.ok()))
}

/// One request and its response.
pub(crate) fn exchange(stream: &mut TcpStream, message: &mut [u8; MESSAGE]) -> Result<()> {
    stream.write_all(message).context("request")?;
    stream.read_exact(message).context("response")
}

/// Carries the connection's bytes out, from the client's side, to the end.
pub(crate) fn transfer(stream: &mut TcpStream, what: Use) -> Result<()> {
    match what {
        Use::Exchange => Ok(()),
        Use::Upload(bytes) => {
            send(stream, bytes)?;
            stream.read_exact(&mut [0]).context("receipt")
        }
        Use::Download(bytes) => receive(stream, bytes),
    }
}

fn send(stream: &mut TcpStream, bytes: u64) -> Result<()> {
    let chunk = [0x5a; CHUNK];
    let mut left = bytes;
    while left > 0 {
        let now = left.min(CHUNK as u64);
        stream.write_all(&chunk[..now as usize]).context("send")?;
        left -= now;
    }
    Ok(())
}

fn receive(stream: &mut TcpStream, bytes: u64) -> Result<()> {
    let mut chunk = vec![0; CHUNK];
    let mut left = bytes;
    while left > 0 {
        let most = left.min(CHUNK as u64) as usize;
        let got = stream.read(&mut chunk[..most]).context("receive")?;
        anyhow::ensure!(got > 0, "the connection ended {left} bytes early");
        left -= got as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read_as_they_are_written() {
        for what in [Use::Exchange, Use::Upload(7), Use::Download(1 << 40)] {
            assert_eq!(Use::of_order(&what.to_order()), what);
        }
    }
}
