//! What can be typed.

use std::{ffi::OsString, path::PathBuf};

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::{DEFAULT_PIN_DIR, DEFAULT_SOCKET};

/// Mirrors connections to several instances, and moves them when one fails.
#[derive(Debug, Parser)]
#[command(name = "mirror-ctl", version, arg_required_else_help = true)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 no agent is running."
)]
pub struct Args {
    /// The agent's socket.
    #[arg(long, global = true, value_name = "PATH", default_value = DEFAULT_SOCKET, env = "MIRROR_SOCKET")]
    pub socket: PathBuf,
    /// Print JSON.
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
    Agent(Agent),
    /// Load the programs, attach and pin them, and end. An agent adopts them later.
    Load(ConfigFile),
    /// Take the programs off and remove what is pinned.
    Unload(Unload),
    /// Show how the agent and the dataplane are.
    Status(PinDir),
    /// Show the virtual network interfaces and who serves them.
    #[command(alias = "vnis")]
    Vni,
    /// Show the instances.
    #[command(alias = "instance")]
    Instances,
    /// Show the flows: client, active instance, mirrors and whether they could take over.
    Flows(Flows),
    /// Show the replica sets: who mirrors whom.
    Mirrors,
    /// Show what happened.
    Events(Events),
    /// Move an instance's flows to their mirrors and give it no new ones.
    Evacuate(Order),
    /// Undo evacuate, drain or takeover, or overrule a failure.
    Restore(Order),
    /// Give an instance no new flows; established ones stay.
    Drain(Order),
    /// Treat an instance as dead now.
    Takeover(Order),
    /// Make the agent read its configuration again (as SIGHUP does).
    Reload,
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
    /// Print completions for a shell.
    Completions {
        /// Which shell.
        shell: Shell,
    },
}

impl Verb {
    /// Whether it works on the dataplane itself, and must not end by a closed pipe half way.
    pub fn is_service(&self) -> bool {
        matches!(self, Self::Agent(_) | Self::Load(_) | Self::Unload(_))
    }
}

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
    #[arg(long, value_name = "CLIENT")]
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
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
}

/// `events`.
#[derive(Debug, ClapArgs)]
pub struct Events {
    /// Only events with greater numbers.
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    pub since: u64,
    /// So many at most, the newest.
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
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
    Check {
        /// The file.
        file: PathBuf,
    },
}
