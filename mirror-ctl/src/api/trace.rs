//! A flow's packets as they pass, as server-sent events. For so long traced programs are in place; whoever asked gets them out
//! of it by going away.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    extract::{ConnectInfo, Query, State},
    http::StatusCode,
    response::{
        Sse,
        sse::{Event, KeepAlive},
    },
};
use futures_util::{Stream, stream};
use mirror_common::{
    flow::{FlowKey, TcpFlow},
    limits::TRACE_FRAME_MAX,
    tcp::TcpSync,
    trace::Filter,
};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
    time::{Instant, timeout_at},
};
use utoipa::IntoParams;

use super::{
    Shared,
    handlers::{Failed, Problem, internal},
    listen::Peer,
    orders::{ask, note},
};
use crate::{
    agent::{Event as Order, log::LogEntry},
    clock,
    connections::Names,
    dataplane::{DataplaneError, FlowTable, Maps, Records},
    trace::{Begun, Lost, Over, PacketRow, Pairs, Passage, SegmentRow, Target, target::answers_of},
};

/// The events of the stream.
pub const BEGUN: &str = "begun";
/// A packet.
pub const PACKET: &str = "packet";
/// Records were lost.
pub const LOST: &str = "lost";
/// The stream ends.
pub const OVER: &str = "over";

/// How long a trace goes on unless said otherwise, seconds.
pub const DURATION_S: f64 = 60.0;
/// How long it may.
pub const DURATION_S_MAX: f64 = 3_600.0;
/// Bytes that are kept of a frame unless said otherwise: the headers.
const FRAME_BYTES: u32 = 192;
/// Flows that are remembered.
const FLOWS_MAX: usize = 4_096;
/// How often is looked whether records were lost.
const LOOK: Duration = Duration::from_millis(500);
/// Lets both ends notice that the other one is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(1);

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct TraceQuery {
    /// The client's address and port; of ICMP echo the identifier instead of the port.
    #[param(value_type = Option<String>)]
    client: Option<SocketAddr>,
    /// The VNI's address and port, where the client talks to several from that port.
    #[param(value_type = Option<String>)]
    vni: Option<SocketAddr>,
    /// Instead of one flow: what all replicas of this VNI's flows say. Only packets of instances with payload or SYN.
    answers_of: Option<String>,
    /// With `answers_of`: of so many flows one, by the client's port; a power of two.
    one_in: Option<u16>,
    /// How long, in seconds; 60 unless said otherwise, 3600 at most.
    duration_s: Option<f64>,
    /// Bytes that are kept of a frame, 1 to 4096; 192 unless said otherwise.
    frame_bytes: Option<u32>,
    /// The frames' bytes too.
    #[serde(default)]
    frames: bool,
}

impl TraceQuery {
    fn duration_s(&self) -> Result<f64, Failed> {
        let duration_s = self.duration_s.unwrap_or(DURATION_S);
        let problem = format!("duration_s must be 0.1 to {DURATION_S_MAX}");
        match (0.1..=DURATION_S_MAX).contains(&duration_s) {
            true => Ok(duration_s),
            false => Err(Failed(StatusCode::BAD_REQUEST, problem)),
        }
    }

    fn frame_bytes(&self) -> Result<u32, Failed> {
        let bytes = self.frame_bytes.unwrap_or(FRAME_BYTES);
        let problem = format!("frame_bytes must be 1 to {TRACE_FRAME_MAX}");
        match (1..=TRACE_FRAME_MAX).contains(&bytes) {
            true => Ok(bytes),
            false => Err(Failed(StatusCode::BAD_REQUEST, problem)),
        }
    }

