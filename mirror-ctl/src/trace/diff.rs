//! Where mirrors' answers part from the active replicas'. Pure: what replicas said in, differences out.
//!
//! The bytes of each replica's stream are put where they belong, whatever order and however cut they come, and compared as soon
//! as both sides have said them. What is kept is bounded: per flow, and the flows.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use mirror_common::limits::REPLICAS;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::PacketRow;

/// Bytes of a replica's stream that are kept while the other side has not said them yet, and around what it said.
const KEPT: usize = 16 << 10;
/// Flows that are followed at a time.
const FLOWS: usize = 4_096;
/// Differences that are shown of each mirror.
const SAMPLES: usize = 5;
/// Bytes of a sample in front of the first that differs, and from there on.
const BEFORE: u64 = 16;
const AFTER: u64 = 48;

/// What was found out of a VNI's mirrors.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DiffReport {
    /// The VNI.
    pub vni: String,
    /// How long was looked, seconds.
    pub duration_s: f64,
    /// By mirror.
    pub mirrors: Vec<MirrorDiff>,
    /// Records that were lost: some bytes were not compared.
    pub lost_records: u64,
    /// Flows that were forgotten to make room for others: what they said later counted as of other flows.
    pub flows_forgotten: u64,
}

/// What was found out of one mirror.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MirrorDiff {
    /// The mirror's instance.
    pub instance: String,
    /// Flows of which bytes were compared.
    pub flows: u64,
    /// Those whose bytes differ.
    pub diverged: u64,
    /// Their part, 0 to 1.
    pub rate: f64,
    /// Bytes that were compared.
    pub bytes: u64,
    /// Some of the differences, the first ones.
    pub samples: Vec<Difference>,
}

/// The first difference of a flow.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Difference {
    /// The client's address and port.
    pub client: String,
    /// The VNI's address and port.
    pub address: String,
    /// The instance whose answer the client got.
    pub active: String,
    /// Where the first byte that differs is, from the beginning of the answers.
    pub offset: u64,
    /// HTTP: the status line of the active one's answer in which it is.
    pub active_status: Option<String>,
    /// And of the mirror's.
    pub mirror_status: Option<String>,
    /// The active one's bytes around it, those that are no printable characters escaped.
    pub active_bytes: String,
    /// The mirror's bytes around it.
    pub mirror_bytes: String,
}

/// Follows the flows.
#[derive(Default)]
pub struct Differ {
    flows: HashMap<(String, String), Flow>,
    mirrors: BTreeMap<String, MirrorDiff>,
    /// Packets so far: when a flow was heard of last.
    heard: u64,
    forgotten: u64,
}

#[derive(Default)]
struct Flow {
    streams: [Stream; REPLICAS],
    /// Offset of what was said last: those to come are near it.
    at: u64,
    heard: u64,
}

/// What one replica said.
#[derive(Default)]
struct Stream {
    instance: String,
    /// Pieces by offset; none overlaps another.
    pieces: BTreeMap<u64, Vec<u8>>,
    kept: usize,
    /// HTTP: status lines by their offsets, the last few.
    statuses: BTreeMap<u64, String>,
    /// As a mirror: whether bytes were compared, and whether they differed.
    compared: bool,
    diverged: bool,
}

impl Stream {
    /// Takes a piece in, less what is known of it already. Says what is new.
    fn add(&mut self, mut offset: u64, mut bytes: &[u8]) -> Option<(u64, Vec<u8>)> {
        if let Some((start, before)) = self.pieces.range(..=offset).next_back() {
            let known = (start + before.len() as u64).saturating_sub(offset);
            let skip = bytes.len().min(known as usize);
            offset += skip as u64;
            bytes = &bytes[skip..];
        }
        if let Some((start, _)) = self.pieces.range(offset..).next() {
            let room = (start - offset) as usize;
            bytes = &bytes[..room.min(bytes.len())];
        }
        if bytes.is_empty() {
            return None;
        }
        if let Some(line) = status_line(bytes) {
            self.statuses.insert(offset, line);
            while self.statuses.len() > SAMPLES {
                self.statuses.pop_first();
            }
        }
        self.kept += bytes.len();
        self.pieces.insert(offset, bytes.to_vec());
        while self.kept > KEPT
            && let Some((_, oldest)) = self.pieces.pop_first()
        {
            self.kept -= oldest.len();
        }
        Some((offset, bytes.to_vec()))
    }

