//! Where a new flow would go, and why: from what is in force, without asking the agent's loop.

use std::{net::IpAddr, sync::Arc};

use axum::{
    Json,
    extract::{Path, Query, State},
    http::StatusCode,
};
use mirror_common::{
    flow::{FlowKey, protocol},
    steering,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Shared,
    handlers::{Failed, Problem},
};
use crate::{
    agent::view::{View, VniRow},
    dataplane::address_to,
    routing::{
        Choice, NONE, Selection,
        select::{Common, Distance, Hit},
        select_instance,
    },
};

/// `select`: where a new flow goes.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SelectRow {
    /// The VNI.
    pub vni: String,
    /// The client's address.
    pub source: String,
    /// The zone that it is in.
    pub zone: Option<String>,
    /// The prefix that says so.
    pub prefix: Option<String>,
    /// `zone`: the zone's clients have a steering table of their own; `common`: they have not.
    pub table: String,
    /// Why not: `no-zone`, `same` (it would be the same), `no-table-left`.
    pub table_cause: Option<String>,
    /// By which rule instances may be chosen at all.
    pub rule: String,
    /// The instance of the flow that was asked for, where its ports were given; else the likeliest.
    pub instance: Option<String>,
    /// What stands by it: the mirrors of that flow, where its ports were given.
    pub flow: Option<HitRow>,
    /// Every instance of the VNI, the likeliest first.
    pub candidates: Vec<CandidateRow>,
}

/// One flow's place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HitRow {
    /// The VNI's end of it.
    pub address: String,
    /// The bucket of the table that its hash falls into.
    pub bucket: u32,
    /// The replica set in that.
    pub set: u32,
    /// Its primary.
    pub instance: String,
    /// Its mirrors.
    pub mirrors: Vec<String>,
}

/// An instance that a flow could go to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CandidateRow {
    /// Its name.
    pub instance: String,
    /// `up`, `draining`, `evacuating`, `suspect` or `dead`.
    pub state: String,
    /// Its health score in force.
    pub score: f64,
    /// Its configured weight times that, in thousandths.
    pub weight: u32,
    /// The zone it is in.
    pub zone: Option<String>,
    /// Flows that it had when that was decided.
    pub in_flight: u64,
    /// How many times its part of all flows that was.
    pub load: f64,
    /// Whether it sheds new flows because of that.
    pub hot: bool,
    /// How far away it is by the configuration, ms.
    pub cost_ms: Option<f64>,
    /// How far away it is by the handshakes that were seen, ms.
    pub learned_ms: Option<f64>,
    /// How many of those count.
    pub samples: u64,
    /// Its part of the new flows from there, 0 to 1.
    pub share: f64,
    /// The replica sets that such flows get.
    pub sets: Vec<SetPartRow>,
}

/// A replica set of an instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SetPartRow {
    /// Its number.
    pub set: u32,
    /// The mirrors.
    pub mirrors: Vec<String>,
    /// Its part of the new flows from there, 0 to 1.
    pub share: f64,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct SelectQuery {
    /// The client's address.
    source: String,
    /// The client's port.
    source_port: Option<u16>,
    /// The VNI's port.
    port: Option<u16>,
    /// Which of the VNI's addresses; the first of the client's family unless said otherwise.
    address: Option<String>,
    /// `tcp` (unless said otherwise) or `udp`.
    protocol: Option<String>,
}

/// Which instance a new flow from an address gets, and why.
#[utoipa::path(
    get,
    path = "/v1/vnis/{name}/select",
    params(("name" = String, Path, description = "The VNI"), SelectQuery),
    responses(
        (status = 200, description = "Where it goes", body = SelectRow),
        (status = "default", description = "Refused or failed", body = Problem)
    )
)]
pub(super) async fn select(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    Query(query): Query<SelectQuery>,
) -> Result<Json<SelectRow>, Failed> {
    let view = Arc::clone(&shared.views.borrow());
    let wrong = |why: String| Failed(StatusCode::BAD_REQUEST, why);
    let none = |why: String| Failed(StatusCode::NOT_FOUND, why);
    let found = view.vnis.iter().find(|row| row.name == name);
    let (Some(vni), Some(choice)) = (found, view.choices.get(&name)) else {
        return Err(none(format!("there is no VNI {name:?}")));
    };
    let address = |text: &str| {
        let parsed = text.parse::<IpAddr>();
        parsed.map_err(|_| wrong(format!("{text:?} is not an IP address")))
    };
    let source = address(&query.source)?.to_canonical();
    let asked = query.address.as_deref().map(address).transpose()?;
    let end = end(&view, vni, source, asked).map_err(wrong)?;
    let hash = match (query.source_port, query.port) {
        (Some(client_port), Some(vni_port)) => Some(steering::hash(&FlowKey {
            client: address_to(source),
            vni: vni.id,
            address: end.1,
            protocol: self::protocol(query.protocol.as_deref()).map_err(wrong)?,
            client_port,
            vni_port,
        })),
        _ => None,
    };
    let Some(selection) = select_instance(choice, hash, source) else {
        return Err(none(format!("VNI {name:?} has no steering table yet")));
    };
    let at = query
        .port
        .map(|port| std::net::SocketAddr::new(end.0, port));
    Ok(Json(row(vni, choice, &selection, source, at)))
}

