//! `cargo xtask test`: every test, after the set-up and the build that they need.

use anyhow::{Context as _, Result};

use crate::{
    build, command, root,
    setup::{peers, prometheus},
};

/// Run every test, with the set-up it needs
///
/// Tests run real traffic between network namespaces that they make and remove; nothing outside those
/// is touched. All suites run, also after one has failed.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask test                          everything
  cargo xtask test -- takeover              tests with `takeover` in their name
  cargo xtask test --package mirror-common  one package
  cargo xtask test --test net -- --nocapture   one suite, with what it prints")]
pub(crate) struct Args {
    /// Only this package (may be repeated)
    #[arg(short, long, value_name = "NAME")]
    package: Vec<String>,
    /// Only this integration suite (may be repeated)
    #[arg(long, value_name = "NAME")]
    test: Vec<String>,
    /// How many tests of a suite run at once [default: one for each processor]
    #[arg(long, value_name = "N")]
    test_threads: Option<usize>,
    #[command(flatten)]
    root: root::Args,
    /// Passed on to the test programs: names to look for, options
    #[arg(last = true, value_name = "FILTER")]
    rest: Vec<String>,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    args.root
        .check("loads programs into the kernel and makes network namespaces")?;
    build::all()?;
    let mut cargo = build::user_space_cargo("test");
    // The release profile, because the programs under test are built in it anyway: no crate is compiled twice.
    cargo
        .args(["--release", "--no-fail-fast"])
        .envs(build::program_variables());
    let tools = prometheus::TOOLS.iter().map(|t| (t.variable, t.ensure()));
    let packages = [&peers::BROWSER, &peers::TOOLS].map(|p| (p.variable, peers::ensure(p)));
    for (variable, ensured) in tools.chain(packages) {
        match ensured {
            Ok(dir) => {
                cargo.env(variable, dir);
            }
            // The tests that need it fail and say so; the others run.
            Err(error) => eprintln!("warning: {error:#}"),
        }
    }
    if args.package.is_empty() {
        cargo.arg("--workspace");
    }
    for package in &args.package {
        cargo.args(["--package", package]);
    }
    for test in &args.test {
        cargo.args(["--test", test]);
    }
    if args.root.uses_sudo() {
        // The test programs, and nothing else, run as root.
        cargo.args(["--config", &root::runner()]);
    }
    cargo.arg("--").args(&args.rest);
    if let Some(threads) = args.test_threads {
        cargo.arg(format!("--test-threads={threads}"));
    }
    command::foreground(&mut cargo).context("tests")
}
