//! Damaged packets, at random but reproducibly: whatever they say, no verdict but the allowed ones,
//! nothing uncounted, nothing written where it must not be, and other flows left alone.

use std::collections::BTreeMap;

use etherparse::{NetHeaders, PacketHeaders, TransportHeader};
use fastrand::Rng;
use mirror_common::event::Event;
use mirror_common::flow::{FlowKey, TcpFlow};
use mirror_common::instance;
use mirror_common::limits::EVENT_RING_BYTES;
use mirror_common::reason::Reason;

use crate::bench::{Bench, Program, Verdict, with_bench};
use crate::conversation::Conversation;
use crate::hosts::{A, B, CLIENT_MAC, CLONE_MARK, Family, INSTANCES, WEB, instance_mac};
use crate::packet::{ip_packet, ip_payload_offset, wrong_checksums};
use crate::specimens::{Specimen, collect};

/// Packets of a run, and where it begins, where more than the usual few are wanted.
const PACKETS_VARIABLE: &str = "MIRROR_FUZZ_PACKETS";
const SEED_VARIABLE: &str = "MIRROR_FUZZ_SEED";
const SEED: u64 = 0x5eed_0001;
const RUNS: u64 = 20_000;
/// Of so many packets one is sent for real as well.
const LIVE_ONE_IN: u64 = 10;
/// Runs between which the instances' states change and the events are read.
const EPISODE: u64 = 500;

fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap())
}

/// Packets of a run, and what decides them.
fn wanted() -> (u64, Rng) {
    let runs = variable(PACKETS_VARIABLE).unwrap_or(RUNS);
    let seed = variable(SEED_VARIABLE).unwrap_or(SEED);
    (runs, Rng::with_seed(seed))
}

/// Damages a frame in one way.
fn damage(frame: &mut Vec<u8>, rng: &mut Rng) {
    const ETHERNET: usize = 14;
    let at = rng.usize(..frame.len());
    match rng.u8(..8) {
        0 => frame[at] ^= 1 << rng.u8(..8),
        1 => frame[at] = rng.u8(..),
        2 => frame[at] = *rng.choice(&[0, 1, 0x7f, 0x80, 0xff]).unwrap(),
        3 => {
            let end = (at + 4).min(frame.len());
            rng.fill(&mut frame[at..end]);
        }
        4 => frame.truncate(rng.usize(ETHERNET..=frame.len())),
        5 => frame.extend(std::iter::repeat_n(rng.u8(..), rng.usize(..64))),
        6 => {
            // In the header that says most.
            let at = 34 + rng.usize(..40);
            if let Some(byte) = frame.get_mut(at) {
                *byte = rng.u8(..);
            }
        }
        _ => {
            let end = (at + rng.usize(..16)).min(frame.len());
            let piece = frame[at..end].to_vec();
            frame.splice(at..at, piece);
        }
    }
    frame.resize(frame.len().clamp(ETHERNET, 1400), 0);
}

/// Makes a damaged packet's checksums right again, where there still is one that can be.
fn mend(frame: &mut [u8]) -> Option<()> {
    let copy = frame.to_vec();
    let headers = PacketHeaders::from_ethernet_slice(&copy).ok()?;
    let payload = headers.payload.slice();
    let transport = ip_payload_offset(&copy)?;
    let ip = copy.len() - ip_packet(&copy).len();
    let net = headers.net?;
    if let NetHeaders::Ipv4(header, _) = &net {
        let sum = header.calc_header_checksum();
        frame[ip + 10..ip + 12].copy_from_slice(&sum.to_be_bytes());
    }
    if let Some(TransportHeader::Tcp(tcp)) = &headers.transport {
        let sum = match &net {
            NetHeaders::Ipv4(header, _) => tcp.calc_checksum_ipv4(header, payload).ok()?,
            NetHeaders::Ipv6(header, _) => tcp.calc_checksum_ipv6(header, payload).ok()?,
            NetHeaders::Arp(_) => return None,
        };
        frame[transport + 16..transport + 18].copy_from_slice(&sum.to_be_bytes());
    }
    Some(())
}

fn damaged(specimens: &[Specimen], rng: &mut Rng) -> Specimen {
    let mut specimen = rng.choice(specimens).unwrap().clone();
    let sender: [u8; 6] = specimen.frame[6..12].try_into().unwrap();
    for _ in 0..rng.u8(1..=4) {
        damage(&mut specimen.frame, rng);
    }
    // Answers go to where the flow's first packet came from.
    specimen.frame[6..12].copy_from_slice(&sender);
    if rng.bool() {
        let _ = mend(&mut specimen.frame);
    }
    specimen
}

/// Flows that no damaged packet belongs to.
fn add_bystanders(bench: &mut Bench) -> BTreeMap<u16, (FlowKey, TcpFlow)> {
    let talk = Conversation::new(WEB, Family::V4);
    let value = bench.tables.mirrored.iter().next().unwrap().unwrap().1;
    let mut all = BTreeMap::new();
    for number in 1..=50 {
        let mut key = talk.key();
        key.client = mirror_common::flow::ipv4(u32::from_ne_bytes([203, 0, 113, number as u8]));
        key.client_port = number;
        bench.tables.mirrored.insert(key, value, 0).unwrap();
        bench.tables.flows.insert(key, value.flow.plain, 0).unwrap();
        all.insert(number, (key, value));
    }
    all
}

