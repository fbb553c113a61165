//! The engine at work: once a second it asks every instance's source, judges, and leaves scores on the board that the
//! agent decides by. A task of its own: whatever a source does, it delays nobody but the scores.

use std::{fs, path::Path, sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::{
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};
use tracing::{info, warn};

use super::{
    collect::source::Source,
    predict::{
        engine::Fleet,
        model::Model,
        model_file::{self, FILE_BYTES_MAX},
        policy::{Healths, Known, Policy},
        signal::Reading,
    },
    score::{Board, Configured, Predicted, Score},
};
use crate::{clock, config::Config, dataplane::chain};

const EVERY: Duration = Duration::from_secs(1);

/// The task, and the model that it judges by.
#[derive(Default)]
pub struct Watch {
    task: Option<JoinHandle<()>>,
    model: Option<Arc<Model>>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

impl Watch {
    /// Follows a configuration from now on; where the scores are. Must be called within a runtime.
    pub fn follow(&mut self, config: &Config) -> Box<dyn Score> {
        if let Some(task) = self.task.take() {
            task.abort();
        }
        let configured = Configured::of(&config.instances);
        let sources: Vec<Source> = config
            .instances
            .iter()
            .filter_map(|i| Some(Source::new(i.name.clone(), i.metrics.clone()?)))
            .collect();
        if sources.is_empty() {
            return Box::new(configured);
        }
        match config.health.model.as_deref().map(load).transpose() {
            Ok(model) => self.model = model.map(Arc::new),
            Err(error) => warn!("the prediction model stays as it is: {}", chain(&*error)),
        }
        let services = config.vnis.iter().map(|vni| Service {
            members: members(config, &vni.instances),
            fleet: Fleet::new(self.model.clone()),
            healths: Healths::default(),
        });
        let board = Board::default();
        let work = run(sources, services.collect(), board.clone());
        self.task = Some(tokio::spawn(work));
        Box::new(Predicted::new(configured, board, clock::now_ns))
    }
}

/// Instances of one VNI with their weights.
fn members(config: &Config, names: &[String]) -> Vec<(String, f32)> {
    let of = |name: &String| {
        let found = config.instances.iter().find(|i| i.name == *name);
        (name.clone(), found.map_or(0.0, |i| i.weight as f32))
    };
    names.iter().map(of).collect()
}

/// One VNI: its instances are each other's peers.
struct Service {
    members: Vec<(String, f32)>,
    fleet: Fleet,
    healths: Healths,
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

fn load(path: &Path) -> Result<Model, AnyError> {
    let length = fs::metadata(path)?.len();
    if length > FILE_BYTES_MAX as u64 {
        return Err(model_file::ModelError::TooLarge(length).into());
    }
    Ok(model_file::decode(&fs::read(path)?)?)
}

async fn run(mut sources: Vec<Source>, mut services: Vec<Service>, board: Board) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut silent = vec![false; sources.len()];
    loop {
        ticks.tick().await;
        let readings = join_all(sources.iter_mut().map(Source::read)).await;
        for ((source, reading), silent) in sources.iter().zip(&readings).zip(&mut silent) {
            if reading.is_none() != *silent {
                *silent = reading.is_none();
                match silent {
                    true => info!("{}: its metrics are missing; its score stays", source.name),
                    false => info!("{}: its metrics are there", source.name),
                }
            }
        }
        let named = sources.iter().map(|source| source.name.as_str());
        let readings: Vec<(&str, Option<&Reading>)> =
            named.zip(readings.iter().map(Option::as_ref)).collect();
        for service in &mut services {
            service.judge(&readings, &board, clock::now_ns());
        }
    }
}

impl Service {
    /// Posts the scores of those that were heard; the others' go stale, which changes nothing.
    fn judge(&mut self, readings: &[(&str, Option<&Reading>)], board: &Board, now_ns: u64) {
        let heard = |name: &str| {
            let found = readings.iter().find(|(other, _)| *other == name);
            found.and_then(|(_, reading)| *reading)
        };
        let names = self.members.iter().map(|(name, _)| name.as_str());
        self.fleet
            .tick(names.filter_map(|name| Some((name, heard(name)?))));
        let known: Vec<Known<'_>> = self
            .members
            .iter()
            .map(|(name, capacity)| Known {
                name,
                capacity: *capacity,
                outlook: heard(name).and_then(|_| self.fleet.outlook(name)),
            })
            .collect();
        let decisions = self.healths.update(&Policy::default(), &known);
        for (decision, known) in decisions.iter().zip(&known) {
            if known.outlook.is_some() {
                board.post(&decision.name, f64::from(decision.score), now_ns);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::predict::signal::Signal;

    #[test]
    fn who_is_ill_loses_score_and_who_is_not_heard_keeps_silent() {
        let board = Board::default();
        let mut service = Service {
            members: ["a", "b", "c", "d"].map(|n| (n.to_owned(), 1.0)).to_vec(),
            fleet: Fleet::new(None),
            healths: Healths::default(),
        };
        let reading = |value: f32| {
            let mut reading = Reading::default();
            for signal in [Signal::Memory, Signal::PressureMemory, Signal::RunQueue] {
                reading.set(signal, value);
            }
            reading
        };
        let (well, ill) = (reading(0.2), reading(9.0));
        for tick in 0..100 {
            let of_a = if tick < 80 { &well } else { &ill };
            let heard = [
                ("a", Some(of_a)),
                ("b", Some(&well)),
                ("c", Some(&well)),
                ("d", None),
            ];
            service.judge(&heard, &board, tick * 1_000_000_000);
        }
        let score = Predicted::new(Configured::default(), board, || 100_000_000_000);
        assert!(score.score("a") < 0.1);
        assert!(score.score("b") > 0.9);
        assert!(score.score("d").is_nan());
    }
}
