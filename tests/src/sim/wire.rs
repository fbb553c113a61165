//! The network card of an endpoint: packets that wait in memory.

use std::collections::VecDeque;

use smoltcp::{
    phy::{self, Device, DeviceCapabilities, Medium},
    time::Instant,
};

use super::frame::Frame;

/// Packets in and out of an interface.
pub(super) struct Wire {
    pub(super) mtu: usize,
    pub(super) arrived: Option<Vec<u8>>,
    pub(super) out: VecDeque<Frame>,
}

impl Device for Wire {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sender<'a>;

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        capabilities
    }

    fn receive(&mut self, _now: Instant) -> Option<(Received, Sender<'_>)> {
        let bytes = self.arrived.take()?;
        Some((Received(bytes), Sender(&mut self.out)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Sender<'_>> {
        Some(Sender(&mut self.out))
    }
}

pub(super) struct Received(Vec<u8>);

impl phy::RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(&self.0)
    }
}

pub(super) struct Sender<'a>(&'a mut VecDeque<Frame>);

impl phy::TxToken for Sender<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, fill: F) -> R {
        let mut bytes = vec![0; length];
        let result = fill(&mut bytes);
        self.0.push_back(Frame { bytes, of: None });
        result
    }
}
