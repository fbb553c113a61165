//! How an instance behaves, second by second: a queue with a server that a fault slows, starves or cuts off.
//!
//! Deliberately simple where it does not matter, and causal where it does: faults never set a signal, they change
//! the instance, and signals follow. Latency follows utilisation as in an M/M/1 queue (Kleinrock 1975).

use fastrand::Rng;

use super::{
    fault::{Family, Fault},
    label::Served,
};
use crate::health::predict::signal::{Reading, Signal};

/// What an instance is like.
#[derive(Clone, Copy, Debug)]
pub struct Nature {
    /// Requests a second that it can serve.
    pub capacity: f32,
    /// Time to answer when idle, ms.
    pub service_ms: f32,
    /// Memory in use when well.
    pub memory: f32,
    /// Whether its own signals can be had.
    pub has_exporter: bool,
}

/// An instance's state.
#[derive(Clone, Debug)]
pub struct Instance {
    nature: Nature,
    fault: Fault,
    chance: Rng,
    /// Whether its workers are held by clients that say nothing, and not by requests that never end.
    held_silently: bool,
    /// Memory in use.
    memory: f32,
    /// Requests waiting.
    backlog: f32,
    /// Restarting until then, second.
    down_until: f32,
    /// Autoregressive noise of its load and of its disk.
    drift: [f32; 2],
    silence_ms: f32,
}

/// Longer is a time-out.
const LATENCY_MAX_MS: f32 = 3_000.0;
/// A retransmission waits about so long.
const RETRANSMISSION_MS: f32 = 220.0;
/// When a receiver acknowledges what it has not answered (Linux: 40 ms).
const DELAYED_ACK_MS: f32 = 40.0;
/// Time for which a client keeps a connection after a request.
const KEPT_S: f32 = 0.5;
/// Workers of an instance.
const WORKERS: f32 = 64.0;
/// Requests that may wait.
const BACKLOG_MAX_S: f32 = 2.0;

impl Instance {
    /// One that is well, and will have this fault.
    #[must_use]
    pub fn new(nature: Nature, fault: Fault, seed: u64) -> Self {
        Self {
            memory: nature.memory,
            nature,
            fault,
            chance: Rng::with_seed(seed),
            held_silently: Rng::with_seed(!seed).bool(),
            backlog: 0.0,
            down_until: -1.0,
            drift: [0.0; 2],
            silence_ms: 0.0,
        }
    }

    /// Lives one second with so many requests; what clients got, and what could be measured.
    pub fn step(&mut self, second: f32, requests: f32) -> (Served, Reading) {
        let grown = self.fault.grown(second);
        let kind = self.fault.family;
        let of = move |family| if kind == family { grown } else { 0.0 };
        for drift in &mut self.drift {
            *drift += -0.1 * *drift + 0.3 * normal(&mut self.chance);
        }
        let requests = (requests * (1.0 + 0.03 * self.drift[0])).max(1.0);

        self.memory_step(second, of(Family::MemoryLeak));
        let restarting = second < self.down_until;
        let dead = of(Family::Crash) > 0.0 || restarting;
        let flapped = of(Family::Flapping) > 0.0 && second as u32 % 20 < 7;

        let pressure_memory = ((self.memory - 0.86) / 0.12).clamp(0.0, 1.0);
        let stolen = (0.62 * of(Family::NoisyNeighbour)).min(0.85);
        let burned = (0.66 * of(Family::CpuRamp)).min(0.9);
        let hung = (0.8 * of(Family::QueueExhaustion)).min(0.97);
        let disk_ms = 1.0 + 0.4 * self.drift[1].abs() + 90.0 * of(Family::DiskStall).powi(2);
        let loss = 0.0005 + 0.075 * of(Family::LossRamp).powi(2);
        let warming = self.warming(second);

        let slowed = 1.0 + 6.0 * pressure_memory.powi(2) + disk_ms / 40.0;
        let creep = (1.75 * of(Family::LatencyCreep)).exp();
        let share = (1.0 - stolen) * (1.0 - burned) * (1.0 - hung) * (1.0 - 0.3 * warming);
        let capacity = self.nature.capacity * share / (0.3 * (slowed - 1.0) + 1.0);
        let usage = requests / capacity;
        self.backlog = (self.backlog + requests - capacity).clamp(0.0, capacity * BACKLOG_MAX_S);
        let queueing = 1.0 / (1.0 - usage.min(0.97)).max(0.03);
        let waits_ms = self.backlog / capacity * 1_000.0;
        let service_ms = self.nature.service_ms * slowed * creep;
        let p50 = (service_ms * queueing.powf(0.7) + waits_ms).min(LATENCY_MAX_MS);
        let overflow = ((usage - 1.0).max(0.0) * 0.5 + (hung - 0.7).max(0.0) * 0.6).min(1.0);
        let lost = loss * 2.0;

        let mut served = Served {
            success: 1.0 - (overflow + lost.powi(2) * 4.0).min(1.0),
            refused: (overflow + lost.powi(2) * 8.0).min(1.0),
            latency_ms: p50,
        };
        if dead || flapped {
            served = Served {
                success: 0.0,
                refused: 1.0,
                latency_ms: LATENCY_MAX_MS,
            };
            self.backlog = 0.0;
        }
        let down = dead || flapped;
        self.silence_ms = match down {
            true => self.silence_ms + 1_000.0,
            false => p50 * self.chance.f32(),
        };
        let p99_once = p50 * (2.0 + 2.0 * usage.min(1.0));
        let p99 = p99_once + RETRANSMISSION_MS * (loss * 30.0).min(1.0);
        let truth = Truth {
            p50,
            p99_once,
            p99,
            usage,
            requests,
            disk_ms,
            pressure_memory,
            stolen,
            burned,
            hung,
            loss,
            overflow,
            warming,
            down,
        };
        (served, self.measure(&truth))
    }

