//! The agent's own code for steering tables, which is pure, compiled in here as it is. A dependency on the agent would have
//! every program of the tests built anew with each change of it.
#![expect(
    dead_code,
    unreachable_pub,
    reason = "the files are a part of another crate"
)]

#[path = "../../../../mirror-ctl/src/routing/apportion.rs"]
mod apportion;
#[path = "../../../../mirror-ctl/src/routing/maglev.rs"]
pub(crate) mod maglev;
#[path = "../../../../mirror-ctl/src/routing/preference.rs"]
mod preference;

/// As there.
pub const NONE: u32 = u32::MAX;
