//! `cargo xtask fuzz`: packets that nobody would send, through the protocol and through the programs in the kernel.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::{build, command, program, project, root};

/// What `tests/prog/mutations.rs` reads.
const PACKETS_VARIABLE: &str = "MIRROR_FUZZ_PACKETS";
const SEED_VARIABLE: &str = "MIRROR_FUZZ_SEED";

/// Give the takeover protocol and the programs packets that nobody would send
///
/// The protocol is given forged, stray and contradictory segments while instances come and go; the programs in the kernel get
/// damaged packets of every kind that they handle. What must hold whatever is said is checked after each packet. Exits with 1 when
/// a rule was broken.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  cargo xtask fuzz                               some minutes: 100 million packets, and a million for the programs
  cargo xtask fuzz --packets 1000000000 --json fuzz.json
  cargo xtask fuzz --programs 0                  the protocol alone: needs no root and no set-up
  cargo xtask fuzz --replay 4711                 one seed of the protocol, packet by packet")]
pub(crate) struct Args {
    /// How many packets the protocol gets
    #[arg(long, value_name = "N", default_value_t = 100_000_000)]
    packets: u64,
    /// How many packets the programs get
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    programs: u64,
    /// The first seed [default: 0]
    #[arg(long, value_name = "SEED")]
    first: Option<u64>,
    /// Write the figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Run this seed of the protocol alone and print every packet
    #[arg(long, value_name = "SEED", conflicts_with_all = ["packets", "programs", "first", "json"])]
    replay: Option<u64>,
    #[command(flatten)]
    root: root::Args,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if args.replay.is_some() {
        let mut fuzz = protocol();
        program::pass(&mut fuzz, [("--replay", program::number(args.replay))]);
        return command::replace(&mut fuzz);
    }
    if args.programs > 0 {
        args.root.check("loads programs into the kernel")?;
        build::all()?;
    }
    let figures = project::target_dir().join("fuzz.json");
    let mut fuzz = protocol();
    let options = [
        ("--packets", program::number(Some(args.packets))),
        ("--first", program::number(args.first)),
        ("--json", Some(figures.clone().into())),
    ];
    program::pass(&mut fuzz, options);
    command::foreground(&mut fuzz).context("the protocol")?;
    let text = fs::read_to_string(&figures).context("what the protocol showed")?;
    let mut all = json!({ "protocol": serde_json::from_str::<Value>(&text)? });
    if args.programs > 0 {
        programs(args)?;
        all["programs"] = json!({ "packets": args.programs, "violations": 0 });
        println!("programs: {} packets; 0 violations", args.programs);
    }
    if let Some(file) = &args.json {
        let text = serde_json::to_string_pretty(&all)? + "\n";
        fs::write(file, text).with_context(|| format!("writing {}", file.display()))?;
    }
    Ok(())
}

fn protocol() -> Command {
    let mut cargo = build::user_space_cargo("run");
    cargo.args(["--release", "--quiet", "--package", "mirror-tests"]);
    cargo.args(["--bin", "fuzz", "--"]);
    cargo
}

/// The suite whose test it is fails at the first packet that breaks a rule.
fn programs(args: &Args) -> Result<()> {
    let mut cargo = build::user_space_cargo("test");
    cargo.args(["--release", "--workspace", "--test", "prog"]);
    cargo.envs(build::program_variables());
    cargo.env(PACKETS_VARIABLE, args.programs.to_string());
    if let Some(seed) = args.first {
        cargo.env(SEED_VARIABLE, seed.to_string());
    }
    if args.root.uses_sudo() {
        cargo.args(["--config", &root::runner()]);
    }
    cargo.args(["--", "damaged_packets"]);
    command::foreground(&mut cargo).context("the programs")
}
