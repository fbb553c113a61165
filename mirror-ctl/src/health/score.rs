//! Where an instance's health score comes from: the place at which the prediction engine plugs in.

/// A source of scores.
pub trait Score: Send {
    /// The instance's score, 0 (about to fail) to 1 (well); not a number: unknown, which changes
    /// nothing.
    fn score(&self, instance: &str) -> f64;
}

/// The scores of the configuration.
#[derive(Clone, Debug, Default)]
pub struct Configured(Vec<(String, f64)>);

impl Configured {
    /// Takes the scores of a configuration.
    pub fn of(instances: &[crate::config::Instance]) -> Self {
        let entries = instances.iter().map(|i| (i.name.clone(), i.score));
        Self(entries.collect())
    }
}

impl Score for Configured {
    fn score(&self, instance: &str) -> f64 {
        let found = self.0.iter().find(|(name, _)| name == instance);
        found.map_or(f64::NAN, |(_, score)| *score)
    }
}
