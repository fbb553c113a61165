//! The log on standard error: for people at a terminal, for files, or for systemd's journal, which adds the time itself
//! and is told each line's priority (sd-daemon(3)).

use std::{
    env, fmt,
    io::{self, IsTerminal as _},
};

use nix::sys::stat::fstat;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    EnvFilter,
    fmt::{
        FmtContext, FormatEvent, FormatFields,
        format::{Compact, Format, Writer},
    },
    registry::LookupSpan,
};

pub(super) fn start() {
    let filter = EnvFilter::try_from_env("MIRROR_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_writer(io::stderr);
    match is_journal() {
        true => log.with_ansi(false).event_format(Journal::default()).init(),
        false => log.with_ansi(io::stderr().is_terminal()).init(),
    }
}

/// Whether standard error is what systemd connected to the journal: `JOURNAL_STREAM` names its device and inode, and is
/// inherited by processes whose standard error is something else.
fn is_journal() -> bool {
    let Ok(stream) = env::var("JOURNAL_STREAM") else {
        return false;
    };
    fstat(io::stderr()).is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// A line's priority in front of it, and neither time nor level in words.
struct Journal(Format<Compact, ()>);

impl Default for Journal {
    fn default() -> Self {
        let format = Format::default().compact().without_time();
        Self(format.with_level(false).with_target(false))
    }
}

impl<S, N> FormatEvent<S, N> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        write!(writer, "<{}>", priority(*event.metadata().level()))?;
        self.0.format_event(context, writer, event)
    }
}

/// syslog(3)'s number for a level.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}
