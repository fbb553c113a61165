//! Replica sets: the ordered instances that receive a flow.

use crate::{assert_size, limits::REPLICAS, pod};

/// A published replica set. Immutable until no flow uses it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ReplicaSet {
    /// Instance numbers by slot; slot 0 is the primary.
    pub instances: [u16; REPLICAS],
    /// Used slots, 0 (not published) to 4.
    pub replicas: u8,
    /// Zero.
    pub pad: [u8; 7],
}
assert_size!(ReplicaSet, 16);

pod!(ReplicaSet);
