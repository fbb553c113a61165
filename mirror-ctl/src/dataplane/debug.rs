//! What the programs say for debugging, as log lines. Off, it costs nothing: the level is a
//! constant to the verifier, which then removes the calls.

use std::io;

use aya::programs::ProgramInfo;
use aya_log::EbpfLogger;
use log::{Level, Log, Metadata, Record};
use tokio::io::unix::AsyncFd;
use tracing::{debug, error, info, trace, warn};

use super::{DataplaneError, host::Pins, object::refused};

/// The reader of the programs' log.
pub struct ProgramLog(AsyncFd<EbpfLogger<Bridge>>);

/// Hands records to the agent's own log.
struct Bridge;

impl Log for Bridge {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let said = record.args();
        match record.level() {
            Level::Error => error!("programs: {said}"),
            Level::Warn => warn!("programs: {said}"),
            Level::Info => info!("programs: {said}"),
            Level::Debug => debug!("programs: {said}"),
            Level::Trace => trace!("programs: {said}"),
        }
    }

    fn flush(&self) {}
}

impl ProgramLog {
    #[expect(unsafe_code, reason = "tokio trusts its caller with descriptors")]
    pub(super) fn open(pins: &Pins) -> Result<Self, DataplaneError> {
        let failed = |reason: String| refused("vni_ingress", format!("its log: {reason}"));
        let info = ProgramInfo::from_pin(pins.programs().join("vni_ingress"));
        let id = info.map_err(|error| failed(error.to_string()))?.id();
        let logger = EbpfLogger::init_from_id_with_logger(id, Bridge);
        let logger = logger.map_err(|error| failed(error.to_string()))?;
        // SAFETY: the logger owns its ring buffer's descriptor and keeps it until it is dropped,
        // and nothing here takes the logger out of the `AsyncFd`.
        let logger = unsafe { AsyncFd::register(logger) };
        logger.map(Self).map_err(|error| failed(error.to_string()))
    }

    /// Passes on what the programs say, until that fails.
    pub async fn run(mut self) -> io::Result<()> {
        loop {
            let mut guard = self.0.readable_mut().await?;
            guard.get_inner_mut().flush();
            guard.clear_ready();
        }
    }
}
