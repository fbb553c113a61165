//! What the client does on a connection until it is told to stop.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval_at, sleep};

use super::link::{Fault, Link};
use super::meter::Meter;
use super::{Options, Stop};
use crate::clock::monotonic_ns;
use crate::traffic::Profile;
use crate::traffic::wire::{Order, Receipt};

const REQUEST_BODY_MAX: u32 = 2_000;
const RESPONSE_SHORT_MAX: u32 = 2_000;
const RESPONSE_LONG_MAX: u32 = 32_000;
/// One response in so many is long.
const RESPONSE_LONG_EACH: u32 = 10;
/// Two such orders are always open, so that the server never runs out of bytes to send.
const DOWNLOAD_ORDER: u32 = 256 << 10;
const DOWNLOAD_TICK: Duration = Duration::from_millis(10);
const UPLOAD_TICK: Duration = Duration::from_millis(50);
const IDLE_DELAY_MS: std::ops::Range<u64> = 100..600;
const IDLE_REPLY_MAX: u32 = 2_000;
const NS_PER_MS: u64 = 1_000_000;

/// A connection, what is measured of it and what it is to do.
pub(super) struct Session<'a> {
    pub(super) link: &'a mut Link,
    pub(super) meter: &'a mut Meter,
    pub(super) options: &'a Options,
    pub(super) random: fastrand::Rng,
    pub(super) stop: Stop,
}

impl Session<'_> {
    /// Uses the connection until the stop, and then ends it in good order.
    pub(super) async fn run(mut self, profile: Profile) -> Result<(), Fault> {
        match profile {
            Profile::Request => self.request().await?,
            Profile::Download => self.download().await?,
            Profile::Upload => self.upload().await?,
            Profile::Idle => self.idle().await?,
            Profile::Udp => return Err(Fault::Local("UDP is not a connection".into())),
        }
        self.link.read_owed().await?;
        // The last receipt confirms every byte of the connection.
        self.link.order(Order::default()).await?;
        self.link.read_owed().await?;
        self.link.close().await
    }

    async fn request(&mut self) -> Result<(), Fault> {
        while !stopped(&self.stop) {
            let long = self.random.u32(..RESPONSE_LONG_EACH) == 0;
            let reply_max = if long {
                RESPONSE_LONG_MAX
            } else {
                RESPONSE_SHORT_MAX
            };
            let order = Order {
                body: self.random.u32(1..=REQUEST_BODY_MAX),
                due_ms: 0,
                reply: self.random.u32(1..=reply_max),
            };
            self.meter.begin(monotonic_ns());
            self.link.order(order).await?;
            self.link.read_owed().await?;
            self.meter.end();
            // From half to one and a half of it, so that connections do not march in step.
            let think = self.options.think.mul_f64(0.5 + self.random.f64());
            self.pause(think).await;
        }
        Ok(())
    }

    async fn download(&mut self) -> Result<(), Fault> {
        let Some(quantum) = quantum(self.options.download_bytes_s, DOWNLOAD_TICK) else {
            return self.download_unpaced().await;
        };
        let mut tick = self.ticks(DOWNLOAD_TICK);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = stop(&mut self.stop) => return Ok(()),
            }
            self.order_ahead().await?;
            let mut wanted = quantum;
            self.meter.begin(monotonic_ns());
            while wanted > 0 {
                wanted -= self.link.read(wanted).await?;
            }
            self.meter.end();
        }
    }

    async fn download_unpaced(&mut self) -> Result<(), Fault> {
        while !stopped(&self.stop) {
            self.order_ahead().await?;
            self.meter.begin(monotonic_ns());
            self.link.read(usize::MAX).await?;
            self.meter.end();
        }
        Ok(())
    }

    async fn order_ahead(&mut self) -> Result<(), Fault> {
        while self.link.owed() < u64::from(DOWNLOAD_ORDER) {
            self.link
                .order(Order {
                    reply: DOWNLOAD_ORDER,
                    ..Order::default()
                })
                .await?;
        }
        Ok(())
    }

    async fn upload(&mut self) -> Result<(), Fault> {
        let body = quantum(self.options.upload_bytes_s, UPLOAD_TICK).unwrap_or(1 << 16);
        let body = u32::try_from(body).unwrap_or(u32::MAX);
        let mut tick = self.ticks(UPLOAD_TICK);
        let mut begun = VecDeque::new();
        let mut confirmed = 0;
        loop {
            tokio::select! {
                read = self.link.read(Receipt::LENGTH * 8), if self.link.owed() > 0 => {
                    read?;
                    while confirmed < self.link.replies() {
                        confirmed += 1;
                        self.meter.end();
                        begun.pop_front();
                        begun.front().inspect(|since| self.meter.begin(**since));
                    }
                }
                _ = tick.tick() => {
                    begun.push_back(monotonic_ns());
                    self.meter.begin(begun[0]);
                    self.link.order(Order { body, ..Order::default() }).await?;
                }
                () = stop(&mut self.stop) => return Ok(()),
            }
        }
    }

    async fn idle(&mut self) -> Result<(), Fault> {
        while !stopped(&self.stop) {
            let due_ms = monotonic_ns() / NS_PER_MS + self.random.u64(IDLE_DELAY_MS);
            let reply = self.random.u32(1..=IDLE_REPLY_MAX);
            self.link
                .order(Order {
                    body: 0,
                    due_ms: due_ms as u32,
                    reply,
                })
                .await?;
            self.meter.begin(due_ms * NS_PER_MS);
            self.link.read_owed().await?;
            self.meter.end();
        }
        Ok(())
    }

    /// Turns at a steady rate from a random one on. Those that are missed are not made up for by a burst, and the others stay where
    /// they are: else all that a hiccup has delayed would march in step from then on.
    fn ticks(&mut self, period: Duration) -> tokio::time::Interval {
        let first = tokio::time::Instant::now() + period.mul_f64(self.random.f64());
        let mut ticks = interval_at(first, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        ticks
    }

    async fn pause(&mut self, time: Duration) {
        tokio::select! {
            () = sleep(time) => {}
            () = stop(&mut self.stop) => {}
        }
    }
}

/// How many bytes a tick has at a rate; none when the rate is not limited.
fn quantum(bytes_s: u32, tick: Duration) -> Option<usize> {
    (bytes_s > 0).then(|| (bytes_s as usize * tick.as_millis() as usize / 1000).max(1))
}

/// Whether the stop has come.
pub(super) fn stopped(stop: &Stop) -> bool {
    *stop.borrow()
}

/// Comes with the stop. A client that is gone without a word counts as one.
pub(super) async fn stop(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stopped| *stopped).await;
}
