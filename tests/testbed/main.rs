//! The testbed's own tests: hosts, links and traffic over the plain kernel,
//! without the agent. What these measure is the floor under every other test.

mod hosts;
mod traffic;
