//! Events as they happen, as server-sent events. The log is the queue: it is bounded and shared, each reader only
//! has its place in it, and one that is so slow that entries are forgotten before it took them is cut off.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    extract::{Query, State},
    http::{HeaderMap, StatusCode},
    response::{
        Sse,
        sse::{Event, KeepAlive},
    },
};
use futures_util::{Stream, stream};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, watch};
use utoipa::IntoParams;

use super::{
    EVENT_READERS_MAX, Shared,
    handlers::{Failed, Problem},
};
use crate::{
    agent::log::{EventLog, KINDS, LogEntry},
    metrics::Metrics,
};

/// The event that ends the stream of a reader that was too slow.
pub const CUT: &str = "cut";
/// The event that says that some of what was asked for is not remembered any more.
pub const GAP: &str = "gap";
/// Entries that a reader takes from the log at a time.
const BATCH: usize = 256;
/// Lets both ends notice that the other one is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Which events are wanted.
#[derive(Debug, Default)]
pub(super) struct Kinds(Vec<String>);

impl Kinds {
    /// Reads names with commas between them; no text is all kinds.
    pub(super) fn parse(text: Option<&str>) -> Result<Self, Failed> {
        let names: Vec<String> = text
            .into_iter()
            .flat_map(|text| text.split(','))
            .map(str::to_owned)
            .collect();
        match names.iter().find(|name| !KINDS.contains(&name.as_str())) {
            None => Ok(Self(names)),
            Some(name) => Err(Failed(
                StatusCode::BAD_REQUEST,
                format!(
                    "there is no kind of event {name:?}: there are {}",
                    KINDS.join(", ")
                ),
            )),
        }
    }

