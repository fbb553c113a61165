//! What client and server say to each other, in network byte order.

use xxhash_rust::xxh3::Xxh3Default;

use super::stream::Stream;

/// The first four bytes of a connection.
pub const MAGIC: u32 = 0x4d49_5231;
/// The largest reply and the largest body of an order: a bound for the server.
pub const LENGTH_MAX: u32 = 64 << 20;
/// How far ahead a reply may be due.
pub const DELAY_MS_MAX: u32 = 60_000;
const NS_PER_MS: u64 = 1_000_000;

/// Says what the connection is for and where its streams begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The number of the client's profile; only a label.
    pub profile: u32,
    /// The seed of the client's stream.
    pub seed: u64,
}

impl Header {
    /// Its length on the wire.
    pub const LENGTH: usize = 16;

    /// As sent.
    #[must_use]
    pub fn encode(self) -> [u8; Self::LENGTH] {
        let first = u64::from(MAGIC) << 32 | u64::from(self.profile);
        join(first, self.seed)
    }

    /// As received, unless it is none.
    #[must_use]
    pub fn decode(bytes: &[u8; Self::LENGTH]) -> Option<Self> {
        let (first, seed) = split(bytes);
        (first >> 32 == u64::from(MAGIC)).then_some(Self {
            profile: first as u32,
            seed,
        })
    }
}

/// Asks for a reply: a [`Receipt`] and so many bytes of the stream that the
/// receipt's hash seeds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// How many bytes of the client's stream follow.
    pub body: u32,
    /// When the reply is due, in milliseconds of the machine's monotonic clock (modulo 2^32): a
    /// time of day and not a delay, since replicas that each add a delay to when they came to
    /// read the order would be apart for ever. Past times and 0 are at once.
    pub due_ms: u32,
    /// How many bytes the reply has after its receipt.
    pub reply: u32,
}

impl Order {
    /// The reply's time on a clock that shows `now_ns`, or nothing when it is due at once or
    /// further ahead than a client asks for.
    #[must_use]
    pub fn due_ns(self, now_ns: u64) -> Option<u64> {
        let now_ms = now_ns / NS_PER_MS;
        let ahead_ms = self.due_ms.wrapping_sub(now_ms as u32);
        (1..=DELAY_MS_MAX)
            .contains(&ahead_ms)
            .then(|| (now_ms + u64::from(ahead_ms)) * NS_PER_MS)
    }

    /// Its length on the wire.
    pub const LENGTH: usize = 16;

    /// As sent.
    #[must_use]
    pub fn encode(self) -> [u8; Self::LENGTH] {
        join(
            u64::from(self.body) << 32 | u64::from(self.due_ms),
            u64::from(self.reply) << 32 | u64::from(MAGIC),
        )
    }

    /// As received, unless it is none or asks for too much.
    #[must_use]
    pub fn decode(bytes: &[u8; Self::LENGTH]) -> Option<Self> {
        let (first, second) = split(bytes);
        let order = Self {
            body: (first >> 32) as u32,
            due_ms: first as u32,
            reply: (second >> 32) as u32,
        };
        let sound = second as u32 == MAGIC && order.body <= LENGTH_MAX && order.reply <= LENGTH_MAX;
        sound.then_some(order)
    }
}

/// What the server has received of the connection so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Bytes of all kinds.
    pub received: u64,
    /// The hash of all of them.
    pub hash: u64,
    /// How many bytes of bodies differed from the client's stream.
    pub altered: u64,
}

impl Receipt {
    /// Its length on the wire.
    pub const LENGTH: usize = 24;

    /// As sent.
    #[must_use]
    pub fn encode(self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        bytes[..16].copy_from_slice(&join(self.received, self.hash));
        bytes[16..].copy_from_slice(&self.altered.to_be_bytes());
        bytes
    }

    /// The stream that follows it.
    #[must_use]
    pub fn stream(self) -> Stream {
        Stream::new(self.hash)
    }
}

/// Everything one direction has carried, as both its ends count it.
#[derive(Clone, Default)]
pub struct Tally {
    bytes: u64,
    hash: Xxh3Default,
}

impl Tally {
    /// Counts bytes.
    pub fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.hash.update(bytes);
    }

    /// How many there were.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The receipt for them.
    #[must_use]
    pub fn receipt(&self, altered: u64) -> Receipt {
        Receipt {
            received: self.bytes,
            hash: self.hash.digest(),
            altered,
        }
    }
}

fn join(first: u64, second: u64) -> [u8; 16] {
    (u128::from(first) << 64 | u128::from(second)).to_be_bytes()
}

fn split(bytes: &[u8; 16]) -> (u64, u64) {
    let both = u128::from_be_bytes(*bytes);
    ((both >> 64) as u64, both as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_what_is_received() {
        let header = Header {
            profile: 3,
            seed: u64::MAX - 5,
        };
        assert_eq!(Header::decode(&header.encode()), Some(header));
        let order = Order {
            body: 7,
            due_ms: 250,
            reply: LENGTH_MAX,
        };
        assert_eq!(Order::decode(&order.encode()), Some(order));
    }

    #[test]
    fn a_reply_is_due_at_its_time() {
        let due = |due_ms| Order {
            due_ms,
            ..Order::default()
        };
        let now_ns = 5_000_000_123;
        assert_eq!(due(5_020).due_ns(now_ns), Some(5_020_000_000));
        assert_eq!(due(5_000).due_ns(now_ns), None);
        assert_eq!(due(0).due_ns(now_ns), None);
        assert_eq!(due(5_001 + DELAY_MS_MAX).due_ns(now_ns), None);
        // The clock has wrapped in between.
        let now_ns = ((1 << 32) - 3) * NS_PER_MS;
        assert_eq!(due(7).due_ns(now_ns), Some(now_ns + 10 * NS_PER_MS));
    }

    #[test]
    fn nonsense_is_refused() {
        assert_eq!(Header::decode(&[0; 16]), None);
        assert_eq!(Order::decode(&[0; 16]), None);
        let greedy = Order {
            reply: LENGTH_MAX + 1,
            ..Order::default()
        };
        assert_eq!(Order::decode(&greedy.encode()), None);
    }
}
