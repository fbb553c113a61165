//! A connection on which every byte that arrives is known beforehand.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use testbed::clock::monotonic_ns;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Nothing that is owed may take longer: more than any fault lasts, and several retransmission timers.
const PATIENCE: Duration = Duration::from_secs(20);

/// What went wrong on a connection.
#[derive(Clone, Debug)]
pub(crate) enum Harm {
    /// It was reset or closed; so many bytes were owed.
    Cut { error: String, owed: usize },
    /// So many bytes were owed and did not come.
    Stalled { owed: usize },
    /// So many bytes were others than those that were due.
    Altered { bytes: usize },
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut { error, owed } => write!(f, "{error}; {owed} bytes were owed"),
            Self::Stalled { owed } => write!(f, "{owed} bytes did not come"),
            Self::Altered { bytes } => write!(f, "{bytes} bytes were others"),
        }
    }
}

/// A connection.
pub(crate) struct Wire {
    stream: TcpStream,
    local: SocketAddr,
    /// Bytes that were right.
    pub(crate) received: u64,
    waits_ms: Vec<f32>,
}

impl Wire {
    pub(crate) async fn connect(to: SocketAddr) -> io::Result<Self> {
        let stream = match timeout(PATIENCE, TcpStream::connect(to)).await {
            Ok(stream) => stream?,
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        };
        stream.set_nodelay(true)?;
        Ok(Self {
            local: stream.local_addr()?,
            stream,
            received: 0,
            waits_ms: Vec::new(),
        })
    }

    /// Its own address.
    pub(crate) fn local(&self) -> SocketAddr {
        self.local
    }

    /// How long each answer took that was asked for, once.
    pub(crate) fn take_waits_ms(&mut self) -> Vec<f32> {
        std::mem::take(&mut self.waits_ms)
    }

    /// Says something and takes in what must come back.
    pub(crate) async fn exchange(&mut self, say: &[u8], expected: &[u8]) -> Result<(), Harm> {
        let start = monotonic_ns();
        match timeout(PATIENCE, self.stream.write_all(say)).await {
            Err(_) => {
                return Err(Harm::Stalled {
                    owed: expected.len(),
                });
            }
            Ok(Err(error)) => return Err(cut(&error.to_string(), expected.len())),
            Ok(Ok(())) => self.expect(expected).await?,
        }
        self.waits_ms.push((monotonic_ns() - start) as f32 / 1e6);
        Ok(())
    }

    /// Takes in what must come.
    pub(crate) async fn expect(&mut self, expected: &[u8]) -> Result<(), Harm> {
        let mut chunk = vec![0; expected.len().min(1 << 16)];
        let mut rest = expected;
        while !rest.is_empty() {
            let space = rest.len().min(chunk.len());
            match timeout(PATIENCE, self.stream.read(&mut chunk[..space])).await {
                Err(_) => return Err(Harm::Stalled { owed: rest.len() }),
                Ok(Err(error)) => return Err(cut(&error.to_string(), rest.len())),
                Ok(Ok(0)) => return Err(cut("closed", rest.len())),
                Ok(Ok(n)) => {
                    let (due, later) = rest.split_at(n);
                    let wrong = due.iter().zip(&chunk).filter(|(a, b)| a != b).count();
                    if wrong > 0 {
                        return Err(Harm::Altered { bytes: wrong });
                    }
                    self.received += n as u64;
                    rest = later;
                }
            }
        }
        Ok(())
    }

    /// Closes its own side, and takes in that the other closes without a word more.
    pub(crate) async fn close(mut self) -> Result<(), Harm> {
        if let Err(error) = self.stream.shutdown().await {
            return Err(cut(&error.to_string(), 0));
        }
        let mut more = [0; 64];
        match timeout(PATIENCE, self.stream.read(&mut more)).await {
            Err(_) => Err(Harm::Stalled { owed: 0 }),
            Ok(Err(error)) => Err(cut(&error.to_string(), 0)),
            Ok(Ok(0)) => Ok(()),
            Ok(Ok(bytes)) => Err(Harm::Altered { bytes }),
        }
    }
}

fn cut(error: &str, owed: usize) -> Harm {
    Harm::Cut {
        error: error.to_owned(),
        owed,
    }
}
