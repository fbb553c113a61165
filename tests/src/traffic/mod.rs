//! Traffic of which every byte is checked at both ends.
//!
//! A connection is a header and then orders from the client. Each order may
//! carry bytes (which the server checks), and asks for a reply of so many bytes
//! after so long. Everything the server sends is a pure function of the bytes
//! it received, never of time or of which server it is: replicas of it answer
//! alike, and the client knows every byte that it must get.
//!
//! The profiles are four ways for a client to use orders.

pub mod client;
pub mod program;
pub mod report;
pub mod server;
pub mod stream;
pub mod udp;
pub mod wire;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How a connection is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Requests and responses of random sizes, one at a time.
    Request,
    /// The server sends as fast as TCP takes it, the client reads at a steady rate.
    Download,
    /// The client sends at a steady rate, the server returns receipts.
    Upload,
    /// Silence, until the server speaks.
    Idle,
    /// Datagrams that are answered one by one.
    Udp,
}

impl Profile {
    /// Those of TCP.
    pub const ALL: [Self; 4] = [Self::Request, Self::Download, Self::Upload, Self::Idle];
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Request => "request",
            Self::Download => "download",
            Self::Upload => "upload",
            Self::Idle => "idle",
            Self::Udp => "udp",
        })
    }
}

/// Shares of the profiles among connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mix(Vec<(Profile, u32)>);

impl Mix {
    /// Profiles with their shares, not all of which are 0.
    #[must_use]
    pub fn of(shares: impl Into<Vec<(Profile, u32)>>) -> Self {
        Self(shares.into())
    }

    /// All connections of one profile.
    #[must_use]
    pub fn only(profile: Profile) -> Self {
        Self(vec![(profile, 1)])
    }

    /// The profile of the connection of a number. Any run of consecutive
    /// connections has nearly the shares of the whole.
    #[must_use]
    pub fn profile(&self, number: usize) -> Profile {
        let total: u32 = self.0.iter().map(|(_, share)| share).sum();
        // A stride that is prime to the total visits each remainder once.
        let stride = (1..=total)
            .rev()
            .find(|n| *n * 5 <= total * 3 && gcd(*n, total) == 1);
        let turn = number as u64 * u64::from(stride.unwrap_or(1)) % u64::from(total);
        let mut left = turn;
        for (profile, share) in &self.0 {
            match left.checked_sub(u64::from(*share)) {
                Some(rest) => left = rest,
                None => return *profile,
            }
        }
        unreachable!("the turn is below the total")
    }
}

impl Default for Mix {
    fn default() -> Self {
        use Profile::{Download, Idle, Request, Upload};
        Self::of([(Request, 40), (Download, 15), (Upload, 15), (Idle, 30)])
    }
}

impl FromStr for Mix {
    type Err = String;

    /// `request=40,idle=60`
    fn from_str(text: &str) -> Result<Self, String> {
        let part = |part: &str| {
            let (name, share) = part.split_once('=').unwrap_or((part, "1"));
            let profile = match name {
                "request" => Profile::Request,
                "download" => Profile::Download,
                "upload" => Profile::Upload,
                "idle" => Profile::Idle,
                _ => return Err(format!("no TCP profile {name:?}")),
            };
            let share = share
                .parse::<u16>()
                .map_err(|error| format!("{share:?}: {error}"))?;
            Ok((profile, u32::from(share)))
        };
        let parts = text.split(',').map(part).collect::<Result<Vec<_>, _>>()?;
        if parts.iter().all(|(_, share)| *share == 0) {
            return Err("all shares are 0".into());
        }
        Ok(Self(parts))
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = self
            .0
            .iter()
            .map(|(profile, share)| format!("{profile}={share}"));
        f.write_str(&parts.collect::<Vec<_>>().join(","))
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_keeps_its_shares_in_every_run() {
        let mix = Mix::default();
        for start in [0, 17, 1000] {
            let count = |profile| {
                (start..start + 100)
                    .filter(|n| mix.profile(*n) == profile)
                    .count()
            };
            assert_eq!(count(Profile::Request), 40);
            assert_eq!(count(Profile::Idle), 30);
            let few = (start..start + 12)
                .filter(|n| mix.profile(*n) == Profile::Idle)
                .count();
            assert!((2..=6).contains(&few), "{few} of 12 idle from {start}");
        }
    }

    #[test]
    fn a_mix_is_read_as_it_is_written() {
        assert_eq!(Mix::default().to_string().parse(), Ok(Mix::default()));
        assert_eq!("upload".parse(), Ok(Mix::only(Profile::Upload)));
        assert!("idle=0".parse::<Mix>().is_err());
        assert!("carrier-pigeon=1".parse::<Mix>().is_err());
    }
}
