//! `top`: the whole of it on one screen, and orders from there.

mod draw;
mod model;
#[cfg(test)]
mod tests;

use std::{
    io::{self, IsTerminal},
    path::Path,
    thread,
    time::Duration,
};

use anyhow::{Result, bail};
use hyper::Method;
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use super::{ask::small_runtime, look::Look};
use crate::api::{
    client::{ClientError, escape, messages, request},
    sse::Message,
};
use model::{Answers, Model, Wish};

/// Between two looks; rates are by the second because of it.
const LOOK: Duration = Duration::from_secs(1);
/// Before a stream of events that ended is asked for again.
const AGAIN: Duration = Duration::from_secs(1);
/// Flows that are asked for: more than any terminal has lines.
const FLOWS: usize = 100;
/// What is shown of what happens: opened and closed flows would push everything else off the screen.
const EVENTS: &str = "/v1/events/stream?kind=takeover,flow-cold,instance-state";

/// Shows the screen until it is left.
pub(super) fn run(socket: &Path) -> Result<()> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        bail!(
            "top needs a terminal; `mirror-ctl status --json` and `mirror-ctl events --follow` do not"
        );
    }
    let runtime = small_runtime()?;
    // Before the screen is taken: that nobody answers is said in the ordinary way.
    let answers = runtime.block_on(look(socket, false))?;
    let mut model = Model::default();
    model.answered(answers);
    let mut terminal = ratatui::try_init()?;
    let left = runtime.block_on(watch(socket, &mut model, &mut terminal));
    ratatui::restore();
    left
}

async fn watch(socket: &Path, model: &mut Model, terminal: &mut DefaultTerminal) -> Result<()> {
    let mut keys = keys()?;
    let (sender, mut events) = mpsc::channel(64);
    tokio::spawn(listen(socket.to_owned(), sender));
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let shown = Look::of_stdout();
        terminal.draw(|frame| draw::draw(frame, model, shown))?;
        let wish = tokio::select! {
            Some(key) = keys.recv() => key.and_then(|key| model.key(key)),
            Some(message) = events.recv() => {
                take(model, &message);
                None
            }
            _ = looks.tick() => Some(Wish::Look),
        };
        match wish {
            None => {}
            Some(Wish::Quit) => return Ok(()),
            Some(Wish::Order(verb, instance)) => {
                let path = format!("/v1/instances/{}/{verb}", escape(&instance));
                let answer: Result<serde_json::Value, _> =
                    request(socket, Method::POST, &path).await;
                model.notice = Some(match answer {
                    Ok(_) => format!("{verb} {instance}: done"),
                    Err(error) => format!("{verb} {instance}: {error}"),
                });
            }
            Some(Wish::Look) => match look(socket, model.cold_only).await {
                Ok(answers) => model.answered(answers),
                Err(error) => model.trouble = Some(error.to_string()),
            },
        }
    }
}

/// Everything that is looked at.
async fn look(socket: &Path, cold: bool) -> Result<Answers, ClientError> {
    let flows = format!("/v1/flows?limit={FLOWS}&cold={cold}");
    Ok(Answers {
        status: request(socket, Method::GET, "/v1/status").await?,
        instances: request(socket, Method::GET, "/v1/instances").await?,
        vnis: request(socket, Method::GET, "/v1/vnis").await?,
        flows: request(socket, Method::GET, &flows).await?,
    })
}

/// Reads events for as long as somebody wants them, also across a restart of the agent.
async fn listen(socket: std::path::PathBuf, sender: mpsc::Sender<Message>) {
    while !sender.is_closed() {
        // When the screen cannot follow, what is too much is left out: it is the newest that counts.
        let _ = messages(&socket, Method::GET, EVENTS, |message| {
            let _ = sender.try_send(message);
            Ok::<_, ClientError>(())
        })
        .await;
        tokio::time::sleep(AGAIN).await;
    }
}

fn take(model: &mut Model, message: &Message) {
    if let Ok(entry) = serde_json::from_str(&message.data) {
        model.happened(entry);
    }
}

/// Keys as they are pressed, and `None` when the screen has another size: it is drawn again then. In a thread of
/// its own, because reading them blocks; it ends with the process.
fn keys() -> Result<mpsc::Receiver<Option<KeyCode>>> {
    let (sender, keys) = mpsc::channel(16);
    thread::Builder::new()
        .name("keys".to_owned())
        .spawn(move || {
            while let Ok(event) = event::read() {
                let key = match event {
                    Event::Key(key) if key.kind != KeyEventKind::Release => {
                        let end = key.modifiers.contains(KeyModifiers::CONTROL)
                            && key.code == KeyCode::Char('c');
                        // Raw mode makes a key of what would be a signal.
                        Some(if end { KeyCode::Char('q') } else { key.code })
                    }
                    Event::Resize(..) => None,
                    _ => continue,
                };
                if sender.blocking_send(key).is_err() {
                    return;
                }
            }
        })?;
    Ok(keys)
}
