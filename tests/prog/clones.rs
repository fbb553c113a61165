//! The clone program, on live frames: what arrives at the far end of each replica's link.

use std::time::Duration;

use aya::programs::XdpMode;
use etherparse::{IcmpEchoHeader, Icmpv4Type, Icmpv6Type, NetSlice, SlicedPacket};
use mirror_common::instance;
use mirror_common::reason::Reason;
use testbed::clock::wait_until;

use crate::bench::{Bench, Program, Verdict, with_bench};
use crate::conversation::{CLIENT_TS, Conversation, TS, canonical_seq};
use crate::errors::{from_router, quote, too_big};
use crate::fragments::cut;
use crate::hosts::{A, B, FOUR, Family, PLAIN, VniHost, WEB};
use crate::packet::{
    Envelope, Tcp, Wrapping, describe, odd_timestamps, sack, timestamps, without_outer_tag,
};

/// For a frame that must come.
const PATIENCE: Duration = Duration::from_secs(30);
/// For a frame that must not.
const SILENCE: Duration = Duration::from_millis(20);

/// How a frame gets to the ingress program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// As a live frame: as a driver hands it over, with metadata that clones see.
    Native,
    /// By the wire, with the program attached in generic mode: clones see no metadata.
    Generic,
}

impl Mode {
    const ALL: [Self; 2] = [Self::Native, Self::Generic];

    /// Runs tests in this mode.
    fn run(self, bench: &mut Bench, rows: impl FnOnce(&mut Bench)) {
        if self == Self::Native {
            return rows(bench);
        }
        let ifindex = bench.network.vni_interface();
        let program = bench.program(Program::VniIngress);
        let link = program.attach_to_if_index(ifindex, XdpMode::Skb).unwrap();
        // Also after a failed row: the bench is everybody's.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| rows(bench)));
        bench.program(Program::VniIngress).detach(link).unwrap();
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    }

    fn send(self, bench: &mut Bench, frame: &[u8]) {
        match self {
            Self::Native => bench.run_live(frame),
            Self::Generic => bench.network.far_end(0).send(frame).unwrap(),
        }
    }
}

/// Sends a client's frame and compares what arrives at each instance; `None`: nothing does.
#[track_caller]
fn check_clones(bench: &mut Bench, mode: Mode, frame: &[u8], expected: &[(u16, Option<Vec<u8>>)]) {
    for (instance, _) in expected {
        bench.network.far_end(*instance).drain().unwrap();
    }
    let vni = number_of(frame);
    let before = bench.tables.counted_of(vni);
    mode.send(bench, frame);
    // Each copy is counted, whatever becomes of it. Where that does not come, what is missing is told below.
    let _ = wait_until("every copy's end", PATIENCE, || {
        let now = bench.tables.counted_of(vni);
        let ends = [Reason::CloneSent, Reason::CloneUnwanted, Reason::CloneLost];
        let ended: u64 = ends.map(|end| now.of(end) - before.of(end)).iter().sum();
        Ok((ended >= expected.len() as u64).then_some(()))
    });
    for (instance, wanted) in expected {
        let patience = if wanted.is_some() { PATIENCE } else { SILENCE };
        let found = bench.network.far_end(*instance).receive(patience).unwrap();
        let wanted = wanted.as_deref().map(without_outer_tag);
        if found != wanted {
            let found = found.as_deref().map_or("nothing".into(), describe);
            let wanted = wanted.as_deref().map_or("nothing".into(), describe);
            panic!("{mode:?}, instance {instance}: {found}\nexpected {wanted}");
        }
    }
    let after = bench.tables.counted_of(vni);
    let counted = |reason: Reason| after.of(reason) - before.of(reason);
    let sent = expected
        .iter()
        .filter(|(_, wanted)| wanted.is_some())
        .count();
    assert_eq!(counted(Reason::CloneSent), sent as u64);
    assert_eq!(
        counted(Reason::CloneUnwanted),
        (expected.len() - sent) as u64
    );
    assert_eq!(counted(Reason::CloneLost), 0);
}

/// The number of the VNI that a frame is for, see `VniHost::address`.
fn number_of(frame: &[u8]) -> u16 {
    let last = match SlicedPacket::from_ethernet(frame).unwrap().net.unwrap() {
        NetSlice::Ipv4(ip) => ip.header().destination()[3],
        NetSlice::Ipv6(ip) => ip.header().destination()[15],
        NetSlice::Arp(_) => unreachable!("no VNI's"),
    };
    u16::from(last) - 100
}

/// What each replica must see of a client's segment, by slot.
fn each(talk: &Conversation, segment: impl Fn(usize) -> Tcp) -> Vec<(u16, Option<Vec<u8>>)> {
    let by_slot = talk.instances().iter().enumerate();
    by_slot
        .map(|(slot, &instance)| (instance, Some(talk.to_instance(slot).tcp(&segment(slot)))))
        .collect()
}

