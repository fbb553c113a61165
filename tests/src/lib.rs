//! Testbed: hosts as network namespaces, the agent that is under test, and the
//! programs that send checked traffic through it. The demo and the network
//! tests are built from these parts; none of them knows how mirroring works.
//! Apart from that, [`sim`] runs the takeover protocol in a simulated world.

pub mod agent;
pub mod cgroup;
pub mod cleanup;
pub mod clock;
pub mod full;
pub mod memory;
pub mod net;
pub mod netns;
pub mod packaged;
pub mod process;
pub mod run;
pub mod scenario;
pub mod sim;
pub mod topology;
pub mod traffic;
