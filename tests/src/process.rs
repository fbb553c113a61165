//! A child process whose output is read line by line, and which never outlives its handle.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cleanup::{self, Leftover};
use crate::clock::{monotonic_ns, wait_until};

/// How much of a child's standard error is kept for error messages.
/// The least priority that there is.
const LEAST: libc::c_int = 19;
const STDERR_MAX: usize = 64 * 1024;
/// How long that is read on after a child's end: another process may hold it open.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A running child: lines of its output come in, lines of input go out.
#[derive(Debug)]
pub struct Process {
    what: String,
    child: Child,
    ended: Option<ExitStatus>,
    lines: Receiver<String>,
    errors: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Process {
    /// Starts a command under a name that error messages use.
    pub fn start(what: &str, mut command: Command) -> Result<Self> {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| {
            format!("cannot start {what} ({})", command.get_program().display())
        })?;
        cleanup::register(Leftover::Process(child.id()));
        let (sender, lines) = channel();
        let stdout = child.stdout.take().context("no standard output")?;
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let errors = Arc::new(Mutex::new(Vec::new()));
        let (kept, stderr) = (
            errors.clone(),
            child.stderr.take().context("no standard error")?,
        );
        let reader = thread::spawn(move || keep_last(stderr, &kept));
        Ok(Self {
            what: what.into(),
            child,
            ended: None,
            lines,
            errors,
            reader,
        })
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line of output that `wanted` turns into something; others are passed over.
    pub fn line<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut wanted: impl FnMut(&str) -> Result<Option<T>>,
    ) -> Result<T> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => {
                    if let Some(found) = wanted(&line)? {
                        return Ok(found);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    bail!(
                        "{}: no {what} within {} ms{}",
                        self.what,
                        limit.as_millis(),
                        self.said()
                    )
                }
                Err(RecvTimeoutError::Disconnected) => {
                    bail!("{} ended before {what}{}", self.what, self.said())
                }
            }
        }
    }

    /// Lines that have come and were not read yet.
    pub fn pending(&mut self) -> Vec<String> {
        self.lines.try_iter().collect()
    }

    /// Sends a line.
    pub fn send(&mut self, line: &str) -> Result<()> {
        let stdin = self.child.stdin.as_mut().context("no standard input")?;
        writeln!(stdin, "{line}").with_context(|| format!("cannot tell {} {line:?}", self.what))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.pid().cast_signed()), signal)
            .with_context(|| format!("cannot send {signal} to {}", self.what))
    }

    /// Waits for the process to end by itself, and for what it said last.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("the end of {}", self.what);
        let status = wait_until(&what, limit, || self.try_wait())?;
        let read = || Ok(self.reader.is_finished().then_some(()));
        let _ = wait_until("its last words", LAST_WORDS, read);
        Ok(status)
    }

    /// How the process ended, if it has.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().context("cannot wait")?;
            if self.ended.is_some() {
                cleanup::forget(&Leftover::Process(self.pid()));
            }
        }
        Ok(self.ended)
    }

    /// Notices when the process ends, to the moment and whoever ends it; the time comes out at the other end.
    pub fn end_time(&self) -> Result<Receiver<u64>> {
        let fd = pidfd(self.pid()).with_context(|| format!("cannot watch {}", self.what))?;
        let (sender, ended) = channel();
        thread::spawn(move || {
            let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
            if poll(&mut fds, PollTimeout::NONE).is_ok() {
                // Whoever asked may have gone.
                let _ = sender.send(monotonic_ns());
            }
        });
        Ok(ended)
    }

    /// `kill -9`, then waits. What its kernel does then, it does last: on a machine of its own it would take no processor from
    /// who lives on.
    pub fn kill(&mut self) {
        if let Ok(None) = self.try_wait() {
            // SAFETY: a system call without pointers, about a child that was not waited for. At worst nothing changes.
            unsafe { libc::setpriority(libc::PRIO_PROCESS, self.pid(), LEAST) };
            let _ = self.child.kill();
            let _ = self.child.wait().map(|status| self.ended = Some(status));
            cleanup::forget(&Leftover::Process(self.pid()));
        }
    }

    /// What it wrote to standard error, for messages.
    #[must_use]
    pub fn said(&self) -> String {
        let said = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        match String::from_utf8_lossy(&said).trim() {
            "" => String::new(),
            text => format!("; it said:\n{text}"),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Copies a program to where it is to be run from. Another process does it: a file that this one had open for writing could be
/// kept so, and not be run, by a child that another thread starts at that moment.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let status = Command::new("cp").arg(from).arg(to).status();
    let status = status.context("cannot start cp")?;
    ensure!(
        status.success(),
        "cp {} {}: {status}",
        from.display(),
        to.display()
    );
    Ok(())
}

/// The usual soft limit of 1024 is too low for thousands of connections.
pub fn raise_descriptor_limit() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("cannot raise the descriptor limit")
}

fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: a system call without pointers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    match i32::try_from(fd) {
        // SAFETY: the descriptor is new, and nobody else's.
        Ok(fd @ 0..) => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

fn keep_last(mut from: impl Read, kept: &Mutex<Vec<u8>>) {
    let mut chunk = [0; 4096];
    while let Ok(n @ 1..) = from.read(&mut chunk) {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(&chunk[..n]);
        let excess = kept.len().saturating_sub(STDERR_MAX);
        kept.drain(..excess);
    }
}
