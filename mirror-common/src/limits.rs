//! Every bound of the dataplane, in one place.

/// Replicas of a flow: one primary and up to three mirrors.
pub const REPLICAS: usize = 4;
/// Instances that the dataplane can know at a time.
pub const INSTANCES: u32 = 1024;
/// Numbers of VNIs. Some are not given, see [`crate::counts`].
pub const VNIS: u32 = 16_384;
/// Addresses over all VNIs.
pub const VNI_ADDRESSES: u32 = 32_768;
/// Replica sets alive at a time; old ones live until their flows end.
pub const REPLICA_SETS: u32 = 4096;
/// Steering tables for the clients of one zone, over all VNIs: they come after those of the VNIs.
pub const ZONE_TABLES: u32 = 512;
/// Prefixes of zones, once for each VNI that has a table for some zone.
pub const SOURCES: u32 = 16_384;
/// Interfaces that can be a redirect target.
pub const PORTS: u32 = 1024;
/// Buckets of a steering table; prime, as Maglev asks.
pub const STEERING_BUCKETS: u32 = 16_381;
/// Established TCP flows of VNIs without mirrors.
pub const FLOWS: u32 = 1_048_576;
/// Established mirrored TCP flows.
pub const MIRRORED_FLOWS: u32 = 1_048_576;
/// TCP flows whose handshake is not complete; least recently used go first.
pub const HALF_OPEN: u32 = 65_536;
/// UDP and ICMP echo flows; least recently used go first.
pub const DATAGRAM_FLOWS: u32 = 262_144;
/// Datagrams whose first fragment has passed; least recently used go first.
pub const FRAGMENTS: u32 = 16_384;
/// Ports of a VNI on which QUIC is spoken.
pub const QUIC_PORTS: usize = 4;
/// Ids of QUIC connections; least recently used go first.
pub const QUIC_IDS: u32 = 131_072;
/// Lengths of ids that are tried for one datagram.
pub const QUIC_LENGTHS: usize = 4;
/// Locks that the mirrored flows share, by hash; a power of two.
pub const FLOW_LOCKS: u32 = 4096;
/// Segments of mirrors that are kept for a takeover; a power of two.
pub const PARKED: u32 = 16_384;
/// Segments that a CPU begins to time in one tick of the kernel (1 to 10 ms).
pub const TIMED_PER_TICK: u64 = 64;
/// A SYN that comes again earlier is a duplicate of the network's, and not a sign that nobody answered: half a second, in
/// [`crate::time::steps`]. Clients wait for one (RFC 6298, section 2).
pub const SYN_REPEATED_STEPS_MIN: u32 = 1 << 15;
/// Bytes of the event ring buffer; a power of two.
pub const EVENT_RING_BYTES: u32 = 1 << 20;
/// IPv6 extension headers that are walked before the transport header.
pub const IPV6_EXTENSIONS: usize = 4;
/// VLAN tags that are looked through.
pub const VLAN_TAGS: usize = 2;
/// TCP options that are looked at in one header.
pub const TCP_OPTIONS: usize = 12;
/// Blocks of 512 bytes that are summed up of one segment at most: a page, which no frame in one buffer exceeds.
pub const PART_BLOCKS: u32 = 8;
/// SACK blocks in one header (RFC 2018 has room for four).
pub const SACK_BLOCKS: usize = 4;
/// How long an evacuation waits, per flow, for the moment at which nothing has to be
/// retransmitted, in milliseconds.
pub const EVACUATION_PATIENCE_MS: u32 = 1_000;
/// Bytes of a frame that a trace keeps at most; a power of two.
pub const TRACE_FRAME_MAX: u32 = 4096;
/// Bytes of the ring buffer of a trace; a power of two.
pub const TRACE_RING_BYTES: u32 = 4 << 20;
