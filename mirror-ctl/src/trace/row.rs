//! A packet's way through one program as a row.

use std::net::SocketAddr;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use etherparse::{LaxPacketHeaders, NetHeaders, TransportHeader};
use mirror_common::{
    flow::TcpFlow,
    reason::Reason,
    trace::{NOBODY, action, program},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Passage;
use crate::{
    connections::{Names, row::protocol_name},
    dataplane::{Told, address_from},
};

/// A packet at one of the programs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PacketRow {
    /// When, `CLOCK_MONOTONIC`.
    pub time_ns: u64,
    /// The client's address and port.
    pub client: String,
    /// The VNI's name.
    pub vni: String,
    /// The VNI's address and port.
    pub address: String,
    /// `tcp`, `udp` or `icmp`.
    pub protocol: String,
    /// `from-client`, `to-replica` (a copy of what a client sent), or `from-replica`.
    pub direction: String,
    /// The instance that sent it or gets it.
    pub instance: Option<String>,
    /// That instance's place in the flow's replica set.
    pub slot: Option<u8>,
    /// Whether that instance is the flow's `active` one or a `mirror`, after the packet.
    pub role: Option<String>,
    /// The slot of the flow's active instance, after the packet.
    #[serde(default)]
    pub active_slot: Option<u8>,
    /// Of an instance's TCP packet: where its payload begins, in bytes of what that instance has said.
    #[serde(default)]
    pub offset: Option<u32>,
    /// What became of it: `to-client`, `to-replicas` (a copy to each), `to-replica`, `back` (an answer goes back to where it came
    /// from), `passed` (to the kernel), `dropped`, or `unknown` when that was lost.
    pub verdict: String,
    /// The reasons that were counted for it.
    pub reasons: Vec<String>,
    /// The frame's length, bytes.
    pub length: u32,
    /// As it came.
    pub before: Option<SegmentRow>,
    /// As it went on, with translated numbers.
    pub after: Option<SegmentRow>,
    /// The first bytes of the frame as it came, base64, where they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame_before: Option<String>,
    /// And as it went on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame_after: Option<String>,
}

/// A transport header.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SegmentRow {
    /// Sequence number, of TCP.
    pub seq: Option<u32>,
    /// Acknowledgement number, of TCP with ACK.
    pub ack: Option<u32>,
    /// The window field, of TCP.
    pub window: Option<u16>,
    /// Of TCP: letters of those that are set, of `SFRPAUEC`.
    pub flags: Option<String>,
    /// Bytes behind the transport header.
    pub payload: u32,
}

/// A trace has begun.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Begun {
    /// When, `CLOCK_MONOTONIC`.
    pub time_ns: u64,
    /// What to add to such times to have nanoseconds since 1970.
    pub epoch_ns: u64,
    /// How long it may go on.
    pub duration_s: f64,
    /// Bytes that are kept of a frame.
    pub frame_bytes: u32,
}

/// Records were lost: they came faster than they were read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Lost {
    /// How many since the trace began; a packet has two at each program.
    pub records: u64,
}

/// A trace is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Over {
    /// Why.
    pub reason: String,
}