/// Lets every replica produce so many bytes; the primary's reach the client.
fn produce(bench: &mut Bench, talk: &Conversation, count: usize) {
    for slot in 0..talk.instances().len() {
        let data = talk.replica(slot, 0, 0).with_payload(&vec![b'x'; count]);
        let verdict = if slot == 0 {
            Verdict::Redirect
        } else {
            Verdict::Drop
        };
        talk.replica_sends(bench, slot, &data, verdict);
    }
}

fn everywhere(vni: VniHost) -> impl Iterator<Item = Conversation> {
    Family::ALL.into_iter().flat_map(move |family| {
        Wrapping::ALL.into_iter().map(move |wrapping| Conversation {
            wrapping,
            ..Conversation::new(vni, family)
        })
    })
}

#[test]
fn each_replica_sees_its_own_numbers() {
    with_bench(|bench| {
        for mode in Mode::ALL {
            mode.run(bench, |bench| {
                for vni in [WEB, FOUR] {
                    for talk in everywhere(vni) {
                        bench.reset();
                        let talk = talk.established(bench);
                        produce(bench, &talk, 100);
                        let odd = b"odd";
                        let frame = talk.inbound().tcp(&talk.client(0, 60).with_payload(odd));
                        let seen = each(&talk, |slot| talk.seen_by(slot, 0, 60).with_payload(odd));
                        check_clones(bench, mode, &frame, &seen);
                        assert_eq!(bench.tables.vitals(A).unwrap().sent, 1);
                        assert_ne!(bench.tables.vitals(B).unwrap().owes_since_ns, 0);
                    }
                }
            });
        }
    });
}

#[test]
fn a_syn_arrives_as_it_was_sent() {
    with_bench(|bench| {
        for mode in Mode::ALL {
            mode.run(bench, |bench| {
                for talk in everywhere(WEB) {
                    bench.reset();
                    let syn = talk.syn();
                    let frame = talk.inbound().tcp(&syn);
                    check_clones(bench, mode, &frame, &each(&talk, |_| syn.clone()));
                }
            });
        }
    });
}

#[test]
fn an_acknowledgement_of_what_a_replica_has_not_sent_is_clamped() {
    with_bench(|bench| {
        for mode in Mode::ALL {
            mode.run(bench, |bench| {
                let talk = Conversation::with(WEB).established(bench);
                let data = talk.replica(0, 0, 0).with_payload(b"ahead of the mirror");
                talk.replica_sends(bench, 0, &data, Verdict::Redirect);
                let frame = talk.inbound().tcp(&talk.client(0, 19));
                // The right edge of the window stays where the client put it: 19 bytes are four units of
                // its scale.
                let seen = each(&talk, |slot| {
                    let seen = talk.seen_by(slot, 0, [19, 0][slot]);
                    Tcp {
                        window: seen.window + [0, 4][slot],
                        ..seen
                    }
                });
                check_clones(bench, mode, &frame, &seen);
                // What the client was never sent stays false for everybody, by as much.
                let frame = talk.inbound().tcp(&talk.client(0, 19 + 1000));
                let seen = each(&talk, |slot| talk.seen_by(slot, 0, [19, 0][slot] + 1000));
                check_clones(bench, mode, &frame, &seen);
                bench.reset();
            });
        }
    });
}

#[test]
fn sack_blocks_and_timestamps_are_translated() {
    with_bench(|bench| {
        for mode in Mode::ALL {
            mode.run(bench, |bench| {
                for family in Family::ALL {
                    bench.reset();
                    let talk = Conversation::new(FOUR, family).established(bench);
                    produce(bench, &talk, 100);
                    let blocks = |slot| {
                        let at = |s| canonical_seq(slot, s);
                        sack(&[(at(40), at(50)), (at(60), at(100)), (at(20), at(30))])
                    };
                    let even = |slot: usize| [timestamps(CLIENT_TS, TS[slot]), blocks(slot)];
                    // Both on odd offsets.
                    let odd = |slot: usize| {
                        [odd_timestamps(CLIENT_TS, TS[slot]), {
                            let mut option = blocks(slot);
                            option.remove(0);
                            option.push(1);
                            option
                        }]
                    };
                    for options in [&even as &dyn Fn(usize) -> [Vec<u8>; 2], &odd] {
                        let ack = talk.client(0, 10).with_options(options(0).concat());
                        let frame = talk.inbound().tcp(&ack);
                        let seen = each(&talk, |slot| {
                            talk.seen_by(slot, 0, 10)
                                .with_options(options(slot).concat())
                        });
                        check_clones(bench, mode, &frame, &seen);
                    }
                }
            });
        }
    });
}

