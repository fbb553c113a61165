//! Agent and command line: everything that decides, and the one module that talks to the kernel.
#![deny(unsafe_code)]

pub mod agent;
pub mod api;
pub mod cli;
pub mod clock;
pub mod config;
pub mod connections;
pub mod dataplane;
pub mod doctor;
pub mod health;
pub mod metrics;
pub mod mirroring;
pub mod netlink;
pub mod notify;
pub mod privileges;
pub mod routing;
pub mod trace;

/// The API's socket unless the configuration says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/mirror/agent.sock";
/// Where state is pinned unless the configuration says otherwise.
pub const DEFAULT_PIN_DIR: &str = "/sys/fs/bpf/mirror";
