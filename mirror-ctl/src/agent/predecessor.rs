//! The version before, as long as it lets its flows end: its keeper is looked at, started again when it is gone, and what it
//! leaves is cleared away.

use std::{
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use hyper::Method;
use nix::{
    sys::wait::{WaitPidFlag, WaitStatus, waitpid},
    unistd::Pid,
};
use serde::Deserialize;
use tokio::{sync::mpsc, time};
use tracing::{error, info, warn};

use super::{
    Agent, Event,
    handover::{self, Ended, Handover},
    log::LogEntry,
    view::DrainingRow,
};
use crate::{api::client::request, clock, dataplane};

/// The kind of its events.
pub(super) const KIND: &str = "predecessor";
/// Between two looks at the keeper.
const LOOK: Duration = Duration::from_secs(1);
/// A keeper that takes longer to answer does not.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// A keeper that is started gets so long before another one is.
const RESTART_LOOKS: u32 = 10;
/// So long after its time a keeper that has not ended is not waited for any more.
const GRACE_NS: u64 = Duration::from_secs(30).as_nanos() as u64;

/// News of the version before.
#[derive(Debug)]
pub enum News {
    /// How it is.
    Seen(DrainingRow),
    /// It is over.
    Ended(Option<Ended>),
}

/// The part of a keeper's status that is looked at, whatever else there is in its version.
#[derive(Deserialize)]
struct Status {
    draining: Option<DrainingRow>,
}

/// Starts to look, if there is anything: until draining has ended. Says what is known so far.
pub(super) fn watch(
    pin_dir: &Path,
    socket: &Path,
    orders: mpsc::Sender<Event>,
) -> Option<DrainingRow> {
    let folder = handover::folder(socket);
    if !dataplane::is_draining(pin_dir) && !folder.exists() {
        return None;
    }
    let handover = handover::read(&folder).unwrap_or_else(|error| {
        warn!(
            "{}: {error}: nobody can look after the flows of the version before, which end now",
            folder.display()
        );
        Handover::default()
    });
    let watch = Watch {
        pin_dir: pin_dir.to_owned(),
        folder,
        handover,
        pid: None,
        missed: 0,
    };
    let row = watch.unattended(clock::now_ns());
    tokio::spawn(watch.run(orders));
    Some(row)
}

struct Watch {
    pin_dir: PathBuf,
    folder: PathBuf,
    handover: Handover,
    pid: Option<u32>,
    /// Looks since it answered last.
    missed: u32,
}

impl Watch {
    async fn run(mut self, orders: mpsc::Sender<Event>) {
        let mut looks = time::interval(LOOK);
        looks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let news = self.look().await;
            let is_over = matches!(news, News::Ended(_));
            if orders.send(Event::Predecessor(news)).await.is_err() {
                return;
            }
            if is_over {
                break;
            }
        }
        // It removes its pins before it ends.
        for _ in 0..RESTART_LOOKS {
            if self.reap() {
                return;
            }
            looks.tick().await;
        }
    }

    async fn look(&mut self) -> News {
        self.reap();
        if !dataplane::is_draining(&self.pin_dir) {
            return News::Ended(handover::ended(&self.folder));
        }
        let status = request::<Status>(&self.handover.socket, Method::GET, "/v1/status");
        let answer = time::timeout(ANSWER_MAX, status).await;
        let row = answer.ok().and_then(Result::ok).and_then(|s| s.draining);
        if let Some(row) = row {
            self.missed = 0;
            self.pid = row.pid;
            return News::Seen(row);
        }
        let now_ns = clock::now_ns();
        if now_ns > self.handover.until_ns.saturating_add(GRACE_NS) {
            return News::Ended(None);
        }
        // A short while may be its start.
        self.missed += 1;
        if self.missed % RESTART_LOOKS == 2 {
            self.start();
        }
        News::Seen(self.unattended(now_ns))
    }

    /// What is known without a keeper.
    fn unattended(&self, now_ns: u64) -> DrainingRow {
        let left = self.handover.until_ns.saturating_sub(now_ns);
        DrainingRow {
            version: self.handover.version.clone(),
            pid: None,
            socket: self.handover.socket.display().to_string(),
            flows: None,
            left_s: Duration::from_nanos(left).as_secs(),
        }
    }

    /// Starts the keeper again. Its flows went on meanwhile, but nobody saw failures.
    fn start(&mut self) {
        let mut command = keeper(&handover::program(&self.folder), &self.folder);
        match command.stdout(Stdio::null()).spawn() {
            Ok(child) => {
                info!(pid = child.id(), "the keeper is started again");
                self.pid = Some(child.id());
            }
            Err(error) => error!(
                "{}: {error}: nobody looks after the flows of the version before",
                handover::program(&self.folder).display()
            ),
        }
    }

    /// Takes note of a keeper's end if it is a child of this process, also from before it became this program.
    /// False: it runs.
    fn reap(&self) -> bool {
        let Some(pid) = self.pid.and_then(|pid| i32::try_from(pid).ok()) else {
            return true;
        };
        // An error: it is somebody else's child.
        let status = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
        status != Ok(WaitStatus::StillAlive)
    }
}

/// The command that starts a keeper. It is no service of its own to the service manager.
pub fn keeper(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg0("mirror-ctl").arg("keeper").arg(folder);
    command.stdin(Stdio::null());
    for variable in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
        command.env_remove(variable);
    }
    command
}

impl Agent {
    /// Takes in news of the version before.
    pub(super) fn heard_of_predecessor(&mut self, news: News) {
        match news {
            News::Seen(row) => {
                let is_kept = row.pid.is_some();
                if self.kept_told.replace(is_kept) != Some(is_kept) {
                    let to = if is_kept { "kept" } else { "unattended" };
                    self.tell(&row.version, to, row.flows.map(flows_text));
                }
                self.draining = Some(row);
            }
            News::Ended(ended) => self.forget_predecessor(ended),
        }
        self.show();
    }

    fn forget_predecessor(&mut self, ended: Option<Ended>) {
        let folder = handover::folder(&self.state.config.agent.socket);
        if let Err(error) = self.dataplane.end_draining() {
            error!("the version before is not forgotten: {error}");
        }
        let before = self.draining.take();
        let version = before.map(|row| row.version);
        let version = version.or_else(|| Some(handover::read(&folder).ok()?.version));
        let cause = match ended {
            Some(Ended { cut: 0 }) => None,
            Some(Ended { cut }) => {
                self.metrics.cut(cut);
                Some(format!("{} cut", flows_text(cut)))
            }
            None => Some("flows that were left are cut".to_owned()),
        };
        self.tell(&version.unwrap_or_default(), "ended", cause);
        if let Err(error) = handover::remove(&folder) {
            warn!("{}: {error}", folder.display());
        }
    }

    fn tell(&self, version: &str, to: &str, cause: Option<String>) {
        info!(version, to, cause, "the version before");
        self.log.add([LogEntry {
            time_ns: clock::now_ns(),
            kind: KIND.to_owned(),
            from: Some(version.to_owned()),
            to: Some(to.to_owned()),
            cause,
            ..LogEntry::default()
        }]);
    }
}

fn flows_text(flows: u64) -> String {
    format!("{flows} flows")
}
