//! The server of an instance: a fixed number of workers, each of which serves one connection at a time, as many servers
//! do; a short listen queue before them; a little work for each request, and for some a write that reaches the disk.
//! What is told it on its standard input makes it lose memory, burn or wait.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use socket2::{Domain, Socket, Type};

use crate::wire::{REQUEST_BYTES, RESPONSE_BYTES, Request};

/// Connections that are served at once.
pub(crate) const WORKERS: usize = 32;
/// Connections that may wait for a worker.
const BACKLOG: i32 = 16;
/// Steps of work for a request: about half a millisecond.
const WORK_STEPS: u64 = 400_000;
/// What it needs by itself.
const BALLAST_BYTES: usize = 14 << 20;
/// Direct writes are of whole blocks.
const BLOCK_BYTES: usize = 4_096;
const CONTROL_TICK: Duration = Duration::from_millis(50);
/// A turn of a burner: it burns for a part of it.
const BURN_TURN: Duration = Duration::from_millis(20);
/// Threads that burn.
const BURNERS: usize = 3;

/// What it is told to suffer from.
#[derive(Default)]
struct Ills {
    /// Bytes lost so far.
    leaked: AtomicU64,
    /// Of each burner's time, in thousandths.
    burn: AtomicU64,
    /// Before each answer, in microseconds.
    wait_us: AtomicU64,
}

/// Serves until the process ends. It does nothing before the first line of standard input, so that what it allocates
/// is its group's.
pub(crate) fn run(name: char, listen: SocketAddr, journal: Option<&Path>) -> Result<()> {
    let mut lines = io::stdin().lock().lines();
    lines.next().context("nobody says go")??;
    drop(lines);
    let ballast = vec![0x5au8; BALLAST_BYTES];
    let journal = journal.map(open_journal).transpose()?;
    let ills = Arc::new(Ills::default());
    for _ in 0..BURNERS {
        let ills = Arc::clone(&ills);
        thread::spawn(move || burn(&ills));
    }
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&listen.into())?;
    socket.listen(BACKLOG)?;
    let listener: TcpListener = socket.into();
    let journal = journal.map(Arc::new);
    for worker in 0..WORKERS {
        let listener = listener.try_clone()?;
        let (ills, journal) = (Arc::clone(&ills), journal.clone());
        thread::Builder::new()
            .stack_size(128 << 10)
            .spawn(move || {
                work(name, worker as u64, &listener, &ills, journal.as_deref());
            })?;
    }
    println!("ready");
    obey(&ills);
    drop(ballast);
    Ok(())
}

fn open_journal(path: &Path) -> Result<File> {
    let file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(false)
        .custom_flags(libc::O_DIRECT)
        .open(path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    // Blocks that are there already: a write is then one request to the disk, and no journal of the file system's.
    for worker in 0..WORKERS as u64 {
        file.write_all_at(&Block::NEW.0, worker * BLOCK_BYTES as u64)?;
    }
    file.sync_all()?;
    Ok(file)
}

/// Aligned as direct writes want it.
#[repr(align(4096))]
struct Block([u8; BLOCK_BYTES]);

impl Block {
    const NEW: Self = Self([7; BLOCK_BYTES]);
}

/// Does what comes on standard input: `leak BYTES` in all, `burn THOUSANDTHS`, `wait MICROSECONDS`.
fn obey(ills: &Ills) {
    let mut lost: Vec<Vec<u8>> = Vec::new();
    for line in io::stdin().lock().lines().map_while(io::Result::ok) {
        let Some((what, number)) = line.split_once(' ') else {
            continue;
        };
        let number: u64 = number.trim().parse().unwrap_or(0);
        match what {
            "leak" => {
                let before = ills.leaked.swap(number, Ordering::Relaxed);
                let more = number.saturating_sub(before) as usize;
                // Written to, or the kernel would not give it.
                lost.push(vec![0xa5u8; more]);
            }
            "burn" => ills.burn.store(number, Ordering::Relaxed),
            "wait" => ills.wait_us.store(number, Ordering::Relaxed),
            _ => eprintln!("no command {line:?}"),
        }
    }
}

fn burn(ills: &Ills) {
    loop {
        let share = ills.burn.load(Ordering::Relaxed).min(1_000) as u32;
        if share == 0 {
            pause(CONTROL_TICK);
            continue;
        }
        let until = Instant::now() + BURN_TURN * share / 1_000;
        while Instant::now() < until {
            std::hint::black_box(toil(2_000));
        }
        pause(BURN_TURN * (1_000 - share) / 1_000);
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "what takes time here is the load itself, not a condition"
)]
pub(crate) fn pause(time: Duration) {
    thread::sleep(time);
}

fn work(name: char, number: u64, listener: &TcpListener, ills: &Ills, journal: Option<&File>) {
    loop {
        match listener.accept() {
            // A client that goes is no matter.
            Ok((connection, _)) => drop(serve(name, number, connection, ills, journal)),
            Err(_) => pause(CONTROL_TICK),
        }
    }
}

fn serve(
    name: char,
    number: u64,
    mut connection: TcpStream,
    ills: &Ills,
    journal: Option<&File>,
) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let mut request = [0; REQUEST_BYTES];
    let mut response = [0; RESPONSE_BYTES];
    loop {
        connection.read_exact(&mut request)?;
        let request = Request::decode(&request);
        response[0] = name as u8;
        response[8..16].copy_from_slice(&toil(WORK_STEPS).to_le_bytes());
        if request.writes
            && let Some(journal) = journal
        {
            journal.write_all_at(&Block::NEW.0, number * BLOCK_BYTES as u64)?;
        }
        let wait_us = ills.wait_us.load(Ordering::Relaxed);
        if wait_us > 0 {
            pause(Duration::from_micros(wait_us));
        }
        connection.write_all(&response)?;
        if request.last {
            // The server closes first: the client's port is free again at once.
            return Ok(());
        }
    }
}

/// Work that cannot be left out.
fn toil(steps: u64) -> u64 {
    let mut state = steps | 1;
    for _ in 0..steps {
        state = std::hint::black_box(
            state
                .wrapping_mul(6_364_136_223_846_793_005)
                .rotate_left(17),
        );
    }
    state
}

/// A neighbour: burns a part of the processor's time, as standard input says, in so many threads.
pub(crate) fn neighbour() -> Result<()> {
    let ills = Arc::new(Ills::default());
    for _ in 0..BURNERS {
        let ills = Arc::clone(&ills);
        thread::spawn(move || burn(&ills));
    }
    println!("ready");
    obey(&ills);
    Ok(())
}
