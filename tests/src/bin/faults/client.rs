//! The clients of a service: connections to the VNI's address, each of a port that the dataplane's steering gives to a
//! known instance, so that what is not answered is known to be whose.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use fastrand::Rng;
use testbed::topology::Family;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use crate::tally::{End, Tally};
use crate::wire::{PORT, RESPONSE_BYTES, Request};

/// Connections of each instance at once.
const SLOTS: usize = 8;
/// Mean pause between an answer and the next request of a connection.
const THINK_MS: f64 = 420.0;
/// Requests of a connection, on average.
const REQUESTS: u32 = 12;
/// Of so many requests one writes.
const WRITES_ONE_OF: u32 = 3;
/// How long an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_millis(800);
/// How long a connection may take: one lost SYN is sent again after a second.
const CONNECT_LIMIT: Duration = Duration::from_millis(1_300);
/// After a failure a slot pauses for so long: no client asks a dead server without end.
const AFTER_FAILURE: Duration = Duration::from_millis(250);
const FIRST_PORT: u16 = 20_000;
const PORTS_MAX: u16 = 2_000;

/// What the clients share with whoever looks on.
pub(crate) struct Shared {
    tally: Mutex<Tally>,
    /// The rate, in thousandths of the usual one.
    pub(crate) rate: AtomicU64,
    /// Whether they are to end.
    pub(crate) stop: AtomicBool,
    /// Answers of another instance than the port's.
    pub(crate) strays: AtomicU64,
}

impl Shared {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            tally: Mutex::default(),
            rate: AtomicU64::new(1_000),
            stop: AtomicBool::new(false),
            strays: AtomicU64::new(0),
        })
    }

    /// Looks at what was counted.
    pub(crate) fn tally<T>(&self, look: impl FnOnce(&mut Tally) -> T) -> T {
        look(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Seconds since 1970: what the tally is kept by.
pub(crate) fn now_s() -> u64 {
    now_ms() / 1_000
}

/// The same in ms.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

/// Finds ports for each of so many instances, then asks until it is told to stop. In the client's namespace.
pub(crate) fn run(instances: usize, shared: &Arc<Shared>, seed: u64) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let ports = find_ports(instances).await?;
        let mut tasks = Vec::new();
        for (instance, ports) in ports {
            for port in ports {
                let slot = Slot {
                    instance,
                    port,
                    shared: Arc::clone(shared),
                    chance: Rng::with_seed(seed ^ u64::from(port) << 20),
                };
                tasks.push(tokio::spawn(slot.live()));
            }
        }
        for task in tasks {
            task.await?;
        }
        Ok(())
    })
}

/// So many ports for each instance, by asking from each port who answers.
async fn find_ports(instances: usize) -> Result<HashMap<usize, Vec<u16>>> {
    let mut found: HashMap<usize, Vec<u16>> = HashMap::new();
    for port in FIRST_PORT..FIRST_PORT + PORTS_MAX {
        if found.len() == instances && found.values().all(|ports| ports.len() >= SLOTS) {
            return Ok(found);
        }
        let Ok(mut connection) = connect(port).await else {
            continue;
        };
        let request = Request {
            writes: false,
            last: true,
        };
        if let Ok(instance) = ask(&mut connection, request).await {
            let ports = found.entry(instance).or_default();
            if ports.len() < SLOTS {
                ports.push(port);
            }
        }
    }
    ensure!(false, "not enough ports for every instance: {found:?}");
    Ok(found)
}

async fn connect(port: u16) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port))?;
    let vni = SocketAddr::new(Family::V4.vni(), PORT);
    let connection = timeout(CONNECT_LIMIT, socket.connect(vni)).await??;
    connection.set_nodelay(true)?;
    Ok(connection)
}

/// Asks once; which instance answered.
async fn ask(connection: &mut TcpStream, request: Request) -> std::io::Result<usize> {
    let mut response = [0; RESPONSE_BYTES];
    timeout(ANSWER_LIMIT, async {
        connection.write_all(&request.encode()).await?;
        connection.read_exact(&mut response).await
    })
    .await??;
    Ok(usize::from(response[0].wrapping_sub(b'a')))
}

/// One connection after the other from one port.
struct Slot {
    instance: usize,
    port: u16,
    shared: Arc<Shared>,
    chance: Rng,
}

impl Slot {
    async fn live(mut self) {
        while !self.shared.stop.load(Ordering::Relaxed) {
            self.think().await;
            let start = Instant::now();
            match connect(self.port).await {
                Ok(connection) => self.converse(connection).await,
                // Its own port is not free yet: nothing of the instance's doing.
                Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                    sleep(AFTER_FAILURE).await;
                }
                Err(error) => {
                    self.count(self.instance, failure(&error, start));
                    sleep(AFTER_FAILURE).await;
                }
            }
        }
    }

    async fn converse(&mut self, mut connection: TcpStream) {
        let requests = 1 + self.chance.u32(..2 * REQUESTS - 1);
        for number in 1..=requests {
            let last = number == requests || self.shared.stop.load(Ordering::Relaxed);
            let request = Request {
                writes: self.chance.u32(..WRITES_ONE_OF) == 0,
                last,
            };
            let start = Instant::now();
            match ask(&mut connection, request).await {
                Ok(instance) => {
                    if instance != self.instance {
                        self.shared.strays.fetch_add(1, Ordering::Relaxed);
                    }
                    let ms = start.elapsed().as_secs_f32() * 1_000.0;
                    self.count(instance, End::Answered(ms));
                }
                Err(error) => {
                    self.count(self.instance, failure(&error, start));
                    // A client that gives up lets go of its port at once.
                    let _ = socket2::SockRef::from(&connection).set_linger(Some(Duration::ZERO));
                    drop(connection);
                    sleep(AFTER_FAILURE).await;
                    return;
                }
            }
            if last {
                break;
            }
            self.think().await;
        }
        // The server closes first.
        let mut rest = [0; 1];
        let _ = timeout(ANSWER_LIMIT, connection.read(&mut rest)).await;
    }

    fn count(&self, instance: usize, end: End) {
        self.shared.tally(|tally| tally.add(instance, now_s(), end));
    }

    /// Exponential pauses: clients know nothing of each other.
    async fn think(&mut self) {
        let rate = self.shared.rate.load(Ordering::Relaxed).max(1) as f64 / 1_000.0;
        let ms = -(1.0 - self.chance.f64()).ln() * THINK_MS / rate;
        sleep(Duration::from_secs_f64(ms.min(5_000.0) / 1_000.0)).await;
    }
}

fn failure(error: &std::io::Error, start: Instant) -> End {
    match error.kind() {
        std::io::ErrorKind::TimedOut => End::TimedOut,
        _ if start.elapsed() >= ANSWER_LIMIT => End::TimedOut,
        _ => End::Reset,
    }
}
