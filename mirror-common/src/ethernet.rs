//! The addresses of an Ethernet header, kept as it has them.

/// Destination and source as the header's first twelve bytes, in three words in memory order: a
/// frame is addressed by three stores.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addresses(pub [u32; 3]);

impl Addresses {
    /// From a destination and a source.
    pub const fn new(destination: [u8; 6], source: [u8; 6]) -> Self {
        let (d, s) = (destination, source);
        Self([
            u32::from_ne_bytes([d[0], d[1], d[2], d[3]]),
            u32::from_ne_bytes([d[4], d[5], s[0], s[1]]),
            u32::from_ne_bytes([s[2], s[3], s[4], s[5]]),
        ])
    }

    /// Whom a frame goes to.
    #[inline(always)]
    pub const fn destination(&self) -> [u8; 6] {
        let ([a, b, c, d], [e, f, ..]) = (self.0[0].to_ne_bytes(), self.0[1].to_ne_bytes());
        [a, b, c, d, e, f]
    }

    /// Whom it comes from.
    #[inline(always)]
    pub const fn source(&self) -> [u8; 6] {
        let ([.., a, b], [c, d, e, f]) = (self.0[1].to_ne_bytes(), self.0[2].to_ne_bytes());
        [a, b, c, d, e, f]
    }

    /// Those of an answer.
    #[inline(always)]
    pub const fn turned_round(&self) -> Self {
        Self::new(self.source(), self.destination())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_lie_as_in_a_header() {
        let (to, from) = ([1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]);
        let addresses = Addresses::new(to, from);
        let bytes: Vec<u8> = addresses
            .0
            .iter()
            .flat_map(|word| word.to_ne_bytes())
            .collect();
        assert_eq!(bytes, [to, from].concat());
        assert_eq!((addresses.destination(), addresses.source()), (to, from));
        assert_eq!(addresses.turned_round(), Addresses::new(from, to));
    }
}