    /// What the programs are to look for.
    fn filter(&self, names: &Names, frame_bytes: u32) -> Result<Filter, Failed> {
        let wrong = |reason: &str| Failed(StatusCode::BAD_REQUEST, reason.to_owned());
        let one_in = self.one_in.unwrap_or(1);
        if !one_in.is_power_of_two() {
            return Err(wrong("one_in must be a power of two"));
        }
        match (self.client, &self.answers_of) {
            (Some(client), None) => {
                let target = Target {
                    client,
                    vni: self.vni,
                };
                let filter = target.filter(names, 0, frame_bytes);
                filter.map_err(|reason| Failed(StatusCode::NOT_FOUND, reason))
            }
            (None, Some(vni)) => {
                let number = names.vnis.iter().find(|(_, name)| *name == vni);
                let (number, _) = number.ok_or_else(|| {
                    Failed(StatusCode::NOT_FOUND, format!("there is no VNI {vni:?}"))
                })?;
                Ok(answers_of(*number, one_in, frame_bytes))
            }
            _ => Err(wrong("client or answers_of must be given, and not both")),
        }
    }

    /// Whether a packet is of those that were asked for.
    fn wants(&self, row: &PacketRow) -> bool {
        let says = |segment: &SegmentRow| {
            segment.payload > 0
                || segment
                    .flags
                    .as_ref()
                    .is_some_and(|flags| flags.contains('S'))
        };
        self.answers_of.is_none() || row.before.as_ref().is_some_and(says)
    }
}

