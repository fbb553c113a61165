//! How programs end that find something to be as it should be, or not.

use std::process::ExitCode;

use anyhow::Result;

/// 0 when all is as it should be, 1 when something is not or could not be found out; why not is printed behind `prefix`.
pub fn code(prefix: &str, outcome: Result<bool>) -> ExitCode {
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{prefix}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
