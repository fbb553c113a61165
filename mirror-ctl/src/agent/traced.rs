//! Traced programs for a time: all interfaces and all redirect targets run them while a flow is traced, and the normal ones
//! again after it, each by an atomic update. Traffic goes on meanwhile: both variants decide the same.

use std::{thread, time::Duration};

use tokio::sync::oneshot;
use tracing::{error, info};

use super::Agent;
use crate::{
    clock,
    dataplane::{DataplaneError, RecordMaps, Traced, load_traced},
};

/// Whoever asked for a trace ends it; so long after its time is up the agent does.
const GRACE_NS: u64 = Duration::from_secs(1).as_nanos() as u64;

impl Agent {
    /// Has the kernel verify the programs, in a thread of its own: it takes seconds.
    pub(super) fn load_traced(&self, reply: oneshot::Sender<Result<(Traced, RecordMaps), String>>) {
        if self.keeps() {
            let why =
                "this agent keeps the flows of a version that was replaced: they cannot be traced";
            let _ = reply.send(Err(why.to_owned()));
            return;
        }
        let pin_dir = self.state.config.agent.pin_dir.clone();
        let load = move || {
            let loaded = load_traced(&pin_dir).map_err(|error| error.to_string());
            // Whoever asked may have gone.
            let _ = reply.send(loaded);
        };
        let thread = thread::Builder::new().name("verify".to_owned()).spawn(load);
        if let Err(error) = thread {
            error!("nothing is traced: {error}");
        }
    }

    /// Puts traced programs in place, for a bounded time.
    pub(super) fn trace(&mut self, programs: Traced, until_ns: u64) -> Result<(), DataplaneError> {
        self.dataplane.trace(programs);
        self.traced_until_ns = Some(until_ns);
        let swapped = self.swap();
        if swapped.is_err() {
            self.untrace("they could not be attached");
        }
        swapped
    }

    /// Puts the normal programs back, if traced ones are in place.
    pub(super) fn untrace(&mut self, why: &str) {
        self.traced_until_ns = None;
        if !self.dataplane.untrace() {
            return;
        }
        info!(why, "normal programs again");
        if let Err(error) = self.swap() {
            // `try_rewire` comes to it again with the interface.
            error!("the normal programs are not everywhere yet: {error}");
        }
    }

    /// Ends a trace whose time is up and that nobody has ended.
    pub(super) fn end_late_trace(&mut self) {
        let now_ns = clock::now_ns();
        if let Some(until_ns) = self.traced_until_ns
            && now_ns > until_ns + GRACE_NS
        {
            self.untrace("time is up");
        }
    }

    /// Has every redirect target and every interface run the programs that are to be attached now.
    fn swap(&mut self) -> Result<(), DataplaneError> {
        // As if nothing were known of what is written.
        self.wired.clear();
        let mut first = self.add_targets();
        for (name, _) in self.state.config.ports() {
            if self.state.link(&name).is_none() {
                continue;
            }
            let rewired = self.try_rewire(&name);
            if rewired.is_err() {
                self.broken.insert(name);
            }
            first = first.and(rewired);
        }
        first
    }
}
