//! A deterministic simulator of the takeover protocol: client and replicas are real TCP stacks (`smoltcp`), the
//! protocol between them is the code that the XDP programs run, driven in their order; links, hosts and the
//! agent fail as the seed says. A seed is a run, packet by packet.

mod agent;
pub mod application;
mod conversation;
mod ending;
pub mod endpoint;
mod faults;
pub mod frame;
mod hosts;
pub mod middle;
pub mod mutation;
mod oracle;
pub mod run;
pub mod scenario;
mod trace;
mod truth;
mod wire;
pub mod world;
