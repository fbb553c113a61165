//! One connection as the client has it: orders out, and every byte that comes
//! in compared with the one that must.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::traffic::report::Progress;
use crate::traffic::stream::Stream;
use crate::traffic::wire::{Header, Order, Receipt, Tally};

const BUFFER: usize = 64 * 1024;

/// Why a connection ended before its time.
#[derive(Debug)]
pub(super) enum Fault {
    /// It was reset or closed by the other side.
    Reset(String),
    /// So many bytes were not the right ones.
    Altered(u64),
    /// It did not finish within its time.
    Unfinished,
    /// It could not be used at all.
    Local(String),
}

/// Sums over the connections of a client.
#[derive(Debug, Default)]
pub(in crate::traffic) struct Totals(Cell<Progress>);

impl Totals {
    /// Changes the sums.
    pub(in crate::traffic) fn update(&self, change: impl FnOnce(&mut Progress)) {
        let mut sums = self.0.get();
        change(&mut sums);
        self.0.set(sums);
    }

    /// The sums.
    #[must_use]
    pub(super) fn get(&self) -> Progress {
        self.0.get()
    }
}

/// What the server must send next.
struct Reply {
    receipt: [u8; Receipt::LENGTH],
    receipt_read: usize,
    stream: Stream,
    left: usize,
    /// What the client had sent when it gave the order.
    sent: u64,
}

/// A connection.
pub(super) struct Link {
    connection: TcpStream,
    body: Stream,
    tally: Tally,
    expected: VecDeque<Reply>,
    owed: u64,
    received: u64,
    confirmed: u64,
    replies: u64,
    buffer: Vec<u8>,
    totals: Rc<Totals>,
}

impl Link {
    /// Opens the conversation.
    pub(super) async fn open(
        mut connection: TcpStream,
        header: Header,
        totals: Rc<Totals>,
    ) -> Result<Self, Fault> {
        connection
            .set_nodelay(true)
            .map_err(|error| Fault::Local(error.to_string()))?;
        let mut tally = Tally::default();
        tally.add(&header.encode());
        connection
            .write_all(&header.encode())
            .await
            .map_err(Fault::of)?;
        Ok(Self {
            connection,
            body: Stream::new(header.seed),
            tally,
            expected: VecDeque::new(),
            owed: 0,
            received: 0,
            confirmed: 0,
            replies: 0,
            buffer: vec![0; BUFFER],
            totals,
        })
    }

    /// Gives an order, with the body that it announces.
    pub(super) async fn order(&mut self, order: Order) -> Result<(), Fault> {
        let mut message = vec![0; Order::LENGTH + order.body as usize];
        message[..Order::LENGTH].copy_from_slice(&order.encode());
        self.body.fill(&mut message[Order::LENGTH..]);
        self.tally.add(&message);
        let receipt = self.tally.receipt(0);
        self.expected.push_back(Reply {
            receipt: receipt.encode(),
            receipt_read: 0,
            stream: receipt.stream(),
            left: order.reply as usize,
            sent: self.tally.bytes(),
        });
        self.owed += Receipt::LENGTH as u64 + u64::from(order.reply);
        self.totals
            .update(|sums| sums.bytes_sent += message.len() as u64);
        self.connection.write_all(&message).await.map_err(Fault::of)
    }

    /// Reads at most so many bytes, at least one, and checks them. Nothing is
    /// lost when the future is dropped.
    pub(super) async fn read(&mut self, max: usize) -> Result<usize, Fault> {
        let max = max.min(BUFFER);
        let length = match self.connection.read(&mut self.buffer[..max]).await {
            Ok(0) => return Err(Fault::Reset("closed by the server".into())),
            Ok(length) => length,
            Err(error) => return Err(Fault::of(error)),
        };
        let buffer = std::mem::take(&mut self.buffer);
        let altered = self.check(&buffer[..length]);
        self.buffer = buffer;
        if altered > 0 {
            return Err(Fault::Altered(altered));
        }
        self.received += length as u64;
        self.totals
            .update(|sums| sums.bytes_received += length as u64);
        Ok(length)
    }

    /// Reads all that is owed.
    pub(super) async fn read_owed(&mut self) -> Result<(), Fault> {
        while self.owed > 0 {
            self.read(BUFFER).await?;
        }
        Ok(())
    }

    /// Closes in good order: the server must have nothing more to say.
    pub(super) async fn close(&mut self) -> Result<(), Fault> {
        self.connection.shutdown().await.map_err(Fault::of)?;
        match self.connection.read(&mut self.buffer).await {
            Ok(0) => Ok(()),
            Ok(more) => Err(Fault::Altered(more as u64)),
            Err(error) => Err(Fault::of(error)),
        }
    }

    /// Bytes that the server has yet to send.
    #[must_use]
    pub(super) fn owed(&self) -> u64 {
        self.owed
    }

    /// Bytes sent that no receipt has confirmed.
    #[must_use]
    pub(super) fn unconfirmed(&self) -> u64 {
        self.tally.bytes() - self.confirmed
    }

    /// Replies received whole.
    #[must_use]
    pub(super) fn replies(&self) -> u64 {
        self.replies
    }

    /// Bytes received right and bytes sent.
    #[must_use]
    pub(super) fn bytes(&self) -> (u64, u64) {
        (self.received, self.tally.bytes())
    }

    /// How many bytes differ from those that must come next.
    fn check(&mut self, mut bytes: &[u8]) -> u64 {
        let mut altered = 0;
        while let Some(reply) = self.expected.front_mut() {
            let part = bytes.len().min(Receipt::LENGTH - reply.receipt_read);
            let (now, later) = bytes.split_at(part);
            let wanted = &reply.receipt[reply.receipt_read..][..part];
            altered += now.iter().zip(wanted).filter(|(a, b)| a != b).count() as u64;
            reply.receipt_read += part;

            let in_stream = later.len().min(reply.left);
            let (now, later) = later.split_at(in_stream);
            altered += reply.stream.differing(now);
            reply.left -= in_stream;
            self.owed -= (part + in_stream) as u64;
            bytes = later;
            if reply.left > 0 || reply.receipt_read < Receipt::LENGTH {
                break;
            }
            self.confirmed = reply.sent;
            self.expected.pop_front();
            self.replies += 1;
            self.totals.update(|sums| sums.replies += 1);
        }
        altered + bytes.len() as u64
    }
}

impl Fault {
    fn of(error: io::Error) -> Self {
        Self::Reset(error.to_string())
    }
}