    /// The bytes of a range with their offsets, as far as they are kept.
    fn bytes(&self, range: Range<u64>) -> impl Iterator<Item = (u64, u8)> {
        let start = self.pieces.range(..=range.start).next_back();
        let start = start.map_or(range.start, |(start, _)| *start);
        self.pieces
            .range(start..range.end.max(start))
            .flat_map(|(start, piece)| (*start..).zip(piece.iter().copied()))
            .filter(move |(at, _)| range.contains(at))
    }

    /// Compares a piece of another stream: how many bytes of it this one has as well, and where the first other one is.
    fn compare(&self, offset: u64, piece: &[u8]) -> (u64, Option<u64>) {
        let mut compared = 0;
        let mut first = None;
        for (at, byte) in self.bytes(offset..offset + piece.len() as u64) {
            compared += 1;
            if first.is_none() && piece[(at - offset) as usize] != byte {
                first = Some(at);
            }
        }
        (compared, first)
    }

    /// What was said around a place, as text.
    fn around(&self, at: u64) -> String {
        let range = at.saturating_sub(BEFORE)..at + AFTER;
        let bytes: Vec<u8> = self.bytes(range).map(|(_, byte)| byte).collect();
        bytes.escape_ascii().to_string()
    }

    /// The status line of the answer in which a place is.
    fn status(&self, at: u64) -> Option<String> {
        let (_, line) = self.statuses.range(..=at).next_back()?;
        Some(line.clone())
    }
}

/// The status line of an HTTP/1 answer that begins here.
fn status_line(bytes: &[u8]) -> Option<String> {
    const LINE_MAX: usize = 200;
    let line = bytes.starts_with(b"HTTP/1.").then_some(bytes)?;
    let line = &line[..line.len().min(LINE_MAX)];
    let end = line.windows(2).position(|two| two == b"\r\n")?;
    Some(line[..end].escape_ascii().to_string())
}

impl Differ {
    /// Takes in what was seen of a packet.
    pub fn add(&mut self, row: &PacketRow) {
        let (Some(slot), Some(active), Some(offset), Some(segment)) =
            (row.slot, row.active_slot, row.offset, &row.before)
        else {
            return;
        };
        let (slot, active) = (usize::from(slot), usize::from(active));
        if row.direction != "from-replica" || slot.max(active) >= REPLICAS {
            return;
        }
        self.heard += 1;
        let key = (row.client.clone(), row.address.clone());
        let flags = segment.flags.as_deref().unwrap_or_default();
        if flags.contains('S')
            && let Some(flow) = self.flows.get_mut(&key)
            && flow.streams[slot].kept > 0
        {
            // Another connection of the same ports.
            *flow = Flow::default();
        }
        let Some(bytes) = payload(row).filter(|bytes| !bytes.is_empty()) else {
            return;
        };
        self.make_room(&key);
        let flow = self.flows.entry(key).or_default();
        flow.heard = self.heard;
        let Some(offset) = unwrapped(flow.at, offset) else {
            return;
        };
        let stream = &mut flow.streams[slot];
        stream.instance = row.instance.clone().unwrap_or_default();
        let Some((offset, new)) = stream.add(offset, &bytes) else {
            return;
        };
        flow.at = flow.at.max(offset);
        for mirror in (0..REPLICAS).filter(|mirror| *mirror != active) {
            // What the active one said is compared with each mirror, what a mirror said with the active one.
            let other = match slot {
                _ if slot == active => mirror,
                _ if slot == mirror => active,
                _ => continue,
            };
            let (compared, first) = flow.streams[other].compare(offset, &new);
            if compared > 0 && !flow.streams[mirror].diverged {
                let entry = self.mirrors.entry(flow.streams[mirror].instance.clone());
                entry
                    .or_default()
                    .count(row, flow, (active, mirror), compared, first);
            }
        }
    }

