//! Where new flows go: what each instance weighs, and which bucket of a VNI's steering table is
//! whose. Pure functions, no clock, no I/O: the same input gives the same answer on every host.
//!
//! [`weights()`] turns what is known of the instances into weights, [`maglev`] turns weights into a
//! table of buckets, [`select_instance`] answers for one flow by all that is known of it.

pub mod apportion;
pub mod candidate;
pub mod maglev;
pub mod preference;
pub mod select;
pub mod weights;

pub use candidate::{Candidate, State};
pub use select::{Selection, select_instance};
pub use weights::{Bands, Rule, Weighted, Weights, weights};

#[cfg(test)]
mod choice_tests;
#[cfg(test)]
mod table_tests;

/// In a table: nobody. The same value that a steering table of the dataplane has for it.
pub const NONE: u32 = u32::MAX;
