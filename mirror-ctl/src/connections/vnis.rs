//! VNIs by what flow keys say of them.

use std::{collections::HashMap, net::IpAddr};

use mirror_common::{flow::FlowKey, vni::Vni};

use crate::dataplane::{DataplaneError, Maps};

/// Addresses and settings by VNI and the address's place in it.
#[derive(Debug, Default)]
pub(super) struct Vnis(HashMap<(u16, u8), (IpAddr, Vni)>);

impl Vnis {
    /// Reads all of them: few entries of many thousand places, 0.2 ms. Not to be done for each flow.
    pub(super) fn read(maps: &Maps) -> Result<Self, DataplaneError> {
        let vnis = maps.vnis()?.into_iter();
        let by_place = vnis.map(|(address, vni)| ((vni.vni, vni.address), (address, vni)));
        Ok(Self(by_place.collect()))
    }

    /// The address that a flow's client talks to, and the VNI's settings; `None` when it is not configured any more.
    pub(super) fn of(&self, key: &FlowKey) -> Option<&(IpAddr, Vni)> {
        self.0.get(&(key.vni, key.address))
    }
}
