//! Tests of the takeover protocol: one script per rule, each in several worlds of sequence
//! numbers and clocks, and a simulation with random losses and faults.

mod acknowledgement;
mod check;
mod closing;
mod divergence;
mod first;
mod handshake;
mod hostile;
mod hosts;
mod lag;
mod last_use;
mod late;
mod resets;
mod say;
mod shadow;
mod sim;
mod suspicion;
mod takeover;
mod translation;
mod turn_round;
