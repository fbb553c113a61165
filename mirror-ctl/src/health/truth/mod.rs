//! Recordings with the truth beside them: what their clients got, which faults were there, and who failed when. How a
//! model does on real faults is judged by these.
//!
//! [`label`] what is known of a recording, and how that comes from what clients got; [`store`] the files; [`judge`] a
//! model's figures on them.

pub mod judge;
pub mod label;
pub mod store;
