//! What is known of connections: how a flow table's entry reads to a person, when an entry has
//! outlived its connection, and the walk that finds both out.

pub mod census;
pub mod expiry;
pub mod filter;
pub mod handshakes;
pub mod prompt;
pub mod replay;
pub mod rescue;
pub mod row;
pub mod sweep;
mod vnis;

pub use census::Census;
pub use filter::{FlowFilter, Wanted};
pub use rescue::Rescuer;
pub use row::{FlowRow, Names, ReplicaRow};
pub use sweep::{Sweep, Sweeper};
use vnis::Vnis;
