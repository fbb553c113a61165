//! Which flows are wanted. Pure. A filter is turned into the dataplane's numbers once, so that the flows of a full
//! table are judged without a row being made of those that nobody asked for.

use std::net::{IpAddr, SocketAddr};

use mirror_common::flow::FlowKey;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use super::row::{Names, Standing, standing};
use crate::dataplane::{Entry, address_from};

/// Which flows are wanted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct FlowFilter {
    /// The client's address, with or without a port.
    pub client: Option<String>,
    /// An instance in any role.
    pub instance: Option<String>,
    /// The VNI.
    pub vni: Option<String>,
    /// Only flows with a replica that is not warm, or without a mirror.
    #[serde(default)]
    pub cold: bool,
    /// How many at most.
    pub limit: Option<usize>,
}

/// A client as it is filtered for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientFilter {
    /// Any port.
    Address(IpAddr),
    /// One port.
    Socket(SocketAddr),
}

impl ClientFilter {
    /// Reads `A`, `A:P` or `[A]:P`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bare = text.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(Self::Address(address.to_canonical()));
        }
        text.parse::<SocketAddr>()
            .map(Self::Socket)
            .map_err(|_| format!("{text:?} is not an address, nor one with a port"))
    }

    fn admits(self, key: &FlowKey) -> bool {
        let client = address_from(&key.client);
        match self {
            Self::Address(address) => client == address,
            Self::Socket(socket) => socket == SocketAddr::new(client, key.client_port),
        }
    }
}

/// A filter in the dataplane's numbers.
pub struct Wanted {
    client: Option<ClientFilter>,
    instance: Named,
    vni: Named,
    cold: bool,
}

/// What a name stands for.
enum Named {
    /// None was given.
    Any,
    Number(u16),
    /// There is nothing of that name.
    Nothing,
}

impl Named {
    fn find(name: Option<&String>, number: impl Fn(&str) -> Option<u16>) -> Self {
        let Some(name) = name else { return Self::Any };
        // What is not configured any more is shown by its number.
        let shown = || name.strip_prefix('#')?.parse().ok();
        number(name)
            .or_else(shown)
            .map_or(Self::Nothing, Self::Number)
    }

    fn is_among(&self, numbers: &[u16]) -> bool {
        match self {
            Self::Any => true,
            Self::Number(number) => numbers.contains(number),
            Self::Nothing => false,
        }
    }
}

impl Wanted {
    /// Looks the filter's names up.
    pub fn of(filter: &FlowFilter, names: &Names) -> Result<Self, String> {
        let client = filter.client.as_deref().map(ClientFilter::parse);
        let instance = |wanted: &str| {
            let mut all = names.instances.iter();
            all.find_map(|(number, (name, _))| (name == wanted).then_some(*number))
        };
        let vni = |wanted: &str| {
            let mut all = names.vnis.iter();
            all.find_map(|(number, name)| (name == wanted).then_some(*number))
        };
        Ok(Self {
            client: client.transpose()?,
            instance: Named::find(filter.instance.as_ref(), instance),
            vni: Named::find(filter.vni.as_ref(), vni),
            cold: filter.cold,
        })
    }

    /// Whether a flow is wanted. `names`: whose instances may be dead.
    pub fn admits(&self, entry: &Entry<'_>, names: &Names) -> bool {
        let flow = entry.flow;
        let replicas = usize::from(flow.replicas).min(flow.instances.len());
        let active = usize::from(flow.active).min(replicas.saturating_sub(1));
        let warm = |slot: usize| {
            slot != active
                && matches!(standing(entry, slot), Standing::Warm)
                && !names.is_dead(flow.instances[slot])
        };
        self.vni.is_among(&[entry.key.vni])
            && self.client.is_none_or(|client| client.admits(entry.key))
            && self.instance.is_among(&flow.instances[..replicas])
            && !(self.cold && (0..replicas).any(warm))
    }
}

#[cfg(test)]
mod tests {
    use mirror_common::tcp::slot;

    use super::{
        super::row::tests::{flow, key, names, sync},
        *,
    };
    use crate::dataplane::FlowTable;

    /// Whether a flow of client 10.0.0.2:40000 on a with the warm mirror b is wanted; `cold`: with b cold.
    #[track_caller]
    fn check(change: impl Fn(&mut FlowFilter), warm: bool, cold: bool) {
        let mut filter = FlowFilter::default();
        change(&mut filter);
        let names = names();
        let wanted = Wanted::of(&filter, &names).unwrap();
        let admits = |state: u8| {
            let mut sync = sync();
            sync.replicas[1].state = state;
            wanted.admits(
                &Entry {
                    table: FlowTable::Mirrored,
                    key: &key(),
                    flow: &flow(),
                    sync: Some(&sync),
                },
                &names,
            )
        };
        assert_eq!((admits(slot::WARM), admits(slot::COLD)), (warm, cold));
    }

    #[test]
    fn filters_admit_what_they_name() {
        check(|_| {}, true, true);
        check(|f| f.cold = true, false, true);
        for (instance, admits) in [("a", true), ("b", true), ("#4", true), ("c", false)] {
            check(|f| f.instance = Some(instance.to_owned()), admits, admits);
        }
        for (vni, admits) in [("web", true), ("#1", true), ("x", false), ("#2", false)] {
            check(|f| f.vni = Some(vni.to_owned()), admits, admits);
        }
        for (client, admits) in [
            ("10.0.0.2", true),
            ("10.0.0.2:40000", true),
            ("10.0.0.2:40001", false),
            ("fd00::1", false),
        ] {
            check(|f| f.client = Some(client.to_owned()), admits, admits);
        }
        assert!(ClientFilter::parse("host:1").is_err());
    }

    #[test]
    fn a_mirror_on_a_dead_instance_does_not_protect() {
        let mut names = names();
        names.instances.insert(4, ("b".to_owned(), true));
        let filter = FlowFilter {
            cold: true,
            ..FlowFilter::default()
        };
        let wanted = Wanted::of(&filter, &names).unwrap();
        assert!(wanted.admits(
            &Entry {
                table: FlowTable::Mirrored,
                key: &key(),
                flow: &flow(),
                sync: Some(&sync()),
            },
            &names
        ));
    }
}
