//! Connections and what their ends say to each other, drawn from a seed.

use fastrand::Rng;
use mirror_common::limits::REPLICAS;

use super::{
    application::{Close, Script, Stage},
    endpoint::Time,
    scenario::{FlowPlan, MS, S, number_of, one_in},
};

/// The connections of a run.
pub(super) fn flows(rng: &mut Rng, count: usize) -> Vec<FlowPlan> {
    let total = [1, 1, 2, 3][rng.usize(..4)];
    let mut isns = (0, [0; REPLICAS]);
    (0..total)
        .map(|number| {
            // The second one may take the first one's port.
            let after = (number == 1 && one_in(rng, 3)).then_some(0);
            let mut set: Vec<u16> = (0..count as u16).collect();
            rng.shuffle(&mut set);
            set.truncate(rng.usize(2..=count));
            let (client, server) = conversation(rng);
            isns = match after {
                // Hosts choose numbers beyond those of the port's last use (RFC 6528, section 3).
                Some(_) => beyond(rng, isns),
                None => (number_of(rng), [(); REPLICAS].map(|()| number_of(rng))),
            };
            FlowPlan {
                port: 40_000 + if after.is_some() { 0 } else { number },
                after,
                start: rng.u64(..1_000) * MS,
                isns,
                set,
                client,
                server,
            }
        })
        .collect()
}

/// Initial sequence numbers for a port's next use.
fn beyond(rng: &mut Rng, last: (u32, [u32; REPLICAS])) -> (u32, [u32; REPLICAS]) {
    let mut next = |isn: u32| isn.wrapping_add(rng.u32(1 << 20..1 << 24));
    (next(last.0), last.1.map(next))
}

/// What the two ends say to each other, so that neither waits for what never comes.
fn conversation(rng: &mut Rng) -> (Script, Script) {
    let mut stages = (Vec::new(), Vec::new());
    let (mut up, mut down) = (0, 0);
    let large = [300, 3_000, 30_000][rng.usize(..3)];
    let think = [0, 0, 300 * MS, 3 * S][rng.usize(..4)];
    let kind = rng.u32(..8);
    if kind == 0 {
        // Both at once, without waiting.
        (up, down) = (rng.usize(..large * 2), rng.usize(..large * 2));
        stages.0.push(stage(0, 0, up));
        stages.1.push(stage(0, 0, down));
    } else {
        let most = [2, 8, 20][rng.usize(..3)];
        let rounds = rng.usize(1..=most);
        if kind == 1 {
            // The server speaks first.
            down += rng.usize(1..200);
            stages.1.push(stage(0, 0, down));
        }
        for _ in 0..rounds {
            let (asked, answered) = match kind {
                2 => (large, 20),
                3 => (20, large),
                _ => (rng.usize(1..600), rng.usize(1..large)),
            };
            let pause = if think > 0 { rng.u64(..think) } else { 0 };
            stages
                .0
                .push(stage(down, pause, up + asked / rounds.min(4) + 1));
            up += asked / rounds.min(4) + 1;
            let pause = if one_in(rng, 6) { rng.u64(..2 * S) } else { 0 };
            stages
                .1
                .push(stage(up, pause, down + answered / rounds.min(4) + 1));
            down += answered / rounds.min(4) + 1;
        }
    }
    let (first, second) = closes(rng, down);
    let script = |rng: &mut Rng, stages, close, hears: usize| Script {
        stages,
        close,
        pauses: if one_in(rng, 5) && hears > 10 {
            vec![(rng.usize(..hears), rng.u64(100..6_000) * MS)]
        } else {
            Vec::new()
        },
    };
    (
        script(rng, stages.0, first, down),
        script(rng, stages.1, second, up),
    )
}

fn stage(need: usize, think: Time, upto: usize) -> Stage {
    Stage { need, think, upto }
}

fn closes(rng: &mut Rng, down: usize) -> (Close, Close) {
    match rng.u32(..12) {
        // Half-closed by the client; the server follows.
        0..3 => (Close::Sent, Close::Exchanged),
        3..5 => (Close::Sent, Close::Peer),
        // The server first.
        5..7 => (Close::Peer, Close::Exchanged),
        7 => (Close::Exchanged, Close::Sent),
        // At the same time, perhaps.
        8 => (Close::Sent, Close::Sent),
        9 => (Close::Exchanged, Close::Exchanged),
        10 => (Close::Exchanged, Close::Peer),
        _ => (Close::Reset(rng.usize(..=down)), Close::Peer),
    }
}
