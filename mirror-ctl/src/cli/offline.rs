//! What can be said of a dataplane that no agent looks after: read from its pinned maps.

use std::{collections::HashMap, path::Path};

use mirror_common::instance::state;

use crate::{
    agent::view::{InterfaceRow, StatusRow},
    api::client::by_name,
    connections::row::protocol_name,
    dataplane::{self, DataplaneError, FlowTable},
    netlink::{Link, Netlink, Targets},
};

/// The status as far as the maps tell.
pub(super) async fn status(pin_dir: &Path) -> Result<StatusRow, DataplaneError> {
    let maps = dataplane::read(pin_dir)?;
    let links = match Netlink::open() {
        Ok((netlink, _changes)) => netlink.links().await.unwrap_or_default(),
        Err(_) => Vec::new(),
    };
    let mut protocols = HashMap::<u8, u64>::new();
    for table in FlowTable::ALL {
        maps.walk_table(table, |entry| {
            *protocols.entry(entry.key.protocol).or_default() += 1;
        })?;
    }
    // ICMP has two numbers and one name.
    let mut flows = HashMap::new();
    for (protocol, count) in protocols {
        *flows.entry(protocol_name(protocol)).or_default() += count;
    }
    Ok(StatusRow {
        adopted: true,
        interfaces: interfaces(pin_dir, &links, &maps)?,
        counters: by_name(&maps.counters()?),
        flows,
        ..StatusRow::unattended()
    })
}

fn interfaces(
    pin_dir: &Path,
    links: &[Link],
    maps: &dataplane::Maps,
) -> Result<Vec<InterfaceRow>, DataplaneError> {
    let mut instance_links = Vec::new();
    for (_, record) in maps.register.instances()? {
        let entry = maps.instance(record.number)?;
        if entry.state != state::NONE {
            instance_links.push(entry.ifindex);
        }
    }
    let closed = Targets::open().and_then(|targets| targets.closed().ok());
    let closed = closed.unwrap_or_default();
    let mut rows = Vec::new();
    for (ifindex, program) in dataplane::attached(pin_dir) {
        // Another network namespace may have another interface of that number.
        let link = links
            .iter()
            .find(|link| link.ifindex == ifindex && link.xdp.is_some_and(|(_, id)| id == program));
        let role = match instance_links.contains(&ifindex) {
            true => "link",
            false => "vni",
        };
        rows.push(InterfaceRow {
            redirect: !closed.contains(&ifindex),
            name: link.map_or_else(|| format!("#{ifindex}"), |link| link.name.clone()),
            role: role.to_owned(),
            mode: link
                .and_then(|link| link.xdp)
                .map_or("?", |(mode, _)| mode.name())
                .to_owned(),
        });
    }
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(rows)
}