    /// A flow that nothing was heard of for the longest goes when there is one too many.
    fn make_room(&mut self, key: &(String, String)) {
        if self.flows.len() < FLOWS || self.flows.contains_key(key) {
            return;
        }
        let oldest = self.flows.iter().min_by_key(|(_, flow)| flow.heard);
        if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
            self.flows.remove(&oldest);
            self.forgotten += 1;
        }
    }

    /// What was found out in so many seconds.
    pub fn report(self, vni: String, duration_s: f64, lost_records: u64) -> DiffReport {
        let mut mirrors: Vec<_> = self.mirrors.into_values().collect();
        for mirror in &mut mirrors {
            mirror.rate = mirror.diverged as f64 / mirror.flows.max(1) as f64;
        }
        DiffReport {
            vni,
            duration_s,
            mirrors,
            lost_records,
            flows_forgotten: self.forgotten,
        }
    }
}

impl MirrorDiff {
    /// Counts bytes of a flow that were compared, of which `first` may be another one.
    fn count(
        &mut self,
        row: &PacketRow,
        flow: &mut Flow,
        (active, mirror): (usize, usize),
        compared: u64,
        first: Option<u64>,
    ) {
        let of_mirror = &mut flow.streams[mirror];
        self.instance.clone_from(&of_mirror.instance);
        self.bytes += compared;
        self.flows += u64::from(!of_mirror.compared);
        of_mirror.compared = true;
        let Some(at) = first else { return };
        of_mirror.diverged = true;
        self.diverged += 1;
        let (of_active, of_mirror) = (&flow.streams[active], &flow.streams[mirror]);
        if self.samples.len() < SAMPLES {
            self.samples.push(Difference {
                client: row.client.clone(),
                address: row.address.clone(),
                active: of_active.instance.clone(),
                offset: at,
                active_status: of_active.status(at),
                mirror_status: of_mirror.status(at),
                active_bytes: of_active.around(at),
                mirror_bytes: of_mirror.around(at),
            });
        }
    }
}

/// The offset near `at` whose low 32 bits are these; none before the stream's beginning.
fn unwrapped(at: u64, low: u32) -> Option<u64> {
    at.checked_add_signed(i64::from(low.wrapping_sub(at as u32).cast_signed()))
}

