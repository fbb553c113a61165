//! What can be typed.

use std::{ffi::OsString, net::IpAddr, path::PathBuf, str::FromStr, time::Duration};

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::{
    DEFAULT_PIN_DIR, DEFAULT_SOCKET, agent::log::KINDS, connections::filter::ClientFilter,
};

mod traced;

use traced::{CAPTURE_HELP, DIFF_HELP, TRACE_HELP};
pub(super) use traced::{Capture, Diff, Trace, Traced};

const AFTER_HELP: &str = "\
Examples:
  mirror-ctl config init mirror.toml           a configuration to begin with
  mirror-ctl agent --config mirror.toml        run the agent
  mirror-ctl flows                             each connection and who could take it over
  mirror-ctl evacuate a                        move a's connections away before maintenance
  mirror-ctl instances --json | jq '.[].state' for scripts

Environment:
  MIRROR_SOCKET   the agent's socket, as --socket
  MIRROR_LOG      what the agent logs: error, warn, info (default), debug, trace
  NO_COLOR        no colours, also on a terminal

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 no agent is running.";

/// Mirrors connections to several instances, and moves them when one fails.
#[derive(Debug, Parser)]
#[command(name = "mirror-ctl", version, arg_required_else_help = true)]
#[command(max_term_width = 100, after_help = AFTER_HELP)]
pub struct Args {
    /// The agent's socket.
    #[arg(long, global = true, value_name = "PATH", default_value = DEFAULT_SOCKET, env = "MIRROR_SOCKET")]
    pub socket: PathBuf,
    /// Print JSON, as the API answers.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run the agent: load or adopt the programs, watch the instances, serve the API.
    #[command(
        after_help = "Examples:\n  mirror-ctl agent --config /etc/mirror/mirror.toml\n  MIRROR_LOG=debug mirror-ctl agent --config mirror.toml"
    )]
    Agent(Agent),
    /// Look after the flows of this version until they have ended, while another one runs in its place. Agents start this.
    #[command(hide = true)]
    Keeper {
        /// What an agent has left behind for it.
        folder: PathBuf,
    },
    /// Load the programs, attach and pin them, and end. An agent adopts them later.
    #[command(after_help = "Examples:\n  mirror-ctl load --config mirror.toml")]
    Load(ConfigFile),
    /// Take the programs off and remove what is pinned.
    #[command(
        after_help = "Examples:\n  mirror-ctl unload\n  mirror-ctl unload --config mirror.toml"
    )]
    Unload(Unload),
    /// Show how the agent and the dataplane are.
    #[command(
        after_help = "Examples:\n  mirror-ctl status\n  mirror-ctl status --json | jq .counters"
    )]
    Status(PinDir),
    /// Show the virtual network interfaces and who serves them.
    #[command(alias = "vnis", after_help = "Examples:\n  mirror-ctl vni")]
    Vni,
    /// Show which instance a new flow from an address would get, and why.
    #[command(after_help = SELECT_HELP)]
    Select(Select),
    /// Show the instances.
    #[command(
        alias = "instance",
        after_help = "Examples:\n  mirror-ctl instances\n  mirror-ctl instances --json | jq -r '.[] | select(.state != \"up\") | .name'"
    )]
    Instances,
    /// Show the flows: client, active instance, mirrors and whether they could take over.
    #[command(
        after_help = "Examples:\n  mirror-ctl flows --cold                   those that nothing could take over now\n  mirror-ctl flows --client 10.0.0.9 --watch  look again every second\n  mirror-ctl flows --instance a --limit 20"
    )]
    Flows(Flows),
    /// Show the replica sets: who mirrors whom.
    #[command(after_help = "Examples:\n  mirror-ctl mirrors")]
    Mirrors,
    /// Show what happened.
    #[command(
        after_help = "Examples:\n  mirror-ctl events --limit 20\n  mirror-ctl events --follow\n  mirror-ctl events --follow --json --kind takeover,flow-cold"
    )]
    Events(Events),
    /// Show each packet of one flow: which way, what became of it and why, its numbers on both sides of the translation.
    #[command(after_help = TRACE_HELP)]
    Trace(Trace),
    /// Capture one flow on both sides of the translation, as a pcapng file for Wireshark.
    #[command(after_help = CAPTURE_HELP)]
    Capture(Capture),
    /// Compare what a VNI's mirrors answer with what clients get: how many flows differ, where first, and both sides' bytes.
    #[command(after_help = DIFF_HELP)]
    Diff(Diff),
    /// Show all of it on one screen, and evacuate, drain or restore from there.
    #[command(after_help = "Examples:\n  mirror-ctl top")]
    Top,
    /// Print the metrics, in Prometheus' text format.
    #[command(
        after_help = "Examples:\n  mirror-ctl metrics\n  mirror-ctl metrics > /var/lib/prometheus/node-exporter/mirror.prom"
    )]
    Metrics,
    /// Move an instance's flows to their mirrors and give it no new ones.
    #[command(after_help = "Examples:\n  mirror-ctl evacuate a")]
    Evacuate(Order),
    /// Undo evacuate, drain or takeover, or overrule a failure.
    #[command(after_help = "Examples:\n  mirror-ctl restore a")]
    Restore(Order),
    /// Give an instance no new flows; established ones stay.
    #[command(after_help = "Examples:\n  mirror-ctl drain a")]
    Drain(Order),
    /// Treat an instance as dead now.
    #[command(after_help = "Examples:\n  mirror-ctl takeover a")]
    Takeover(Order),
    /// Make the agent read its configuration again (as SIGHUP does).
    #[command(after_help = "Examples:\n  mirror-ctl reload")]
    Reload,
    /// Show what a configuration changes, put it in force and make it the agent's file.
    #[command(
        after_help = "Examples:\n  mirror-ctl apply -f new.toml --dry-run   only show what it changes\n  mirror-ctl apply -f new.toml"
    )]
    Apply(Apply),
    /// Have the running agent and its programs replaced by this version, with all connections kept.
    #[command(
        after_help = "Examples:\n  mirror-ctl upgrade --dry-run   would the new version be accepted?\n  mirror-ctl upgrade             once it is where the agent's was (apt-get install ./mirror-ctl_NEW.deb)\n  mirror-ctl upgrade --drain     where the maps are others: connections stay with the old version until they end"
    )]
    Upgrade(Upgrade),
    /// Find out what on this machine keeps the dataplane from working, or from working well.
    #[command(after_help = DOCTOR_HELP)]
    Doctor(Doctor),
    /// Work on configuration files.
    #[command(subcommand)]
    Config(ConfigVerb),
    /// Train, evaluate and explain the prediction of failures: `mirror-ctl health help`.
    // Parsed on its own: there --json names a file.
    #[command(disable_help_flag = true)]
    Health {
        /// See `mirror-ctl health help`.
        #[arg(
            trailing_var_arg = true,
            allow_hyphen_values = true,
            value_name = "ARGS"
        )]
        rest: Vec<OsString>,
    },
    /// Print what scripts may rely on: the API's OpenAPI document, or the schemas of what --json prints.
    #[command(
        after_help = "Examples:\n  mirror-ctl schema openapi > openapi.json\n  mirror-ctl schema json | jq .verbs"
    )]
    Schema {
        /// Of what.
        of: SchemaKind,
    },
    /// Print completions for a shell.
    #[command(after_help = COMPLETIONS_HELP)]
    Completions {
        /// Which shell.
        shell: Shell,
    },
    /// Print the manual page, or write all of them into a directory.
    #[command(
        after_help = "Examples:\n  mirror-ctl man | man -l -\n  mirror-ctl man --dir /usr/local/share/man/man8"
    )]
    Man(ManPages),
}

