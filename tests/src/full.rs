//! Fills the table of mirrored flows of a running dataplane, for what has to be shown with more flows than a testbed can
//! open, and pushes out of it what a flood would.

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

/// Takes away the half-open flows whose client has yet to acknowledge the SYN-ACK; how many there were.
pub fn forget_answered(pin_dir: &Path) -> Result<usize> {
    let path = pin_dir.join("maps/HALF_OPEN");
    let data = MapData::from_pin(&path).with_context(|| format!("open {}", path.display()))?;
    let mut map: HashMap<_, FlowKey, TcpFlow> = HashMap::try_from(Map::LruHashMap(data))?;
    let all: Vec<_> = map.iter().collect::<Result<_, _>>()?;
    let answered = all
        .iter()
        .filter(|(_, flow)| flow.flow.state == state::ANSWERED);
    let mut gone = 0;
    for (key, _) in answered {
        map.remove(key).context("take a flow away")?;
        gone += 1;
    }
    Ok(gone)
}
