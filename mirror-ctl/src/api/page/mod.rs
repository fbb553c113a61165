//! One page for a browser, where the configuration names a loopback address: instances, their risk over time, flows
//! that move, what happens. It is told everything once a second by server-sent events, and takes no orders.

mod history;
mod tick;

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use axum::{
    Router,
    extract::{Request, State},
    http::{
        HeaderMap, StatusCode,
        header::{
            CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
        },
    },
    middleware::{self, Next},
    response::{
        Html, IntoResponse, Response, Sse,
        sse::{Event, KeepAlive},
    },
    routing::get,
};
use futures_util::{Stream, StreamExt as _, stream};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, broadcast},
    time::MissedTickBehavior,
};

use self::{
    history::History,
    tick::{Gathered, Now},
};
use super::{
    Shared,
    handlers::{Failed, unknown},
};
use crate::clock;

/// Pages that are open at a time.
const READERS_MAX: usize = 16;
const TICK: Duration = Duration::from_secs(1);
/// Ticks that a reader may be behind before it misses some.
const BEHIND_MAX: usize = 4;
/// Entries that are taken from the log at a time.
const BATCH: usize = 256;
/// Everything is in the page itself, and nothing else may be loaded or asked.
const POLICY: &str = "default-src 'none'; connect-src 'self'; img-src data:; script-src 'unsafe-inline'; \
    style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What the page's readers share.
#[derive(Clone)]
struct Page {
    history: Arc<Mutex<History>>,
    ticks: broadcast::Sender<Arc<str>>,
    places: Arc<Semaphore>,
}

/// The page and what it is told; it is told nothing before this is polled by a runtime.
pub(super) fn router(shared: Shared) -> Router {
    let page = Page {
        history: Arc::default(),
        ticks: broadcast::channel(BEHIND_MAX).0,
        places: Arc::new(Semaphore::new(READERS_MAX)),
    };
    tokio::spawn(watch(shared, page.clone()));
    Router::new()
        .route("/", get(async || Html(include_str!("page.html"))))
        .route("/ticks", get(ticks))
        .fallback(unknown)
        .layer(middleware::from_fn(guard))
        .with_state(page)
}

/// Looks once a second, for as long as the agent lives.
async fn watch(shared: Shared, page: Page) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut seen = *shared.log.last().borrow();
    loop {
        interval.tick().await;
        let mut gathered = Gathered::default();
        loop {
            let (forgotten, entries) = shared.log.next(seen, BATCH);
            gathered.miss(forgotten);
            let Some(newest) = entries.last() else {
                break;
            };
            seen = newest.seq;
            entries.into_iter().for_each(|entry| gathered.add(entry));
        }
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = Now {
            unix_s: time.map_or(0.0, |since| since.as_secs_f64()),
            monotonic_ns: clock::now_ns(),
        };
        let tick = gathered.tick(&Arc::clone(&shared.views.borrow()), now);
        let text = serde_json::to_string(&tick).unwrap_or_default();
        // Under the lock, so that a reader gets each tick either in its history or after it.
        let mut history = page.history.lock().unwrap_or_else(PoisonError::into_inner);
        history.push(&tick);
        // Nobody may be looking.
        let _ = page.ticks.send(text.into());
    }
}

/// The past, then each second.
async fn ticks(
    State(page): State<Page>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Failed> {
    let place = Arc::clone(&page.places).try_acquire_owned().map_err(|_| {
        let reason = format!("{READERS_MAX} pages are open already");
        Failed(StatusCode::SERVICE_UNAVAILABLE, reason)
    })?;
    let (past, receiver) = {
        let history = page.history.lock().unwrap_or_else(PoisonError::into_inner);
        let past = serde_json::to_string(&*history).unwrap_or_default();
        (past, page.ticks.subscribe())
    };
    let first = Event::default().event("history").data(past);
    let later = stream::unfold((receiver, place), next);
    let events = stream::once(async { first }).chain(later).map(Ok);
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

/// The next tick for a reader; those that it was too slow for are left out.
async fn next(
    (mut receiver, place): (broadcast::Receiver<Arc<str>>, OwnedSemaphorePermit),
) -> Option<(Event, (broadcast::Receiver<Arc<str>>, OwnedSemaphorePermit))> {
    loop {
        match receiver.recv().await {
            Ok(text) => {
                let event = Event::default().event("tick").data(&*text);
                return Some((event, (receiver, place)));
            }
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return None,
        }
    }
}

/// Answers only who asks for this host by its own name: a page of somebody else's whose name leads here (DNS rebinding)
/// is not to read this one. Says what a browser may do with it.
async fn guard(headers: HeaderMap, request: Request, next: Next) -> Response {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    if !host.is_some_and(is_own_name) {
        let reason = "the page is for this host only: ask for 127.0.0.1, [::1] or localhost";
        return Failed(StatusCode::MISDIRECTED_REQUEST, reason.to_owned()).into_response();
    }
    let mut response = next.run(request).await;
    let rules = [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
    ];
    for (name, value) in rules {
        response
            .headers_mut()
            .insert(name, axum::http::HeaderValue::from_static(value));
    }
    response
}

/// Whether a `Host` header names a loopback address, with a port or without.
fn is_own_name(host: &str) -> bool {
    let is_loopback = |ip: IpAddr| ip.is_loopback();
    if let Ok(address) = host.parse::<SocketAddr>() {
        return is_loopback(address.ip());
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return is_loopback(ip);
    }
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::is_own_name;

    #[test]
    fn only_this_hosts_own_names_are_answered() {
        for own in [
            "localhost",
            "LOCALHOST:9478",
            "127.0.0.1",
            "127.0.0.1:9478",
            "[::1]",
            "[::1]:9478",
        ] {
            assert!(is_own_name(own), "{own}");
        }
        for other in [
            "",
            "evil.example",
            "evil.example:9478",
            "localhost.evil.example",
            "10.0.0.1:9478",
            "[2001:db8::1]:80",
        ] {
            assert!(!is_own_name(other), "{other}");
        }
    }
}