    fn memory_step(&mut self, second: f32, leaked: f32) {
        if second < self.down_until {
            return;
        }
        let wander = 0.002 * normal(&mut self.chance);
        let aim = self.nature.memory + (1.0 - self.nature.memory) * leaked.min(1.1) * 0.97;
        self.memory = (aim + wander).clamp(0.0, 1.0);
        if self.memory > 0.965 {
            // Out of memory: killed and started again; the leak begins anew only with another run.
            self.down_until = second + 4.0 + 6.0 * self.chance.f32();
            self.fault.family = Family::None;
            self.memory = self.nature.memory * 0.6;
        }
    }

    /// A planned restart: how much of the warming-up is left.
    fn warming(&self, second: f32) -> f32 {
        let since = second - self.fault.begins_s;
        let is_deploy = self.fault.family == Family::Deploy;
        match is_deploy && (0.0..60.0).contains(&since) {
            true => 1.0 - since / 60.0,
            false => 0.0,
        }
    }

    /// What instruments show.
    fn measure(&mut self, truth: &Truth) -> Reading {
        let mut gauges = Gauges {
            chance: &mut self.chance,
            reading: Reading::default(),
        };
        let n = truth.requests;
        gauges.passive(truth, self.silence_ms);
        let held = truth.hung * WORKERS;
        let unanswered = if self.held_silently { 0.0 } else { held };
        let in_flight = n * truth.p50 / 1_000.0 + self.backlog + unanswered;
        gauges.show(Signal::InFlight, in_flight, 0.1);
        if self.nature.has_exporter && !truth.down {
            let work = (n / self.nature.capacity).min(1.0);
            gauges.show(Signal::Memory, self.memory, 0.002);
            // Clients keep a connection for a while after an answer.
            let established = n * (KEPT_S + truth.p50 / 1_000.0) + held;
            gauges.show(Signal::Established, established, 0.05);
            gauges.own(truth, work);
        }
        gauges.reading
    }
}

/// Truth with noise, counts with the noise of counting, and gaps.
struct Gauges<'a> {
    chance: &'a mut Rng,
    reading: Reading,
}

/// So often an answer is late for no reason that lasts.
const HICCUPS: f32 = 0.01;
/// By so much, the median of those.
const HICCUP_MS: f32 = 12.0;
/// So often a value is missing.
const GAPS: f32 = 0.005;

