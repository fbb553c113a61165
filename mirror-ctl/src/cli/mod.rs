//! The command line: arguments in, an exit code out.

mod apply;
mod args;
mod ask;
mod config;
mod diff;
mod doctor;
mod events;
mod flows;
mod health;
mod keeper;
mod logging;
mod look;
mod man;
mod offline;
mod run;
mod schema;
mod select;
mod service;
mod table;
mod top;
mod trace;
mod upgrade;

use std::process::ExitCode;

use clap::Parser;

use crate::{api::client::ClientError, config::ConfigError, dataplane::chain};

pub use args::Args;

/// It did not work.
const FAILED: u8 = 1;
/// It was asked for wrongly: usage or configuration.
const WRONG: u8 = 2;
/// There is no agent to ask.
const NOT_RUNNING: u8 = 3;

/// The end of a verb with exit codes of its own.
#[derive(Debug, thiserror::Error)]
#[error("{}", said.as_deref().unwrap_or_default())]
struct Ended {
    code: u8,
    /// None: everything was said.
    said: Option<String>,
}

/// Parses the arguments, does what they say, and tells how it went.
pub fn main() -> ExitCode {
    let args = Args::parse();
    if !args.verb.is_service() {
        // A reader that has seen enough (`mirror-ctl flows | head`) is not an error. Rust ignores
        // SIGPIPE, and print! then panics.
        crate::dataplane::default_sigpipe();
    }
    match run::run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(ended) = error.downcast_ref::<Ended>() {
                if let Some(said) = &ended.said {
                    eprintln!("mirror-ctl: {said}");
                }
                return ExitCode::from(ended.code);
            }
            // A configuration's errors have one line each, with their own prefix.
            match error.downcast_ref::<ConfigError>() {
                Some(error) => eprintln!("{error}"),
                None => eprintln!("mirror-ctl: {}", chain(error.as_ref())),
            }
            ExitCode::from(code(&error))
        }
    }
}

fn code(error: &anyhow::Error) -> u8 {
    if error.is::<ConfigError>() {
        return WRONG;
    }
    match error.downcast_ref::<ClientError>() {
        Some(ClientError::NotRunning { .. }) => NOT_RUNNING,
        _ => FAILED,
    }
}
