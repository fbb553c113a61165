//! A traced flow's packets as a pcapng file: an interface for each side of the translation, and with each packet what became of
//! it. Wireshark's filter for a side is `frame.interface_name == "replica:1"`.

use std::{borrow::Cow, io::Write, str::FromStr, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use mirror_common::limits::REPLICAS;
use pcap_file::{
    DataLink, PcapError,
    pcapng::{
        PcapNgBlock, PcapNgWriter,
        blocks::{
            enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption},
            interface_description::{InterfaceDescriptionBlock, InterfaceDescriptionOption},
            interface_statistics::{InterfaceStatisticsBlock, InterfaceStatisticsOption},
        },
    },
};

use super::{Begun, PacketRow};

/// Nanoseconds, as a negative power of ten.
const TIME_RESOLUTION: u8 = 9;
/// `epb_flags`: the packet came from this side.
const INBOUND: u32 = 1;
/// `epb_flags`: the packet went to this side.
const OUTBOUND: u32 = 2;

/// A side of the translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// What the client sent and got.
    Client,
    /// What the replica in this slot got and sent.
    Replica(u8),
}

impl Side {
    /// Its name: of the interface in the file, too.
    pub fn name(self) -> String {
        match self {
            Self::Client => "client".to_owned(),
            Self::Replica(slot) => format!("replica:{slot}"),
        }
    }
}

impl FromStr for Side {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let slot = |text: &str| {
            text.parse()
                .ok()
                .filter(|slot| usize::from(*slot) < REPLICAS)
        };
        match (text, text.strip_prefix("replica:").and_then(slot)) {
            ("client", _) => Ok(Self::Client),
            (_, Some(slot)) => Ok(Self::Replica(slot)),
            _ => Err(format!(
                "{text:?} is not client, nor replica:0 to replica:{}",
                REPLICAS - 1
            )),
        }
    }
}

/// A frame on one side.
#[derive(Debug, PartialEq, Eq)]
struct Seen<'a> {
    side: Side,
    frame: &'a str,
    flags: u32,
}

/// The frames of a packet by side: what came, and what went on.
fn seen<'a>(row: &'a PacketRow) -> Vec<Seen<'a>> {
    let replica = row.slot.map(Side::Replica);
    let sides = |side: &str| match side {
        "from-client" => (Some(Side::Client), replica),
        // As it came it was nobody's: the copies are the replicas'.
        "to-replica" => (None, replica),
        _ => (replica, Some(Side::Client)),
    };
    let (from, on) = sides(&row.direction);
    let on = match row.verdict.as_str() {
        "back" => from,
        _ => on,
    };
    let halves = [
        (from, &row.frame_before, INBOUND),
        (on, &row.frame_after, OUTBOUND),
    ];
    let seen = |(side, frame, flags): (Option<Side>, &'a Option<String>, u32)| {
        Some(Seen {
            side: side?,
            frame: frame.as_deref()?,
            flags,
        })
    };
    halves.into_iter().filter_map(seen).collect()
}

/// Writes a file as packets come.
pub struct Capture<W: Write> {
    writer: PcapNgWriter<W>,
    /// By interface number.
    sides: Vec<Side>,
    /// Which are wanted; all, if none is named.
    wanted: Vec<Side>,
    epoch_ns: u64,
    frame_bytes: u32,
    filter: String,
}

impl<W: Write> Capture<W> {
    /// Begins a file for the trace of `filter`.
    pub fn new(
        out: W,
        wanted: Vec<Side>,
        begun: &Begun,
        filter: String,
    ) -> Result<Self, PcapError> {
        Ok(Self {
            writer: PcapNgWriter::new(out)?,
            sides: Vec::new(),
            wanted,
            epoch_ns: begun.epoch_ns,
            frame_bytes: begun.frame_bytes,
            filter,
        })
    }

    /// Writes the frames of a packet, as far as they are of the wanted sides and not more than `room`, and says how many there were.
    pub fn add(&mut self, row: &PacketRow, room: usize) -> Result<usize, PcapError> {
        let mut written = 0;
        for seen in seen(row) {
            if written == room {
                break;
            }
            if !self.wanted.is_empty() && !self.wanted.contains(&seen.side) {
                continue;
            }
            let Ok(data) = BASE64_STANDARD.decode(seen.frame) else {
                continue;
            };
            let interface_id = self.interface(seen.side, row)?;
            let packet = EnhancedPacketBlock {
                interface_id,
                timestamp: Duration::from_nanos(self.epoch_ns + row.time_ns),
                // A header that was made anew makes another length, which the frame tells when it is whole.
                original_len: row.length.max(data.len() as u32),
                data: data.into(),
                options: vec![
                    EnhancedPacketOption::Comment(comment(row).into()),
                    EnhancedPacketOption::Flags(seen.flags),
                ],
            };
            self.writer.write_block(&packet.into_block())?;
            written += 1;
        }
        Ok(written)
    }

    /// Ends the file: how many records were lost is its last word.
    pub fn finish(mut self, now_ns: u64, lost: u64) -> Result<W, PcapError> {
        for interface_id in 0..self.sides.len() as u32 {
            let statistics = InterfaceStatisticsBlock {
                interface_id,
                timestamp: self.epoch_ns + now_ns,
                options: vec![InterfaceStatisticsOption::IsbIfDrop(lost)],
            };
            self.writer.write_block(&statistics.into_block())?;
        }
        Ok(self.writer.into_inner())
    }

