//! A TCP connection between a client and a VNI, by offsets: byte `c` of the client, byte `s` of the
//! server, in the numbers of the client's side or of a replica's own.

use std::net::SocketAddr;

use mirror_common::flow::{FlowKey, protocol};
use mirror_common::tcp::segment::bit;

use crate::bench::{Bench, Program, Verdict};
use crate::check::PlannedCopy;
use crate::hosts::{
    CLIENT_MAC, Family, HOST_MAC, Steering, VniHost, instance_mac, link_mac, map_address,
};
use crate::packet::{Envelope, Tcp, Wrapping, timestamps};

/// Initial sequence numbers, close to the wrap of all compares.
pub(crate) const CLIENT_ISN: u32 = 0xffff_fff0;
pub(crate) const ISN: [u32; 4] = [0xffff_ff80, 5_000_000, 0x7fff_fff0, 7];
/// Timestamp clocks.
pub(crate) const CLIENT_TS: u32 = 100_000;
pub(crate) const TS: [u32; 4] = [0xffff_fff8, 777, 0x8000_0000, 1];
pub(crate) const CLIENT_WINDOW: u16 = 1000;
/// The replicas' window: unscaled in the handshake, scaled afterwards, the same bytes.
pub(crate) const HANDSHAKE_WINDOW: u16 = 2000;
pub(crate) const WINDOW: u16 = HANDSHAKE_WINDOW >> SCALE;
pub(crate) const SCALE: u8 = 2;

const VNI_PORT: u16 = 80;

/// A connection.
#[derive(Clone, Debug)]
pub(crate) struct Conversation {
    pub(crate) vni: VniHost,
    pub(crate) client: SocketAddr,
    pub(crate) server: SocketAddr,
    pub(crate) wrapping: Wrapping,
    pub(crate) timestamps: bool,
    /// The replica whose numbers are canonical.
    pub(crate) canonical: usize,
    pub(crate) family: Family,
}

impl Conversation {
    pub(crate) fn new(vni: VniHost, family: Family) -> Self {
        Self {
            vni,
            client: SocketAddr::new(family.client(1), 40_000),
            server: SocketAddr::new(vni.address(family), VNI_PORT),
            wrapping: Wrapping::Plain,
            timestamps: true,
            canonical: 0,
            family,
        }
    }

    /// IPv4, with timestamps.
    pub(crate) fn with(vni: VniHost) -> Self {
        Self::new(vni, Family::V4)
    }

    /// With this connection's handshake done.
    pub(crate) fn established(self, bench: &mut Bench) -> Self {
        self.open(bench);
        self.answer(bench);
        self.client_sends(bench, &self.client(0, 0), Verdict::Redirect);
        self
    }

    /// The client's SYN.
    pub(crate) fn open(&self, bench: &mut Bench) {
        self.client_sends(bench, &self.syn(), Verdict::Redirect);
    }

    /// The SYN-ACKs of all replicas.
    pub(crate) fn answer(&self, bench: &mut Bench) {
        let replicas = self.instances().len();
        for slot in 0..replicas {
            let last = slot == replicas - 1;
            let verdict = if last {
                Verdict::Redirect
            } else {
                Verdict::Drop
            };
            self.replica_sends(bench, slot, &self.syn_ack(slot), verdict);
        }
    }

    /// Lets a packet of the client pass, for what it leaves.
    pub(crate) fn client_sends(&self, bench: &mut Bench, segment: &Tcp, verdict: Verdict) {
        let ingress = bench.network.vni_interface();
        let frame = self.inbound().tcp(segment);
        let outcome = bench.run(Program::VniIngress, ingress, &frame);
        assert_eq!(outcome.verdict, verdict, "{segment:?}");
        bench.tables.events();
    }

    /// Lets a packet of a replica pass, for what it leaves.
    pub(crate) fn replica_sends(
        &self,
        bench: &mut Bench,
        slot: usize,
        segment: &Tcp,
        verdict: Verdict,
    ) {
        let ingress = bench.network.link(self.instances()[slot]);
        let frame = self.of_instance(slot).tcp(segment);
        let outcome = bench.run(Program::InstanceReturn, ingress, &frame);
        assert_eq!(outcome.verdict, verdict, "{segment:?}");
        bench.tables.events();
    }