impl Gauges<'_> {
    fn show(&mut self, signal: Signal, value: f32, noise: f32) {
        if self.chance.f32() < GAPS {
            return;
        }
        let value = value * (1.0 + noise * normal(self.chance));
        self.reading.set(signal, value.max(0.0));
    }

    /// A share of `of` that were counted.
    fn count(&mut self, signal: Signal, share: f32, of: f32) {
        let deviation = (share * (1.0 - share).max(0.0) / of).sqrt();
        let share = share + deviation * normal(self.chance);
        self.reading.set(signal, share.clamp(0.0, 1.0));
    }

    /// What a single answer took longer, for a reason that is soon gone: of few answers it is the 99th percentile.
    fn hiccup_ms(&mut self) -> f32 {
        let size_ms = HICCUP_MS * (1.2 * normal(self.chance)).exp();
        let is_one = self.chance.f32() < HICCUPS;
        if is_one { size_ms } else { 0.0 }
    }

    /// What the VNI host sees.
    fn passive(&mut self, truth: &Truth, silence_ms: f32) {
        const NETWORK_MS: f32 = 0.2;
        let n = truth.requests;
        if !truth.down {
            let refused_ms = 200.0 * truth.overflow;
            let accept_ms = NETWORK_MS + 0.02 * truth.p50.min(20.0) + refused_ms;
            self.show(Signal::SynAckP50, accept_ms, 0.08);
            let late_ms = 0.05 * truth.p50.min(60.0) + 900.0 * truth.overflow + 300.0 * truth.loss;
            self.show(Signal::SynAckP99, 1.0 + late_ms, 0.2);
            // What is not answered by then is acknowledged by itself; what is sent again is not timed (Karn's rule).
            let acknowledged_ms = |answered_ms: f32| answered_ms.min(DELAYED_ACK_MS);
            self.show(Signal::AckP50, acknowledged_ms(truth.p50), 0.05);
            let hiccup_ms = self.hiccup_ms();
            let once_ms = truth.p99_once + hiccup_ms;
            self.show(Signal::AckP99, acknowledged_ms(once_ms), 0.15);
            self.show(Signal::AnswerP50, truth.p50, 0.05);
            self.show(Signal::AnswerP99, truth.p99 + hiccup_ms, 0.15);
        }
        let (retransmitted, reset, unanswered) = match truth.down {
            true => (0.3, 0.5, 1.0),
            false => (
                truth.loss * 1.2,
                truth.overflow * 0.5,
                truth.overflow * 0.5 + truth.loss.powi(2) * 4.0,
            ),
        };
        self.count(Signal::Retransmissions, retransmitted, n * 8.0);
        self.count(Signal::Resets, reset, n);
        self.count(Signal::SynTimeouts, unanswered, n);
        self.reading.set(Signal::Silence, silence_ms);
        self.show(Signal::RequestRate, n, 0.03);
        self.show(Signal::MirrorLag, n * truth.p50 * 0.4, 0.4);
        self.show(Signal::Divergence, 0.0, 0.0);
    }

    /// What the instance tells of itself; `work`: share of its capacity that requests need.
    fn own(&mut self, truth: &Truth, work: f32) {
        let cpu = (work + truth.burned + 0.3 * truth.warming).min(1.0);
        let busy = (truth.usage * (1.0 - truth.hung)).min(1.5);
        let starved = (busy - 0.6).max(0.0) + truth.stolen * 0.5 + truth.burned * 0.5;
        let overflows = truth.overflow * truth.requests * 0.2;
        for (signal, value, noise) in [
            (Signal::Cpu, cpu, 0.04),
            (Signal::Steal, truth.stolen + 0.003, 0.1),
            (Signal::PressureCpu, (0.02 + starved).min(1.0), 0.1),
            (Signal::PressureMemory, truth.pressure_memory * 0.8, 0.1),
            (Signal::PressureIo, (truth.disk_ms / 150.0).min(1.0), 0.15),
            (
                Signal::RunQueue,
                0.3 + busy * 1.5 + truth.burned * 3.0,
                0.15,
            ),
            (Signal::ListenOverflows, overflows, 0.2),
            (Signal::DiskWait, truth.disk_ms, 0.2),
        ] {
            self.show(signal, value, noise);
        }
    }
}

/// What one second was like.
struct Truth {
    p50: f32,
    /// Of what is sent once.
    p99_once: f32,
    p99: f32,
    usage: f32,
    requests: f32,
    disk_ms: f32,
    pressure_memory: f32,
    stolen: f32,
    burned: f32,
    hung: f32,
    loss: f32,
    overflow: f32,
    warming: f32,
    down: bool,
}

/// Standard normal, by the polar method (Marsaglia and Bray 1964).
pub(super) fn normal(chance: &mut Rng) -> f32 {
    loop {
        let (x, y) = (chance.f32() * 2.0 - 1.0, chance.f32() * 2.0 - 1.0);
        let s = x * x + y * y;
        if s > 0.0 && s < 1.0 {
            return x * (-2.0 * s.ln() / s).sqrt();
        }
    }
}
