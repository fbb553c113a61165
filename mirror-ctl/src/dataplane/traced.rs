//! The traced variant of the programs: loaded for one trace, on the maps that are pinned, and gone with it. What is pinned as
//! programs are the normal ones, so that an agent that starts puts those in place, whatever it finds attached.

use std::{fmt, io, path::Path};

use aya::maps::{Array, Map, MapData, MapError, PerCpuArray, RingBuf};
use mirror_common::{
    flow::{Address, FlowKey},
    trace::{Filter, Record},
};
use tokio::io::unix::AsyncFd;

use super::{
    Dataplane, DataplaneError,
    error::{MapContext, PathContext},
    host::Pins,
    object::{Programs, Shapes, refused},
};

/// Records taken at a time.
const BATCH: usize = 256;

/// The traced programs, verified, for [`Dataplane::trace`].
pub struct Traced(Programs);

impl fmt::Debug for Traced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Traced")
    }
}

/// Has the kernel verify the traced programs, which takes seconds. They tell of nothing yet.
pub fn load_traced(pin_dir: &Path) -> Result<(Traced, RecordMaps), DataplaneError> {
    let (programs, mut ebpf) = Programs::traced(&Pins::new(pin_dir), &Shapes::of_object()?)?;
    let mut take = |name: &'static str| {
        let missing = || refused("traced", format!("its object has no map {name}"));
        ebpf.take_map(name).ok_or_else(missing)
    };
    let maps = RecordMaps {
        filter: open(take("TRACE_FILTER")?, "TRACE_FILTER")?,
        ring: open(take("TRACE_RING")?, "TRACE_RING")?,
        lost: open(take("TRACE_LOST")?, "TRACE_LOST")?,
    };
    Ok((Traced(programs), maps))
}

fn open<M>(map: Map, name: &'static str) -> Result<M, DataplaneError>
where
    M: TryFrom<Map, Error = MapError>,
{
    M::try_from(map).on_map(name, "open as its type")
}

impl Dataplane {
    /// Makes the traced programs those that are attached from now on. What is attached stays until it is attached again.
    pub fn trace(&mut self, traced: Traced) {
        let normal = std::mem::replace(&mut self.programs, traced.0);
        // Those of an earlier trace are not kept.
        self.normal.get_or_insert(normal);
    }

    /// Makes the normal programs those that are attached from now on. False: they are already.
    pub fn untrace(&mut self) -> bool {
        match self.normal.take() {
            Some(normal) => {
                self.programs = normal;
                true
            }
            None => false,
        }
    }
}

/// The maps by which the traced programs tell.
pub struct RecordMaps {
    filter: Array<MapData, Filter>,
    ring: RingBuf<MapData>,
    lost: PerCpuArray<MapData, u64>,
}

impl fmt::Debug for RecordMaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RecordMaps")
    }
}

impl RecordMaps {
    /// Says which packets are told of.
    pub fn set_filter(&mut self, filter: &Filter) -> Result<(), DataplaneError> {
        self.filter
            .set(0, filter, 0)
            .on_map("TRACE_FILTER", "write")
    }
}

/// What the traced programs tell, as a stream.
pub struct Records {
    ring: AsyncFd<RingBuf<MapData>>,
    lost: PerCpuArray<MapData, u64>,
}

/// One record with the frame's first bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// What is told.
    pub record: Record,
    /// The frame.
    pub frame: Vec<u8>,
}

impl Records {
    /// Begins to listen; within a runtime.
    #[expect(unsafe_code, reason = "tokio trusts its caller with descriptors")]
    pub fn open(maps: RecordMaps) -> Result<Self, DataplaneError> {
        // SAFETY: the ring buffer owns its map's descriptor and keeps it until it is dropped, and nothing here takes the ring
        // buffer out of the `AsyncFd`.
        let ring = unsafe { AsyncFd::register(maps.ring) }.path("watch", "TRACE_RING")?;
        Ok(Self {
            ring,
            lost: maps.lost,
        })
    }

    /// Waits for records and takes some.
    pub async fn next(&mut self) -> io::Result<Vec<Told>> {
        loop {
            let mut guard = self.ring.readable_mut().await?;
            let ring = guard.get_inner_mut();
            let mut told = Vec::new();
            let mut empty = false;
            while told.len() < BATCH && !empty {
                match ring.next() {
                    Some(item) => told.extend(decode(&item)),
                    None => empty = true,
                }
            }
            if empty {
                guard.clear_ready();
            }
            if !told.is_empty() {
                return Ok(told);
            }
        }
    }

    /// How many records found no room so far.
    pub fn lost(&self) -> Result<u64, DataplaneError> {
        let lost = self.lost.get(&0, 0).on_map("TRACE_LOST", "read")?;
        Ok(lost.iter().sum())
    }
}

/// Field by field: the ring buffer's memory is bytes, and this needs no unsafe code.
fn decode(bytes: &[u8]) -> Option<Told> {
    let (bytes, frame) = bytes.split_first_chunk::<{ size_of::<Record>() }>()?;
    let u16_at = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
    let u32_at =
        |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let u64_at = |at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[at..at + 8]);
        u64::from_ne_bytes(word)
    };
    let client: Address = std::array::from_fn(|word| u32_at(16 + 4 * word));
    let record = Record {
        time_ns: u64_at(0),
        reasons: u64_at(8),
        flow: FlowKey {
            client,
            vni: u16_at(32),
            address: bytes[34],
            protocol: bytes[35],
            client_port: u16_at(36),
            vni_port: u16_at(38),
        },
        packet: u32_at(40),
        cpu: u32_at(44),
        length: u32_at(48),
        captured: u32_at(52),
        ifindex: u32_at(56),
        instance: u16_at(60),
        program: bytes[62],
        moment: bytes[63],
        action: bytes[64],
        pad: [0; 7],
    };
    let frame = frame.get(..record.captured as usize)?.to_vec();
    Some(Told { record, frame })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_as_they_were_written() {
        let mut bytes: Vec<u8> = (0..size_of::<Record>() as u8).collect();
        bytes[52..56].copy_from_slice(&3u32.to_ne_bytes());
        bytes.extend(*b"abcde");
        let told = decode(&bytes).unwrap();
        assert_eq!(told.frame, b"abc", "the ring's entries are padded");
        assert_eq!(told.record.time_ns.to_ne_bytes(), bytes[0..8]);
        assert_eq!(told.record.flow.client[3].to_ne_bytes(), bytes[28..32]);
        assert_eq!(told.record.flow.vni_port.to_ne_bytes(), bytes[38..40]);
        assert_eq!(told.record.ifindex.to_ne_bytes(), bytes[56..60]);
        assert_eq!(told.record.instance.to_ne_bytes(), bytes[60..62]);
        assert_eq!((told.record.program, told.record.moment), (62, 63));
        assert_eq!(told.record.action, 64);
        assert!(decode(&bytes[..74]).is_none(), "cut off");
        assert!(decode(&bytes[..71]).is_none(), "cut off");
    }
}
