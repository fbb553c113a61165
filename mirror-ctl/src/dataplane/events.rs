//! What the programs report, as a stream.

use std::io;

use aya::maps::{MapData, RingBuf};
use mirror_common::{
    event::Event,
    flow::{Address, FlowKey},
};
use tokio::io::unix::AsyncFd;

use super::{DataplaneError, error::PathContext, host::Pins, maps};

/// Events taken at a time.
const BATCH: usize = 1024;

/// The ring buffer's reader. There is one: two would steal each other's events.
pub struct Events(AsyncFd<RingBuf<MapData>>);

impl Events {
    #[expect(unsafe_code, reason = "tokio trusts its caller with descriptors")]
    pub(super) fn open(pins: &Pins) -> Result<Self, DataplaneError> {
        let ring: RingBuf<MapData> = maps::open_map(pins, "EVENTS")?;
        // SAFETY: the ring buffer owns its map's descriptor and keeps it until it is dropped,
        // and nothing here takes the ring buffer out of the `AsyncFd`.
        let ring = unsafe { AsyncFd::register(ring) }.path("watch", pins.map("EVENTS"))?;
        Ok(Self(ring))
    }

    /// Waits for events and takes them.
    pub async fn next(&mut self) -> io::Result<Vec<Event>> {
        loop {
            let mut guard = self.0.readable_mut().await?;
            let ring = guard.get_inner_mut();
            let mut events = Vec::new();
            let mut empty = false;
            while events.len() < BATCH && !empty {
                match ring.next() {
                    Some(item) => events.extend(decode(&item)),
                    None => empty = true,
                }
            }
            if empty {
                guard.clear_ready();
            }
            if !events.is_empty() {
                return Ok(events);
            }
        }
    }
}

/// Field by field: the ring buffer's memory is bytes, and this needs no unsafe code.
fn decode(bytes: &[u8]) -> Option<Event> {
    let bytes: &[u8; size_of::<Event>()] = bytes.try_into().ok()?;
    let u16_at = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
    let u32_at =
        |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let client: Address = std::array::from_fn(|word| u32_at(8 + 4 * word));
    Some(Event {
        time_ns: u64::from(u32_at(0)) | u64::from(u32_at(4)) << 32,
        flow: FlowKey {
            client,
            vni: u16_at(24),
            address: bytes[26],
            protocol: bytes[27],
            client_port: u16_at(28),
            vni_port: u16_at(30),
        },
        kind: bytes[32],
        cause: bytes[33],
        from: u16_at(34),
        to: u16_at(36),
        pad: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_as_they_were_written() {
        let mut bytes = [0u8; size_of::<Event>()];
        for (place, byte) in bytes.iter_mut().enumerate() {
            *byte = place as u8;
        }
        let event = decode(&bytes).unwrap();
        assert_eq!(event.time_ns.to_ne_bytes(), bytes[0..8]);
        assert_eq!(event.flow.client[3].to_ne_bytes(), bytes[20..24]);
        assert_eq!(event.flow.vni_port.to_ne_bytes(), bytes[30..32]);
        assert_eq!((event.kind, event.cause), (32, 33));
        assert_eq!(event.to.to_ne_bytes(), bytes[36..38]);
        assert!(decode(&bytes[1..]).is_none());
    }
}