/// Traces a flow: each of its packets at each of the programs, as it came and as it went on. One trace at a time.
#[utoipa::path(
    post,
    path = "/v1/trace",
    params(TraceQuery),
    responses(
        (status = 200, description = "Server-sent events: `begun`, then `packet` for each packet at each program, `lost` when some were, and `over`; each data line is JSON", body = String, content_type = "text/event-stream"),
        (status = "default", description = "Refused or failed", body = Problem)
    )
)]
pub(super) async fn trace(
    State(shared): State<Shared>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Query(query): Query<TraceQuery>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Failed> {
    let verb = match (&query.answers_of, query.frames) {
        (Some(_), _) => "diff",
        (None, true) => "capture",
        (None, false) => "trace",
    };
    let entry = LogEntry {
        to: Some(verb.to_owned()),
        client: query.client.map(|client| client.to_string()),
        vni: query.answers_of.clone(),
        address: query.vni.map(|vni| vni.to_string()),
        ..LogEntry::default()
    };
    let begun = begin(&shared, query).await;
    note(
        &shared,
        &peer,
        entry,
        begun.as_ref().err().map(|failed| &failed.1),
    );
    let events = stream::unfold(begun?, |mut tracer| async {
        let event = tracer.next().await?;
        Some((Ok(event), tracer))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

async fn begin(shared: &Shared, query: TraceQuery) -> Result<Tracer, Failed> {
    let (duration_s, frame_bytes) = (query.duration_s()?, query.frame_bytes()?);
    let place = Arc::clone(&shared.tracing).try_acquire_owned();
    let place = place.map_err(|_| {
        let reason =
            "another trace goes on: there is one at a time, and each ends by itself".to_owned();
        Failed(StatusCode::CONFLICT, reason)
    })?;
    let view = Arc::clone(&shared.views.borrow());
    let mut filter = query.filter(&view.names, frame_bytes)?;
    // By the agent: this thread has no rights.
    let (reply, answer) = oneshot::channel();
    let loaded = ask(shared, Order::LoadTraced(reply), answer).await?;
    let (programs, mut maps) = loaded.map_err(internal)?;
    let (now_ns, until) = (
        clock::now_ns(),
        Instant::now() + Duration::from_secs_f64(duration_s),
    );
    // The kernel's verifier took a while, which is not the trace's.
    filter.until_ns = now_ns + (duration_s * 1e9) as u64;
    maps.set_filter(&filter).map_err(internal)?;
    let records = Records::open(maps).map_err(internal)?;
    let (reply, answer) = oneshot::channel();
    let order = Order::Trace {
        programs,
        until_ns: filter.until_ns,
        reply,
    };
    // From here on, for whoever asked may go while the agent is at it.
    let attached = Attached {
        orders: shared.orders.clone(),
        _place: place,
    };
    ask(shared, order, answer).await?.map_err(internal)?;
    let epoch_ns = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_err(internal)?;
    let begun = Begun {
        time_ns: now_ns,
        epoch_ns: (epoch_ns.as_nanos() as u64).saturating_sub(clock::now_ns()),
        duration_s,
        frame_bytes,
    };
    Ok(Tracer {
        shared: shared.clone(),
        records,
        pairs: Pairs::default(),
        ready: [event(BEGUN, &begun)].into(),
        query,
        flows: HashMap::new(),
        lost: 0,
        until,
        over: false,
        _attached: attached,
    })
}

fn event(name: &str, data: &impl Serialize) -> Event {
    let data = serde_json::to_string(data).unwrap_or_default();
    Event::default().event(name).data(data)
}

/// Has the normal programs put back when it is dropped, however that comes.
struct Attached {
    orders: mpsc::Sender<Order>,
    _place: OwnedSemaphorePermit,
}

impl Drop for Attached {
    fn drop(&mut self) {
        let orders = self.orders.clone();
        // The agent ends a trace itself when this does not reach it.
        if orders.try_send(Order::Untrace).is_err() {
            tokio::spawn(async move { orders.send(Order::Untrace).await });
        }
    }
}

/// A trace that goes on.
struct Tracer {
    shared: Shared,
    records: Records,
    pairs: Pairs,
    /// What is to be sent next.
    ready: VecDeque<Event>,
    query: TraceQuery,
    /// Flows as they were seen last: their last packets come when they are gone.
    flows: HashMap<FlowKey, TcpFlow>,
    lost: u64,
    until: Instant,
    over: bool,
    _attached: Attached,
}

impl Tracer {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.over {
                return None;
            }
            let look = (Instant::now() + LOOK).min(self.until);
            match timeout_at(look, self.records.next()).await {
                Ok(Ok(told)) => {
                    for told in told {
                        for passage in self.pairs.add(told) {
                            let row = self.packet(&passage);
                            if self.query.wants(&row) {
                                self.ready.push_back(event(PACKET, &row));
                            }
                        }
                    }
                    self.look_for_losses();
                }
                Ok(Err(error)) => self.end(&error.to_string()),
                Err(_) if Instant::now() >= self.until => {
                    self.look_for_losses();
                    self.end("its time is up");
                }
                Err(_) => self.look_for_losses(),
            }
        }
    }

    fn packet(&mut self, passage: &Passage) -> PacketRow {
        let key = passage.record().flow;
        if let Ok(Some(flow)) = find(&self.shared.maps, &key) {
            if self.flows.len() >= FLOWS_MAX {
                self.flows.clear();
            }
            self.flows.insert(key, flow);
        }
        let names = &self.shared.views.borrow().names;
        PacketRow::of(passage, self.flows.get(&key), names, self.query.frames)
    }

    fn look_for_losses(&mut self) {
        if let Ok(records) = self.records.lost()
            && records > self.lost
        {
            self.lost = records;
            self.ready.push_back(event(LOST, &Lost { records }));
        }
    }

    fn end(&mut self, reason: &str) {
        let reason = reason.to_owned();
        self.ready.push_back(event(OVER, &Over { reason }));
        self.over = true;
    }
}

/// A flow, wherever it is.
fn find(maps: &Maps, key: &FlowKey) -> Result<Option<TcpFlow>, DataplaneError> {
    // In the order in which most are found.
    for table in [
        FlowTable::Mirrored,
        FlowTable::Unmirrored,
        FlowTable::HalfOpen,
        FlowTable::Datagram,
    ] {
        if let Some(flow) = maps.tcp_flow(table, key)? {
            return Ok(Some(flow));
        }
        if let Some(flow) = maps.flow(table, key)? {
            // Nothing is kept of its numbers.
            let sync = TcpSync::default();
            return Ok(Some(TcpFlow { flow, sync }));
        }
    }
    Ok(None)
}
