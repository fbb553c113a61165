//! What can befall an instance.

/// A kind of fault, or of what only looks like one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
pub enum Family {
    /// Nothing.
    None,
    /// Memory grows until reclaim slows everything and the process is killed.
    MemoryLeak,
    /// Something else burns more and more of its processors.
    CpuRamp,
    /// Its link loses more and more.
    LossRamp,
    /// Every request takes a little longer than the one before.
    LatencyCreep,
    /// Workers hang one by one until the listen queue overflows.
    QueueExhaustion,
    /// Its disk answers ever later.
    DiskStall,
    /// Another guest takes its processor time.
    NoisyNeighbour,
    /// It fails for seconds and recovers, over and over.
    Flapping,
    /// Gone from one second to the next.
    Crash,
    /// More requests for all instances than usual; all can bear it.
    Surge,
    /// A planned restart: drained, started, warmed.
    Deploy,
}

impl Family {
    /// Faults that grow, so that there is something to predict.
    pub const GRADUAL: [Self; 7] = [
        Self::MemoryLeak,
        Self::CpuRamp,
        Self::LossRamp,
        Self::LatencyCreep,
        Self::QueueExhaustion,
        Self::DiskStall,
        Self::NoisyNeighbour,
    ];
    /// Faults that do not: they are to be detected, not predicted.
    pub const ABRUPT: [Self; 2] = [Self::Crash, Self::Flapping];
    /// What is no fault.
    pub const BENIGN: [Self; 3] = [Self::None, Self::Surge, Self::Deploy];

    /// Its name in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::MemoryLeak => "memory-leak",
            Self::CpuRamp => "cpu-ramp",
            Self::LossRamp => "loss-ramp",
            Self::LatencyCreep => "latency-creep",
            Self::QueueExhaustion => "queue-exhaustion",
            Self::DiskStall => "disk-stall",
            Self::NoisyNeighbour => "noisy-neighbour",
            Self::Flapping => "flapping",
            Self::Crash => "crash",
            Self::Surge => "surge",
            Self::Deploy => "deploy",
        }
    }
}

/// A fault of one run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fault {
    /// Its kind.
    pub family: Family,
    /// When it begins, in seconds.
    pub begins_s: f32,
    /// How long it takes to grow to what makes an instance fail, in seconds.
    pub ramp_s: f32,
    /// How far it grows: 1 makes an instance fail, less does not.
    pub reach: f32,
    /// How long it stays once grown, in seconds; then it is gone.
    pub stays_s: f32,
    /// Its growth bends: below 1 fast first, above 1 slow first.
    pub bend: f32,
}

impl Fault {
    /// No fault.
    pub const NONE: Self = Self {
        family: Family::None,
        begins_s: 0.0,
        ramp_s: 1.0,
        reach: 0.0,
        stays_s: 0.0,
        bend: 1.0,
    };

    /// How far it has grown: 1 is what makes an instance fail.
    #[must_use]
    pub fn grown(&self, second: f32) -> f32 {
        let since = second - self.begins_s;
        if since < 0.0 || since > self.ramp_s * self.reach.max(0.05) + self.stays_s {
            return 0.0;
        }
        // A little beyond what fails, where it does: failing is not to hang on the last percent.
        let end = if self.reach >= 1.0 { 1.25 } else { self.reach };
        (since / self.ramp_s).powf(self.bend).min(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_grow_stay_and_end() {
        let fault = Fault {
            family: Family::CpuRamp,
            begins_s: 100.0,
            ramp_s: 50.0,
            reach: 1.0,
            stays_s: 20.0,
            bend: 1.0,
        };
        assert_eq!(fault.grown(99.0), 0.0);
        assert_eq!(fault.grown(125.0), 0.5);
        assert_eq!(fault.grown(169.0), 1.25);
        assert_eq!(fault.grown(171.0), 0.0);
        let stunted = Fault {
            reach: 0.4,
            ..fault
        };
        assert_eq!(stunted.grown(135.0), 0.4);
    }
}
