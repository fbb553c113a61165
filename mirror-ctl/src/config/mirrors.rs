//! What a VNI's mirrors are for, who they are, and what clients wait for because of them.

use mirror_common::{allowance::PER_S_MAX, limits};

use super::{
    Ack, Close, Delivery, MirrorMode, PerSecond,
    reader::{At, Section},
};

/// Far above what services open in a second, far below what a flood brings.
const PER_S_DEFAULT: u32 = 10_000;

/// What a VNI's section says of its mirrors.
pub(super) struct Mirrors {
    pub(super) mode: MirrorMode,
    /// Those that serve and mirror the VNI; the canaries come last.
    pub(super) instances: Vec<String>,
    pub(super) canaries: Vec<String>,
    /// Mirrors of a flow.
    pub(super) count: usize,
    /// New flows that get them in a second.
    pub(super) per_s: PerSecond,
    pub(super) ack: Ack,
    pub(super) delivery: Delivery,
    pub(super) close: Close,
}

impl Mirrors {
    /// Reads it. What is wrong goes into the section's report.
    pub(super) fn parse(section: &Section<'_>, instances: Vec<String>) -> Self {
        let modes = [MirrorMode::Takeover, MirrorMode::Shadow].map(|mode| (mode.name(), mode));
        let mode = section.choice("mode", &modes, MirrorMode::Takeover);
        let (instances, canaries) = canaries(section, instances, mode);
        let count = count(section, instances.len(), canaries.len());
        let (ack, close) = holding(section, mode);
        Self {
            mode,
            instances,
            canaries,
            count,
            per_s: section.per_second("mirrored_per_s", 1..=PER_S_MAX, PER_S_DEFAULT),
            ack,
            delivery: delivery(section, mode),
            close,
        }
    }
}

/// Mirrors of a flow: the canaries, or as many others as it says.
fn count(section: &Section<'_>, instances: usize, canaries: usize) -> usize {
    let mirrors = section.integer("mirrors", 0..=limits::REPLICAS as u32 - 1, 1);
    let count = mirrors.value as usize;
    if canaries > 0 {
        if section.has("mirrors") && count != canaries {
            section.wrong(
                mirrors.line,
                "the canaries are the mirrors: leave `mirrors` out",
            );
        }
        return canaries;
    }
    if instances > 0 && count >= instances {
        section.wrong(
            mirrors.line,
            format!(
                "mirrors = {count} needs {} instances and there are {instances}",
                count + 1
            ),
        );
    }
    count
}

/// What the client waits for. Shadows hold nobody back.
fn holding(section: &Section<'_>, mode: MirrorMode) -> (Ack, Close) {
    let acks = [("semi-sync", Ack::SemiSync), ("async", Ack::Async)];
    let closes = [("vote", Close::Vote), ("trust", Close::Trust)];
    let (ack, close) = match mode {
        MirrorMode::Takeover => (Ack::SemiSync, Close::Vote),
        MirrorMode::Shadow => (Ack::Async, Close::Trust),
    };
    let said = (
        section.choice("ack", &acks, ack),
        section.choice("close", &closes, close),
    );
    if mode == MirrorMode::Shadow && said != (ack, close) {
        section.wrong(
            section.line,
            "mode = \"shadow\" goes with ack = \"async\" and close = \"trust\": its mirrors hold nobody back",
        );
    }
    said
}

/// Whose answer the client gets. Never a shadow's.
fn delivery(section: &Section<'_>, mode: MirrorMode) -> Delivery {
    let deliveries = [Delivery::Active, Delivery::First].map(|one| (one.name(), one));
    let delivery = section.choice("delivery", &deliveries, Delivery::Active);
    if mode == MirrorMode::Shadow && delivery == Delivery::First {
        section.wrong(
            section.line,
            "delivery = \"first\" lets mirrors answer clients, and mode = \"shadow\" does not",
        );
    }
    delivery
}

/// The instances with the canaries last, and these.
fn canaries(
    section: &Section<'_>,
    instances: Vec<String>,
    mode: MirrorMode,
) -> (Vec<String>, Vec<String>) {
    let named = section.strings("canaries").unwrap_or_default();
    let Some(first) = named.first() else {
        return (instances, Vec::new());
    };
    for At { value, line } in &named {
        if !instances.contains(value) {
            section.wrong(*line, format!("canary {value:?} is none of its instances"));
        }
    }
    if mode != MirrorMode::Shadow {
        section.wrong(
            first.line,
            "canaries need mode = \"shadow\": they are never to take over",
        );
    }
    let is_canary = |name: &String| named.iter().any(|canary| canary.value == *name);
    let (canaries, mut all): (Vec<_>, Vec<_>) = instances.into_iter().partition(is_canary);
    if all.is_empty() && !canaries.is_empty() {
        section.wrong(
            first.line,
            "all of its instances are canaries, so that nobody serves",
        );
    }
    if canaries.len() >= limits::REPLICAS {
        section.wrong(
            first.line,
            format!("more than {} canaries", limits::REPLICAS - 1),
        );
    }
    all.extend(canaries.iter().cloned());
    (all, canaries)
}
