//! Where new flows go: what each instance weighs, and which bucket of a VNI's steering table is
//! whose. Pure functions, no clock, no I/O: the same input gives the same answer on every host.
//!
//! [`weights()`] turns what is known of the instances into weights, [`proximity::lean`] leans these towards the instances
//! that are near to a source and away from those that are [`load`]ed, [`maglev`] turns weights into a table of buckets,
//! [`select_instance`] answers for one flow and its source from the tables in force.

pub mod apportion;
pub mod candidate;
pub mod distance;
pub mod load;
pub mod maglev;
pub mod preference;
pub mod proximity;
pub mod select;
pub mod source;
pub mod weights;

pub use candidate::{Candidate, State};
pub use proximity::{Leaning, lean};
pub use select::{Choice, Selection, select_instance};
pub use weights::{Bands, Rule, Weighted, Weights, weights};

#[cfg(test)]
mod choice_tests;
#[cfg(test)]
mod proximity_tests;
#[cfg(test)]
mod select_tests;
#[cfg(test)]
mod table_tests;

/// In a table: nobody. The same value that a steering table of the dataplane has for it.
pub const NONE: u32 = u32::MAX;
