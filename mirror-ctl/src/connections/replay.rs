//! Which parked segment a replica that took over must say once more. Pure; what parked segments are
//! for is told in `mirror_common::parked`.

use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use mirror_common::{
    flow::{FlowKey, TcpFlow, state},
    parked::Parked,
    tcp::seq,
};

/// Whether a slot may have said what the client was not sent: else nothing is looked for. In the handshake it may have, with
/// its SYN-ACK.
pub(super) fn is_ahead(flow: &TcpFlow, slot: u8) -> bool {
    is_handshake(flow) || seq::after(flow.produced(slot), flow.sync.sent)
}

fn is_handshake(flow: &TcpFlow) -> bool {
    flow.flow.state <= state::ANSWERED
}

/// The frame of a parked segment, if it is `slot`'s, whole, and beyond what the client was sent. In
/// the handshake that is a SYN-ACK, and no client minds a second one.
pub(super) fn last_word<'a>(
    parked: &'a Parked,
    key: &FlowKey,
    flow: &TcpFlow,
    slot: u8,
) -> Option<&'a [u8]> {
    let end = parked.end.wrapping_sub(flow.delta(slot));
    let unsent = is_handshake(flow) || seq::after(end, flow.sync.sent);
    if !parked.is_of(key, slot) || !unsent {
        return None;
    }
    let frame = parked.frame.get(..usize::from(parked.length))?;
    is_whole(frame).then_some(frame)
}

/// Whether the segment's checksum is right: two CPUs may have written the place at once.
fn is_whole(frame: &[u8]) -> bool {
    let Ok(packet) = SlicedPacket::from_ethernet(frame) else {
        return false;
    };
    let Some(TransportSlice::Tcp(tcp)) = packet.transport else {
        return false;
    };
    let computed = match packet.net {
        Some(NetSlice::Ipv4(ip)) => {
            let header = ip.header();
            tcp.calc_checksum_ipv4(header.source(), header.destination())
        }
        Some(NetSlice::Ipv6(ip)) => {
            let header = ip.header();
            tcp.calc_checksum_ipv6(header.source(), header.destination())
        }
        _ => return false,
    };
    computed.is_ok_and(|computed| computed == tcp.checksum())
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use mirror_common::{
        parked::FRAME_MAX,
        tcp::{Replica, TcpSync},
    };

    use super::{super::prompt, *};

    const SLOT: u8 = 1;
    const PAYLOAD: &[u8] = b"the mirror's answer";

    /// The mirror's numbers are 1,000 ahead of the canonical ones.
    fn flow(sent: u32) -> TcpFlow {
        let mut sync = TcpSync {
            isn: 500,
            sent,
            ..TcpSync::default()
        };
        sync.replicas[usize::from(SLOT)] = Replica {
            isn: 1_500,
            ..Replica::default()
        };
        TcpFlow {
            flow: prompt::tests::flow(),
            sync,
        }
    }

    fn parked(v6: bool) -> Parked {
        let builder = PacketBuilder::ethernet2([2; 6], [4; 6]);
        let builder = match v6 {
            false => builder.ipv4([10, 77, 0, 100], [10, 77, 0, 2], 64),
            true => builder.ipv6([1; 16], [2; 16], 64),
        };
        let builder = builder.tcp(80, 40_000, 1_501, 500).psh();
        let mut bytes = Vec::new();
        builder.write(&mut bytes, PAYLOAD).unwrap();
        let mut frame = [0; FRAME_MAX];
        frame[..bytes.len()].copy_from_slice(&bytes);
        Parked {
            key: prompt::tests::key(),
            end: 1_501 + PAYLOAD.len() as u32,
            parked_ms: 0,
            length: bytes.len() as u16,
            slot: SLOT,
            pad: 0,
            frame,
        }
    }

    #[track_caller]
    fn check(parked: &Parked, sent: u32, slot: u8, expected: bool) {
        let frame = last_word(parked, &prompt::tests::key(), &flow(sent), slot);
        assert_eq!(frame.is_some(), expected);
        assert!(frame.is_none_or(|frame| frame.ends_with(PAYLOAD)));
    }

    #[test]
    fn what_the_client_lacks_is_said_again() {
        for v6 in [false, true] {
            let parked = parked(v6);
            let end = 501 + PAYLOAD.len() as u32;
            check(&parked, 501, SLOT, true);
            check(&parked, end - 1, SLOT, true);
            check(&parked, end, SLOT, false);
        }
    }

    #[test]
    fn a_syn_ack_is_said_again_while_the_client_has_not_acknowledged_one() {
        let parked = parked(false);
        let end = 501 + PAYLOAD.len() as u32;
        for (state, expected) in [
            (state::HANDSHAKE, true),
            (state::ANSWERED, true),
            (state::ESTABLISHED, false),
        ] {
            let mut flow = flow(end);
            flow.flow.state = state;
            assert_eq!(
                last_word(&parked, &prompt::tests::key(), &flow, SLOT).is_some(),
                expected
            );
        }
    }

    #[test]
    fn another_slots_or_flows_segment_is_not() {
        check(&parked(false), 501, 0, false);
        let mut other = parked(false);
        other.key.client_port += 1;
        check(&other, 501, SLOT, false);
        let mut none = parked(false);
        none.length = 0;
        check(&none, 501, SLOT, false);
    }

    #[test]
    fn a_torn_segment_is_not() {
        for v6 in [false, true] {
            let mut torn = parked(v6);
            torn.frame[usize::from(torn.length) - 1] ^= 1;
            check(&torn, 501, SLOT, false);
            let mut cut = parked(v6);
            cut.length -= 1;
            check(&cut, 501, SLOT, false);
        }
    }
}
