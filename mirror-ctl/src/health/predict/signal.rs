//! What is measured of an instance: a closed set of signals, each with its unit and with what counts as noise.

/// How many signals there are.
pub const COUNT: usize = 24;

/// A quantity measured once a tick. The numbers are part of the recording's format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Signal {
    /// Median time from SYN to SYN-ACK, ms.
    SynAckP50 = 0,
    /// 99th percentile of the same, ms.
    SynAckP99 = 1,
    /// Median time from data to its acknowledgement, ms.
    AckP50 = 2,
    /// 99th percentile of the same, ms.
    AckP99 = 3,
    /// Retransmitted share of segments, either direction.
    Retransmissions = 4,
    /// Reset share of connections.
    Resets = 5,
    /// Share of SYNs that nobody answered in time.
    SynTimeouts = 6,
    /// Requests begun and not answered.
    InFlight = 7,
    /// Time for which it has owed an answer, ms.
    Silence = 8,
    /// Bytes by which it trails as a mirror.
    MirrorLag = 9,
    /// Share of its mirrored flows whose output left the active replica's.
    Divergence = 10,
    /// Requests a second.
    RequestRate = 11,
    /// Busy share of its processors.
    Cpu = 12,
    /// Share of processor time that others took.
    Steal = 13,
    /// Share of memory that is not available.
    Memory = 14,
    /// Share of time some task waited for a processor (PSI).
    PressureCpu = 15,
    /// Share of time some task waited for memory (PSI).
    PressureMemory = 16,
    /// Share of time some task waited for I/O (PSI).
    PressureIo = 17,
    /// Runnable tasks per processor.
    RunQueue = 18,
    /// Connections refused by a full listen queue, a second.
    ListenOverflows = 19,
    /// Time an I/O request waits, ms.
    DiskWait = 20,
    /// Median time from a request to the first byte of its answer, ms.
    AnswerP50 = 21,
    /// 99th percentile of the same, ms.
    AnswerP99 = 22,
    /// Established TCP connections, whoever holds them.
    Established = 23,
}

impl Signal {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; COUNT] = [
        Self::SynAckP50,
        Self::SynAckP99,
        Self::AckP50,
        Self::AckP99,
        Self::Retransmissions,
        Self::Resets,
        Self::SynTimeouts,
        Self::InFlight,
        Self::Silence,
        Self::MirrorLag,
        Self::Divergence,
        Self::RequestRate,
        Self::Cpu,
        Self::Steal,
        Self::Memory,
        Self::PressureCpu,
        Self::PressureMemory,
        Self::PressureIo,
        Self::RunQueue,
        Self::ListenOverflows,
        Self::DiskWait,
        Self::AnswerP50,
        Self::AnswerP99,
        Self::Established,
    ];

    /// Its name in tables, JSON and model cards, with the unit last.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SynAckP50 => "syn_ack_p50_ms",
            Self::SynAckP99 => "syn_ack_p99_ms",
            Self::AckP50 => "ack_p50_ms",
            Self::AckP99 => "ack_p99_ms",
            Self::Retransmissions => "retransmissions_share",
            Self::Resets => "resets_share",
            Self::SynTimeouts => "syn_timeouts_share",
            Self::InFlight => "in_flight_requests",
            Self::Silence => "silence_ms",
            Self::MirrorLag => "mirror_lag_bytes",
            Self::Divergence => "divergence_share",
            Self::RequestRate => "requests_per_s",
            Self::Cpu => "cpu_share",
            Self::Steal => "steal_share",
            Self::Memory => "memory_share",
            Self::PressureCpu => "pressure_cpu_share",
            Self::PressureMemory => "pressure_memory_share",
            Self::PressureIo => "pressure_io_share",
            Self::RunQueue => "run_queue_per_cpu",
            Self::ListenOverflows => "listen_overflows_per_s",
            Self::DiskWait => "disk_wait_ms",
            Self::AnswerP50 => "answer_p50_ms",
            Self::AnswerP99 => "answer_p99_ms",
            Self::Established => "established_connections",
        }
    }

    /// The least deviation that may count as one standard deviation: what a signal that has never moved is
    /// measured against, so that its first stir is not taken for a disaster.
    #[must_use]
    pub const fn noise(self) -> f32 {
        match self {
            Self::SynAckP50 | Self::AckP50 | Self::AnswerP50 => 0.3,
            Self::SynAckP99 | Self::AckP99 | Self::AnswerP99 => 1.5,
            Self::Retransmissions | Self::Resets | Self::SynTimeouts => 0.004,
            Self::InFlight | Self::Established => 2.0,
            Self::Silence => 20.0,
            Self::MirrorLag => 16_384.0,
            Self::Divergence => 0.01,
            Self::RequestRate => 10.0,
            Self::Cpu | Self::Memory => 0.01,
            Self::Steal | Self::PressureCpu | Self::PressureMemory | Self::PressureIo => 0.01,
            Self::RunQueue => 0.25,
            Self::ListenOverflows => 0.5,
            Self::DiskWait => 1.0,
        }
    }

    /// Whether a high value is evidence against the instance, and not only of how much it has to do. How long an acknowledgement
    /// takes is not: it follows the answer, up to when a delayed one is due, and one trouble is not to count twice.
    #[must_use]
    pub const fn is_symptom(self) -> bool {
        !matches!(
            self,
            Self::RequestRate | Self::InFlight | Self::Cpu | Self::AckP50 | Self::AckP99
        )
    }

    /// The signal of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|signal| signal.name() == name)
    }
}