/// The payload of a packet as it came, as far as it was kept.
fn payload(row: &PacketRow) -> Option<Vec<u8>> {
    let frame = BASE64_STANDARD.decode(row.frame_before.as_ref()?).ok()?;
    let packet = etherparse::LaxSlicedPacket::from_ethernet(&frame).ok()?;
    match packet.transport? {
        etherparse::TransportSlice::Tcp(tcp) => Some(tcp.payload().to_vec()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;
    use crate::trace::row::segment;

    fn said(slot: u8, offset: u32, bytes: &[u8]) -> PacketRow {
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 77, 0, 100], [10, 0, 0, 9], 64)
            .tcp(80, 4000, offset, 512)
            .ack(1);
        let mut frame = Vec::new();
        builder.write(&mut frame, bytes).unwrap();
        PacketRow {
            client: "10.0.0.9:4000".to_owned(),
            address: "10.77.0.100:80".to_owned(),
            direction: "from-replica".to_owned(),
            instance: Some(["a", "b"][usize::from(slot)].to_owned()),
            slot: Some(slot),
            active_slot: Some(0),
            offset: Some(offset),
            before: segment(&frame),
            frame_before: Some(BASE64_STANDARD.encode(&frame)),
            ..PacketRow::default()
        }
    }

    fn diff(said: &[PacketRow]) -> DiffReport {
        let mut differ = Differ::default();
        said.iter().for_each(|row| differ.add(row));
        differ.report("web".to_owned(), 1.0, 0)
    }

    #[test]
    fn the_same_bytes_cut_otherwise_are_the_same() {
        let report = diff(&[
            said(0, 0, b"hello"),
            said(1, 3, b"lo wor"),
            said(1, 0, b"hello"),
            said(0, 5, b" world"),
            said(0, 5, b" world"),
            said(1, 9, b"ld"),
        ]);
        let [mirror] = &report.mirrors[..] else {
            panic!("{report:?}");
        };
        assert_eq!(
            (mirror.instance.as_str(), mirror.flows, mirror.diverged),
            ("b", 1, 0)
        );
        assert_eq!((mirror.bytes, mirror.rate), (11, 0.0));
    }

    #[test]
    fn the_first_difference_is_shown_with_both_status_lines() {
        let good = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab";
        let bad = b"HTTP/1.1 500 Internal\r\nContent-Length: 2\r\n\r\nab";
        let report = diff(&[
            said(1, 0, bad),
            said(0, 0, good),
            said(0, 50, b"more"),
            said(1, 50, b"else"),
        ]);
        let mirror = &report.mirrors[0];
        assert_eq!((mirror.flows, mirror.diverged, mirror.rate), (1, 1, 1.0));
        let [sample] = &mirror.samples[..] else {
            panic!("{mirror:?}");
        };
        assert_eq!((sample.offset, sample.active.as_str()), (9, "a"));
        assert_eq!(sample.active_status.as_deref(), Some("HTTP/1.1 200 OK"));
        assert_eq!(
            sample.mirror_status.as_deref(),
            Some("HTTP/1.1 500 Internal")
        );
        assert!(
            sample
                .active_bytes
                .starts_with("HTTP/1.1 200 OK\\r\\nContent-"),
            "{sample:?}"
        );
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut stream = Stream::default();
        for piece in 0..200 {
            stream.add(piece * 1_000, &[b'x'; 1_000]);
        }
        assert!(stream.kept <= KEPT);
        let kept: usize = stream.pieces.values().map(Vec::len).sum();
        assert_eq!(kept, stream.kept);
        assert_eq!(stream.around(199_990), "x".repeat(26));
        let mut differ = Differ::default();
        for client in 0..FLOWS + 2 {
            let mut row = said(0, 0, b"hello");
            row.client = client.to_string();
            differ.add(&row);
        }
        assert_eq!((differ.flows.len(), differ.forgotten), (FLOWS, 2));
        assert!(!differ.flows.keys().any(|(client, _)| client == "1"));
    }

    #[test]
    fn a_stream_is_longer_than_its_numbers() {
        let mut rows: Vec<_> = (0..5u32)
            .map(|piece| said(0, piece.wrapping_mul(1 << 30), b"far"))
            .collect();
        rows.push(said(1, 0, b"fbr"));
        let report = diff(&rows);
        assert_eq!(report.mirrors[0].samples[0].offset, (1 << 32) + 1);
        assert_eq!(unwrapped(5, u32::MAX), None);
    }

    #[test]
    fn ports_that_are_used_again_are_another_flow() {
        let mut again = said(0, 0, b"");
        again.before.as_mut().unwrap().flags = Some("SA".to_owned());
        let mut also = said(1, 0, b"");
        also.before.as_mut().unwrap().flags = Some("SA".to_owned());
        let report = diff(&[
            said(0, 0, b"one"),
            said(1, 0, b"one"),
            again,
            also,
            said(0, 0, b"two"),
            said(1, 0, b"two"),
        ]);
        assert_eq!(
            (report.mirrors[0].flows, report.mirrors[0].diverged),
            (2, 0)
        );
    }
}