    /// The number of a side's interface, which is described when it is first met.
    fn interface(&mut self, side: Side, row: &PacketRow) -> Result<u32, PcapError> {
        if let Some(place) = self.sides.iter().position(|known| *known == side) {
            return Ok(place as u32);
        }
        let description = match (side, &row.instance) {
            (Side::Client, _) => format!("{} and {}", row.client, row.address),
            (Side::Replica(_), Some(instance)) => format!("instance {instance}"),
            (Side::Replica(_), None) => "an instance".to_owned(),
        };
        let mut filter = vec![0];
        filter.extend(self.filter.as_bytes());
        let interface = InterfaceDescriptionBlock {
            linktype: DataLink::ETHERNET,
            snaplen: self.frame_bytes,
            options: vec![
                InterfaceDescriptionOption::IfName(side.name().into()),
                InterfaceDescriptionOption::IfDescription(description.into()),
                InterfaceDescriptionOption::IfFilter(Cow::Owned(filter)),
                InterfaceDescriptionOption::IfTsResol(TIME_RESOLUTION),
            ],
        };
        self.writer.write_block(&interface.into_block())?;
        self.sides.push(side);
        Ok(self.sides.len() as u32 - 1)
    }
}

/// What became of a packet, in a line.
fn comment(row: &PacketRow) -> String {
    let who = match (&row.instance, &row.role) {
        (Some(instance), Some(role)) => format!(" {instance} ({role})"),
        (Some(instance), None) => format!(" {instance}"),
        (None, _) => String::new(),
    };
    format!(
        "{}{who}: {} [{}]",
        row.direction,
        row.verdict,
        row.reasons.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use pcap_file::pcapng::{Block, PcapNgReader};

    use super::*;

    fn row(direction: &str, verdict: &str, slot: Option<u8>) -> PacketRow {
        let frame = |byte: u8| Some(BASE64_STANDARD.encode([byte; 60]));
        PacketRow {
            time_ns: 5,
            direction: direction.to_owned(),
            verdict: verdict.to_owned(),
            slot,
            length: 60,
            frame_before: frame(1),
            frame_after: matches!(verdict, "to-client" | "to-replica" | "back")
                .then(|| frame(2))
                .flatten(),
            reasons: vec!["delivered".to_owned()],
            ..PacketRow::default()
        }
    }

    #[track_caller]
    fn check(direction: &str, verdict: &str, expected: &[(&str, u32)]) {
        let row = row(direction, verdict, Some(1));
        let sides: Vec<_> = seen(&row)
            .iter()
            .map(|seen| (seen.side.name(), seen.flags))
            .collect();
        let sides: Vec<_> = sides
            .iter()
            .map(|(name, flags)| (name.as_str(), *flags))
            .collect();
        assert_eq!(sides, expected, "{direction} {verdict}");
    }

    #[test]
    fn each_frame_is_on_its_side() {
        check("from-client", "to-replicas", &[("client", INBOUND)]);
        check(
            "from-client",
            "to-replica",
            &[("client", INBOUND), ("replica:1", OUTBOUND)],
        );
        check(
            "from-client",
            "back",
            &[("client", INBOUND), ("client", OUTBOUND)],
        );
        check("to-replica", "to-replica", &[("replica:1", OUTBOUND)]);
        check("to-replica", "dropped", &[]);
        check(
            "from-replica",
            "to-client",
            &[("replica:1", INBOUND), ("client", OUTBOUND)],
        );
        check(
            "from-replica",
            "back",
            &[("replica:1", INBOUND), ("replica:1", OUTBOUND)],
        );
        check("from-replica", "dropped", &[("replica:1", INBOUND)]);
    }

    #[test]
    fn sides_have_names() {
        for side in ["client", "replica:0", "replica:3"] {
            assert_eq!(side.parse::<Side>().unwrap().name(), side);
        }
        for text in ["replica", "replica:4", "replica:-1", "server"] {
            assert!(text.parse::<Side>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_file_has_an_interface_for_each_side() {
        let begun = Begun {
            time_ns: 0,
            epoch_ns: 1_000_000_000,
            duration_s: 1.0,
            frame_bytes: 4096,
        };
        let wanted = vec![Side::Client, Side::Replica(1)];
        let mut capture = Capture::new(Vec::new(), wanted, &begun, "x".to_owned()).unwrap();
        let mut add = |direction, verdict, slot, room| {
            capture.add(&row(direction, verdict, slot), room).unwrap()
        };
        assert_eq!(add("from-client", "to-replicas", None, usize::MAX), 1);
        assert_eq!(add("to-replica", "to-replica", Some(0), usize::MAX), 0);
        assert_eq!(add("to-replica", "to-replica", Some(1), usize::MAX), 1);
        // Of two frames the one that there is room for.
        assert_eq!(add("from-client", "to-replica", Some(1), 1), 1);
        let file = capture.finish(9, 3).unwrap();
        let mut reader = PcapNgReader::new(file.as_slice()).unwrap();
        let mut said = Vec::new();
        while let Some(block) = reader.next_block() {
            said.push(match block.unwrap() {
                Block::InterfaceDescription(interface) => match &interface.options[0] {
                    InterfaceDescriptionOption::IfName(name) => name.to_string(),
                    other => panic!("{other:?}"),
                },
                Block::EnhancedPacket(packet) => {
                    format!(
                        "{} {:?} {}",
                        packet.interface_id, packet.timestamp, packet.data[0]
                    )
                }
                Block::InterfaceStatistics(statistics) => format!("{:?}", statistics.options),
                other => panic!("{other:?}"),
            });
        }
        assert_eq!(
            said,
            [
                "client",
                "0 1.000000005s 1",
                "replica:1",
                "1 1.000000005s 2",
                "0 1.000000005s 1",
                "[IsbIfDrop(3)]",
                "[IsbIfDrop(3)]"
            ]
        );
    }
}
