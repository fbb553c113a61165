//! The engine at work: at its pace it asks every instance's source, adds what the dataplane noticed, judges, and leaves
//! what it expects on the board that the agent decides by. A task of its own: whatever a source does, it delays nobody but
//! what is expected.

use std::{
    collections::HashMap,
    fs,
    hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher},
    path::Path,
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

use super::{
    board::{Board, Judged, Judgement, Noticed},
    collect::{
        passive,
        source::{Place, Source},
    },
    predict::{
        engine::Fleet,
        model::Model,
        model_file::{self, FILE_BYTES_MAX},
        signal::Reading,
    },
};
use crate::{
    clock,
    config::{Config, Health},
    dataplane::chain,
};

/// A risk below this is not explained: that costs a prediction a signal.
const EXPLAINED_RISK_MIN: f32 = 0.1;

/// The task, what it was told to follow, and the model that it judges by.
#[derive(Default)]
pub struct Watch {
    task: Option<JoinHandle<()>>,
    followed: Option<Followed>,
    model: Option<(u64, Arc<Model>)>,
    /// Where it leaves what it expects.
    pub board: Board,
}

/// What of a configuration matters to the engine.
#[derive(Clone, Debug, PartialEq)]
struct Followed {
    health: Health,
    sources: Vec<(String, Place)>,
    vnis: Vec<(String, Vec<String>)>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Watch {
    /// Follows a configuration from now on. What it does not change goes on with all that is known. Must be called
    /// within a runtime.
    ///
    /// # Errors
    /// Why the model is not taken; the one before stays.
    pub fn follow(&mut self, config: &Config) -> Result<(), String> {
        let sources = config.instances.iter();
        let followed = Followed {
            health: config.health.clone(),
            sources: sources
                .filter_map(|i| Some((i.name.clone(), i.metrics.clone()?)))
                .collect(),
            vnis: config
                .vnis
                .iter()
                .map(|vni| (vni.name.clone(), vni.instances.clone()))
                .collect(),
        };
        let before = self.model.as_ref().map(|(hash, _)| *hash);
        let loaded = config.health.model.as_deref().map(load).transpose();
        // The file may be another one under the same name: it is always read anew.
        let refused = loaded.map(|model| self.model = model);
        let refused = refused.map_err(|error| chain(&*error));
        let same_model = before == self.model.as_ref().map(|(hash, _)| *hash);
        if self.followed.as_ref() == Some(&followed) && same_model {
            return refused;
        }
        self.stop();
        if config.predicts() {
            let tick = Duration::from_millis(config.health.interval_ms.into());
            let services = followed.vnis.iter().map(|(vni, members)| Service {
                vni: vni.clone(),
                members: members.clone(),
                fleet: Fleet::paced(
                    self.model.as_ref().map(|(_, m)| Arc::clone(m)),
                    tick.as_secs_f32(),
                ),
            });
            let work = run(
                followed.sources.iter().cloned().map(source).collect(),
                services.collect(),
                self.board.clone(),
                tick,
            );
            self.task = Some(tokio::spawn(work));
        }
        self.followed = Some(followed);
        refused
    }

    fn stop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

fn source((name, place): (String, Place)) -> Source {
    Source::new(name, place)
}

/// One VNI: its instances are each other's peers.
struct Service {
    vni: String,
    members: Vec<String>,
    fleet: Fleet,
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

/// A model, and a hash of its file by which it is known again.
fn load(path: &Path) -> Result<(u64, Arc<Model>), AnyError> {
    let length = fs::metadata(path)?.len();
    if length > FILE_BYTES_MAX as u64 {
        return Err(model_file::ModelError::TooLarge(length).into());
    }
    let bytes = fs::read(path)?;
    let model = Arc::new(model_file::decode(&bytes)?);
    Ok((
        BuildHasherDefault::<DefaultHasher>::default().hash_one(bytes),
        model,
    ))
}

/// What was heard of an instance in a tick; none: its source did not answer.
type Heard = HashMap<String, Option<Reading>>;

async fn run(mut sources: Vec<Source>, mut services: Vec<Service>, board: Board, tick: Duration) {
    let mut ticks = interval(tick);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before: HashMap<String, Noticed> = HashMap::new();
    // What happened between two looks needs two of them.
    ticks.tick().await;
    join_all(sources.iter_mut().map(Source::read)).await;
    loop {
        ticks.tick().await;
        let readings = join_all(sources.iter_mut().map(Source::read)).await;
        let named = sources.iter().map(|source| source.name.clone());
        let mut heard: Heard = named.zip(readings).collect();
        let noticed = board.noticed();
        for (name, now) in &noticed {
            let passive = before.get(name).map(|before| passive::since(before, now));
            // What a source that is missing would have said is unknown, whatever else is known.
            let of_it = heard
                .entry(name.clone())
                .or_insert_with(|| Some(Reading::default()));
            if let (Some(reading), Some(mut passive)) = (of_it, passive) {
                // What the dataplane counts comes first: it sees both directions.
                passive.fill_from(reading);
                *reading = passive;
            }
        }
        before = noticed;
        board.post(Judged {
            number: 0,
            made_ns: clock::now_ns(),
            tick_s: tick.as_secs_f32(),
            vnis: services
                .iter_mut()
                .map(|service| service.judge(&heard))
                .collect(),
        });
    }
}

impl Service {
    /// What is expected of the members that were heard; of the others nothing is, which changes nothing.
    fn judge(&mut self, heard: &Heard) -> (String, Vec<Judgement>) {
        let of = |name: &str| heard.get(name).and_then(Option::as_ref);
        let names = self.members.iter().map(String::as_str);
        self.fleet
            .tick(names.filter_map(|name| Some((name, of(name)?))));
        let judge = |name: &String| {
            let known = of(name).is_some() && self.fleet.is_settled(name);
            let outlook = known.then(|| self.fleet.outlook(name)).flatten();
            let explained = outlook.is_some_and(|o| o.risk() >= EXPLAINED_RISK_MIN);
            Judgement {
                instance: name.clone(),
                outlook,
                missing: matches!(heard.get(name), Some(None)),
                depletion_s: self.fleet.depletion_s(name),
                reasons: match explained {
                    true => self.fleet.explain(name),
                    false => Vec::new(),
                },
                standings: self.fleet.standings(name),
            }
        };
        (self.vni.clone(), self.members.iter().map(judge).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::predict::signal::Signal;

    #[test]
    fn who_is_ill_loses_score_and_who_is_not_heard_is_unknown() {
        let mut service = Service {
            vni: "web".to_owned(),
            members: ["a", "b", "c", "d"].map(str::to_owned).to_vec(),
            fleet: Fleet::new(None),
        };
        let reading = |value: f32| {
            let mut reading = Reading::default();
            for signal in [Signal::Memory, Signal::PressureMemory, Signal::RunQueue] {
                reading.set(signal, value);
            }
            Some(reading)
        };
        let mut judged = Vec::new();
        for tick in 0..100 {
            let of_a = reading(if tick < 80 { 0.2 } else { 9.0 });
            let heard = [
                ("a", of_a),
                ("b", reading(0.2)),
                ("c", reading(0.2)),
                ("d", None),
            ];
            let heard = heard.map(|(name, heard)| (name.to_owned(), heard));
            judged = service.judge(&heard.into()).1;
            if tick == 20 {
                assert_eq!(judged[0].outlook, None, "it is not known yet what is usual");
            }
        }
        let score = |place: usize| judged[place].outlook.map(|outlook| outlook.score);
        assert!(score(0).unwrap() < 0.1 && !judged[0].reasons.is_empty());
        assert!(score(1).unwrap() > 0.9 && judged[1].reasons.is_empty());
        assert_eq!(score(3), None);
        assert!(judged[3].missing && !judged[0].missing);
    }
}
