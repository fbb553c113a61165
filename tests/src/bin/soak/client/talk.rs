//! What clients say to each kind of server, and every byte of what must come back.

use std::time::Duration;

use fastrand::Rng;

use super::wire::{Harm, Wire};
use crate::servers::{FILE, FILE_BYTES, Phrases, Service};

/// The most that is asked for or said at once.
const PIECE_MAX: usize = 48 * 1024;
const VALUE_MAX: usize = 256 * 1024;

/// What all connections know.
#[derive(Debug)]
pub(crate) struct Lore {
    pub(crate) phrases: Phrases,
    pub(crate) content: Vec<u8>,
}

/// One connection's dialogue, an exchange at a time.
pub(crate) enum Talk {
    Files,
    /// The key, and the value that the store must have under it.
    Store {
        key: String,
        value: Vec<u8>,
        counter: u64,
    },
    Lines,
}

impl Talk {
    pub(crate) fn new(service: Service, number: u64) -> Self {
        match service {
            Service::Files => Self::Files,
            Service::Store => Self::Store {
                key: format!("connection-{number}"),
                value: Vec::new(),
                counter: 0,
            },
            Service::Lines => Self::Lines,
        }
    }

    /// What is said first.
    pub(crate) async fn begin(&mut self, wire: &mut Wire, lore: &Lore) -> Result<(), Harm> {
        if matches!(self, Self::Lines) {
            wire.expect(lore.phrases.greeting.as_bytes()).await?;
            wire.exchange(b"USER anonymous\r\n", b"230 Login successful.\r\n")
                .await?;
        }
        Ok(())
    }

    /// One question and its answer.
    pub(crate) async fn go_on(
        &mut self,
        wire: &mut Wire,
        lore: &Lore,
        rng: &mut Rng,
    ) -> Result<(), Harm> {
        match self {
            Self::Files => {
                let (say, expected) = part(lore, rng);
                wire.exchange(&say, &expected).await
            }
            Self::Store {
                key,
                value,
                counter,
            } => {
                let (say, expected) = command(key, value, counter, rng);
                wire.exchange(&say, &expected).await
            }
            Self::Lines => {
                let (say, expected) = line(rng);
                wire.exchange(say.as_bytes(), expected.as_bytes()).await
            }
        }
    }

    /// What is said last.
    pub(crate) async fn end(self, wire: &mut Wire) -> Result<(), Harm> {
        match self {
            Self::Files => Ok(()),
            Self::Store {
                key,
                value,
                counter,
            } => {
                let count = u8::from(!value.is_empty()) + u8::from(counter > 0);
                let say = request(&[b"DEL", key.as_bytes(), format!("{key}-n").as_bytes()]);
                wire.exchange(&say, format!(":{count}\r\n").as_bytes())
                    .await
            }
            Self::Lines => wire.exchange(b"QUIT\r\n", b"221 Goodbye.\r\n").await,
        }
    }
}

/// How long a client thinks: mostly about a second, sometimes long, sometimes not at all.
pub(crate) fn pause(rng: &mut Rng) -> Duration {
    Duration::from_millis(match rng.u8(..10) {
        0 => 0,
        1 => rng.u64(2_000..5_000),
        _ => rng.u64(300..1_500),
    })
}

fn length(rng: &mut Rng) -> usize {
    match rng.u8(..8) {
        0 => rng.usize(1..=PIECE_MAX),
        _ => rng.usize(1..=4_000),
    }
}

fn part(lore: &Lore, rng: &mut Rng) -> (Vec<u8>, Vec<u8>) {
    let count = length(rng);
    let first = rng.usize(..FILE_BYTES - count);
    let last = first + count - 1;
    let say = format!("GET /{FILE} HTTP/1.1\r\nHost: vni\r\nRange: bytes={first}-{last}\r\n\r\n");
    let header = lore.phrases.part.replace(
        "Content-Length: 1\r\n",
        &format!("Content-Length: {count}\r\n"),
    );
    let header = header.replace("bytes 0-0/", &format!("bytes {first}-{last}/"));
    let mut expected = header.into_bytes();
    expected.extend(&lore.content[first..=last]);
    (say.into_bytes(), expected)
}

fn request(words: &[&[u8]]) -> Vec<u8> {
    let mut text = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        text.extend(bulk(word));
    }
    text
}

fn bulk(bytes: &[u8]) -> Vec<u8> {
    let mut text = format!("${}\r\n", bytes.len()).into_bytes();
    text.extend(bytes);
    text.extend(b"\r\n");
    text
}

fn command(key: &str, value: &mut Vec<u8>, counter: &mut u64, rng: &mut Rng) -> (Vec<u8>, Vec<u8>) {
    let key = key.as_bytes();
    match rng.u8(..5) {
        0 => {
            *counter += 1;
            let name = [key, b"-n"].concat();
            (
                request(&[b"INCR", &name]),
                format!(":{counter}\r\n").into_bytes(),
            )
        }
        1 if !value.is_empty() => {
            let first = rng.usize(..value.len());
            let last = (first + length(rng)).min(value.len()) - 1;
            let (from, to) = (first.to_string(), last.to_string());
            let say = request(&[b"GETRANGE", key, from.as_bytes(), to.as_bytes()]);
            (say, bulk(&value[first..=last]))
        }
        2 if !value.is_empty() && value.len() < PIECE_MAX => (request(&[b"GET", key]), bulk(value)),
        3 if value.len() < VALUE_MAX => {
            let mut more = vec![0; length(rng)];
            rng.fill(&mut more);
            value.extend(&more);
            (
                request(&[b"APPEND", key, &more]),
                format!(":{}\r\n", value.len()).into_bytes(),
            )
        }
        _ => {
            value.resize(length(rng), 0);
            rng.fill(value);
            (request(&[b"SET", key, value]), b"+OK\r\n".to_vec())
        }
    }
}

fn line(rng: &mut Rng) -> (String, String) {
    let number = rng.u32(..);
    match rng.u8(..6) {
        0 => ("NOOP\r\n".into(), "200 NOOP ok.\r\n".into()),
        1 => (
            "PWD\r\n".into(),
            "257 \"/\" is the current directory\r\n".into(),
        ),
        2 => (
            "TYPE I\r\n".into(),
            "200 Switching to Binary mode.\r\n".into(),
        ),
        3 => (
            "CWD /\r\n".into(),
            "250 Directory successfully changed.\r\n".into(),
        ),
        _ => (
            format!("REST {number}\r\n"),
            format!("350 Restart position accepted ({number}).\r\n"),
        ),
    }
}
