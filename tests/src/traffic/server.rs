//! The server: an instance's application. It keeps nothing but what the bytes
//! of a connection tell it, so that any two of it are replicas.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use socket2::{Domain, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Interest};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{interval, sleep};

use super::stream::Stream;
use super::udp;
use super::wire::{Header, Order, Receipt, Tally};
use crate::clock::monotonic_ns;

const BACKLOG: i32 = 4096;
/// A connection's own memory. Whatever a process has must be given back before its kernel closes its connections, so
/// thousands of them had better have little.
const BUFFER: usize = 4 * 1024;
/// Bytes of a reply that are written at a time.
const CHUNK: usize = 16 * 1024;
const LEAK_TICK: Duration = Duration::from_millis(20);

/// Serves TCP and UDP on the addresses until the process ends; `ready` is
/// called when all of them listen.
pub async fn run(listen: &[SocketAddr], ready: impl FnOnce()) -> Result<()> {
    let mut listeners = Vec::new();
    for address in listen {
        let what = || format!("cannot listen on {address}");
        listeners.push(listen_tcp(*address).with_context(what)?);
        tokio::spawn(udp::answer(udp::bind(*address).await?));
    }
    ready();
    let accepting = listeners
        .into_iter()
        .map(|listener| tokio::spawn(accept(listener)));
    for task in accepting.collect::<Vec<_>>() {
        task.await?;
    }
    Ok(())
}

fn listen_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Loses memory at the rates that come in, in bytes a second, each from when it comes.
pub async fn fail(mut rates: UnboundedReceiver<u64>) {
    let mut rate = 0;
    let mut ticks = interval(LEAK_TICK);
    loop {
        tokio::select! {
            Some(new) = rates.recv() => rate = new,
            _ = ticks.tick() => {
                let bytes = rate * LEAK_TICK.as_millis() as u64 / 1_000;
                // Written to, or the kernel would not give it.
                Box::leak(vec![0xa5u8; usize::try_from(bytes).unwrap_or(0)].into_boxed_slice());
            }
        }
    }
}

async fn accept(listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((connection, _)) => {
                tokio::spawn(serve(connection));
            }
            // Out of descriptors or an abort: neither is worth the server's life.
            Err(error) => {
                eprintln!("accept: {error}");
                sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

async fn serve(connection: TcpStream) {
    let peer = connection.peer_addr();
    if let Err(error) = Session::run(connection).await {
        eprintln!("{peer:?}: {error}");
    }
}

struct Session {
    connection: BufReader<TcpStream>,
    tally: Tally,
    expected: Stream,
    altered: u64,
}

impl Session {
    async fn run(connection: TcpStream) -> io::Result<()> {
        connection.set_nodelay(true)?;
        let mut connection = BufReader::with_capacity(BUFFER, connection);
        let mut bytes = [0; Header::LENGTH];
        connection.read_exact(&mut bytes).await?;
        let header = Header::decode(&bytes).ok_or_else(|| bad("header"))?;
        let mut tally = Tally::default();
        tally.add(&bytes);
        let expected = Stream::new(header.seed);
        let mut session = Self {
            connection,
            tally,
            expected,
            altered: 0,
        };
        while let Some(order) = session.order().await? {
            session.body(order.body as usize).await?;
            if let Some(due_ns) = order.due_ns(monotonic_ns()) {
                sleep_until(due_ns).await?;
            }
            session.reply(order.reply as usize).await?;
        }
        Ok(())
    }

    /// The next order, or nothing when the client has closed.
    async fn order(&mut self) -> io::Result<Option<Order>> {
        let mut bytes = [0; Order::LENGTH];
        let first = self.connection.read(&mut bytes).await?;
        if first == 0 {
            return Ok(None);
        }
        self.connection.read_exact(&mut bytes[first..]).await?;
        self.tally.add(&bytes);
        Order::decode(&bytes).map(Some).ok_or_else(|| bad("order"))
    }

    async fn body(&mut self, mut left: usize) -> io::Result<()> {
        while left > 0 {
            let bytes = self.connection.fill_buf().await?;
            if bytes.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let bytes = &bytes[..left.min(bytes.len())];
            self.tally.add(bytes);
            self.altered += self.expected.differing(bytes);
            let part = bytes.len();
            self.connection.consume(part);
            left -= part;
        }
        Ok(())
    }

    async fn reply(&mut self, mut left: usize) -> io::Result<()> {
        let receipt = self.tally.receipt(self.altered);
        let mut stream = receipt.stream();
        let mut chunk = vec![0; CHUNK.min(Receipt::LENGTH + left)];
        chunk[..Receipt::LENGTH].copy_from_slice(&receipt.encode());
        let mut start = Receipt::LENGTH;
        loop {
            let part = left.min(chunk.len() - start);
            stream.fill(&mut chunk[start..start + part]);
            self.connection
                .get_mut()
                .write_all(&chunk[..start + part])
                .await?;
            left -= part;
            start = 0;
            if left == 0 {
                return Ok(());
            }
        }
    }
}

/// Sleeps until a time of the monotonic clock, by a timer of the kernel: the runtime's own has steps of a
/// millisecond and fires up to two late, which the client would take for a
/// fault of the network.
async fn sleep_until(due_ns: u64) -> io::Result<()> {
    let timer = TimerFd::new(
        ClockId::CLOCK_MONOTONIC,
        TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC,
    )?;
    timer.set(
        Expiration::OneShot(TimeSpec::from_duration(Duration::from_nanos(due_ns))),
        TimerSetTimeFlags::TFD_TIMER_ABSTIME,
    )?;
    let timer = OwnedFd::from(timer);
    // SAFETY: the descriptor is owned by what it is registered with, and so
    // stays open and the same until it is deregistered.
    let timer = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE)? };
    timer.readable().await.map(drop)
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("bad {what}"))
}