    /// The instances by slot.
    pub(crate) fn instances(&self) -> &'static [u16] {
        match self.vni.steering {
            Steering::Set(instances) => instances,
            Steering::NoSet | Steering::NoTable => &[],
        }
    }

    pub(crate) fn key(&self) -> FlowKey {
        self.key_for(protocol::TCP, self.client.port(), self.server.port())
    }

    pub(crate) fn key_for(&self, protocol: u8, client_port: u16, vni_port: u16) -> FlowKey {
        FlowKey {
            client: map_address(self.client.ip()),
            vni: self.vni.number,
            address: self.family as u8,
            protocol,
            client_port,
            vni_port,
        }
    }

    /// A frame of the client on the VNI interface's link.
    pub(crate) fn inbound(&self) -> Envelope {
        Envelope {
            destination: HOST_MAC,
            source: CLIENT_MAC,
            from: self.client,
            to: self.server,
            wrapping: self.wrapping,
        }
    }

    /// A frame to the client on the VNI interface's link.
    pub(crate) fn outbound(&self) -> Envelope {
        self.inbound().back()
    }

    /// A frame to a replica on its link.
    pub(crate) fn to_instance(&self, slot: usize) -> Envelope {
        let instance = self.instances()[slot];
        Envelope {
            destination: instance_mac(instance),
            source: link_mac(instance),
            ..self.inbound()
        }
    }

    /// A frame of a replica on its link.
    pub(crate) fn of_instance(&self, slot: usize) -> Envelope {
        self.to_instance(slot).back()
    }

    pub(crate) fn syn(&self) -> Tcp {
        Tcp {
            flags: bit::SYN,
            seq: CLIENT_ISN,
            window: CLIENT_WINDOW,
            options: self.handshake_options(CLIENT_TS, 0),
            ..Tcp::default()
        }
    }

    /// A replica's SYN-ACK, in its own numbers.
    pub(crate) fn syn_ack(&self, slot: usize) -> Tcp {
        Tcp {
            flags: bit::SYN | bit::ACK,
            seq: ISN[slot],
            ack: CLIENT_ISN.wrapping_add(1),
            window: HANDSHAKE_WINDOW,
            options: self.handshake_options(TS[slot], CLIENT_TS),
            ..Tcp::default()
        }
    }

    /// A pure ACK of the client: `c` bytes sent, `s` bytes received.
    pub(crate) fn client(&self, c: u32, s: u32) -> Tcp {
        Tcp {
            flags: bit::ACK,
            seq: CLIENT_ISN.wrapping_add(1).wrapping_add(c),
            ack: canonical_seq(self.canonical, s),
            window: CLIENT_WINDOW,
            options: self.options(CLIENT_TS, TS[self.canonical]),
            ..Tcp::default()
        }
    }

    /// A pure ACK of a replica in its own numbers: `s` bytes sent, `c` bytes received.
    pub(crate) fn replica(&self, slot: usize, s: u32, c: u32) -> Tcp {
        Tcp {
            flags: bit::ACK,
            seq: canonical_seq(slot, s),
            ack: CLIENT_ISN.wrapping_add(1).wrapping_add(c),
            window: WINDOW,
            options: self.options(TS[slot], CLIENT_TS),
            ..Tcp::default()
        }
    }

    /// What the client must see of a replica's segment.
    pub(crate) fn canonical(&self, s: u32, c: u32) -> Tcp {
        self.replica(self.canonical, s, c)
    }

    /// What a replica must see of a client's segment.
    pub(crate) fn seen_by(&self, slot: usize, c: u32, s: u32) -> Tcp {
        Tcp {
            ack: canonical_seq(slot, s),
            options: self.options(CLIENT_TS, TS[slot]),
            ..self.client(c, s)
        }
    }

    /// The reset that closes a cold replica's socket, which has received `c` bytes, as it must see it.
    pub(crate) fn cold_reset(&self, slot: usize, c: u32) -> Vec<u8> {
        self.to_instance(slot).tcp(&Tcp {
            flags: bit::RST,
            seq: CLIENT_ISN.wrapping_add(1).wrapping_add(c),
            options: self.options(0, 0),
            ..Tcp::default()
        })
    }

    /// The copy for a replica of a client's segment that acknowledges `s` bytes.
    pub(crate) fn copy(&self, slot: usize, s: u32) -> PlannedCopy {
        PlannedCopy {
            instance: self.instances()[slot],
            ack: canonical_seq(slot, s),
            ts_ecr: if self.timestamps { TS[slot] } else { 0 },
        }
    }

    /// The copies for all replicas.
    pub(crate) fn copies(&self, s: u32) -> Vec<PlannedCopy> {
        let slots = 0..self.instances().len();
        slots.map(|slot| self.copy(slot, s)).collect()
    }

    /// The copies of a SYN.
    pub(crate) fn syn_copies(&self) -> Vec<PlannedCopy> {
        let copy = |&instance| PlannedCopy {
            instance,
            ack: 0,
            ts_ecr: 0,
        };
        self.instances().iter().map(copy).collect()
    }

    fn options(&self, value: u32, echo: u32) -> Vec<u8> {
        match self.timestamps {
            true => timestamps(value, echo),
            false => Vec::new(),
        }
    }

    /// Options of a SYN: MSS, SACK permitted, timestamps, window scale.
    pub(crate) fn handshake_options(&self, value: u32, echo: u32) -> Vec<u8> {
        let mut options = vec![2, 4, 5, 180, 4, 2];
        if self.timestamps {
            options.extend([8, 10]);
            options.extend(value.to_be_bytes());
            options.extend(echo.to_be_bytes());
        } else {
            options.extend([1, 1]);
        }
        options.extend([1, 3, 3, SCALE]);
        options
    }
}

/// The number of byte `s` of the server in the space of a replica.
pub(crate) fn canonical_seq(slot: usize, s: u32) -> u32 {
    ISN[slot].wrapping_add(1).wrapping_add(s)
}
