//! A traced flow's packets as a person sees them. Pure: what the traced programs tell in, rows out.

pub mod capture;
pub mod diff;
pub mod pair;
pub mod row;
pub mod target;

pub use pair::{Pairs, Passage};
pub use row::{Begun, Lost, Over, PacketRow, SegmentRow};
pub use target::Target;
