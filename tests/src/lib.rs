//! Testbed: hosts as network namespaces, the agent that is under test, and the
//! programs that send checked traffic through it. The demo and the network
//! tests are built from these parts; none of them knows how mirroring works.
//! Apart from that, [`sim`] runs the takeover protocol in a simulated world, and [`fuzz`] under packets that nobody would send.

pub mod agent;
pub mod cgroup;
pub mod changes;
pub mod cleanup;
pub mod clock;
pub mod exit;
pub mod full;
pub mod fuzz;
pub mod machine;
pub mod manual;
pub mod memory;
pub mod net;
pub mod netns;
pub mod packaged;
pub mod process;
pub mod run;
pub mod scenario;
pub mod seeds;
pub mod sim;
pub mod topology;
pub mod traffic;
pub mod turns;
