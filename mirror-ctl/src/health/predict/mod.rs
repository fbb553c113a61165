//! Failure prediction: from an instance's signals to a score and to the probability of failing within 5, 15, 30 and
//! 60 seconds. Pure: readings in, outlooks out; no clock, no I/O.
//!
//! [`signal`] what is measured; [`track`], [`peers`] and [`features`] what is made of it in constant time a tick;
//! [`baseline`] layer A, always on; [`model`] layer B, learned, with [`forest`], [`calibrate`], [`train`] and
//! [`model_file`]; [`engine`] both together; [`policy`] what is done about it; [`explain`] which signals did it;
//! [`metrics`] how good it is.

pub mod baseline;
pub mod calibrate;
pub mod engine;
pub mod explain;
pub mod features;
pub mod forest;
pub mod metrics;
pub mod model;
pub mod model_file;
pub mod peers;
pub mod policy;
pub mod signal;
pub mod track;
pub mod train;
