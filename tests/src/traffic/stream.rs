//! A byte stream that both ends can make from a seed, in pieces of any size.

const BLOCK: usize = 1024;

/// The rest of a stream.
#[derive(Clone, Debug)]
pub struct Stream {
    random: fastrand::Rng,
    block: [u8; BLOCK],
    used: usize,
}

impl Stream {
    /// The stream of a seed, from its start.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            block: [0; BLOCK],
            used: BLOCK,
        }
    }

    /// The stream's next bytes.
    pub fn fill(&mut self, mut to: &mut [u8]) {
        while !to.is_empty() {
            let next = self.next(to.len());
            let (now, later) = to.split_at_mut(next.len());
            now.copy_from_slice(next);
            to = later;
        }
    }

    /// How many of the bytes differ from the stream's next ones.
    #[must_use]
    pub fn differing(&mut self, mut bytes: &[u8]) -> u64 {
        let mut differing = 0;
        while !bytes.is_empty() {
            let next = self.next(bytes.len());
            let (now, later) = bytes.split_at(next.len());
            if now != next {
                differing += now.iter().zip(next).filter(|(a, b)| a != b).count() as u64;
            }
            bytes = later;
        }
        differing
    }

    fn next(&mut self, max: usize) -> &[u8] {
        if self.used == BLOCK {
            self.random.fill(&mut self.block);
            self.used = 0;
        }
        let start = self.used;
        self.used = BLOCK.min(start + max);
        &self.block[start..self.used]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_do_not_matter() {
        let mut whole = vec![0; 5000];
        Stream::new(7).fill(&mut whole);
        let (mut maker, mut checker) = (Stream::new(7), Stream::new(7));
        let mut rest = &whole[..];
        for size in [1, 1023, 1024, 1025, 3, 1924] {
            let mut piece = vec![0; size];
            maker.fill(&mut piece);
            assert_eq!(piece, rest[..size]);
            assert_eq!(checker.differing(&rest[..size]), 0);
            rest = &rest[size..];
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn each_altered_byte_is_found() {
        let mut bytes = vec![0; 3000];
        Stream::new(7).fill(&mut bytes);
        bytes[0] ^= 1;
        bytes[2999] ^= 0x80;
        assert_eq!(Stream::new(7).differing(&bytes), 2);
    }

    #[test]
    fn seeds_give_different_streams() {
        let mut bytes = [0; 64];
        Stream::new(7).fill(&mut bytes);
        assert!(Stream::new(8).differing(&bytes) > 50);
    }
}
