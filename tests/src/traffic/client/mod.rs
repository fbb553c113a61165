//! The client: opens the connections, uses each by its profile, and tells what
//! became of them.

pub(super) mod link;
pub mod meter;
mod profiles;

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{JoinHandle, LocalSet};
use tokio::time::{interval, sleep, timeout};

use super::report::{Connection, Report, Running, Summary};
use super::udp::{self, Pace, Questions};
use super::wire::Header;
use super::{Mix, Profile};
use crate::clock::{monotonic_ns, ms};
use link::{Fault, Link, Totals};
use meter::{Meter, Moments};
use profiles::Session;

/// How many connections are being made at the same time.
const CONNECTING_MAX: usize = 16;
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);

type Stop = watch::Receiver<bool>;

/// What to do.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the server is.
    pub server: SocketAddr,
    /// How many connections (or sockets, with UDP) to have.
    pub connections: usize,
    /// How they are used.
    pub mix: Mix,
    /// Datagrams in place of connections.
    pub udp: bool,
    /// How long to go on; without it, until a `stop` or the end of the commands.
    pub duration: Option<Duration>,
    /// How long the connections may take to finish after that.
    pub finish: Duration,
    /// The mean pause between a response and the next request, or of datagrams.
    pub think: Duration,
    /// Datagrams of a socket that may be unanswered: the next ones follow at once, without a pause.
    pub ahead: Option<u32>,
    /// The rate at which a download is read; 0 is as fast as it comes.
    pub download_bytes_s: u32,
    /// The rate at which an upload is sent.
    pub upload_bytes_s: u32,
    /// The receive buffer of a download; 0 leaves the kernel's.
    pub receive_buffer: u32,
    /// Where all that is random begins.
    pub seed: u64,
}

impl Options {
    /// Against a server, for one connection of each profile, until told to stop.
    #[must_use]
    pub fn new(server: SocketAddr) -> Self {
        Self {
            server,
            connections: 4,
            mix: Mix::default(),
            udp: false,
            duration: None,
            finish: Duration::from_secs(10),
            think: Duration::from_millis(100),
            ahead: None,
            download_bytes_s: 200_000,
            upload_bytes_s: 100_000,
            receive_buffer: 32 << 10,
            seed: 1,
        }
    }
}

/// What may be told to a running client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// A fault happens at this time of the monotonic clock.
    Mark(u64),
    /// Finish.
    Stop,
}

/// What the connections of a client share.
struct Shared {
    options: Options,
    moments: Rc<Moments>,
    totals: Rc<Totals>,
    connecting: Semaphore,
    connect_ns_max: Cell<u64>,
}

/// Runs the traffic; the reports go to `report` as they come.
pub async fn run(
    options: Options,
    commands: mpsc::UnboundedReceiver<Command>,
    report: impl Fn(Report),
) -> Result<Summary> {
    LocalSet::new()
        .run_until(run_local(options, commands, report))
        .await
}

async fn run_local(
    options: Options,
    mut commands: mpsc::UnboundedReceiver<Command>,
    report: impl Fn(Report),
) -> Result<Summary> {
    let (stopper, stop) = watch::channel(false);
    let (made, mut making) = mpsc::unbounded_channel();
    let duration = options.duration;
    let shared = Rc::new(Shared {
        options,
        moments: Rc::default(),
        totals: Rc::default(),
        connecting: Semaphore::new(CONNECTING_MAX),
        connect_ns_max: Cell::new(0),
    });
    let start = |number| {
        let (shared, made, stop) = (shared.clone(), made.clone(), stop.clone());
        tokio::task::spawn_local(shared.connection(number, made, stop))
    };
    let tasks: Vec<JoinHandle<Option<Connection>>> =
        (0..shared.options.connections).map(start).collect();
    drop(made);
    let mut connections = 0;
    while making.recv().await.is_some() {
        connections += 1;
    }
    shared.moments.running();
    report(Report::Running(Running {
        connections,
        failed: tasks.len() - connections,
        connect_ms_max: ms(shared.connect_ns_max.get()),
    }));
    control(&shared, duration, &mut commands, &report).await;
    shared.moments.stop();
    stopper.send_replace(true);
    collect(tasks, &report).await
}

/// Goes on until it is time to stop.
async fn control(
    shared: &Shared,
    duration: Option<Duration>,
    commands: &mut mpsc::UnboundedReceiver<Command>,
    report: &impl Fn(Report),
) {
    let mut progress = interval(PROGRESS_INTERVAL);
    let end = async {
        match duration {
            Some(duration) => sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => return,
            _ = progress.tick() => report(Report::Progress(shared.totals.get())),
            command = commands.recv() => match command {
                Some(Command::Mark(time_ns)) => {
                    shared.moments.mark(time_ns);
                    report(Report::Marked { time_ns });
                }
                Some(Command::Stop) => return,
                // Nobody is there to say stop: the duration does, if there is one.
                None if duration.is_none() => return,
                None => {
                    (&mut end).await;
                    return;
                }
            }
        }
    }
}

async fn collect(
    tasks: Vec<JoinHandle<Option<Connection>>>,
    report: &impl Fn(Report),
) -> Result<Summary> {
    let mut ended = Vec::new();
    let mut failed = 0;
    for task in tasks {
        match task.await.context("a connection's task")? {
            Some(connection) => {
                report(Report::Connection(connection.clone()));
                ended.push(connection);
            }
            None => failed += 1,
        }
    }
    let summary = Summary::of(ended.iter(), failed);
    report(Report::Summary(summary));
    Ok(summary)
}