impl Verb {
    /// Whether it works on the dataplane itself, and must not end by a closed pipe half way.
    pub fn is_service(&self) -> bool {
        matches!(
            self,
            Self::Agent(_) | Self::Keeper { .. } | Self::Load(_) | Self::Unload(_)
        )
    }
}

const SELECT_HELP: &str = "\
Examples:
  mirror-ctl select web --source 10.1.2.3                             each instance's part of such flows
  mirror-ctl select web --source 10.1.2.3 --source-port 40000 --port 443  the instance of this very flow
  mirror-ctl select web --source 2001:db8::7 --json | jq -r .instance";

const COMPLETIONS_HELP: &str = "\
Examples:
  mirror-ctl completions bash > /etc/bash_completion.d/mirror-ctl
  mirror-ctl completions zsh > /usr/share/zsh/vendor-completions/_mirror-ctl
  mirror-ctl completions fish > /etc/fish/completions/mirror-ctl.fish";

const DOCTOR_HELP: &str = "\
Examples:
  mirror-ctl doctor                                before anything is set up, or of a running agent
  mirror-ctl doctor --config mirror.toml           the interfaces and instances of a file too
  mirror-ctl doctor --config mirror.toml --fix     do what can be done from here
  mirror-ctl doctor --json | jq '.findings[] | select(.severity == \"error\")'

