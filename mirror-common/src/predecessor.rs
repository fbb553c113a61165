//! Where the dataplane finds the programs of the version before, which lets its flows end beside this one (`PREDECESSOR`).

/// Its program for what clients send.
pub const VNI_INGRESS: u32 = 0;
/// Its program for what instances send.
pub const INSTANCE_RETURN: u32 = 1;
/// How many there are.
pub const PROGRAMS: u32 = 2;
