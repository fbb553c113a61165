//! The engine at work: at its pace it asks every instance's source, adds what the dataplane noticed, judges, and leaves
//! what it expects on the board that the agent decides by. A task of its own: whatever a source does, it delays nobody but
//! what is expected.

use std::{collections::HashMap, path::PathBuf, sync::Arc, time::Duration};

use futures_util::future::join_all;
use mirror_common::instance::Measures;
use tokio::{
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};
use tracing::warn;

use super::{
    board::{Board, Judged, Judgement, Noticed},
    collect::{
        passive::Passive,
        source::{Place, Source},
    },
    learning::{
        fate::Seen,
        journal::{Journal, Limits, Tally},
        onsets::Second,
        referee::{Referee, Seated},
        seats::{Seat, Seats, Unseated},
    },
    predict::{engine::Fleet, signal::Reading},
    recording::Moment,
};
use crate::{
    clock,
    config::{Config, Health},
};

/// A risk below this is not explained: that costs a prediction a signal.
const EXPLAINED_RISK_MIN: f32 = 0.1;

/// Reads what the dataplane measures of instances by their numbers; may block, and says why it cannot.
pub type Measured = Arc<dyn Fn(&[u32]) -> Result<Vec<Measures>, String> + Send + Sync>;

/// The task, what it was told to follow, and the model that it judges by.
pub struct Watch {
    measured: Measured,
    task: Option<JoinHandle<()>>,
    followed: Option<Followed>,
    /// Champion and challenger.
    pub seats: Seats,
    /// The term that the seats have been in since they changed last.
    pub term: u64,
    journal: Option<(PathBuf, Journal)>,
    /// Where it leaves what it expects.
    pub board: Board,
}

/// What of a configuration is not done.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The model is not taken; the one before stays.
    #[error("{0}")]
    Model(String),
    /// The challenger is not taken.
    #[error("{0}")]
    Challenger(String),
    /// Nothing is recorded.
    #[error("{0}")]
    Record(String),
}

impl Refused {
    /// The word in events.
    #[must_use]
    pub const fn told(&self) -> &'static str {
        match self {
            Self::Model(_) => "model-refused",
            Self::Challenger(_) => "challenger-refused",
            Self::Record(_) => "record-refused",
        }
    }
}

/// What of a configuration matters to the engine.
#[derive(Clone, Debug, PartialEq)]
struct Followed {
    watches: bool,
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
    /// One that follows nothing yet.
    pub fn new(measured: Measured) -> Self {
        Self {
            measured,
            task: None,
            followed: None,
            seats: Seats::default(),
            term: 0,
            journal: None,
            board: Board::default(),
        }
    }

    /// Follows a configuration from now on. What it does not change goes on with all that is known. Must be called
    /// within a runtime. What of it is refused changes nothing.
    pub fn follow(&mut self, config: &Config) -> Vec<Refused> {
        let sources = config.instances.iter();
        let followed = Followed {
            watches: config.watches(),
            // Who judges may change while the engine runs.
            health: Health {
                model: None,
                challenger: None,
                ..config.health.clone()
            },
            sources: sources
                .filter_map(|i| Some((i.name.clone(), i.metrics.clone()?)))
                .collect(),
            vnis: config
                .vnis
                .iter()
                .map(|vni| (vni.name.clone(), vni.instances.clone()))
                .collect(),
        };
        // The files may be others under the same names: they are always read anew.
        let health = &config.health;
        let unseated = self
            .seats
            .follow(health.model.as_deref(), health.challenger.as_deref());
        let mut refused: Vec<Refused> = unseated
            .into_iter()
            .map(|unseated| match unseated {
                Unseated::Model(why) => Refused::Model(why),
                Unseated::Challenger(why) => Refused::Challenger(why),
            })
            .collect();
        self.reseat();
        if self.followed.as_ref() == Some(&followed) {
            return refused;
        }
        refused.extend(self.keep(config).err().map(Refused::Record));
        self.stop();
        if config.watches() {
            let tick = Duration::from_millis(config.health.interval_ms.into());
            let services = followed.vnis.iter().map(|(vni, members)| Service {
                vni: vni.clone(),
                members: members.clone(),
                fleet: Fleet::paced(None, tick.as_secs_f32()),
            });
            let work = run(
                followed.sources.iter().cloned().map(source).collect(),
                services.collect(),
                self.board.clone(),
                Arc::clone(&self.measured),
                self.journal.as_ref().map(|(_, journal)| journal.clone()),
                tick,
            );
            self.task = Some(tokio::spawn(work));
        }
        self.followed = Some(followed);
        refused
    }

    /// Has the engine judge by those that are seated now.
    pub fn reseat(&mut self) {
        let model = |seat: &Option<Seat>| seat.as_ref().map(|seat| Arc::clone(&seat.model));
        self.term = self.board.seat(Seated {
            term: 0,
            champion: model(&self.seats.champion),
            challenger: model(&self.seats.challenger),
            stage: self.seats.stage,
            window: self.seats.window.clone(),
        });
    }

    /// What became of what was to be recorded, if anything is.
    pub fn tally(&self) -> Option<Arc<Tally>> {
        self.journal.as_ref().map(|(_, journal)| journal.tally())
    }