#[test]
fn sack_blocks_beyond_what_a_replica_has_sent_are_emptied() {
    with_bench(|bench| {
        for mode in Mode::ALL {
            mode.run(bench, |bench| {
                bench.reset();
                let talk = Conversation::with(WEB).established(bench);
                let sent = |slot, count| talk.replica(slot, 0, 0).with_payload(&vec![b'x'; count]);
                talk.replica_sends(bench, 0, &sent(0, 100), Verdict::Redirect);
                talk.replica_sends(bench, 1, &sent(1, 50), Verdict::Drop);
                let options = |slot: usize, blocks: &[(u32, u32)]| {
                    let blocks: Vec<_> = (blocks.iter())
                        .map(|(l, r)| (canonical_seq(slot, *l), canonical_seq(slot, *r)))
                        .collect();
                    [timestamps(CLIENT_TS, TS[slot]), sack(&blocks)].concat()
                };
                let full = [(20, 50), (60, 100)];
                let ack = talk.client(0, 10).with_options(options(0, &full));
                let seen = each(&talk, |slot| {
                    let blocks = [full, [(20, 50), (10, 10)]][slot];
                    talk.seen_by(slot, 0, 10)
                        .with_options(options(slot, &blocks))
                });
                check_clones(bench, mode, &talk.inbound().tcp(&ack), &seen);
            });
        }
    });
}

#[test]
fn a_dead_replica_gets_no_copy() {
    with_bench(|bench| {
        for mode in Mode::ALL {
            mode.run(bench, |bench| {
                bench.reset();
                let talk = Conversation::with(WEB).established(bench);
                bench
                    .tables
                    .change(A, |entry| entry.state = instance::state::DEAD);
                let mut seen = each(&talk, |slot| talk.seen_by(slot, 0, 0));
                seen[0].1 = None;
                let frame = talk.inbound().tcp(&talk.client(0, 0));
                check_clones(bench, mode, &frame, &seen);
            });
        }
    });
}

#[test]
fn datagrams_arrive_as_they_were_sent() {
    with_bench(|bench| {
        for mode in Mode::ALL {
            mode.run(bench, |bench| {
                for talk in everywhere(WEB) {
                    bench.reset();
                    let echo = IcmpEchoHeader { id: 5, seq: 6 };
                    let ping = |envelope: &Envelope| {
                        let v6 = Icmpv6Type::EchoRequest(echo);
                        envelope.icmp(Icmpv4Type::EchoRequest(echo), v6, b"ping")
                    };
                    let udp = |envelope: &Envelope| envelope.udp(b"question");
                    for build in [&ping as &dyn Fn(&Envelope) -> Vec<u8>, &udp] {
                        let seen = [(A, 0), (B, 1)].map(|(instance, slot)| {
                            (instance, Some(build(&talk.to_instance(slot))))
                        });
                        check_clones(bench, mode, &build(&talk.inbound()), &seen);
                    }
                }
            });
        }
    });
}

#[test]
fn errors_quote_what_the_replica_sent() {
    with_bench(|bench| {
        for mode in Mode::ALL {
            mode.run(bench, |bench| {
                for talk in everywhere(WEB) {
                    bench.reset();
                    let talk = talk.established(bench);
                    produce(bench, &talk, 100);
                    let quoted = |slot| {
                        let sent = Envelope {
                            wrapping: Wrapping::Plain,
                            ..talk.outbound()
                        };
                        quote(&sent.tcp(&talk.replica(slot, 30, 0)), 8)
                    };
                    let router = from_router(&talk).from;
                    let seen = [(A, 0), (B, 1)].map(|(instance, slot)| {
                        let inward = Envelope {
                            from: router,
                            ..talk.to_instance(slot)
                        };
                        (instance, Some(too_big(&inward, &quoted(slot))))
                    });
                    let error = too_big(&from_router(&talk), &quoted(0));
                    check_clones(bench, mode, &error, &seen);
                }
            });
        }
    });
}

#[test]
fn a_steered_frame_passes_the_clone_program_unchanged() {
    with_bench(|bench| {
        for mode in Mode::ALL {
            mode.run(bench, |bench| {
                bench.reset();
                let talk = Conversation::with(PLAIN);
                let frame = talk.inbound().tcp(&talk.syn());
                bench.network.far_end(A).drain().unwrap();
                mode.send(bench, &frame);
                let found = bench.network.far_end(A).receive(PATIENCE).unwrap();
                assert_eq!(
                    found,
                    Some(talk.to_instance(0).tcp(&talk.syn())),
                    "{mode:?}"
                );
            });
        }
    });
}

#[test]
fn fragments_arrive_at_every_replica() {
    with_bench(|bench| {
        for mode in Mode::ALL {
            mode.run(bench, |bench| {
                for family in Family::ALL {
                    bench.reset();
                    let talk = Conversation::new(FOUR, family);
                    let fragments = |envelope: Envelope| cut(&envelope.udp(&[b'q'; 192]), 1);
                    for (number, frame) in fragments(talk.inbound()).iter().enumerate() {
                        let seen = |slot: usize| fragments(talk.to_instance(slot)).remove(number);
                        let by_slot = talk.instances().iter().enumerate();
                        let expected: Vec<_> = by_slot
                            .map(|(slot, &instance)| (instance, Some(seen(slot))))
                            .collect();
                        check_clones(bench, mode, frame, &expected);
                    }
                }
            });
        }
    });
}
