//! The corpus simulator: a service's instances, second by second, well or with a fault of a known kind. Seeded: the
//! same seed gives the same corpus everywhere.
//!
//! [`fault`] what can befall an instance; [`instance`] how it then behaves and what can be measured of it; [`label`]
//! when it counts as failing; [`corpus`] which runs there are, and which are held out; [`teach`] a model from it, and a
//! judgement of a model.

pub mod corpus;
pub mod fault;
pub mod instance;
pub mod label;
pub mod teach;

pub use corpus::{Part, Run, runs, simulate};
pub use fault::Family;
