//! Evaluation on public data: servers' minute-scale metrics with labelled incidents, in a folder of gzip CSV.
//!
//! [`data`] reads, [`protocol`] says what is to be predicted and who may learn from whom, [`series`] and [`features`]
//! make features of a server whose metrics have no names, [`stack`] weighs the layers, [`evaluate()`] does it all. A
//! server is judged on its test half only; everything learned from labels comes from the other side of the split.

pub mod data;
pub mod evaluate;
pub mod features;
pub mod protocol;
pub mod series;
pub mod stack;

pub use evaluate::{Evaluation, evaluate};
pub use protocol::{Settings, Split, Task};
