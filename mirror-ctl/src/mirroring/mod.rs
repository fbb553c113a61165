//! Who mirrors whom, how many may be out at once, and the whole decision for a VNI. Pure
//! functions, no clock, no I/O.
//!
//! [`sets::plan`] chooses the replica sets, [`buckets::assign`] spreads each primary's buckets
//! over its sets, [`budgets::may_evacuate`] guards the last healthy capacity, and
//! [`decide::decide`] does all of it for one VNI.

mod balance;
pub mod buckets;
pub mod budgets;
pub mod decide;
mod instances;
pub mod sets;

pub use buckets::assign;
pub use budgets::{Budget, Refusal, may_evacuate};
pub use decide::{Decision, Policy, Previous, decide};
pub use sets::{Member, Options, Plan, plan};

#[cfg(test)]
mod decision_tests;
#[cfg(test)]
mod set_tests;
