//! What clients and servers say to each other: a request of fixed length, a response of fixed length that begins with the
//! name of the instance.

/// Bytes of a request.
pub(crate) const REQUEST_BYTES: usize = 64;
/// Bytes of a response.
pub(crate) const RESPONSE_BYTES: usize = 2_048;
/// The port.
pub(crate) const PORT: u16 = 80;

/// A request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// Whether it is written to the disk before the answer.
    pub(crate) writes: bool,
    /// Whether the connection ends with it.
    pub(crate) last: bool,
}

impl Request {
    pub(crate) fn encode(self) -> [u8; REQUEST_BYTES] {
        let mut bytes = [0; REQUEST_BYTES];
        bytes[0] = u8::from(self.writes);
        bytes[1] = u8::from(self.last);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; REQUEST_BYTES]) -> Self {
        Self {
            writes: bytes[0] == 1,
            last: bytes[1] == 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_understood() {
        for (writes, last) in [(false, true), (true, false)] {
            let request = Request { writes, last };
            assert_eq!(Request::decode(&request.encode()), request);
        }
    }
}