fn shuffle_health(bench: &mut Bench, rng: &mut Rng) {
    use instance::state::{DEAD, EVACUATING, UP};
    for instance in INSTANCES {
        let state = *rng.choice(&[UP, UP, EVACUATING, DEAD]).unwrap();
        // Some specimens are larger than the second.
        let mtu = *rng.choice(&[0, 1300, 9000]).unwrap();
        bench.tables.change(instance, |entry| {
            entry.state = state;
            entry.mtu = mtu;
        });
    }
}

/// What holds of every packet, however damaged.
fn judge(specimen: &Specimen, verdict: Verdict, output: &[u8]) {
    let input = &specimen.frame;
    match verdict {
        Verdict::Aborted => panic!("aborted"),
        Verdict::Drop => return,
        Verdict::Pass => return assert_eq!(output, input),
        // Back to where it came from.
        Verdict::Redirect if output[..6] == input[6..12] && output[6..12] == input[..6] => {}
        Verdict::Redirect if specimen.program == Program::VniIngress => {
            assert_eq!(output[12..], input[12..]);
            let to: [u8; 6] = output[..6].try_into().unwrap();
            assert!(to == CLONE_MARK || [A, B].map(instance_mac).contains(&to));
        }
        Verdict::Redirect => assert_eq!(output[..6], CLIENT_MAC),
    }
    assert!(output.len() <= input.len());
    if wrong_checksums(input).is_empty() {
        let wrong = wrong_checksums(output);
        assert!(wrong.is_empty(), "made wrong: {wrong:?}");
    }
}

#[test]
fn damaged_packets_do_no_harm() {
    with_bench(|bench| {
        let specimens = collect(bench);
        let bystanders = add_bystanders(bench);
        let (runs, mut rng) = wanted();
        let mut verdicts = BTreeMap::<String, u64>::new();
        let mut counted = bench.tables.counters().unwrap();
        for run in 0..runs {
            if run % EPISODE == 0 {
                shuffle_health(bench, &mut rng);
                bench.tables.events();
            }
            let specimen = damaged(&specimens, &mut rng);
            let outcome = bench.run(specimen.program, specimen.ingress, &specimen.frame);
            let verdict = outcome.verdict;
            let result = std::panic::catch_unwind(|| judge(&specimen, verdict, &outcome.frame));
            assert!(result.is_ok(), "run {run}: {verdict:?} of {specimen:02x?}");
            *verdicts.entry(format!("{verdict:?}")).or_default() += 1;
            let now = bench.tables.counters().unwrap();
            assert_ne!(now, counted, "run {run}: not counted: {specimen:02x?}");
            counted = now;
        }
        // All of them were met, or the damage is too coarse to say anything.
        assert_eq!(verdicts.len(), 3, "{verdicts:?}");
        for (number, (key, value)) in bystanders {
            let mirrored = bench.tables.mirrored.get(&key, 0).unwrap();
            assert_eq!(mirrored, value, "bystander {number}");
            let plain = bench.tables.flows.get(&key, 0).unwrap();
            assert_eq!(plain, value.flow.plain, "bystander {number}");
        }
    });
}

#[test]
fn damaged_packets_are_cloned_or_counted() {
    // The ring holds what an episode can say at most.
    const { assert!(EPISODE as usize * 8 * (size_of::<Event>() + 8) < EVENT_RING_BYTES as usize) };
    with_bench(|bench| {
        let specimens: Vec<Specimen> = collect(bench)
            .into_iter()
            .filter(|specimen| specimen.program == Program::VniIngress)
            .collect();
        let (runs, mut rng) = wanted();
        for run in 0..runs / LIVE_ONE_IN {
            if run % EPISODE == 0 {
                shuffle_health(bench, &mut rng);
                bench.tables.events();
            }
            let before = bench.tables.counters().unwrap();
            let specimen = damaged(&specimens, &mut rng);
            bench.run_live(&specimen.frame);
            let after = bench.tables.counters().unwrap();
            let counted = |reason: Reason| after[reason as usize] - before[reason as usize];
            let copies = counted(Reason::CloneSent)
                + counted(Reason::CloneUnwanted)
                + counted(Reason::CloneLost);
            // Damage may make it a packet for the VNI whose flows have four replicas.
            let cloned = counted(Reason::Cloned);
            assert!(
                copies == 2 * cloned || copies == 4 * cloned,
                "run {run}: {copies} copies of {cloned}: {specimen:02x?}"
            );
            assert_eq!(counted(Reason::CloneLost), 0, "run {run}: {specimen:02x?}");
            assert_ne!(before, after, "run {run}: {specimen:02x?}");
        }
    });
}
