//! Testbed: hosts as network namespaces, the agent that is under test, and the
//! programs that send checked traffic through it. The demo and the network
//! tests are built from these parts; nothing here knows how mirroring works.

pub mod agent;
pub mod cleanup;
pub mod clock;
pub mod net;
pub mod netns;
pub mod process;
pub mod run;
pub mod scenario;
pub mod topology;
pub mod traffic;
