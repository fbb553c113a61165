//! `mirror-ctl`: see `mirror-ctl help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    mirror_ctl::cli::main()
}