/// What was measured in one tick. What is missing is known to be missing: no value stands for it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Reading {
    values: [f32; COUNT],
    present: u32,
}

impl Reading {
    /// Takes a value; one that is no number, infinite or negative counts as missing, whoever sent it.
    pub fn set(&mut self, signal: Signal, value: f32) {
        let bit = 1 << signal as u32;
        if value.is_finite() && value >= 0.0 {
            self.values[signal as usize] = value;
            self.present |= bit;
        } else {
            self.values[signal as usize] = 0.0;
            self.present &= !bit;
        }
    }

    /// The value, unless it is missing.
    #[must_use]
    pub fn get(&self, signal: Signal) -> Option<f32> {
        self.has(signal as usize)
            .then(|| self.values[signal as usize])
    }

    /// One bit a signal.
    #[must_use]
    pub fn present(&self) -> u32 {
        self.present
    }

    /// Whether the signal with this number is there.
    #[must_use]
    pub(super) fn has(&self, number: usize) -> bool {
        self.present >> number & 1 == 1
    }

    /// By number; zero where missing.
    #[must_use]
    pub(super) fn values(&self) -> &[f32; COUNT] {
        &self.values
    }

    /// Adds what `other` has and this lacks.
    pub fn fill_from(&mut self, other: &Self) {
        for signal in Signal::ALL {
            if let (None, Some(value)) = (self.get(signal), other.get(signal)) {
                self.set(signal, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_unique() {
        for (number, signal) in Signal::ALL.into_iter().enumerate() {
            assert_eq!(signal as usize, number);
            assert_eq!(Signal::from_name(signal.name()), Some(signal));
            assert!(signal.noise() > 0.0);
        }
    }

    #[test]
    fn no_value_stands_for_a_missing_one() {
        let mut reading = Reading::default();
        reading.set(Signal::Cpu, 0.5);
        assert_eq!(reading.get(Signal::Cpu), Some(0.5));
        for lie in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -1.0] {
            reading.set(Signal::Cpu, lie);
            assert_eq!(reading.get(Signal::Cpu), None, "{lie}");
            reading.set(Signal::Cpu, 0.0);
        }
        assert_eq!(reading.get(Signal::Memory), None);
    }
}
