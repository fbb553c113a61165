//! Learning in place: what the running agent records of what it judges.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;
use testbed::agent::Agent;
use testbed::clock::wait_until;
use testbed::topology::Family;
use testbed::topology::config::HealthConfig;

use crate::support::{LIMIT, Site, wait_replies};

/// Some moments are recorded a second after each other.
const RECORDED_LIMIT: Duration = Duration::from_secs(60);

/// `health models --json`
#[derive(Debug, Deserialize)]
struct Models {
    champion: Option<Model>,
    challenger: Option<Model>,
    stage: String,
    verdict: String,
    seconds: u64,
    failures: u64,
    drift: Option<Drift>,
}

#[derive(Debug, Deserialize)]
struct Model {
    id: String,
    log_loss: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct Drift {
    psi: f64,
    drifted: bool,
}

fn models(agent: &Agent<'_>) -> Models {
    agent.json(&["health", "models"]).unwrap()
}

fn ids(models: &Models) -> [String; 2] {
    [&models.champion, &models.challenger]
        .map(|model| model.as_ref().map_or(String::new(), |m| m.id.clone()))
}

#[track_caller]
fn wait_told(agent: &Agent<'_>, told: &str, limit: Duration) -> String {
    wait_until(&format!("{told} to be told"), limit, || {
        let mut events = agent.events(0)?.into_iter();
        let found = events.find(|e| e.kind == "prediction" && e.to.as_deref() == Some(told));
        Ok(found.map(|event| event.cause.unwrap_or_default()))
    })
    .unwrap()
}

/// A verb that needs no agent: what it says, and whether it succeeded.
fn offline(agent: &Agent<'_>, arguments: &[&str]) -> (String, bool) {
    let output = Command::new(agent.binary())
        .args(arguments)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (String::from_utf8(said).unwrap(), output.status.success())
}

fn size(file: &Path) -> u64 {
    fs::metadata(file).map_or(0, |about| about.len())
}

/// Until the recording has grown by so much.
#[track_caller]
fn wait_growth(file: &Path, bytes: u64) {
    let from = size(file);
    wait_until("the recording to grow", RECORDED_LIMIT, || {
        Ok((size(file) >= from + bytes).then_some(()))
    })
    .unwrap();
}

/// Recorded without any prediction, with what became of the instances; killed, it goes on where it was; and it can be
/// replayed and learned from.
#[test]
fn what_is_judged_is_recorded_and_survives_a_kill() {
    let site = Site::new(3);
    let folder = site.topology.dir().join("record");
    let mut config = site.topology.config();
    config.health = Some(HealthConfig {
        interval_ms: Some(250),
        record: Some(folder.clone()),
        ..Default::default()
    });
    let vni = config.vni[0].name.clone();
    let mut agent = site.agent(&config);
    let mut client = site.client(Family::V4, 30);
    agent.wait_warm(30, LIMIT).unwrap();
    let file = folder.join(format!("{vni}-000001.rec"));
    wait_growth(&file, 500);
    site.topology.instances[0].silence().unwrap();
    wait_until("a to be dead", LIMIT, || {
        Ok((agent.instances()?[0].state == "dead").then_some(()))
    })
    .unwrap();
    wait_growth(&file, 500);
    wait_replies(&mut client, 100);

    agent.kill();
    let at_death = size(&file);
    let path = file.to_str().unwrap();
    let (said, succeeded) = offline(&agent, &["health", "replay", path]);
    assert!(
        succeeded && said.contains("seen to fail (silent)"),
        "{said}"
    );
    // As if it had been killed in the middle of a write.
    let mut torn = fs::read(&file).unwrap();
    torn.extend([40, 0, 1, 2, 3]);
    fs::write(&file, torn).unwrap();
    agent.restart().unwrap();
    wait_growth(&file, 500);
    let (said, succeeded) = offline(&agent, &["health", "replay", path]);
    assert!(succeeded && !said.contains("torn"), "{said}");
    assert!(size(&file) > at_death);

    let model = folder.join("new.model");
    let place = folder.to_str().unwrap();
    let train = [
        "health",
        "train",
        model.to_str().unwrap(),
        "--recordings",
        place,
    ];
    let (said, succeeded) = offline(&agent, &train);
    assert!(
        !succeeded && said.contains("failures in 0.0 instance-hours"),
        "{said}"
    );
    assert!(!model.exists());
    let both = ["--with-simulated", "--runs", "1", "--trees", "4"];
    let (said, succeeded) = offline(&agent, &[&train[..], &both].concat());
    let expected = "simulated, 1 runs of each family; recorded, 0.0 instance-hours with ";
    assert!(succeeded && said.contains(expected), "{said}");
    for beside in ["json", "svg"] {
        assert!(size(&model.with_extension(beside)) > 100, "{beside}");
    }
    client.finish().unwrap();
}

/// The challenger judges in shadow; it is promoted and rolled back by hand, and by the rule where the score that was kept
/// says so; a restart finds who is champion; a corrupt one is refused; drift is shown.
#[test]
fn a_challenger_is_compared_promoted_and_rolled_back() {
    // Each second of each of them counts.
    let site = Site::new(6);
    let folder = site.topology.dir().join("models");
    fs::create_dir(&folder).unwrap();
    let [champion, challenger] = ["champion", "challenger"].map(|name| folder.join(name));
    let mut config = site.topology.config();
    let path = |file: &Path| Some(file.to_str().unwrap().to_owned());
    config.health = Some(HealthConfig {
        model: path(&champion),
        challenger: path(&challenger),
        apply: Some("nothing".into()),
        ..Default::default()
    });
    let mut agent = site.agent(&config);
    // Neither is there yet.
    assert!(wait_told(&agent, "model-refused", LIMIT).contains("No such file"));
    for (file, seed) in [(&champion, "1"), (&challenger, "2")] {
        let file = file.to_str().unwrap();
        let train = [
            "health", "train", file, "--runs", "1", "--trees", "4", "--seed", seed,
        ];
        let (said, succeeded) = offline(&agent, &train);
        assert!(succeeded, "{said}");
    }
    agent.stop().unwrap();
    agent.restart().unwrap();
    let mut client = site.client(Family::V4, 30);
    // What is usual is known after half a minute, what came of a second after another half.
    let judged = wait_until("both to be judged", Duration::from_secs(600), || {
        let models = models(&agent);
        Ok((models.seconds > 30).then_some(models))
    })
    .unwrap();
    let [first, second] = ids(&judged);
    assert!(judged.stage == "shadow" && first != second, "{judged:?}");
    assert!(judged.verdict.contains("0 of 5 failures"), "{judged:?}");
    for model in [&judged.champion, &judged.challenger] {
        assert!(model.as_ref().unwrap().log_loss.is_some(), "{judged:?}");
    }

    // An echo service on a testbed is not what the corpus simulates.
    let drift = wait_until("drift", Duration::from_secs(600), || {
        Ok(models(&agent).drift)
    })
    .unwrap();
    assert!(drift.psi > 0.25 && drift.drifted, "{drift:?}");
    wait_told(&agent, "model-drifted", LIMIT);
    let metrics = agent.verb(&["metrics"]).output().unwrap().stdout;
    let metrics = String::from_utf8(metrics).unwrap();
    assert!(
        metrics.contains("mirror_model_drift_psi{role=\"champion\"}"),
        "{metrics}"
    );

    let text = agent.text(&["health", "promote"]).unwrap();
    assert!(text.contains("stage probation"), "{text}");
    assert!(wait_told(&agent, "model-promoted", LIMIT).contains("operator"));
    assert_eq!(ids(&models(&agent)), [second.clone(), first.clone()]);
    agent.kill();
    agent.restart().unwrap();
    let again = models(&agent);
    assert_eq!(
        (ids(&again), again.stage.as_str()),
        ([second.clone(), first.clone()], "probation")
    );
    agent.text(&["health", "rollback"]).unwrap();
    wait_told(&agent, "model-rolled-back", LIMIT);
    assert_eq!(ids(&models(&agent)), [first.clone(), String::new()]);
    let refused = agent.text(&["health", "rollback"]).unwrap_err().to_string();
    assert!(refused.contains("no model to go back to"), "{refused}");
    let ordered = agent.events(0).unwrap();
    let rollbacks = ordered
        .iter()
        .filter(|e| e.kind == "order" && e.to.as_deref() == Some("rollback"));
    assert_eq!(rollbacks.count(), 2, "{ordered:?}");

    // A week's score, as an agent before has kept it: promoted by the rule.
    agent.stop().unwrap();
    let hour = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs()
        / 3_600;
    let side = |log_loss: f64| serde_json::json!({"log_loss": log_loss, "brier": log_loss / 4.0, "false_alarms": 0, "caught": 3});
    let kept = serde_json::json!({
        "champion": &first, "challenger": &second, "stage": "shadow", "rejected": null,
        "window": [{"hour": hour - 1, "rows": 9_000, "failures": 6, "wins": 5, "sides": [side(900.0), side(450.0)]}],
    });
    fs::write(folder.join("champion.contest"), kept.to_string()).unwrap();
    agent.restart().unwrap();
    let why = wait_told(&agent, "model-promoted", LIMIT);
    assert!(
        why.contains("6 failures, 5 of them foreseen better"),
        "{why}"
    );
    assert_eq!(ids(&models(&agent)), [second.clone(), first]);

    // A corrupt one is refused, and who is champion stays.
    agent.text(&["health", "rollback"]).unwrap();
    let mut bytes = fs::read(&challenger).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&challenger, bytes).unwrap();
    let refused = agent.text(&["health", "promote"]).unwrap_err().to_string();
    assert!(refused.contains("corrupt"), "{refused}");
    agent.stop().unwrap();
    agent.restart().unwrap();
    assert!(wait_told(&agent, "challenger-refused", LIMIT).contains("corrupt"));
    assert_eq!(models(&agent).failures, 0);
    wait_replies(&mut client, 100);
    client.finish().unwrap();
}