fn protocol(name: Option<&str>) -> Result<u8, String> {
    match name {
        None | Some("tcp") => Ok(protocol::TCP),
        Some("udp") => Ok(protocol::UDP),
        Some(other) => Err(format!("{other:?} is neither \"tcp\" nor \"udp\"")),
    }
}

/// The VNI's address of a flow, and its place in the flow's key.
fn end(
    view: &View,
    vni: &VniRow,
    source: IpAddr,
    asked: Option<IpAddr>,
) -> Result<(IpAddr, u8), String> {
    let addresses = vni.addresses.iter().filter_map(|text| text.parse().ok());
    let mut addresses = addresses.filter(|address: &IpAddr| match asked {
        Some(asked) => *address == asked,
        None => address.is_ipv4() == source.is_ipv4(),
    });
    let Some(address) = addresses.next() else {
        return Err(match asked {
            Some(asked) => format!("{asked} is not an address of VNI {:?}", vni.name),
            None => format!("VNI {:?} has no address of {source}'s family", vni.name),
        });
    };
    if address.is_ipv4() != source.is_ipv4() {
        return Err(format!("{source} and {address} are of different families"));
    }
    let mut places = view.names.addresses.iter();
    let place = places.find(|((number, _), known)| *number == vni.id && **known == address);
    match place {
        Some(((_, place), _)) => Ok((address, *place)),
        None => Err(format!("{address} is not served yet")),
    }
}

fn row(
    vni: &VniRow,
    choice: &Choice,
    selection: &Selection<'_>,
    source: IpAddr,
    at: Option<std::net::SocketAddr>,
) -> SelectRow {
    let zone = selection.zone.and_then(|(place, prefix)| {
        let name = choice.zones.get(place)?;
        Some((name.clone(), prefix.to_string()))
    });
    let mut candidates = candidates(choice, selection);
    candidates.sort_by(|a, b| b.share.total_cmp(&a.share));
    let flow = selection
        .flow
        .zip(at)
        .and_then(|(hit, at)| hit_row(choice, hit, at.to_string()));
    let likeliest = candidates.first().filter(|row| row.share > 0.0);
    let likeliest = likeliest.map(|row| row.instance.clone());
    SelectRow {
        vni: vni.name.clone(),
        source: source.to_string(),
        zone: zone.as_ref().map(|(name, _)| name.clone()),
        prefix: zone.map(|(_, prefix)| prefix),
        table: match selection.common {
            None => "zone",
            Some(_) => "common",
        }
        .to_owned(),
        table_cause: selection.common.map(|cause| {
            match cause {
                Common::NoZone => "no-zone",
                Common::Same => "same",
                Common::Full => "no-table-left",
            }
            .to_owned()
        }),
        rule: vni.rule.clone(),
        instance: flow.as_ref().map(|hit| hit.instance.clone()).or(likeliest),
        flow,
        candidates,
    }
}

fn name(choice: &Choice, position: u32) -> String {
    let known = choice.candidates.get(position as usize);
    known.map_or_else(|| "?".to_owned(), |known| known.name.clone())
}

fn hit_row(choice: &Choice, hit: Hit, address: String) -> Option<HitRow> {
    let (primary, mirrors) = choice.sets.get(&hit.set)?.split_first()?;
    Some(HitRow {
        address,
        bucket: hit.bucket,
        set: hit.set,
        instance: name(choice, *primary),
        mirrors: mirrors.iter().map(|p| name(choice, *p)).collect(),
    })
}

fn candidates(choice: &Choice, selection: &Selection<'_>) -> Vec<CandidateRow> {
    let of = |(position, known): (usize, &crate::routing::select::Known)| {
        let distance = selection.distances.get(position).copied();
        let Distance {
            configured_ms,
            learned_ms,
            samples,
        } = distance.unwrap_or_default();
        let sets = selection.sets.iter().filter_map(|(set, share)| {
            let (primary, mirrors) = choice.sets.get(set)?.split_first()?;
            (*primary as usize == position).then(|| SetPartRow {
                set: *set,
                mirrors: mirrors
                    .iter()
                    .filter(|p| **p != NONE)
                    .map(|p| name(choice, *p))
                    .collect(),
                share: *share,
            })
        });
        CandidateRow {
            instance: known.name.clone(),
            state: known.state.name().to_owned(),
            score: known.score,
            weight: known.weight,
            zone: known.zone.clone(),
            in_flight: known.in_flight,
            load: known.load,
            hot: known.hot,
            cost_ms: configured_ms,
            learned_ms,
            samples,
            share: selection.shares.get(position).copied().unwrap_or(0.0),
            sets: sets.collect(),
        }
    };
    choice.candidates.iter().enumerate().map(of).collect()
}
