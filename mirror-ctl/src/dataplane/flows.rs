//! The flow tables: walked in bounded slices, entries deleted one by one.

use std::ops::ControlFlow;

use aya::{Pod, maps::MapError};
use mirror_common::{
    flow::{Flow, FlowKey, PlainFlow, TcpFlow},
    tcp::TcpSync,
};

use super::{
    DataplaneError, Maps,
    error::{MapContext, PathContext},
    maps::absent_is_fine,
    sys::Walk,
};

/// Entries read by one call: about 0.1 ms where the table is well filled, so that a walk does not hold a CPU for long. Through
/// the empty places of a million the kernel goes in one call: 3 ms.
const SLICE: usize = 512;

/// Which flow table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FlowTable {
    /// TCP, handshake not complete.
    HalfOpen,
    /// Established TCP with mirrors.
    Mirrored,
    /// Established TCP without.
    Unmirrored,
    /// UDP and ICMP echo.
    Datagram,
}

impl FlowTable {
    /// In the order of a flow's life: one that moves on during a walk is met at least once.
    pub const ALL: [Self; 4] = [
        Self::HalfOpen,
        Self::Mirrored,
        Self::Unmirrored,
        Self::Datagram,
    ];
}

/// What a flow table keeps of a flow.
trait Kept: Pod {
    fn flow(&self) -> Flow;
    fn sync(&self) -> Option<&TcpSync> {
        None
    }
}

impl Kept for PlainFlow {
    fn flow(&self) -> Flow {
        Flow::alone(*self)
    }
}

impl Kept for Flow {
    fn flow(&self) -> Flow {
        *self
    }
}

impl Kept for TcpFlow {
    fn flow(&self) -> Flow {
        self.flow
    }

    fn sync(&self) -> Option<&TcpSync> {
        Some(&self.sync)
    }
}

/// One entry of a flow table.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Where it is.
    pub table: FlowTable,
    /// Its name.
    pub key: &'a FlowKey,
    /// What is kept of every flow.
    pub flow: &'a Flow,
    /// What keeps its replicas in step.
    pub sync: Option<&'a TcpSync>,
}

impl Maps {
    /// Walks one flow table to its end.
    pub fn walk_table(
        &self,
        table: FlowTable,
        mut each: impl FnMut(Entry<'_>),
    ) -> Result<(), DataplaneError> {
        let mut each = |entry: Entry<'_>| {
            each(entry);
            ControlFlow::Continue(())
        };
        self.walk(table, &mut each, &mut || ControlFlow::Continue(()))
            .map(drop)
    }

    /// Walks all flow tables. `between` runs after each slice (to pause, or to
    /// end the walk).
    pub fn walk_flows(
        &self,
        mut each: impl FnMut(Entry<'_>) -> ControlFlow<()>,
        mut between: impl FnMut() -> ControlFlow<()>,
    ) -> Result<(), DataplaneError> {
        for table in FlowTable::ALL {
            if self.walk(table, &mut each, &mut between)?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Entries that each table has room for, in the order of [`FlowTable::ALL`].
    pub fn capacities(&self) -> Result<[u32; FlowTable::ALL.len()], DataplaneError> {
        let maps = &self.descriptors;
        let mut capacities = [0; FlowTable::ALL.len()];
        for (capacity, table) in capacities.iter_mut().zip(FlowTable::ALL) {
            let map = match table {
                FlowTable::HalfOpen => &maps.half_open,
                FlowTable::Mirrored => &maps.mirrored_flows,
                FlowTable::Unmirrored => &maps.flows,
                FlowTable::Datagram => &maps.datagram_flows,
            };
            let info = map.info().on_map("flow table", "ask about")?;
            *capacity = info.max_entries();
        }
        Ok(capacities)
    }

    fn walk(
        &self,
        table: FlowTable,
        each: &mut impl FnMut(Entry<'_>) -> ControlFlow<()>,
        between: &mut impl FnMut() -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, DataplaneError> {
        match table {
            FlowTable::HalfOpen | FlowTable::Mirrored => {
                self.walk_values::<TcpFlow>(table, each, between)
            }
            FlowTable::Unmirrored => self.walk_values::<PlainFlow>(table, each, between),
            FlowTable::Datagram => self.walk_values::<Flow>(table, each, between),
        }
    }

    /// Walks a table whose values are of this type.
    fn walk_values<V: Kept>(
        &self,
        table: FlowTable,
        each: &mut impl FnMut(Entry<'_>) -> ControlFlow<()>,
        between: &mut impl FnMut() -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, DataplaneError> {
        let maps = &self.descriptors;
        let (name, map) = match table {
            FlowTable::HalfOpen => ("HALF_OPEN", &maps.half_open),
            FlowTable::Mirrored => ("MIRRORED_FLOWS", &maps.mirrored_flows),
            FlowTable::Unmirrored => ("FLOWS", &maps.flows),
            FlowTable::Datagram => ("DATAGRAM_FLOWS", &maps.datagram_flows),
        };
        let mut walk = Walk::<FlowKey, V>::new(SLICE);
        while let Some((keys, values)) = walk.next(map.fd()).path("read map", name)? {
            for (key, value) in keys.iter().zip(values) {
                let (flow, sync) = (value.flow(), value.sync());
                let entry = Entry {
                    table,
                    key,
                    flow: &flow,
                    sync,
                };
                if each(entry).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            if between().is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// One flow as it is now.
    pub fn flow(&self, table: FlowTable, key: &FlowKey) -> Result<Option<Flow>, DataplaneError> {
        let found = match table {
            FlowTable::HalfOpen => self.half_open.get(key, 0).map(|value| value.flow),
            FlowTable::Mirrored => self.mirrored_flows.get(key, 0).map(|value| value.flow),
            FlowTable::Unmirrored => self.flows.get(key, 0).map(Flow::alone),
            FlowTable::Datagram => self.datagram_flows.get(key, 0),
        };
        match found {
            Ok(flow) => Ok(Some(flow)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error).on_map("flow table", "read"),
        }
    }

    /// A flow with its TCP state as it is now, from a table that keeps that.
    pub fn tcp_flow(
        &self,
        table: FlowTable,
        key: &FlowKey,
    ) -> Result<Option<TcpFlow>, DataplaneError> {
        let found = match table {
            FlowTable::HalfOpen => self.half_open.get(key, 0),
            FlowTable::Mirrored => self.mirrored_flows.get(key, 0),
            FlowTable::Unmirrored | FlowTable::Datagram => return Ok(None),
        };
        match found {
            Ok(flow) => Ok(Some(flow)),
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error).on_map("flow table", "read"),
        }
    }

    /// Forgets a flow.
    pub fn delete_flow(&mut self, table: FlowTable, key: &FlowKey) -> Result<(), DataplaneError> {
        let result = match table {
            FlowTable::HalfOpen => self.half_open.remove(key),
            FlowTable::Mirrored => self.mirrored_flows.remove(key),
            FlowTable::Unmirrored => self.flows.remove(key),
            FlowTable::Datagram => self.datagram_flows.remove(key),
        };
        absent_is_fine(result).on_map("flow table", "delete from")
    }
}
