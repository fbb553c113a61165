//! Runs other programs: quietly with their last words kept, or in the foreground.

use std::collections::VecDeque;
use std::env;
use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};

/// How many of a program's last lines an error shows.
const TAIL_LINES_MAX: usize = 30;
/// How often a program that says nothing is looked at.
const POLL: Duration = Duration::from_millis(100);

/// cargo, as the one that started us, without what that has told us of ourselves: build scripts that ask for it would run again, and
/// all that depends on them, whenever cargo is called by `cargo xtask` and by hand in turns.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&name);
        }
    }
    cargo
}

/// Standard output of a short program.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("could not start {}", line(command)))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{} failed ({}):\n{}",
            line(command),
            output.status,
            stderr.trim_end()
        );
    }
    String::from_utf8(output.stdout).with_context(|| format!("output of {}", line(command)))
}

/// Runs with the user's terminal; fails when the program does.
pub(crate) fn foreground(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("could not start {}", line(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", line(command));
    }
    Ok(())
}

/// Becomes the program, so that signals, terminal and exit code are its own.
pub(crate) fn replace(command: &mut Command) -> Result<()> {
    let error = command.exec();
    Err(anyhow!(error).context(format!("could not start {}", line(command))))
}

/// Runs quietly; `on_text` sees what it writes to standard error piece by piece (lines, and the states of
/// a progress bar), and is called with an empty text now and then when it writes nothing.
pub(crate) fn quiet(
    command: &mut Command,
    time_max: Option<Duration>,
    mut on_text: impl FnMut(&str),
) -> Result<()> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("could not start {}", line(command)))?;
    let deadline = time_max.map(|time| Instant::now() + time);
    let mut tail = VecDeque::new();
    let status = follow(&mut child, deadline, |piece, is_line| {
        on_text(piece);
        if is_line && !piece.is_empty() {
            tail.push_back(piece.to_owned());
            if tail.len() > TAIL_LINES_MAX {
                tail.pop_front();
            }
        }
    })?;
    let tail = tail.into_iter().collect::<Vec<_>>().join("\n");
    match status {
        Some(status) if status.success() => Ok(()),
        Some(status) => bail!("{} failed ({status}):\n{tail}", line(command)),
        None => bail!(
            "{} was stopped: not done after {} s\n{tail}",
            line(command),
            time_max.unwrap_or_default().as_secs()
        ),
    }
}

/// Until the child ends; `None` when the deadline came first and the child was stopped.
fn follow(
    child: &mut Child,
    deadline: Option<Instant>,
    mut on_piece: impl FnMut(&str, bool),
) -> Result<Option<ExitStatus>> {
    let mut stderr = child.stderr.take().context("standard error is not piped")?;
    let (sender, receiver) = mpsc::channel::<Vec<u8>>();
    // Not joined: a grandchild that keeps the pipe open must not keep us.
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = stderr.read(&mut buffer) {
            if sender.send(buffer[..length].to_vec()).is_err() {
                break;
            }
        }
    });
    let mut pending = Vec::new();
    loop {
        match receiver.recv_timeout(POLL) {
            Ok(bytes) => {
                pending.extend(bytes);
                while let Some(end) = pending
                    .iter()
                    .position(|byte| matches!(byte, b'\r' | b'\n'))
                {
                    let is_line = pending[end] == b'\n';
                    let piece = pending.drain(..=end).collect::<Vec<_>>();
                    on_piece(String::from_utf8_lossy(&piece).trim_end(), is_line);
                }
            }
            Err(RecvTimeoutError::Timeout) => on_piece("", false),
            Err(RecvTimeoutError::Disconnected) => {
                on_piece(&String::from_utf8_lossy(&pending), true);
                return Ok(Some(child.wait()?));
            }
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
    }
}

/// The command as one would type it, for messages.
pub(crate) fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    format!(
        "`{}`",
        words
            .map(|word| quote(&word.to_string_lossy()))
            .collect::<Vec<_>>()
            .join(" ")
    )
}

/// One word for the shell, quoted only when it has to be.
pub(crate) fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn pieces_and_last_words() {
        let mut pieces = Vec::new();
        let error = quiet(
            &mut sh("printf '1/2\\r2/2\\rlast words\\nno newline' >&2; exit 3"),
            None,
            |piece| {
                if !piece.is_empty() {
                    pieces.push(piece.to_owned());
                }
            },
        )
        .unwrap_err()
        .to_string();
        assert_eq!(pieces, ["1/2", "2/2", "last words", "no newline"]);
        let last = error.lines().skip(1).collect::<Vec<_>>();
        assert_eq!(last, ["last words", "no newline"]);
    }

    #[test]
    fn a_program_that_hangs_is_stopped() {
        let start = Instant::now();
        let error = quiet(
            &mut sh("exec sleep 60"),
            Some(Duration::from_millis(200)),
            |_| (),
        );
        assert!(error.unwrap_err().to_string().contains("was stopped"));
        assert!(start.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn shell_quoting() {
        assert_eq!(quote("/usr/bin/ld"), "/usr/bin/ld");
        assert_eq!(quote("a b"), "'a b'");
        assert_eq!(quote("it's"), r"'it'\''s'");
        assert_eq!(quote(""), "''");
    }
}
