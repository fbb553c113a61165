//! `[[zone]]` and `[steering]`: where clients are, and what it costs to serve them from elsewhere.

use std::collections::{BTreeMap, HashMap};

use ipnet::{IpNet, Ipv6Net};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    parse::{Names, check_name},
    reader::{At, Section},
};

/// Prefixes over all zones.
pub const PREFIXES_MAX: usize = 4_096;
/// The greatest cost between two zones, ms.
const COST_MS_MAX: f64 = 10_000.0;

/// `[[zone]]`: sources that are near to each other, and to the instances of the same zone.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = config::Zone)]
pub struct Zone {
    /// Its name.
    pub name: String,
    /// The addresses of its clients; none: a zone of instances only.
    #[schema(value_type = Vec<String>)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<IpNet>,
    /// What it costs its clients to be served from other zones, as a round trip in ms.
    pub costs: BTreeMap<String, f64>,
}

/// `[steering]`: how new flows are spread over instances that are well.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = config::Steering)]
pub struct Steering {
    /// Whether distances that are not configured are learned from handshakes.
    pub learn: bool,
    /// An instance that is so much further away gets half of the flows.
    pub halving_ms: f64,
    /// Part of the new flows that is spread by weight and health alone.
    pub explore: f64,
    /// An instance with so many times its part of the load is hot, and sheds new flows; 0: none ever is.
    pub hot_ratio: f64,
}

impl Default for Steering {
    fn default() -> Self {
        Self {
            learn: false,
            halving_ms: 2.0,
            explore: 0.02,
            hot_ratio: 0.0,
        }
    }
}

impl super::Config {
    /// Whether new flows go by more than weight and health.
    pub fn leans(&self) -> bool {
        !self.zones.is_empty() || self.steering.learn || self.steering.hot_ratio > 0.0
    }

    /// The configured cost from a zone's clients to a zone's instances, ms; in one direction it holds for the
    /// other as well, where that one has none of its own.
    pub fn zone_cost_ms(&self, from: &str, to: &str) -> Option<f64> {
        let of = |name: &str| self.zones.iter().find(|zone| zone.name == name);
        let said = |a: &str, b: &str| of(a)?.costs.get(b).copied();
        let there = said(from, to).or_else(|| said(to, from));
        there.or_else(|| (from == to).then_some(0.0))
    }
}

pub(super) fn steering(section: &Section<'_>) -> Steering {
    let default = Steering::default();
    let hot_ratio = section.number("hot_ratio", 0.0, 100.0);
    let steering = Steering {
        learn: section.boolean("learn", default.learn),
        halving_ms: section
            .number("halving_ms", 0.01, 1_000.0)
            .map_or(default.halving_ms, |at| at.value),
        explore: section
            .number("explore", 0.001, 0.5)
            .map_or(default.explore, |at| at.value),
        hot_ratio: hot_ratio.as_ref().map_or(default.hot_ratio, |at| at.value),
    };
    if let Some(At { line, .. }) = hot_ratio.filter(|at| at.value > 0.0 && at.value < 1.1) {
        section.wrong(
            line,
            "hot_ratio must be 0 (no instance is ever hot) or at least 1.1: 1 is an instance's part",
        );
    }
    section.finish();
    steering
}

pub(super) fn zones(root: &Section<'_>) -> Vec<Zone> {
    let sections = root.sections("zone");
    let mut names = Names::default();
    let mut known: HashMap<String, usize> = HashMap::new();
    let mut owners: HashMap<IpNet, String> = HashMap::new();
    let mut zones: Vec<(Zone, Vec<At<String>>)> = Vec::new();
    let mut read = Vec::new();
    for mut section in sections {
        let name = section.required("name");
        if let Some(at) = &name {
            section.name = format!("zone {:?}", at.value);
            check_name(&section, at);
            names.add(&section, at);
            known.insert(at.value.clone(), at.line);
        }
        let name = name.map(|at| at.value).unwrap_or_default();
        let prefixes = prefixes(&section, &name, &mut owners);
        let costs = costs(&section);
        section.finish();
        zones.push((
            Zone {
                name,
                prefixes,
                costs: costs
                    .iter()
                    .map(|(at, cost)| (at.value.clone(), *cost))
                    .collect(),
            },
            costs.into_iter().map(|(at, _)| at).collect(),
        ));
        read.push(section);
    }
    if owners.len() > PREFIXES_MAX {
        root.report.add(
            root.line,
            format!("more than {PREFIXES_MAX} prefixes over all zones"),
        );
    }
    // Only now are all the names known.
    for ((_, named), section) in zones.iter().zip(&read) {
        for at in named.iter().filter(|at| !known.contains_key(&at.value)) {
            section.wrong(at.line, format!("costs: there is no zone {:?}", at.value));
        }
    }
    zones.into_iter().map(|(zone, _)| zone).collect()
}

fn prefixes(section: &Section<'_>, zone: &str, owners: &mut HashMap<IpNet, String>) -> Vec<IpNet> {
    let Some(texts) = section.strings("prefixes") else {
        // A zone of instances only.
        return Vec::new();
    };
    let mut prefixes: Vec<IpNet> = Vec::new();
    for At { value: text, line } in texts {
        let prefix = match prefix(&text) {
            Ok(prefix) => prefix,
            Err(reason) => {
                section.wrong(line, format!("prefixes: {reason}"));
                continue;
            }
        };
        if let Some(owner) = owners.insert(prefix, zone.to_owned()) {
            let owner = match owner == zone {
                true => "named twice".to_owned(),
                false => format!("a prefix of zone {owner:?} too"),
            };
            section.wrong(line, format!("prefix {prefix} is {owner}"));
            continue;
        }
        // Within another zone's it would be the more specific one, and mean something.
        if let Some(other) = prefixes
            .iter()
            .find(|other| other.contains(&prefix) || prefix.contains(*other))
        {
            section.wrong(
                line,
                format!("prefix {prefix} overlaps {other} of the same zone"),
            );
            continue;
        }
        prefixes.push(prefix);
    }
    prefixes
}

/// A prefix without bits beyond its length.
fn prefix(text: &str) -> Result<IpNet, String> {
    let prefix: IpNet = text.parse().map_err(|_| {
        format!("{text:?} is not a prefix such as \"10.1.0.0/16\" or \"2001:db8::/32\"")
    })?;
    let whole = prefix.trunc();
    if whole != prefix {
        return Err(format!(
            "{text:?} has bits beyond its length: {whole} is meant, or another length"
        ));
    }
    match prefix {
        IpNet::V6(v6) if mapped().contains(&v6) => Err(format!(
            "{text:?} is a second spelling of IPv4 addresses: write them as such"
        )),
        prefix => Ok(prefix),
    }
}

/// The IPv6 addresses that stand for IPv4 ones.
pub(crate) fn mapped() -> Ipv6Net {
    Ipv6Net::new_assert(std::net::Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96)
}

/// Names of zones with a cost each.
fn costs(section: &Section<'_>) -> Vec<(At<String>, f64)> {
    let inner = section.section("costs");
    let mut costs = Vec::new();
    for name in inner.keys() {
        if let Some(cost) = inner.number_of(&name, 0.0, COST_MS_MAX) {
            costs.push((name, cost));
        }
    }
    costs
}

/// The zone that an instance is said to be in.
pub(super) fn zone_of_instance(section: &Section<'_>, zones: &[Zone]) -> Option<String> {
    let at = section.string("zone")?;
    if !zones.iter().any(|zone| zone.name == at.value) {
        section.wrong(at.line, format!("there is no zone {:?}", at.value));
    }
    Some(at.value)
}