impl PacketRow {
    /// Of a passage of a flow, if that is known. `frames`: with their bytes.
    pub fn of(passage: &Passage, known: Option<&TcpFlow>, names: &Names, frames: bool) -> Self {
        let flow = known.map(|known| &known.flow);
        let record = passage.record();
        let key = &record.flow;
        let told = |told: &Option<Told>| told.as_ref().map(|told| told.record);
        let (first, last) = (told(&passage.before), told(&passage.after));
        // The clone program learns last whom its copy is for.
        let instance = last.or(first).map(|record| record.instance);
        let instance = instance.filter(|instance| *instance != NOBODY);
        let slot = instance.and_then(|instance| {
            let flow = flow?;
            let used = &flow.instances[..usize::from(flow.replicas).min(flow.instances.len())];
            used.iter().position(|other| *other == instance)
        });
        let role = |slot: usize| match flow.is_some_and(|flow| usize::from(flow.active) == slot) {
            true => "active".to_owned(),
            false => "mirror".to_owned(),
        };
        let verdict = last.map_or("unknown", |last| {
            verdict(last.program, last.action, last.reasons)
        });
        let goes_on = matches!(verdict, "to-client" | "to-replica" | "back");
        let after = passage.after.as_ref().filter(|_| goes_on);
        let frame = |told: Option<&Told>| {
            let told = told.filter(|_| frames)?;
            Some(BASE64_STANDARD.encode(&told.frame))
        };
        let before = passage
            .before
            .as_ref()
            .and_then(|told| segment(&told.frame));
        let offset = || {
            let sync = &known
                .filter(|_| record.program == program::INSTANCE_RETURN)?
                .sync;
            let isn = sync.replicas.get(slot?)?.isn;
            // A SYN comes in front of the first byte.
            let seq = before.as_ref()?.seq?;
            let syn = before.as_ref()?.flags.as_ref()?.contains('S');
            Some(seq.wrapping_sub(isn).wrapping_sub(u32::from(!syn)))
        };
        let offset = offset();
        Self {
            time_ns: record.time_ns,
            client: SocketAddr::new(address_from(&key.client), key.client_port).to_string(),
            vni: names.vni(key.vni),
            address: names.address(key),
            protocol: protocol_name(key.protocol),
            direction: direction(record.program).to_owned(),
            instance: instance.map(|number| names.instance(number)),
            slot: slot.map(|slot| slot as u8),
            role: slot.map(role),
            active_slot: flow.map(|flow| flow.active),
            offset,
            verdict: verdict.to_owned(),
            reasons: reasons(last.map_or(0, |last| last.reasons)),
            length: record.length,
            before,
            after: after.and_then(|told| segment(&told.frame)),
            frame_before: frame(passage.before.as_ref()),
            frame_after: frame(after),
        }
    }
}

const fn direction(number: u8) -> &'static str {
    match number {
        program::VNI_INGRESS => "from-client",
        program::CLONE => "to-replica",
        _ => "from-replica",
    }
}

fn has(reasons: u64, reason: Reason) -> bool {
    reasons >> reason as u8 & 1 != 0
}

fn verdict(number: u8, taken: u8, reasons: u64) -> &'static str {
    match (number, taken) {
        (_, action::DROP) => "dropped",
        (program::CLONE, action::PASS) => "to-replica",
        (_, action::PASS) => "passed",
        (program::VNI_INGRESS, action::REDIRECT) => {
            if has(reasons, Reason::Cloned) {
                "to-replicas"
            } else if has(reasons, Reason::ResetSent) {
                "back"
            } else {
                "to-replica"
            }
        }
        (_, action::REDIRECT) => {
            if has(reasons, Reason::TurnedRound) || has(reasons, Reason::ColdReset) {
                "back"
            } else {
                "to-client"
            }
        }
        _ => "unknown",
    }
}

fn reasons(bits: u64) -> Vec<String> {
    let counted = Reason::ALL.iter().filter(|reason| has(bits, **reason));
    counted.map(|reason| reason.name().to_owned()).collect()
}