impl Shared {
    /// One connection from beginning to end; nothing if it could not be made.
    async fn connection(
        self: Rc<Self>,
        number: usize,
        made: mpsc::UnboundedSender<()>,
        stop: Stop,
    ) -> Option<Connection> {
        let seed = self.options.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number as u64;
        let connection = if self.options.udp {
            self.datagrams(seed, made, stop).await
        } else {
            let profile = self.options.mix.profile(number);
            self.stream(profile, seed, made, stop).await
        };
        connection
            .inspect_err(|error| eprintln!("connection {number}: {error:#}"))
            .ok()
    }

    async fn stream(
        &self,
        profile: Profile,
        seed: u64,
        made: mpsc::UnboundedSender<()>,
        stop: Stop,
    ) -> Result<Connection> {
        let connection = {
            let _turn = self.connecting.acquire().await?;
            let start = monotonic_ns();
            let connection = timeout(CONNECT_LIMIT, self.connect(profile)).await??;
            self.connect_ns_max
                .set(self.connect_ns_max.get().max(monotonic_ns() - start));
            connection
        };
        let local_port = connection.local_addr()?.port();
        let header = Header {
            profile: profile as u32,
            seed,
        };
        let mut meter = Meter::new(self.moments.clone());
        let opened = Link::open(connection, header, self.totals.clone()).await;
        let mut link = opened.map_err(|fault| anyhow::anyhow!("{fault:?}"))?;
        made.send(())?;
        drop(made);
        self.totals.update(|sums| sums.open += 1);
        let session = Session {
            link: &mut link,
            meter: &mut meter,
            options: &self.options,
            random: fastrand::Rng::with_seed(!seed),
            stop: stop.clone(),
        };
        let ended = tokio::select! {
            ended = session.run(profile) => ended,
            () = overdue(stop, self.options.finish) => Err(Fault::Unfinished),
        };
        meter.end();
        self.totals.update(|sums| {
            sums.open -= 1;
            sums.failed += u64::from(ended.is_err());
        });
        Ok(account(local_port, profile, &link, &meter, ended))
    }

    async fn connect(&self, profile: Profile) -> io::Result<TcpStream> {
        let server = self.options.server;
        let socket = if server.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        if profile == Profile::Download && self.options.receive_buffer > 0 {
            // Data that waits in the reader's buffer hides a fault from it: a
            // small one lets the download feel what the network does.
            socket.set_recv_buffer_size(self.options.receive_buffer)?;
        }
        socket.connect(server).await
    }

    async fn datagrams(
        &self,
        seed: u64,
        made: mpsc::UnboundedSender<()>,
        stop: Stop,
    ) -> Result<Connection> {
        let server = self.options.server;
        let any = if server.is_ipv4() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED)
        } else {
            IpAddr::V6(Ipv6Addr::UNSPECIFIED)
        };
        let socket = udp::bind(SocketAddr::new(any, 0)).await?;
        made.send(())?;
        drop(made);
        let mut meter = Meter::new(self.moments.clone());
        let stopped = || profiles::stopped(&stop);
        let every = Pace::Every(self.options.think);
        let pace = self.options.ahead.map_or(every, Pace::Ahead);
        let questions = Questions::new(socket, seed, pace, &mut meter, &self.totals);
        let (tally, socket) = questions.ask(server, stopped).await?;
        let (baseline_ms, stall_ms) = meter.longest_ms();
        Ok(Connection {
            local_port: socket.local_addr()?.port(),
            profile: Profile::Udp,
            resets: 0,
            bytes_lost: tally.sent - tally.answered,
            bytes_altered: tally.altered,
            duplicates: tally.duplicates,
            bytes_received: tally.answered,
            bytes_sent: tally.sent,
            stall_ms,
            baseline_ms,
            error: None,
        })
    }
}

/// Comes when a connection has had its time to finish.
async fn overdue(mut stop: Stop, finish: Duration) {
    profiles::stop(&mut stop).await;
    sleep(finish).await;
}

fn account(
    local_port: u16,
    profile: Profile,
    link: &Link,
    meter: &Meter,
    ended: Result<(), Fault>,
) -> Connection {
    let (bytes_received, bytes_sent) = link.bytes();
    let (baseline_ms, stall_ms) = meter.longest_ms();
    let missing = link.owed() + link.unconfirmed();
    let (resets, bytes_lost, bytes_altered) = match &ended {
        Ok(()) => (0, missing, 0),
        Err(Fault::Reset(_)) => (1, missing, 0),
        Err(Fault::Altered(bytes)) => (0, 0, *bytes),
        Err(Fault::Unfinished | Fault::Local(_)) => (0, missing, 0),
    };
    let error = ended.err().map(|fault| match fault {
        Fault::Reset(why) | Fault::Local(why) => why,
        Fault::Altered(bytes) => format!("{bytes} wrong bytes"),
        Fault::Unfinished => "did not finish in time".into(),
    });
    Connection {
        local_port,
        profile,
        resets,
        bytes_lost,
        bytes_altered,
        duplicates: 0,
        bytes_received,
        bytes_sent,
        stall_ms,
        baseline_ms,
        error,
    }
}