Exit codes: 0 nothing to do, 1 errors or warnings (with --fix: that are left), 2 could not look.";

/// `agent`.
#[derive(Debug, ClapArgs)]
pub struct Agent {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Log what the programs say of each packet (with MIRROR_LOG at the same level or lower).
    #[arg(long, value_name = "LEVEL", default_value = "off")]
    pub log_programs: LogLevel,
}

/// Levels of the programs' log, by aya-log's numbers.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[repr(u8)]
pub enum LogLevel {
    /// Nothing; costs nothing.
    Off = 0,
    /// Errors.
    Error = 1,
    /// And warnings.
    Warn = 2,
    /// And notes.
    Info = 3,
    /// And decisions.
    Debug = 4,
    /// And everything else.
    Trace = 5,
}

/// What schemas there are.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum SchemaKind {
    /// The API.
    Openapi,
    /// What `--json` prints.
    Json,
}

/// A configuration.
#[derive(Debug, ClapArgs)]
pub struct ConfigFile {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
}

/// `unload`.
#[derive(Debug, ClapArgs)]
pub struct Unload {
    /// The configuration that names the pin directory.
    #[arg(long, value_name = "FILE", conflicts_with = "pin_dir")]
    pub config: Option<PathBuf>,
    /// The pin directory.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_PIN_DIR)]
    pub pin_dir: PathBuf,
}

/// Where to look when no agent runs.
#[derive(Debug, ClapArgs)]
pub struct PinDir {
    /// The pin directory to look at when no agent runs.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_PIN_DIR)]
    pub pin_dir: PathBuf,
}

/// `flows`.
#[derive(Debug, ClapArgs)]
pub struct Flows {
    /// Only flows of this client: ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT.
    #[arg(long, value_name = "CLIENT", value_parser = client)]
    pub client: Option<String>,
    /// Only flows with this instance, in any role.
    #[arg(long, value_name = "INSTANCE")]
    pub instance: Option<String>,
    /// Only flows of this VNI.
    #[arg(long, value_name = "VNI")]
    pub vni: Option<String>,
    /// Only flows that no mirror could take over now.
    #[arg(long)]
    pub cold: bool,
    /// So many at most (tables: 1000 unless said otherwise).
    #[arg(long, value_name = "N", value_parser = whole::<usize>, allow_hyphen_values = true)]
    pub limit: Option<usize>,
    /// Look again every so many seconds.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", value_parser = seconds)]
    pub watch: Option<f64>,
}

/// `select`.
#[derive(Debug, ClapArgs)]
pub struct Select {
    /// The VNI.
    pub vni: String,
    /// The client's address.
    #[arg(long, value_name = "ADDRESS")]
    pub source: IpAddr,
    /// The VNI's port.
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// The client's port: with --port, which instance exactly.
    #[arg(long, value_name = "PORT", requires = "port")]
    pub source_port: Option<u16>,
    /// Which of the VNI's addresses; the first of the client's family unless said otherwise.
    #[arg(long, value_name = "ADDRESS")]
    pub address: Option<IpAddr>,
    /// The protocol.
    #[arg(long, value_name = "PROTOCOL", value_parser = ["tcp", "udp"])]
    pub protocol: Option<String>,
}

