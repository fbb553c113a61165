//! The kernel's network configuration inside a namespace: links, addresses,
//! routes and neighbours over rtnetlink, offloads by ioctl, sysctls by file.

mod address;
pub mod delay;
pub mod ethtool;
pub mod fragments;
mod link;
pub mod packet;
pub mod sysctl;
pub mod timers;
pub mod xdp;

pub use address::MacAddr;
pub use link::{End, Net, configure};