    pub(super) fn want(&self, entry: &LogEntry) -> bool {
        self.0.is_empty() || self.0.contains(&entry.kind)
    }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct StreamQuery {
    /// Only events with greater numbers; without it the next one is the first.
    since: Option<u64>,
    /// Only events of these kinds, with commas between them.
    kind: Option<String>,
}

/// Events as they happen.
#[utoipa::path(
    get,
    path = "/v1/events/stream",
    params(StreamQuery, ("Last-Event-ID" = Option<u64>, Header, description = "As since")),
    responses(
        (status = 200, description = "Server-sent events: each data line is an event as in /v1/events; `gap` and `cut` say what is missing", body = String, content_type = "text/event-stream"),
        (status = "default", description = "Refused or failed", body = Problem)
    )
)]
pub(super) async fn events(
    State(shared): State<Shared>,
    Query(query): Query<StreamQuery>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Failed> {
    let kinds = Kinds::parse(query.kind.as_deref())?;
    let place = Arc::clone(&shared.readers).try_acquire_owned();
    let place = place.map_err(|_| {
        let reason = format!("there are {EVENT_READERS_MAX} readers of events already");
        Failed(StatusCode::SERVICE_UNAVAILABLE, reason)
    })?;
    // A browser that connects again says what it saw last.
    let seen = headers.get("last-event-id");
    let seen = seen.and_then(|id| id.to_str().ok()?.parse().ok());
    let mut reader = Reader::new(&shared.log, &shared.metrics, seen.or(query.since), kinds);
    reader.place = Some(place);
    let events = stream::unfold(reader, |mut reader| async {
        let message = reader.next().await?;
        Some((Ok(message.into_event()), reader))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// What a reader gets.
#[derive(Debug, PartialEq)]
enum Message {
    Entry(Box<LogEntry>),
    Gap(u64),
    Cut(u64),
}

impl Message {
    fn into_event(self) -> Event {
        let (name, id, data) = match &self {
            Self::Entry(entry) => (
                entry.kind.as_str(),
                Some(entry.seq),
                serde_json::to_value(entry).unwrap_or_default(),
            ),
            Self::Gap(events) => (GAP, None, json!({ "forgotten": events })),
            Self::Cut(events) => (
                CUT,
                None,
                json!({
                    "forgotten": events,
                    "error": format!("cut off: too slow, {events} events were forgotten unread"),
                }),
            ),
        };
        let event = Event::default().event(name).data(data.to_string());
        match id {
            Some(id) => event.id(id.to_string()),
            None => event,
        }
    }
}

/// One reader's place in the log.
struct Reader {
    log: Arc<EventLog>,
    metrics: Arc<Metrics>,
    last: watch::Receiver<u64>,
    kinds: Kinds,
    seen: u64,
    taken: VecDeque<LogEntry>,
    /// Whether it has had anything yet: before that, what is missing is not its fault.
    began: bool,
    ended: bool,
    place: Option<OwnedSemaphorePermit>,
}

impl Reader {
    fn new(log: &Arc<EventLog>, metrics: &Arc<Metrics>, since: Option<u64>, kinds: Kinds) -> Self {
        let last = log.last();
        let newest = *last.borrow();
        Self {
            log: Arc::clone(log),
            metrics: Arc::clone(metrics),
            // A number from before the agent was restarted is that of a later event now.
            seen: since.map_or(newest, |since| since.min(newest)),
            last,
            kinds,
            taken: VecDeque::new(),
            began: false,
            ended: false,
            place: None,
        }
    }

    async fn next(&mut self) -> Option<Message> {
        loop {
            if self.ended {
                return None;
            }
            while let Some(entry) = self.taken.pop_front() {
                if self.kinds.want(&entry) {
                    return Some(Message::Entry(Box::new(entry)));
                }
            }
            self.last.mark_unchanged();
            let (forgotten, entries) = self.log.next(self.seen, BATCH);
            let Some(newest) = entries.last() else {
                // It ends with the agent.
                self.last.changed().await.ok()?;
                continue;
            };
            self.seen = newest.seq;
            self.taken = entries.into();
            let began = std::mem::replace(&mut self.began, true);
            if forgotten > 0 && began {
                self.ended = true;
                self.metrics.readers_cut.inc();
                return Some(Message::Cut(forgotten));
            }
            if forgotten > 0 {
                return Some(Message::Gap(forgotten));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::log::ENTRIES_MAX;

    fn entry(kind: &str) -> LogEntry {
        LogEntry {
            kind: kind.to_owned(),
            ..LogEntry::default()
        }
    }

    fn many(log: &EventLog, n: usize) {
        log.add((0..n).map(|_| entry("flow-opened")));
    }

    /// A reader's next message, which must be there without waiting.
    fn next(reader: &mut Reader) -> Option<Message> {
        let next = std::pin::pin!(reader.next());
        futures_util::FutureExt::now_or_never(next).expect("nothing to read yet")
    }

    fn reader(log: &Arc<EventLog>, since: Option<u64>, kinds: &str) -> Reader {
        let kinds = Kinds::parse(Some(kinds).filter(|kinds| !kinds.is_empty()));
        let kinds = kinds.unwrap_or_else(|failed| panic!("{}", failed.1));
        Reader::new(log, &Arc::default(), since, kinds)
    }

    #[test]
    fn a_reader_gets_what_it_wants_from_where_it_wants() {
        let log = Arc::new(EventLog::default());
        many(&log, 3);
        let mut late = reader(&log, None, "");
        let mut early = reader(&log, Some(2), "takeover,flow-opened");
        let mut choosy = reader(&log, Some(0), "takeover");
        log.add([entry("takeover"), entry("interface")]);
        let seq = |message| match message {
            Some(Message::Entry(entry)) => entry.seq,
            other => panic!("{other:?}"),
        };
        assert_eq!([seq(next(&mut late)), seq(next(&mut late))], [4, 5]);
        assert_eq!([seq(next(&mut early)), seq(next(&mut early))], [3, 4]);
        assert_eq!(seq(next(&mut choosy)), 4);
        let waiting = std::pin::pin!(late.next());
        assert!(futures_util::FutureExt::now_or_never(waiting).is_none());
    }

    #[test]
    fn a_slow_reader_is_cut_off_and_told() {
        let log = Arc::new(EventLog::default());
        many(&log, 1);
        let mut slow = reader(&log, Some(0), "");
        assert!(matches!(next(&mut slow), Some(Message::Entry(_))));
        many(&log, ENTRIES_MAX + 10);
        assert_eq!(next(&mut slow), Some(Message::Cut(10)));
        assert_eq!(next(&mut slow), None);
        assert_eq!(slow.metrics.readers_cut.get(), 1);
    }

    #[test]
    fn what_was_forgotten_before_is_a_gap() {
        let log = Arc::new(EventLog::default());
        many(&log, ENTRIES_MAX + 10);
        let mut reader = reader(&log, Some(0), "");
        assert_eq!(next(&mut reader), Some(Message::Gap(10)));
        assert!(matches!(next(&mut reader), Some(Message::Entry(e)) if e.seq == 11));
    }

    #[test]
    fn kinds_are_known() {
        let failed = Kinds::parse(Some("takeover,birthday")).unwrap_err();
        assert!(
            failed
                .1
                .starts_with("there is no kind of event \"birthday\": there are flow-opened,")
        );
    }
}
