//! Why a packet was not simply sent on, and why a mirror is cold. Each variant is a counter and
//! a metric label, named once.

/// Declares a closed enum of `u8` with a name per variant.
macro_rules! reasons {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $label:literal,)+ }) => {
        $(#[$meta])*
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// Every variant, in the order of its number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];
            /// How many variants there are.
            pub const COUNT: u32 = Self::ALL.len() as u32;

            /// The variant's name in metrics and tables.
            #[cfg(feature = "user")]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $label,)+ }
            }

            /// The variant of a number, if there is one.
            pub fn from_number(number: u8) -> Option<Self> {
                Self::ALL.get(usize::from(number)).copied()
            }
        }
    };
}

reasons! {
    /// What became of a packet: counted per CPU under this number.
    Reason {
        /// Not for a VNI: left to the kernel.
        NotVni = "not_vni",
        /// Client to instance, one copy.
        Steered = "steered",
        /// Client to a replica set, one broadcast.
        Cloned = "cloned",
        /// One copy rewritten and sent to its replica.
        CloneSent = "clone_sent",
        /// The active replica's packet, sent to the client.
        Delivered = "delivered",
        /// A mirror's ACK that raised the minimum, sent to the client.
        AckRaised = "ack_raised",
        /// A mirror's packet suppressed.
        MirrorSuppressed = "mirror_suppressed",
        /// A replica's packet turned round as an ACK with the client's numbers.
        TurnedRound = "turned_round",
        /// A cold replica's packet answered with a reset in the client's name: its socket is closed.
        ColdReset = "cold_reset",
        /// An ACK that would have told the client nothing new.
        AckHeld = "ack_held",
        /// A SYN-ACK held until the mirrors answered.
        SynAckHeld = "syn_ack_held",
        /// A FIN held until the mirrors agree.
        FinHeld = "fin_held",
        /// A reset held because a warm mirror lives.
        ResetHeld = "reset_held",
        /// A flow without a live replica answered with a reset.
        ResetSent = "reset_sent",
        /// Another slot became active.
        Takeover = "takeover",
        /// A mirror went cold.
        WentCold = "went_cold",
        /// A flow was opened.
        FlowOpened = "flow_opened",
        /// A flow table was full: steered without state.
        FlowTableFull = "flow_table_full",
        /// The VNI has no steering table or no published set: dropped.
        NoReplicaSet = "no_replica_set",
        /// A packet of no known flow that cannot open one, steered by its hash.
        NoFlow = "no_flow",
        /// A packet of a flow whose instances are all gone (`on_loss = "leave"`), dropped.
        NoReplica = "no_replica",
        /// An instance's packet of no known flow: left to the routing of the host.
        ReturnWithoutFlow = "return_without_flow",
        /// An instance's packet of a flow that is not steered to it, dropped.
        NotReplica = "not_replica",
        /// A handshake ACK that acknowledges nothing that was sent, dropped.
        BadHandshakeAck = "bad_handshake_ack",
        /// Shorter than its headers say, or otherwise malformed, dropped.
        Malformed = "malformed",
        /// A fragment of TCP or of an ICMP message that is no echo, dropped.
        Fragment = "fragment",
        /// A protocol that cannot be steered, dropped.
        UnknownProtocol = "unknown_protocol",
        /// The checksum is only partly computed: transmit offload is on at the sender's veth.
        PartialChecksum = "partial_checksum",
        /// The frame is too large to clone.
        TooLargeToClone = "too_large_to_clone",
        /// A clone could not be made fit for its replica, dropped.
        CloneLost = "clone_lost",
        /// A clone for a cold or dead replica, dropped.
        CloneUnwanted = "clone_unwanted",
        /// An ICMP error sent on with its quotation translated.
        IcmpError = "icmp_error",
        /// The event ring buffer was full.
        EventLost = "event_lost",
        /// A redirect target is missing in a map, dropped.
        NoPort = "no_port",
        /// A SYN, or the first datagram of a flow, beyond what the VNI mirrors in a second: to one instance.
        MirrorLimit = "mirror_limit",
        /// A later fragment of a datagram whose first was not seen before it, dropped.
        FragmentUnknown = "fragment_unknown",
        /// A datagram of a new flow that follows a known QUIC connection to its instance.
        QuicFollowed = "quic_followed",
        /// A client's packet larger than what the links to its instances take: it was told so.
        PacketTooBig = "packet_too_big",
        /// The same of a packet whose sender would have it cut into fragments, dropped.
        NotFragmented = "not_fragmented",
    }
}

reasons! {
    /// Why a replica of a flow is cold: it cannot take over, now or ever.
    Cold {
        /// It is not.
        Warm = "warm",
        /// It did not answer the handshake in time.
        HandshakeMissed = "handshake_missed",
        /// It refused the connection.
        Refused = "refused",
        /// Its SYN-ACK carries other options than the active replica's.
        OptionMismatch = "option_mismatch",
        /// It fell behind by more than the allowed bytes.
        LagBytes = "lag_bytes",
        /// It was behind without progress for longer than allowed.
        LagTime = "lag_time",
        /// It sent a reset.
        Reset = "reset",
        /// It closed although others went on.
        ClosedEarly = "closed_early",
        /// The flow uses an option that cannot be translated (MD5, AO, Fast Open, MPTCP).
        Untranslatable = "untranslatable",
        /// The dataplane met the flow in the middle.
        JoinedLate = "joined_late",
        /// Its bytes differ from the active replica's.
        Diverged = "diverged",
        /// Its instance was dead while the client went on sending.
        InstanceDead = "instance_dead",
        /// A frame of the flow was too large to clone.
        TooLargeToClone = "too_large_to_clone",
        /// The flow was opened when the VNI had mirrored as many as it may in a second.
        MirrorLimit = "mirror_limit",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_variants_agree() {
        for (number, &reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(reason as usize, number);
            assert_eq!(Reason::from_number(number as u8), Some(reason));
        }
        assert_eq!(Reason::from_number(Reason::COUNT as u8), None);
    }
}