/// Reads the transport header of a frame, of which the end may be missing.
pub fn segment(frame: &[u8]) -> Option<SegmentRow> {
    let headers = LaxPacketHeaders::from_ethernet(frame).ok()?;
    // What the IP header says, not what was kept of the frame.
    let length = match headers.net.as_ref()? {
        NetHeaders::Ipv4(ip, extensions) => {
            usize::from(ip.payload_len().ok()?).checked_sub(extensions.header_len())?
        }
        NetHeaders::Ipv6(ip, extensions) => {
            usize::from(ip.payload_length).checked_sub(extensions.header_len())?
        }
        NetHeaders::Arp(_) => return None,
    };
    let payload = |header: usize| length.saturating_sub(header) as u32;
    Some(match headers.transport? {
        TransportHeader::Tcp(tcp) => {
            let letters = [
                (tcp.syn, 'S'),
                (tcp.fin, 'F'),
                (tcp.rst, 'R'),
                (tcp.psh, 'P'),
                (tcp.ack, 'A'),
                (tcp.urg, 'U'),
                (tcp.ece, 'E'),
                (tcp.cwr, 'C'),
            ];
            let set = letters.into_iter().filter(|(set, _)| *set);
            SegmentRow {
                seq: Some(tcp.sequence_number),
                ack: tcp.ack.then_some(tcp.acknowledgment_number),
                window: Some(tcp.window_size),
                flags: Some(set.map(|(_, letter)| letter).collect()),
                payload: payload(tcp.header_len()),
            }
        }
        other => SegmentRow {
            payload: payload(other.header_len()),
            ..SegmentRow::default()
        },
    })
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use mirror_common::trace::moment;

    use super::*;
    use crate::trace::pair::tests::told;

    fn frame(seq: u32, ack: u32, payload: &[u8]) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6])
            .ipv4([10, 0, 0, 9], [10, 77, 0, 100], 64)
            .tcp(4000, 80, seq, 512)
            .ack(ack)
            .psh();
        let mut frame = Vec::new();
        builder.write(&mut frame, payload).unwrap();
        frame
    }

    #[test]
    fn a_cut_frame_is_read_by_its_headers() {
        let mut frame = frame(1000, 2000, &[7; 600]);
        frame.truncate(64);
        let segment = segment(&frame).unwrap();
        assert_eq!((segment.seq, segment.ack), (Some(1000), Some(2000)));
        assert_eq!(segment.flags.as_deref(), Some("PA"));
        assert_eq!((segment.payload, segment.window), (600, Some(512)));
        assert_eq!(super::segment(&frame[..20]), None);
    }

    #[test]
    fn a_translated_packet_has_both_its_numbers() {
        let mut before = told(0, 1, moment::BEFORE);
        before.record.program = program::INSTANCE_RETURN;
        before.record.instance = 5;
        before.frame = frame(900_000, 11, b"hello");
        let mut after = before.clone();
        after.record.moment = moment::AFTER;
        after.record.action = action::REDIRECT;
        after.record.reasons = 1 << Reason::Delivered as u8 | 1 << Reason::Takeover as u8;
        after.frame = frame(1000, 11, b"hello");
        let mut names = Names::default();
        names.instances.insert(5, ("b".to_owned(), false));
        let passage = Passage {
            before: Some(before),
            after: Some(after),
        };
        let row = PacketRow::of(&passage, None, &names, false);
        assert_eq!(
            (row.direction.as_str(), row.verdict.as_str()),
            ("from-replica", "to-client")
        );
        assert_eq!(row.reasons, ["delivered", "takeover"]);
        assert_eq!(row.instance.as_deref(), Some("b"));
        assert_eq!(row.client, "10.0.0.9:4000");
        assert_eq!(row.before.unwrap().seq, Some(900_000));
        assert_eq!(row.after.unwrap().seq, Some(1000));
        assert_eq!(row.frame_before, None);
    }

    #[test]
    fn verdicts_have_names() {
        let bit = |reason: Reason| 1 << reason as u8;
        let (client, clone, replica) = (
            program::VNI_INGRESS,
            program::CLONE,
            program::INSTANCE_RETURN,
        );
        for (program, action, reasons, expected) in [
            (client, action::REDIRECT, bit(Reason::Cloned), "to-replicas"),
            (client, action::REDIRECT, bit(Reason::Steered), "to-replica"),
            (client, action::REDIRECT, bit(Reason::ResetSent), "back"),
            (client, action::PASS, bit(Reason::NotVni), "passed"),
            (clone, action::PASS, bit(Reason::CloneSent), "to-replica"),
            (clone, action::DROP, bit(Reason::CloneUnwanted), "dropped"),
            (
                replica,
                action::REDIRECT,
                bit(Reason::AckRaised),
                "to-client",
            ),
            (replica, action::REDIRECT, bit(Reason::TurnedRound), "back"),
            (
                replica,
                action::DROP,
                bit(Reason::MirrorSuppressed),
                "dropped",
            ),
        ] {
            assert_eq!(verdict(program, action, reasons), expected);
        }
    }
}