    /// Begins, goes on or ends to record.
    fn keep(&mut self, config: &Config) -> Result<(), String> {
        let Some(folder) = config.health.record.clone() else {
            self.journal = None;
            return Ok(());
        };
        let limits = Limits {
            bytes_max: u64::from(config.health.record_mib) << 20,
            vnis: config.vnis.iter().map(|vni| vni.name.clone()).collect(),
        };
        match &self.journal {
            Some((same, journal)) if *same == folder => journal.limit(limits),
            _ => {
                self.journal = None;
                let journal = Journal::start(&folder, limits);
                let journal = journal.map_err(|error| format!("{}: {error}", folder.display()))?;
                self.journal = Some((folder, journal));
            }
        }
        Ok(())
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

/// What was heard of an instance in a tick; none: its source did not answer.
type Heard = HashMap<String, Option<Reading>>;

async fn run(
    mut sources: Vec<Source>,
    mut services: Vec<Service>,
    board: Board,
    measured: Measured,
    journal: Option<Journal>,
    tick: Duration,
) {
    let mut ticks = interval(tick);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looks: HashMap<String, Passive> = HashMap::new();
    let mut referee = Referee::default();
    // What happened between two looks needs two of them.
    ticks.tick().await;
    join_all(sources.iter_mut().map(Source::read)).await;
    loop {
        ticks.tick().await;
        let readings = join_all(sources.iter_mut().map(Source::read)).await;
        let named = sources.iter().map(|source| source.name.clone());
        let mut heard: Heard = named.zip(readings).collect();
        let noticed = board.noticed();
        let measures = measure(&measured, &noticed).await;
        looks.retain(|name, _| noticed.contains_key(name));
        for (name, now) in &noticed {
            let passive = looks.entry(name.clone()).or_default();
            let passive = passive.look(*now, measures.get(&now.number).copied());
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
        let time_ms = clock::unix_ms();
        if let Some(journal) = &journal {
            for service in &services {
                journal.offer(&service.vni, service.moment(time_ms, &heard, &noticed));
            }
        }
        let seated = board.seated();
        if seated.term != referee.term() {
            for service in &mut services {
                service.fleet.set_model(seated.champion.clone());
            }
            referee.seat(Arc::clone(&seated));
        }
        let vnis = services.iter_mut().map(|service| service.judge(&heard));
        let vnis: Vec<_> = vnis.collect();
        // What has no model has nothing to be held to.
        let standing = seated.champion.is_some().then(|| {
            for (service, (_, judgements)) in services.iter().zip(&vnis) {
                service.look(&mut referee, judgements, &heard, &noticed, time_ms);
            }
            referee.standing()
        });
        board.post(Judged {
            number: 0,
            made_ns: clock::now_ns(),
            tick_s: tick.as_secs_f32(),
            vnis,
            standing,
        });
    }
}

/// What the dataplane measured of those instances so far, by number; what cannot be read is missing. In a thread for what blocks: of a
/// thousand instances on many CPUs it is megabytes.
async fn measure(
    measured: &Measured,
    noticed: &HashMap<String, Noticed>,
) -> HashMap<u32, Measures> {
    let numbers: Vec<u32> = noticed.values().map(|noticed| noticed.number).collect();
    let read = Arc::clone(measured);
    let read = tokio::task::spawn_blocking(move || {
        let measures = read(&numbers)?;
        Ok::<_, String>(numbers.into_iter().zip(measures).collect())
    });
    let read = read.await.map_err(|error| error.to_string());
    read.and_then(|read| read).unwrap_or_else(|reason| {
        warn!("what the dataplane measures is missing: {reason}");
        HashMap::new()
    })
}

const HOUR_MS: u64 = 3_600_000;

impl Service {
    /// What is recorded of a tick: of a member whose source did not answer, that.
    fn moment(&self, time_ms: u64, heard: &Heard, noticed: &HashMap<String, Noticed>) -> Moment {
        let reading = |name: &String| {
            let reading = heard.get(name).copied().flatten().unwrap_or_default();
            (name.clone(), reading)
        };
        let seen = |name: &String| {
            let seen = noticed.get(name).map_or(Seen::WELL, |noticed| noticed.seen);
            (seen != Seen::WELL).then(|| (name.clone(), seen))
        };
        Moment {
            time_ms,
            readings: self.members.iter().map(reading).collect(),
            fates: self.members.iter().filter_map(seen).collect(),
        }
    }

    /// What the referee sees of a tick.
    fn look(
        &self,
        referee: &mut Referee,
        judgements: &[Judgement],
        heard: &Heard,
        noticed: &HashMap<String, Noticed>,
        time_ms: u64,
    ) {
        let member = |judgement| {
            let Judgement {
                instance, outlook, ..
            }: &Judgement = judgement;
            let second = Second {
                reading: heard.get(instance).copied().flatten().unwrap_or_default(),
                seen: noticed
                    .get(instance)
                    .map_or(Seen::WELL, |noticed| noticed.seen),
            };
            (instance.as_str(), outlook.is_some(), second)
        };
        let members = judgements.iter().map(member);
        referee.look((&self.vni, &self.fleet, time_ms / HOUR_MS), members);
    }

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