/// `doctor`.
#[derive(Debug, ClapArgs)]
pub struct Doctor {
    /// The configuration to look by; the running agent's unless named.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The pin directory to look at without a configuration.
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    pub pin_dir: Option<PathBuf>,
    /// Do what the findings advise where that changes one setting and can be undone, then look again.
    #[arg(long)]
    pub fix: bool,
}

/// `events`.
#[derive(Debug, ClapArgs)]
pub struct Events {
    /// Only events with greater numbers; without it `--follow` begins with the next one.
    #[arg(long, value_name = "SEQ", value_parser = whole::<u64>, allow_hyphen_values = true)]
    pub since: Option<u64>,
    /// So many at most, the newest.
    #[arg(long, value_name = "N", value_parser = whole::<usize>, allow_hyphen_values = true, conflicts_with = "follow")]
    pub limit: Option<usize>,
    /// Only events of these kinds.
    #[arg(long, value_name = "KIND", value_delimiter = ',', value_parser = KINDS)]
    pub kind: Vec<String>,
    /// Go on with events as they happen, until the agent ends.
    #[arg(long, short)]
    pub follow: bool,
}

/// `man`.
#[derive(Debug, ClapArgs)]
pub struct ManPages {
    /// Write a page for each verb into this directory.
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// `upgrade`.
#[derive(Debug, ClapArgs)]
pub struct Upgrade {
    /// Only say whether the running dataplane would be kept.
    #[arg(long)]
    pub dry_run: bool,
    /// Where this version's maps are others: let the connections there are end by themselves, served by the version before.
    #[arg(long)]
    pub drain: bool,
    /// Cut what is left of them then: seconds, or minutes or hours with m or h.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = time, requires = "drain", allow_hyphen_values = true)]
    pub drain_for: Duration,
}

/// A time as it is typed.
fn time(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix(['s', 'm', 'h']) {
        Some(number) => (number, &text[number.len()..]),
        None => (text, "s"),
    };
    let seconds = match unit {
        "h" => 3600,
        "m" => 60,
        _ => 1,
    };
    let number = number.parse::<u32>();
    let number = number.map_err(|_| "must be a whole number with s, m or h: 90s, 30m, 2h")?;
    Ok(Duration::from_secs(u64::from(number) * seconds))
}

/// `apply`.
#[derive(Debug, ClapArgs)]
pub struct Apply {
    /// The configuration.
    #[arg(long, short, value_name = "FILE")]
    pub file: PathBuf,
    /// Only show what it changes.
    #[arg(long)]
    pub dry_run: bool,
}

fn client(text: &str) -> Result<String, String> {
    ClientFilter::parse(text).map(|_| text.to_owned())
}

fn whole<T: FromStr>(text: &str) -> Result<T, String> {
    let number = text.parse();
    number.map_err(|_| "must be a whole number, 0 or more".to_owned())
}

/// A time between two looks.
fn seconds(text: &str) -> Result<f64, String> {
    let range = 0.1..=3_600.0;
    match text.parse::<f64>() {
        Ok(seconds) if range.contains(&seconds) => Ok(seconds),
        _ => Err(format!(
            "must be {} to {} seconds",
            range.start(),
            range.end()
        )),
    }
}

/// An order.
#[derive(Debug, ClapArgs)]
pub struct Order {
    /// The instance.
    pub instance: String,
    /// Even if it is the last healthy one of a VNI.
    #[arg(long)]
    pub force: bool,
}

/// `config`.
#[derive(Debug, Subcommand)]
pub enum ConfigVerb {
    /// Tell everything that is wrong with a file.
    #[command(after_help = "Examples:\n  mirror-ctl config check mirror.toml && mirror-ctl reload")]
    Check {
        /// The file.
        file: PathBuf,
    },
    /// Print what a file means with every default written out, or what the agent runs by.
    #[command(
        after_help = "Examples:\n  mirror-ctl config show               the running agent's\n  mirror-ctl config show mirror.toml"
    )]
    Show {
        /// The file; the running agent's configuration unless named.
        file: Option<PathBuf>,
    },
    /// Print a configuration to begin with, or write it to a new file.
    #[command(after_help = "Examples:\n  mirror-ctl config init mirror.toml")]
    Init {
        /// The file, which must not be there yet.
        file: Option<PathBuf>,
    },
}
