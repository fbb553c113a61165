//! Fills the table of mirrored flows of a running dataplane, for what has to be shown with more flows than a testbed can
//! open.

use std::path::Path;

use anyhow::{Context, Result};
use aya::maps::{HashMap, Map, MapData};
use mirror_common::flow::{FlowKey, TcpFlow, ipv4, state};

/// Adds so many copies of an established flow, under clients of their own (100.64.0.0/10), and returns how many flows
/// the table holds then.
pub fn fill(pin_dir: &Path, flows: u32) -> Result<usize> {
    let path = pin_dir.join("maps/MIRRORED_FLOWS");
    let data = MapData::from_pin(&path).with_context(|| format!("open {}", path.display()))?;
    let mut map: HashMap<_, FlowKey, TcpFlow> = HashMap::try_from(Map::HashMap(data))?;
    let established = |entry: &Result<(FlowKey, TcpFlow), _>| {
        entry
            .as_ref()
            .is_ok_and(|(_, flow)| flow.flow.state == state::ESTABLISHED)
    };
    let copied = map.iter().find(established).transpose()?;
    let (mut key, flow) = copied.context("there is no established flow to copy")?;
    for number in 0..flows {
        key.client = ipv4(0x6440_0000_u32.wrapping_add(number).to_be());
        map.insert(key, flow, 0).context("add a flow")?;
    }
    Ok(map.keys().count())
}
