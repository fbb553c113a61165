//! The XDP programs, one packet at a time, by `BPF_PROG_TEST_RUN`: verdict, bytes, counters, events
//! and map state of each. The clone program, which the kernel does not run so (it belongs to a
//! devmap), is tested on live frames between veth pairs.
//!
//! The tests share one load of the object and one network, since verification takes seconds; each
//! begins with empty flow tables. They need root and say so; none is ever skipped.

mod bench;
mod check;
mod conversation;
mod counts;
mod hosts;
mod narrow;
mod network;
mod packet;
mod tables;

mod clones;
mod datagrams;
mod delivery;
mod divergence;
mod errors;
mod flood;
mod fragments;
mod handshake;
mod health;
mod measures;
mod mutations;
mod offload;
mod other_traffic;
mod plain;
mod quic;
mod sizes;
mod specimens;
mod suspicion;
mod truncated;
mod zones;
