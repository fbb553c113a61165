//! What instances tell of themselves: a Prometheus node exporter over HTTP, or the cgroup files of a container on this
//! host. Both give [`Usage`], and two of these a reading. Whatever a source sends, the worst it can do is to be missing.

pub mod cgroup;
pub mod exporter;
pub mod fetch;
pub mod passive;
pub mod source;
pub mod times;

use super::predict::signal::{Reading, Signal};

/// Counters and levels as a source has them at one moment; what it does not tell is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Processor time used, in seconds of all processors.
    pub cpu_busy_s: Option<f64>,
    /// Processor time there was, likewise; without it, time times `cpus`.
    pub cpu_all_s: Option<f64>,
    /// Processor time that others took.
    pub cpu_stolen_s: Option<f64>,
    /// Processors.
    pub cpus: Option<f64>,
    /// Share of memory that is not available.
    pub memory_share: Option<f64>,
    /// Time in which some task waited for a processor.
    pub waited_cpu_s: Option<f64>,
    /// Time in which some task waited for memory.
    pub waited_memory_s: Option<f64>,
    /// Time in which some task waited for I/O.
    pub waited_io_s: Option<f64>,
    /// Tasks that could run.
    pub runnable: Option<f64>,
    /// TCP connections that are established.
    pub established: Option<f64>,
    /// Connections refused by a full listen queue.
    pub listen_overflows: Option<f64>,
    /// TCP segments sent.
    pub segments_sent: Option<f64>,
    /// TCP segments sent again.
    pub segments_repeated: Option<f64>,
    /// Time that disk requests took, all together.
    pub disk_time_s: Option<f64>,
    /// Disk requests done.
    pub disk_requests: Option<f64>,
}

/// Shorter and a difference of counters is noise; longer and it is history.
const SPAN_S: std::ops::RangeInclusive<f64> = 0.2..=30.0;

impl Usage {
    /// What happened between two moments `span_s` apart. A counter that went back, because its source restarted or lies,
    /// tells nothing; nor does a span that makes no sense.
    #[must_use]
    pub fn since(&self, before: &Self, span_s: f64) -> Reading {
        let mut reading = Reading::default();
        let mut set = |signal, value: Option<f64>| {
            if let Some(value) = value {
                reading.set(signal, value as f32);
            }
        };
        set(Signal::Memory, self.memory_share.filter(|m| *m <= 1.0));
        let per_cpu = self.runnable.zip(self.cpus.filter(|cpus| *cpus >= 1.0));
        set(Signal::RunQueue, per_cpu.map(|(tasks, cpus)| tasks / cpus));
        set(Signal::Established, self.established);
        if !SPAN_S.contains(&span_s) {
            return reading;
        }
        let grown = |of: fn(&Self) -> Option<f64>| {
            let (now, then) = of(self).zip(of(before))?;
            let grown = now - then;
            (grown.is_finite() && grown >= 0.0).then_some(grown)
        };
        let share = |part: Option<f64>, all: Option<f64>| {
            let share = part? / all.filter(|all| *all > 0.0)?;
            // A little over is a matter of when which counter was read; more is a lie.
            (share <= 1.1).then_some(share.min(1.0))
        };
        let all = grown(|u| u.cpu_all_s).or_else(|| self.cpus.map(|cpus| cpus * span_s));
        set(Signal::Cpu, share(grown(|u| u.cpu_busy_s), all));
        set(Signal::Steal, share(grown(|u| u.cpu_stolen_s), all));
        for (signal, waited) in [
            (Signal::PressureCpu, grown(|u| u.waited_cpu_s)),
            (Signal::PressureMemory, grown(|u| u.waited_memory_s)),
            (Signal::PressureIo, grown(|u| u.waited_io_s)),
        ] {
            set(signal, share(waited, Some(span_s)));
        }
        let overflows = grown(|u| u.listen_overflows);
        set(Signal::ListenOverflows, overflows.map(|n| n / span_s));
        // What is sent again is not among what is sent (`OutSegs`, RFC 4022).
        let repeated = grown(|u| u.segments_repeated);
        let sent = grown(|u| u.segments_sent).zip(repeated).map(|(a, b)| a + b);
        set(Signal::Retransmissions, share(repeated, sent));
        let waits = grown(|u| u.disk_time_s).zip(grown(|u| u.disk_requests));
        // A disk that did nothing made nobody wait.
        let wait_ms = waits.map(|(time, n)| if n > 0.0 { time / n * 1_000.0 } else { 0.0 });
        set(Signal::DiskWait, wait_ms);
        reading
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: Usage = Usage {
        cpu_busy_s: Some(10.0),
        cpu_all_s: Some(100.0),
        cpu_stolen_s: Some(1.0),
        cpus: Some(2.0),
        memory_share: Some(0.25),
        waited_cpu_s: Some(3.0),
        waited_memory_s: None,
        waited_io_s: Some(2.0),
        runnable: Some(3.0),
        established: Some(12.0),
        listen_overflows: Some(7.0),
        segments_sent: Some(1_000.0),
        segments_repeated: Some(10.0),
        disk_time_s: Some(5.0),
        disk_requests: Some(100.0),
    };

    #[test]
    fn differences_worked_by_hand() {
        let now = Usage {
            cpu_busy_s: Some(11.0),
            cpu_all_s: Some(104.0),
            waited_cpu_s: Some(3.5),
            established: Some(15.0),
            listen_overflows: Some(17.0),
            segments_sent: Some(1_300.0),
            segments_repeated: Some(110.0),
            disk_time_s: Some(5.2),
            disk_requests: Some(150.0),
            ..BEFORE
        };
        let reading = now.since(&BEFORE, 2.0);
        for (signal, expected) in [
            (Signal::Cpu, Some(0.25)),
            (Signal::Steal, Some(0.0)),
            (Signal::Memory, Some(0.25)),
            (Signal::PressureCpu, Some(0.25)),
            (Signal::PressureMemory, None),
            (Signal::PressureIo, Some(0.0)),
            (Signal::RunQueue, Some(1.5)),
            (Signal::Established, Some(15.0)),
            (Signal::ListenOverflows, Some(5.0)),
            (Signal::Retransmissions, Some(0.25)),
        ] {
            assert_eq!(reading.get(signal), expected, "{}", signal.name());
        }
        let wait_ms = reading.get(Signal::DiskWait).unwrap();
        assert!((wait_ms - 4.0).abs() < 1e-3);
    }

    #[test]
    fn lies_are_missing() {
        let restarted = Usage {
            cpu_busy_s: Some(0.1),
            listen_overflows: Some(f64::NAN),
            waited_cpu_s: Some(1e9),
            memory_share: Some(7.0),
            ..BEFORE
        };
        let reading = restarted.since(&BEFORE, 1.0);
        for signal in [
            Signal::Cpu,
            Signal::ListenOverflows,
            Signal::PressureCpu,
            Signal::Memory,
        ] {
            assert_eq!(reading.get(signal), None, "{}", signal.name());
        }
        assert_eq!(BEFORE.since(&BEFORE, 0.0).get(Signal::Steal), None);
        assert_eq!(Usage::default().since(&BEFORE, 1.0), Reading::default());
    }
}
